//! The search of ONNX Runtime.
//!
//! A candidate takes some microseconds, and there are 961. Each one's divergence
//! is first estimated: that of real numbers, while the search adds 2048 numbers
//! of f32. By how much the two differ is bounded ([`least_computed`]), and only
//! candidates whose estimate comes that near to the best are computed.

use crate::Task;
use crate::params::Range;
use quantd_kernels::histogram::Bins;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::Extent;

use super::super::histogram::{count, count_weighted, grid};
use super::estimate::Estimate;
use super::{BINS, QUANTIZED, pairwise_sum};

/// What an empty bin gets.
pub(super) const EPSILON: f64 = 1e-4;

/// The thresholds of ONNX Runtime, within the observed extent.
pub(in crate::range) fn range<T: Real>(values: &[T], extent: Extent<T>, task: &Task) -> Range<T> {
    let (bins, unit) = bins(extent);
    let counts = count(values, |x| x * unit, &bins, task);
    of(&counts, |bin| bins.lower_edge(bin) / unit, extent, task)
}

/// The same of values that were seen so many times.
pub(crate) fn weighted<T: Real>(values: &[(T, u64)], extent: Extent<T>, task: &Task) -> Range<T> {
    let (bins, unit) = bins(extent);
    let counts = count_weighted(values.iter().map(|&(x, count)| (x * unit, count)), &bins);
    of(&counts, |bin| bins.lower_edge(bin) / unit, extent, task)
}

/// Bins from minus to plus the largest magnitude, and the unit they are in:
/// one half where their width has no number otherwise.
fn bins<T: Real>(extent: Extent<T>) -> (Bins<T>, T) {
    let amax = Range::around_zero(extent.min, extent.max).abs_max();
    let unit = if (amax + amax).is_finite() { T::ONE } else { T::HALF };
    (grid(BINS, [-amax * unit, amax * unit]), unit)
}

/// The same from counts of bins on both sides of 0, as many on each, and the edges between them.
pub(crate) fn of<T: Real>(
    counts: &[u64],
    edge: impl Fn(usize) -> T,
    extent: Extent<T>,
    task: &Task,
) -> Range<T> {
    let (start, end) = search(counts, task);
    let (low, high) = (edge(start), edge(end));
    let low = if low < extent.min { extent.min } else { low };
    let high = if high > extent.max { extent.max } else { high };
    Range::around_zero(low, high)
}

/// The bins between the best thresholds.
pub(super) fn search(counts: &[u64], task: &Task) -> (usize, usize) {
    let bins = counts.len();
    let middle = bins / 2;
    let window = |half: usize| (middle - half, (middle + half + 1).min(bins));
    let sums = prefix_sums(counts);
    let compute = |half: usize| {
        let (start, end) = window(half);
        divergence(counts, &sums, start, end)
    };
    let halves = QUANTIZED / 2..=middle;
    let mut estimate = Estimate::new(counts, &sums);
    let estimates: Vec<f64> = halves
        .clone()
        .map(|half| if task.is_cancelled() { f64::INFINITY } else { estimate.of(window(half)) })
        .collect();
    let promising = (0..estimates.len()).min_by(|&a, &b| estimates[a].total_cmp(&estimates[b]));
    // The least that was computed so far: what cannot reach it need not be.
    let mut limit = promising.map_or(f32::INFINITY, |i| compute(QUANTIZED / 2 + i));
    let mut best = (f32::INFINITY, middle.min(QUANTIZED / 2));
    for (i, half) in halves.enumerate() {
        if task.is_cancelled() {
            break;
        }
        if least_computed(estimates[i]) > f64::from(limit) {
            continue;
        }
        let divergence = compute(half);
        limit = limit.min(divergence);
        if divergence < best.0 {
            best = (divergence, half);
        }
    }
    window(best.1)
}

/// Sums of all counts before each bin.
pub(super) fn prefix_sums(counts: &[u64]) -> Vec<u64> {
    let mut sum = 0;
    let mut sums = Vec::with_capacity(counts.len() + 1);
    sums.push(0);
    sums.extend(counts.iter().map(|count| {
        sum += count;
        sum
    }));
    sums
}

/// The divergence of bins `start..end`, with what lies outside added to their
/// ends, from their quantized version, which is made without it.
pub(super) fn divergence(counts: &[u64], sums: &[u64], start: usize, end: usize) -> f32 {
    let slice = &counts[start..end];
    let mut p = slice.to_vec();
    p[0] += sums[start];
    p[end - start - 1] += sums[counts.len()] - sums[end];
    let merged = p.len() / QUANTIZED;
    let mut q = vec![0_u64; p.len()];
    for bin in 0..QUANTIZED {
        let (first, last) = (bin * merged, (bin + 1) * merged);
        // The bins that do not fill a quantized one go to the last.
        let rest = if bin + 1 == QUANTIZED { p.len() } else { last };
        let total = sums[start + rest] - sums[start + first];
        let occupied = p[first..last].iter().filter(|&&count| count != 0).count() as u64;
        if let Some(mean) = total.checked_div(occupied) {
            q[first..last].fill(mean);
        }
    }
    match (smooth(&p), smooth(&q)) {
        (Some(p), Some(q)) => relative_entropy(p, q),
        _ => f32::INFINITY,
    }
}

/// Zeros get a little, taken from all others alike; `None` for nothing but zeros.
fn smooth(counts: &[u64]) -> Option<Vec<f32>> {
    let zeros = counts.iter().filter(|&&count| count == 0).count();
    let others = counts.len() - zeros;
    if others == 0 {
        return None;
    }
    let give = <f32 as Real>::from_f64(EPSILON);
    let take = <f32 as Real>::from_f64(EPSILON * zeros as f64 / others as f64);
    Some(
        counts
            .iter()
            .map(|&count| if count == 0 { give } else { count.cast_signed() as f32 - take })
            .collect(),
    )
}

/// Kullback-Leibler divergence of two unnormalized distributions, in f32.
fn relative_entropy(mut p: Vec<f32>, mut q: Vec<f32>) -> f32 {
    let (p_sum, q_sum) = (pairwise_sum(&p), pairwise_sum(&q));
    p.iter_mut().for_each(|p| *p /= p_sum);
    q.iter_mut().for_each(|q| *q /= q_sum);
    // Smoothed zeros stand side by side and have one term where they have one q.
    let floor = p.iter().copied().fold(f32::INFINITY, f32::min);
    let mut known = (f32::NAN, 0.0);
    for (p, &q) in p.iter_mut().zip(&q) {
        let repeats = *p <= floor;
        if repeats && q.to_bits() == known.0.to_bits() {
            *p = known.1;
            continue;
        }
        *p *= libm::logf(*p / q);
        if repeats {
            known = (q, *p);
        }
    }
    pairwise_sum(&p)
}

/// The least that [`divergence`] may have computed where the estimate is `d`.
///
/// It rounds: a smoothed count twice; a sum of up to 4096 numbers at most 16 + 7
/// times in the lanes of a leaf and 3 where they join, and 5 times in the
/// tree above; a quotient once, the logarithm, its argument and the product
/// five times: below 64 roundings, with e = 2^-24 each. Terms below 0 are
/// together at least -1 (p ln(q / p) <= q - p), so magnitudes add up to d + 2,
/// and what is wrong with the sums and with the arguments of logarithms, whose
/// weights add up to 1, counts once more. Together below 128 e (d + 3), here
/// twice that; what the estimate leaves out is below e.
pub(super) fn least_computed(d: f64) -> f64 {
    const ROUNDED: f64 = 256.0 / (1 << 24) as f64;
    if d < f64::INFINITY { d - ROUNDED * (d + 3.0) } else { d }
}

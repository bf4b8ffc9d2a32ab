//! Ranges of least KL divergence, as two tools compute them.
//!
//! [`ort`] is `HistogramCollector.get_entropy_threshold` of ONNX Runtime 1.32
//! with 128 quantized bins (its own default of 128 bins leaves one candidate
//! and is min-max under another name). [`tensorrt`] is `_compute_amax_entropy`
//! of NVIDIA Model-Optimizer 0.47 over the magnitudes from 0 to the largest.

use crate::kernels::real::Real;
use crate::kernels::scalar::Extent;
use crate::quant::Cancel;
use crate::quant::params::{Numerics, Range};

use super::histogram::{Histogram, histogram};

const BINS: usize = 2048;
/// Quantized bins of ONNX Runtime; first candidate of TensorRT.
const QUANTIZED: usize = 128;

/// The thresholds of ONNX Runtime, within the observed extent.
pub(super) fn ort<T: Real>(values: &[T], extent: Extent<T>, cancel: &Cancel) -> Range<T> {
    let amax = Range::around_zero(extent.min, extent.max).abs_max();
    ort_of(&histogram(values, |x| x, BINS, [-amax, amax], cancel), extent, cancel)
}

/// The same from counts of bins on both sides of 0, as many on each.
pub(in crate::quant) fn ort_of<T: Real>(
    histogram: &Histogram<T>,
    extent: Extent<T>,
    cancel: &Cancel,
) -> Range<T> {
    let Histogram { edges, counts } = histogram;
    let sums = prefix_sums(counts);
    let bins = counts.len();
    let middle = bins / 2;
    let mut best = (f32::INFINITY, middle.min(QUANTIZED / 2));
    for half in QUANTIZED / 2..=middle {
        if cancel.is_cancelled() {
            break;
        }
        let (start, end) = (middle - half, (middle + half + 1).min(bins));
        let divergence = ort_divergence(counts, &sums, start, end);
        if divergence < best.0 {
            best = (divergence, half);
        }
    }
    let (start, end) = (middle - best.1, (middle + best.1 + 1).min(bins));
    let low = if edges[start] < extent.min { extent.min } else { edges[start] };
    let high = if edges[end] > extent.max { extent.max } else { edges[end] };
    Range::around_zero(low, high)
}

/// Sums of all counts before each bin.
fn prefix_sums(counts: &[u64]) -> Vec<u64> {
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
fn ort_divergence(counts: &[u64], sums: &[u64], start: usize, end: usize) -> f32 {
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
    const EPSILON: f64 = 1e-4;
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

/// The order in which NumPy adds a contiguous array: eight interleaved sums
/// for up to 128 elements, halves of a longer array one after the other.
fn pairwise_sum<T: Real>(x: &[T]) -> T {
    if x.len() < 8 {
        return x.iter().fold(T::ZERO, |sum, &x| sum + x);
    }
    if x.len() > 128 {
        let half = x.len() / 2;
        let (left, right) = x.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let blocks = x.chunks_exact(8);
    let rest = blocks.remainder();
    let mut lanes = [T::ZERO; 8];
    for (i, block) in blocks.enumerate() {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if i == 0 { x } else { *lane + x };
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, &x| sum + x)
}

/// The largest magnitude that TensorRT's search keeps, on both sides of 0, or
/// as much of that as the elements of asymmetric codes reach.
pub(super) fn tensorrt<T: Real>(
    values: &[T],
    extent: Extent<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    let whole = Range::around_zero(extent.min, extent.max);
    let ends = [T::ZERO, whole.abs_max()];
    tensorrt_of(histogram(values, T::abs, BINS, ends, cancel), whole, numerics, cancel)
}

/// The same from counts of bins of magnitudes, from 0 on.
pub(in crate::quant) fn tensorrt_of<T: Real>(
    histogram: Histogram<T>,
    whole: Range<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    let Histogram { edges, mut counts } = histogram;
    // The spike at 0 says nothing about the range.
    if let [first, second, ..] = &mut counts[..] {
        *first = *second;
    }
    let levels = 1_usize << (numerics.bits - u32::from(numerics.signed));
    let sums = prefix_sums(&counts);
    let bins = counts.len();
    let mut best = (f64::INFINITY, bins);
    for kept in QUANTIZED..=bins {
        if cancel.is_cancelled() {
            break;
        }
        let divergence = tensorrt_divergence(&counts[..kept], [sums[kept], sums[bins]], levels);
        // The last of equal candidates.
        if divergence <= best.0 {
            best = (divergence, kept);
        }
    }
    let amax = if edges[best.1] < whole.abs_max() { edges[best.1] } else { whole.abs_max() };
    if numerics.symmetric {
        return Range { min: -amax, max: amax };
    }
    Range {
        min: if whole.min < -amax { -amax } else { whole.min },
        max: if whole.max > amax { amax } else { whole.max },
    }
}

/// The divergence of `counts`, with the tail added to the last, from the means
/// of the occupied bins in each of `levels` equal intervals. `sums` are those
/// of `counts`, and with the tail.
fn tensorrt_divergence(counts: &[u64], sums: [u64; 2], levels: usize) -> f64 {
    let [total, whole] = sums;
    let tail = whole - total;
    let occupied = || counts.iter().enumerate().filter(|(_, count)| **count != 0);
    if total == 0 {
        // Nothing but empty bins: NaN in the original, which its search takes for the least.
        return f64::NEG_INFINITY;
    }
    if tail > 0 && counts.ends_with(&[0]) {
        // The tail lands on a bin that the quantized distribution has not.
        return f64::INFINITY;
    }
    let step = counts.len() as f64 / levels as f64;
    let mut totals = vec![(0_u64, 0_u64); levels];
    let mut level_of = Vec::with_capacity(counts.len());
    let mut level = 0;
    for (bin, count) in occupied() {
        while level + 1 < levels && (level + 1) as f64 * step <= bin as f64 {
            level += 1;
        }
        totals[level].0 += count;
        totals[level].1 += 1;
        level_of.push(level);
    }
    let mut q = vec![0.0; counts.len()];
    for ((bin, _), level) in occupied().zip(level_of) {
        let (total, bins) = totals[level];
        q[bin] = total as f64 / bins as f64;
    }
    let (p_sum, q_sum) = (whole as f64, pairwise_sum(&q));
    let last = counts.len() - 1;
    for (bin, count) in occupied() {
        let p = (count + if bin == last { tail } else { 0 }) as f64 / p_sum;
        q[bin] = p * libm::log(p / (q[bin] / q_sum));
    }
    pairwise_sum(&q)
}

//! The search of ONNX Runtime.
//!
//! A candidate takes some microseconds, and there are 961. Where few bins are
//! occupied a candidate's divergence is first estimated from these alone:
//! that of real numbers, while the search adds 2048 numbers of f32. By how
//! much the two differ is bounded ([`least_computed`]), and only candidates
//! whose estimate comes that near to the best are computed.

use crate::kernels::histogram::Bins;
use crate::kernels::real::Real;
use crate::kernels::scalar::Extent;
use crate::quant::Cancel;
use crate::quant::params::Range;

use super::super::histogram::{count, count_weighted, grid};
use super::{BINS, QUANTIZED, pairwise_sum};

/// Most occupied bins from which a candidate is estimated sooner than computed.
const FEW: usize = 1024;
/// What an empty bin gets.
const EPSILON: f64 = 1e-4;

/// The thresholds of ONNX Runtime, within the observed extent.
pub(in crate::quant::range) fn range<T: Real>(
    values: &[T],
    extent: Extent<T>,
    cancel: &Cancel,
) -> Range<T> {
    let (bins, unit) = bins(extent);
    let counts = count(values, |x| x * unit, &bins, cancel);
    of(&counts, |bin| bins.lower_edge(bin) / unit, extent, cancel)
}

/// The same of values that were seen so many times.
pub(in crate::quant) fn weighted<T: Real>(
    values: &[(T, u64)],
    extent: Extent<T>,
    cancel: &Cancel,
) -> Range<T> {
    let (bins, unit) = bins(extent);
    let counts = count_weighted(values.iter().map(|&(x, count)| (x * unit, count)), &bins);
    of(&counts, |bin| bins.lower_edge(bin) / unit, extent, cancel)
}

/// Bins from minus to plus the largest magnitude, and the unit they are in:
/// one half where their width has no number otherwise.
fn bins<T: Real>(extent: Extent<T>) -> (Bins<T>, T) {
    let amax = Range::around_zero(extent.min, extent.max).abs_max();
    let unit = if (amax + amax).is_finite() { T::ONE } else { T::HALF };
    (grid(BINS, [-amax * unit, amax * unit]), unit)
}

/// The same from counts of bins on both sides of 0, as many on each, and the edges between them.
pub(in crate::quant) fn of<T: Real>(
    counts: &[u64],
    edge: impl Fn(usize) -> T,
    extent: Extent<T>,
    cancel: &Cancel,
) -> Range<T> {
    let (start, end) = search(counts, cancel);
    let (low, high) = (edge(start), edge(end));
    let low = if low < extent.min { extent.min } else { low };
    let high = if high > extent.max { extent.max } else { high };
    Range::around_zero(low, high)
}

/// The bins between the best thresholds.
pub(super) fn search(counts: &[u64], cancel: &Cancel) -> (usize, usize) {
    let bins = counts.len();
    let middle = bins / 2;
    let window = |half: usize| (middle - half, (middle + half + 1).min(bins));
    let sums = prefix_sums(counts);
    let compute = |half: usize| {
        let (start, end) = window(half);
        divergence(counts, &sums, start, end)
    };
    let halves = QUANTIZED / 2..=middle;
    let estimates = estimates(counts, halves.clone().map(window), cancel);
    let promising = (0..estimates.len()).min_by(|&a, &b| estimates[a].total_cmp(&estimates[b]));
    // The least that was computed so far: what cannot reach it need not be.
    let mut limit = promising.map_or(f32::INFINITY, |i| compute(QUANTIZED / 2 + i));
    let mut best = (f32::INFINITY, middle.min(QUANTIZED / 2));
    for (i, half) in halves.enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        if estimates.get(i).is_some_and(|&d| least_computed(d) > f64::from(limit)) {
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
/// twice that.
fn least_computed(d: f64) -> f64 {
    const ROUNDED: f64 = 256.0 / (1 << 24) as f64;
    if d < f64::INFINITY { d - ROUNDED * (d + 3.0) } else { d }
}

/// An occupied bin of a candidate.
#[derive(Clone, Copy)]
struct Occupied {
    /// Its place in the candidate.
    place: usize,
    /// What was counted there.
    count: u64,
    /// The same with what lies beyond an end.
    whole: u64,
}

/// Occupied bins that became one quantized bin.
#[derive(Clone, Copy)]
struct Group {
    /// Of the occupied bins.
    end: usize,
    /// What each bin of it has in the quantized distribution.
    mean: u64,
}

/// The divergence of each window in real numbers; none where too many bins are
/// occupied for that to be worth it.
fn estimates(
    counts: &[u64],
    windows: impl Iterator<Item = (usize, usize)>,
    cancel: &Cancel,
) -> Vec<f64> {
    let all: Vec<(usize, u64)> =
        counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
    if all.len() > FEW {
        return Vec::new();
    }
    let mut estimate = Estimate::default();
    let of = |(start, end)| {
        if cancel.is_cancelled() { f64::INFINITY } else { estimate.of(&all, start, end) }
    };
    windows.map(of).collect()
}

/// Room for the estimate of one candidate.
#[derive(Default)]
struct Estimate {
    occupied: Vec<Occupied>,
    groups: Vec<Group>,
    counts: Logarithms,
    means: Logarithms,
}

impl Estimate {
    fn of(&mut self, all: &[(usize, u64)], start: usize, end: usize) -> f64 {
        let len = end - start;
        let merged = len / QUANTIZED;
        self.occupy(all, start, end);
        self.group(merged);
        let groups = self.groups.iter().filter(|group| group.mean > 0).count();
        let (p_places, q_places) = (self.occupied.len(), groups * merged);
        if p_places == 0 || q_places == 0 {
            return f64::INFINITY;
        }
        let (p_zeros, q_zeros) = ((len - p_places) as f64, (len - q_places) as f64);
        self.counts.less(EPSILON * p_zeros / p_places as f64);
        self.means.less(EPSILON * q_zeros / q_places as f64);
        let (mut sum, mut p_sum, mut q_sum) = (0.0, EPSILON * p_zeros, EPSILON * q_zeros);
        let mut begin = 0;
        for &Group { end, mean } in &self.groups {
            let (q, log_q) = self.means.of(mean);
            for occupied in &self.occupied[begin..end] {
                let (p, log_p) = self.counts.of(occupied.whole);
                p_sum += p;
                sum += p * (log_p - log_q);
            }
            if mean > 0 {
                q_sum += q * merged as f64;
                let empty = merged - (end - begin);
                sum += EPSILON * empty as f64 * (self.counts.of(0).1 - log_q);
            }
            begin = end;
        }
        sum / p_sum + libm::log(q_sum / p_sum)
    }

    /// The occupied bins of `start..end`, with what lies outside at their ends.
    fn occupy(&mut self, all: &[(usize, u64)], start: usize, end: usize) {
        let first = all.partition_point(|(bin, _)| *bin < start);
        let last = all.partition_point(|(bin, _)| *bin < end);
        let total = |part: &[(usize, u64)]| part.iter().map(|(_, count)| count).sum::<u64>();
        let (below, above) = (total(&all[..first]), total(&all[last..]));
        self.occupied.clear();
        if below > 0 && all.get(first).is_none_or(|(bin, _)| *bin > start) {
            self.occupied.push(Occupied { place: 0, count: 0, whole: 0 });
        }
        let within = all[first..last].iter();
        let occupied = |&(bin, count)| Occupied { place: bin - start, count, whole: count };
        self.occupied.extend(within.map(occupied));
        let place = end - start - 1;
        if above > 0 && self.occupied.last().is_none_or(|last| last.place < place) {
            self.occupied.push(Occupied { place, count: 0, whole: 0 });
        }
        if let Some(first) = self.occupied.first_mut() {
            first.whole += below;
        }
        if let Some(last) = self.occupied.last_mut() {
            last.whole += above;
        }
    }

    /// What they become when each `merged` bins are one. Those that fill none
    /// are a group without a mean, the last.
    fn group(&mut self, merged: usize) {
        self.groups.clear();
        // A quotient of places below 2^13 by a multiplication.
        let reciprocal = (1_usize << 32) / merged + 1;
        let rest = QUANTIZED * merged;
        let mut begin = 0;
        while let Some(first) = self.occupied.get(begin) {
            let last = ((first.place * reciprocal) >> 32) * merged + merged;
            let is_rest = first.place >= rest;
            let (mut end, mut total) = (begin, 0);
            while let Some(next) = self.occupied.get(end)
                && (is_rest || next.place < last)
            {
                total += next.count;
                end += 1;
            }
            let occupied = (end - begin) as u64;
            if last == rest {
                total += self.occupied[end..].iter().map(|next| next.count).sum::<u64>();
            }
            let mean = if is_rest { 0 } else { total / occupied };
            self.groups.push(Group { end, mean });
            begin = end;
        }
    }
}

/// Smoothed counts and their logarithms; those of small counts are kept.
struct Logarithms {
    take: f64,
    known: [(f64, f64); Self::KNOWN],
}

impl Default for Logarithms {
    fn default() -> Self {
        Self { take: 0.0, known: [(f64::NAN, f64::NAN); Self::KNOWN] }
    }
}

impl Logarithms {
    const KNOWN: usize = 32;

    /// From now on so much is taken from a count.
    fn less(&mut self, take: f64) {
        *self = Self { take, ..Self::default() };
    }

    /// A count and its logarithm.
    fn of(&mut self, count: u64) -> (f64, f64) {
        let compute = |take: f64| {
            let x = if count == 0 { EPSILON } else { count as f64 - take };
            (x, libm::log(x))
        };
        let take = self.take;
        match usize::try_from(count).ok().and_then(|count| self.known.get_mut(count)) {
            Some(known) => {
                if known.0.is_nan() {
                    *known = compute(take);
                }
                *known
            }
            None => compute(take),
        }
    }
}

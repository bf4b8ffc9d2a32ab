//! The search of TensorRT.
//!
//! A candidate keeps the bins below a threshold. What lies beyond is added to
//! the last of them, of the distribution that is to be kept but not of the
//! quantized one: where that bin is empty, the divergence is infinite. So a
//! candidate ends with an occupied bin, or keeps all; of a short slice there
//! are few.

use crate::Task;
use crate::params::{Numerics, Range};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::Extent;

use super::super::histogram::{Occupied, Sparse, count_weighted, grid};
use super::{BINS, QUANTIZED, sparse_sum};

/// Which thresholds are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thresholds {
    /// Those that clip a tenth of the elements at most.
    OfOutliers,
    /// All, as NVIDIA's search does. One that keeps one bin, or very few, has a
    /// divergence of next to 0 however much it clips, as both distributions are then all in
    /// one place; and one that keeps nothing has 0 / 0, NaN, which it takes for the least.
    All,
}

/// The largest magnitude that the search keeps, on both sides of 0, or
/// as much of that as the elements of asymmetric codes reach.
pub(in crate::range) fn range<T: Real>(
    values: &[T],
    extent: Extent<T>,
    thresholds: Thresholds,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    let whole = Range::around_zero(extent.min, extent.max);
    let ends = [T::ZERO, whole.abs_max()];
    let (counts, bins) = Sparse::of(values, T::abs, BINS, ends, task);
    of(counts, |bin| bins.lower_edge(bin), whole, thresholds, (numerics, task))
}

/// The same of values that were seen so many times.
pub(crate) fn weighted<T: Real>(
    values: &[(T, u64)],
    whole: Range<T>,
    thresholds: Thresholds,
    how: (&Numerics, &Task),
) -> Range<T> {
    let bins = grid(BINS, [T::ZERO, whole.abs_max()]);
    let counts = count_weighted(values.iter().map(|&(x, count)| (x.abs(), count)), &bins);
    of(Sparse::from_counts(counts), |bin| bins.lower_edge(bin), whole, thresholds, how)
}

/// The same from counts of bins of magnitudes, from 0 on, and the edges between them.
pub(crate) fn of<T: Real>(
    counts: Sparse,
    edge: impl Fn(usize) -> T,
    whole: Range<T>,
    thresholds: Thresholds,
    (numerics, task): (&Numerics, &Task),
) -> Range<T> {
    let threshold = edge(search(counts, thresholds, numerics, task));
    let amax = if threshold < whole.abs_max() { threshold } else { whole.abs_max() };
    if numerics.symmetric {
        return Range { min: -amax, max: amax };
    }
    Range {
        min: if whole.min < -amax { -amax } else { whole.min },
        max: if whole.max > amax { amax } else { whole.max },
    }
}

/// How many bins are kept.
pub(super) fn search(
    mut counts: Sparse,
    thresholds: Thresholds,
    numerics: &Numerics,
    task: &Task,
) -> usize {
    // The spike at 0 says nothing about the range.
    let second = counts.cells.iter().find(|cell| cell.bin == 1).map_or(0, |cell| cell.count);
    if counts.bins > 1 {
        counts.cells.retain(|cell| cell.bin > 0);
        if second > 0 {
            counts.cells.insert(0, Occupied { bin: 0, count: second });
        }
    }
    let Sparse { cells, bins } = counts;
    let (Some(first), Some(last)) = (cells.first(), cells.last()) else { return bins };
    if thresholds == Thresholds::All && first.bin >= QUANTIZED {
        // The widest candidate that keeps nothing.
        return first.bin.min(bins);
    }
    let levels = 1_usize << (numerics.bits - u32::from(numerics.signed));
    let whole = cells.iter().map(|cell| cell.count).sum::<u64>();
    let fewest = if thresholds == Thresholds::All { 0 } else { whole - whole / 10 };
    let mut count = whole;
    let mut search = Search { levels, whole: whole as f64, terms: Vec::new() };
    let mut best = (f64::INFINITY, bins);
    // The widest of equal candidates; what keeps all elements first.
    for kept in (QUANTIZED.max(last.bin + 1)..=bins).rev() {
        let divergence = search.divergence(&cells, count, kept);
        if divergence < best.0 {
            best = (divergence, kept);
        }
    }
    for i in (1..cells.len()).rev() {
        count -= cells[i].count;
        let kept = cells[i - 1].bin + 1;
        if kept < QUANTIZED || count < fewest || task.is_cancelled() {
            break;
        }
        let cells = &cells[..i];
        if search.least(cells, count, kept) > best.0 {
            continue;
        }
        let divergence = search.divergence(cells, count, kept);
        if divergence < best.0 {
            best = (divergence, kept);
        }
    }
    best.1
}

/// What candidates have in common, and room for one.
struct Search {
    /// Equal intervals that bins are joined in.
    levels: usize,
    /// All elements.
    whole: f64,
    terms: Vec<(usize, f64)>,
}

impl Search {
    /// The divergence of the first `kept` bins, of which `cells` are occupied
    /// by `count` elements, with the tail added to the last of them, from the
    /// means of the occupied bins in each level.
    fn divergence(&mut self, cells: &[Occupied], count: u64, kept: usize) -> f64 {
        let step = kept as f64 / self.levels as f64;
        self.terms.clear();
        let mut begin = 0;
        while let Some(cell) = cells.get(begin) {
            let level = self.level(cell.bin, step);
            let above = (level + 1) as f64 * step;
            let is_last = level + 1 == self.levels;
            let within = |cell: &&Occupied| is_last || (cell.bin as f64) < above;
            let level = &cells[begin..];
            let bins = level.iter().take_while(within).count();
            let total: u64 = level[..bins].iter().map(|cell| cell.count).sum();
            let mean = total as f64 / bins as f64;
            self.terms.extend(level[..bins].iter().map(|cell| (cell.bin, mean)));
            begin += bins;
        }
        let (p_sum, q_sum) = (self.whole, sparse_sum(&self.terms, 0, kept));
        let tail = (self.whole - count as f64).max(0.0);
        for (cell, (bin, q)) in cells.iter().zip(&mut self.terms) {
            let p = (cell.count as f64 + if *bin + 1 == kept { tail } else { 0.0 }) / p_sum;
            *q = p * libm::log(p / (*q / q_sum));
        }
        sparse_sum(&self.terms, 0, kept)
    }

    /// The level of a bin: the last that does not begin above it.
    fn level(&self, bin: usize, step: f64) -> usize {
        let bin = bin as f64;
        let near = usize::try_from(<f64 as Real>::truncate(bin / step)).unwrap_or(0);
        let mut level = near.min(self.levels - 1);
        while level > 0 && level as f64 * step > bin {
            level -= 1;
        }
        while level + 1 < self.levels && (level + 1) as f64 * step <= bin {
            level += 1;
        }
        level
    }

    /// The least that [`divergence`](Self::divergence) may be: that of two
    /// bins, the last one and all others, as joining bins never makes a
    /// divergence larger. What f64 rounds is below 1e-12 of a sum of
    /// magnitudes, which is at most the divergence and 2.
    fn least(&self, cells: &[Occupied], count: u64, kept: usize) -> f64 {
        let Some(last) = cells.last() else { return f64::NEG_INFINITY };
        let step = kept as f64 / self.levels as f64;
        let level = self.level(last.bin, step);
        let below = level as f64 * step;
        let within = cells.iter().rev().take_while(|cell| cell.bin as f64 >= below);
        let (bins, total) = within.fold((0, 0), |(n, sum), cell| (n + 1, sum + cell.count));
        let count = count as f64;
        let p = (last.count as f64 + (self.whole - count)) / self.whole;
        let mean = total as f64 / f64::from(bins);
        let (q, rest) = (mean / count, (count - mean) / count);
        let others = if p < 1.0 { (1.0 - p) * libm::log((1.0 - p) / rest) } else { 0.0 };
        let least = p * libm::log(p / q) + others;
        least - 1e-9 * (least.abs() + 2.0)
    }
}

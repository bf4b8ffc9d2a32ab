//! Histograms with the bins and counts of `numpy.histogram`.

use rayon::prelude::*;

use crate::Task;
use quantd_kernels::histogram::{Bins, Table};
use quantd_kernels::real::Real;

use super::BLOCK;

/// Counts in bins of equal width; bin `i` reaches from edge `i` to edge `i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram<T> {
    pub(crate) edges: Vec<T>,
    pub(crate) counts: Vec<u64>,
}

/// A bin that some element is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupied {
    pub(crate) bin: usize,
    /// Elements, at least one.
    pub(crate) count: u64,
}

/// Counts that leave out empty bins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// In the order of their numbers.
    pub(crate) cells: Vec<Occupied>,
    /// Number of bins, empty ones included.
    pub(crate) bins: usize,
}

impl Sparse {
    /// Counts as [`histogram`] does. For few elements this makes no table.
    pub(crate) fn of<T: Real, U: Real>(
        values: &[T],
        map: impl Fn(T) -> U + Sync,
        bins: usize,
        ends: [U; 2],
        task: &Task,
    ) -> (Self, Bins<U>) {
        let grid = grid(bins, ends);
        if values.len() > FEW {
            return (Self::from_counts(count(values, map, &grid, task)), grid);
        }
        let mut numbers: Vec<usize> = values.iter().filter_map(|&x| grid.number(map(x))).collect();
        numbers.sort_unstable();
        let runs = numbers.chunk_by(|a, b| a == b);
        let cells = runs.map(|run| Occupied { bin: run[0], count: run.len() as u64 }).collect();
        (Self { cells, bins }, grid)
    }

    /// Of the counts of all bins.
    pub(crate) fn from_counts(counts: Vec<u64>) -> Self {
        let bins = counts.len();
        let cells = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self { cells: cells.map(|(bin, count)| Occupied { bin, count }).collect(), bins }
    }
}

/// Elements that are sorted sooner than counted.
const FEW: usize = 256;

/// Counts `map` of the finite elements between `ends`. All is computed in the
/// type that `map` gives, as NumPy does.
pub(crate) fn histogram<T: Real, U: Real>(
    values: &[T],
    map: impl Fn(T) -> U + Sync,
    bins: usize,
    ends: [U; 2],
    task: &Task,
) -> Histogram<U> {
    let grid = grid(bins, ends);
    Histogram { edges: grid.edges(), counts: count(values, map, &grid, task) }
}

/// So many bins between `ends`.
pub(crate) fn grid<U: Real>(bins: usize, ends: [U; 2]) -> Bins<U> {
    let [first, last] =
        if ends[0] == ends[1] { [ends[0] - U::HALF, ends[1] + U::HALF] } else { ends };
    Bins::new(i32::try_from(bins).unwrap_or(i32::MAX), first, last)
}

/// The counts of values that were seen so many times.
pub(crate) fn count_weighted<T: Real>(
    values: impl Iterator<Item = (T, u64)>,
    bins: &Bins<T>,
) -> Vec<u64> {
    let mut counts = vec![0; bins.len()];
    for (x, count) in values {
        if let Some(bin) = bins.number(x) {
            counts[bin] += count;
        }
    }
    counts
}

/// The counts of `map` of the finite elements.
pub(crate) fn count<T: Real, U: Real>(
    values: &[T],
    map: impl Fn(T) -> U + Sync,
    bins: &Bins<U>,
    task: &Task,
) -> Vec<u64> {
    let isa = task.isa();
    let empty = || Table::new(bins);
    let add = |mut table: Table, block: &[T]| {
        if !task.is_cancelled() {
            isa.count(block, &map, bins, &mut table);
        }
        table
    };
    let table = if values.len() <= BLOCK {
        add(empty(), values)
    } else {
        values.par_chunks(BLOCK).fold(empty, add).reduce(empty, |a, b| a.join(&b))
    };
    table.counts()
}

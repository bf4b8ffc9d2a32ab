//! Histograms with the bins and counts of `numpy.histogram`.

use rayon::prelude::*;

use crate::kernels::Isa;
use crate::kernels::histogram::{Bins, Table};
use crate::kernels::real::Real;
use crate::quant::Cancel;

use super::BLOCK;

/// Counts in bins of equal width; bin `i` reaches from edge `i` to edge `i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::quant) struct Histogram<T> {
    pub(in crate::quant) edges: Vec<T>,
    pub(in crate::quant) counts: Vec<u64>,
}

/// Counts `map` of the finite elements between `ends`. All is computed in the
/// type that `map` gives, as NumPy does.
pub(in crate::quant) fn histogram<T: Real, U: Real>(
    values: &[T],
    map: impl Fn(T) -> U + Sync,
    bins: usize,
    ends: [U; 2],
    cancel: &Cancel,
) -> Histogram<U> {
    let [first, last] =
        if ends[0] == ends[1] { [ends[0] - U::HALF, ends[1] + U::HALF] } else { ends };
    let bins = Bins::new(i32::try_from(bins).unwrap_or(i32::MAX), first, last);
    let isa = Isa::current();
    let empty = || Table::new(&bins);
    let add = |mut table: Table, block: &[T]| {
        if !cancel.is_cancelled() {
            isa.count(block, &map, &bins, &mut table);
        }
        table
    };
    let table = if values.len() <= BLOCK {
        add(empty(), values)
    } else {
        values.par_chunks(BLOCK).fold(empty, add).reduce(empty, |a, b| a.join(&b))
    };
    Histogram { edges: bins.edges(), counts: table.counts() }
}

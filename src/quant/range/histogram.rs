//! Histograms with the bins and counts of `numpy.histogram`.

use rayon::prelude::*;

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
/// type that `map` gives, as NumPy does, and a value that lands
/// beside its bin for rounding is put right by the edges.
pub(in crate::quant) fn histogram<T: Real, U: Real>(
    values: &[T],
    map: impl Fn(T) -> U + Sync,
    bins: usize,
    ends: [U; 2],
    cancel: &Cancel,
) -> Histogram<U> {
    let [first, last] =
        if ends[0] == ends[1] { [ends[0] - U::HALF, ends[1] + U::HALF] } else { ends };
    let edges = edges(bins, first, last);
    let width = last - first;
    let scale = U::from_f64(bins as f64);
    let index = |x: U| {
        let mut index = trunc(((x - first) / width * scale).to_f64()).min(bins - 1);
        if x < edges[index] && index > 0 {
            index -= 1;
        }
        if index + 1 < bins && x >= edges[index + 1] {
            index += 1;
        }
        index
    };
    let empty = || vec![0_u64; bins];
    let add = |mut counts: Vec<u64>, block: &[T]| {
        if !cancel.is_cancelled() {
            for x in block.iter().filter(|x| x.is_finite()).map(|&x| map(x)) {
                if x >= first && x <= last {
                    counts[index(x)] += 1;
                }
            }
        }
        counts
    };
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = if values.len() <= BLOCK {
        add(empty(), values)
    } else {
        values.par_chunks(BLOCK).fold(empty, add).reduce(empty, sum)
    };
    Histogram { edges, counts }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place between 0 and the number of bins"
)]
fn trunc(x: f64) -> usize {
    x as usize
}

/// `numpy.linspace(first, last, bins + 1)` in the type of the ends.
fn edges<T: Real>(bins: usize, first: T, last: T) -> Vec<T> {
    let count = T::from_f64(bins as f64);
    let (width, step) = (last - first, (last - first) / count);
    let mut edges: Vec<T> = (0..=bins)
        .map(|i| {
            let i = T::from_f64(i as f64);
            // A step that underflows would lose the width.
            if step == T::ZERO { i / count * width + first } else { i * step + first }
        })
        .collect();
    edges[bins] = last;
    edges
}

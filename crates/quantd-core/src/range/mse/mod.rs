//! The range of least squared error.
//!
//! An exhaustive search of a grid: alpha = amax k / 100 for symmetric codes;
//! beta = min j / 32 and alpha = max k / 32, independently, for asymmetric
//! ones. The error of a candidate is that of the real quantizer, summed in
//! f64. Of equal errors the wider range wins.
//!
//! Not every candidate is tried on every element, without any change of the
//! result: a long slice is first summed up in [`bounds`], which leaves few
//! candidates and mostly one. Of a shorter one all that do not clip too much
//! are tried side by side with a simpler quantizer ([`rough`]), which leaves as few. What is
//! left is computed exactly, and given up once its sum exceeds the best.

mod bounds;
mod rough;

use rayon::prelude::*;

use crate::Task;
use crate::params::{Numerics, Range};
use quantd_kernels::Isa;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::QuantParams;

use super::BLOCK;
use super::grid::Grid;

const SYMMETRIC: i32 = 100;
const ASYMMETRIC: i32 = 32;
/// Blocks between two looks at whether to give up.
const BATCH: usize = 16;

/// The candidates, the widest first.
pub(crate) fn candidates<T: Real>(whole: Range<T>, numerics: &Numerics) -> Grid<T> {
    Grid::new(whole, numerics, SYMMETRIC, ASYMMETRIC)
}

pub(super) fn range<T: Real>(
    values: &[T],
    whole: Range<T>,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    let grid = candidates(whole, numerics);
    if whole.abs_max() == T::ZERO {
        return grid.get(0);
    }
    if let Some(unit) = unit(whole).filter(|_| grid.is_in_proportion(numerics)) {
        // A power of two moves everything and changes nothing, but that squares are numbers.
        let values: Vec<T> = values.iter().map(|&x| x * unit).collect();
        let whole = Range { min: whole.min * unit, max: whole.max * unit };
        let Range { min, max } = range(&values, whole, numerics, task);
        return Range { min: min / unit, max: max / unit };
    }
    let long = values.len() >= bounds::LEAST;
    let sieved = long.then(|| bounds::survivors(values, whole, &grid, numerics, task)).flatten();
    let order = sieved.unwrap_or_else(|| rough::survivors(values, &grid, numerics, task));
    let best = match order.as_slice() {
        &[only] => only,
        several => least(values, &grid, several, numerics, task),
    };
    grid.get(best)
}

/// What to multiply elements with where their squares leave the range of f64.
pub(crate) fn unit<T: Real>(whole: Range<T>) -> Option<T> {
    const FAR: i32 = 400;
    let (_, exponent) = libm::frexp(whole.abs_max().to_f64());
    // 2^1023 is the largest power.
    (exponent.abs() > FAR).then(|| T::from_f64(libm::ldexp(1.0, (20 - exponent).min(1023))))
}

/// The error of a candidate on some elements.
fn error<T: Real>(isa: Isa, x: &[T], affine: QuantParams<T>, numerics: &Numerics) -> f64 {
    isa.squared_error(x, affine, numerics.code_range(), numerics.rounding())
}

/// Bytes that a search among so many elements takes, beside them.
pub(crate) fn working_bytes(elements: usize) -> usize {
    let threads = if elements < bounds::LEAST { 0 } else { rayon::current_num_threads() };
    threads * bounds::THREAD_BYTES
}

/// The candidate of least error among some of them, tried in that order.
fn least<T: Real>(
    values: &[T],
    grid: &Grid<T>,
    order: &[usize],
    numerics: &Numerics,
    task: &Task,
) -> usize {
    let (mut best, mut least) = (0, f64::INFINITY);
    let mut last = None;
    for &i in order {
        let affine = numerics.affine(grid.get(i));
        // The smallest scale of a profile may be that of several.
        if last == Some(affine) && i > best {
            continue;
        }
        last = Some(affine);
        let error = |block: &[T]| error(task.isa(), block, affine, numerics);
        let sum = bounded_sum(values, least, error, task);
        if task.is_cancelled() {
            break;
        }
        // Candidates are numbered from the widest on.
        if sum < least || (sum <= least && i < best) {
            (best, least) = (i, sum);
        }
    }
    best
}

/// The sum over blocks in memory order, or any number above `bound` once it is exceeded.
pub(crate) fn bounded_sum<T: Real>(
    values: &[T],
    bound: f64,
    error: impl Fn(&[T]) -> f64 + Sync,
    task: &Task,
) -> f64 {
    if values.len() <= BLOCK {
        return error(values);
    }
    let mut sum = 0.0;
    for batch in values.chunks(BATCH * BLOCK) {
        let parts: Vec<f64> = batch.par_chunks(BLOCK).map(&error).collect();
        sum = parts.into_iter().fold(sum, |sum, part| sum + part);
        if sum > bound || task.is_cancelled() {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests;

//! The range of least squared error.
//!
//! An exhaustive search of a grid: alpha = amax k / 100 for symmetric codes;
//! beta = min j / 32 and alpha = max k / 32, independently, for asymmetric
//! ones. The error of a candidate is that of the real quantizer, summed in
//! f64. Of equal errors the wider range wins.
//!
//! Not every candidate is tried on every element, without any change of the
//! result: a long slice is first summed up in [`bounds`], which leaves few
//! candidates and mostly one. The candidates of a short one are tried in the
//! order of their error on a sample. Either way one is given up once its sum
//! exceeds the best.

mod bounds;

use rayon::prelude::*;

use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::quant::Cancel;
use crate::quant::params::{Numerics, Range};

use super::BLOCK;

const SYMMETRIC: i32 = 100;
const ASYMMETRIC: i32 = 32;
/// Elements that candidates are ordered by.
const SAMPLE: usize = 1024;
/// Blocks between two looks at whether to give up.
const BATCH: usize = 16;

/// The candidates, the widest first.
pub(in crate::quant) fn candidates<T: Real>(whole: Range<T>, numerics: &Numerics) -> Vec<Range<T>> {
    super::grid(whole, numerics, SYMMETRIC, ASYMMETRIC)
}

pub(super) fn range<T: Real>(
    values: &[T],
    whole: Range<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    let mut candidates = candidates(whole, numerics);
    // The smallest scale of a profile may be that of several.
    candidates.dedup_by(|a, b| numerics.affine(*a) == numerics.affine(*b));
    let long = values.len() >= bounds::LEAST;
    let sieved = long.then(|| bounds::survivors(values, whole, &candidates, numerics, cancel));
    let order = sieved.flatten().unwrap_or_else(|| sampled(values, &candidates, numerics));
    let best = match order.as_slice() {
        &[only] => only,
        several => least(values, &candidates, several, numerics, cancel),
    };
    candidates.get(best).copied().unwrap_or(whole)
}

/// The error of a candidate on some elements.
fn error<T: Real>(x: &[T], range: Range<T>, numerics: &Numerics) -> f64 {
    let affine = numerics.affine(range);
    Isa::current().squared_error(x, affine, numerics.code_range(), numerics.rounding())
}

/// Bytes that a search among so many elements takes, beside them.
pub(in crate::quant) fn working_bytes(elements: usize) -> usize {
    let threads = if elements < bounds::LEAST { 0 } else { rayon::current_num_threads() };
    threads * bounds::THREAD_BYTES
}

/// All candidates, in the order of their error on a sample.
fn sampled<T: Real>(values: &[T], candidates: &[Range<T>], numerics: &Numerics) -> Vec<usize> {
    let sample: Vec<T> = values.iter().copied().step_by(values.len().div_ceil(SAMPLE)).collect();
    let errors = candidates.iter().map(|&range| error(&sample, range, numerics));
    let mut order: Vec<(f64, usize)> = errors.zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, i)| i).collect()
}

/// The candidate of least error among some of them, tried in that order.
fn least<T: Real>(
    values: &[T],
    candidates: &[Range<T>],
    order: &[usize],
    numerics: &Numerics,
    cancel: &Cancel,
) -> usize {
    let (mut best, mut least) = (0, f64::INFINITY);
    for &i in order {
        if cancel.is_cancelled() {
            break;
        }
        let sum = bounded_sum(values, least, |block| error(block, candidates[i], numerics));
        // Candidates are numbered from the widest on.
        if sum < least || (sum <= least && i < best) {
            (best, least) = (i, sum);
        }
    }
    best
}

/// The sum over blocks in memory order, or any number above `bound` once it is exceeded.
fn bounded_sum<T: Real>(values: &[T], bound: f64, error: impl Fn(&[T]) -> f64 + Sync) -> f64 {
    if values.len() <= BLOCK {
        return error(values);
    }
    let mut sum = 0.0;
    for batch in values.chunks(BATCH * BLOCK) {
        let parts: Vec<f64> = batch.par_chunks(BLOCK).map(&error).collect();
        sum = parts.into_iter().fold(sum, |sum, part| sum + part);
        if sum > bound {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests;

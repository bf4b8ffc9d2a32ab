//! The clipping range of one slice.
//!
//! Every method leaves NaN and infinities out, answers with a range that
//! contains 0, and gives the same range for any number of threads: counts are
//! integers, and sums of floats are added block by block in memory order.

mod abreast;
pub(super) mod cross_entropy;
pub(super) mod entropy;
mod grid;
pub(super) mod histogram;
pub(super) mod mse;
mod order;
pub(super) mod percentile;

use quantd_kernels::real::Real;
use quantd_kernels::scalar::Extent;

use super::Task;
use super::params::{Numerics, Range};
use super::scheme::RangeMethod;
use entropy::tensorrt::Thresholds;

/// Elements that a thread works on at a time.
pub(super) const BLOCK: usize = 1 << 15;

/// One slice whose range is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    /// Its elements.
    pub values: &'a [T],
    /// The extent of exactly these elements.
    pub extent: Extent<T>,
    /// Length of a line of the softmax; divides the number of elements.
    pub line: usize,
}

/// Finds the clipping range by `method`. A slice without finite elements has
/// the range of a slice of zeros. Ranges that callers give are not looked for
/// here; they count as min-max.
pub fn find<T: Real>(
    method: &RangeMethod,
    slice: Slice<'_, T>,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    let Slice { values, extent, line } = slice;
    let whole = Range::around_zero(extent.min, extent.max);
    if extent.min > extent.max {
        return Range { min: T::ZERO, max: T::ZERO };
    }
    match method {
        RangeMethod::Percentile(p) => {
            percentile::range(values, extent, *p, numerics.symmetric, task)
        }
        RangeMethod::Mse => mse::range(values, whole, numerics, task),
        RangeMethod::EntropyOrt => entropy::ort::range(values, extent, task),
        RangeMethod::EntropyTensorrt => {
            entropy::tensorrt::range(values, extent, Thresholds::OfOutliers, numerics, task)
        }
        RangeMethod::EntropyModelopt => {
            entropy::tensorrt::range(values, extent, Thresholds::All, numerics, task)
        }
        RangeMethod::CrossEntropy { .. } => {
            cross_entropy::range(values, whole, line, numerics, task)
        }
        RangeMethod::MinMax | RangeMethod::Explicit { .. } | RangeMethod::Given { .. } => whole,
    }
}

#[cfg(test)]
mod tests;

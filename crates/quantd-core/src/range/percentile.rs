//! Percentiles, exact and interpolated as `numpy.percentile` does by default.
//!
//! `percentile: p` clips both tails: symmetric codes get the p-th percentile of
//! the magnitudes on either side, asymmetric ones the percentiles 100 - p and p.

use crate::Task;
use crate::params::Range;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::Extent;

use super::order;

/// The range between the percentiles, those of the magnitudes on either side where it is to be symmetric.
pub(crate) fn range<T: Real>(
    values: &[T],
    extent: Extent<T>,
    p: f64,
    symmetric: bool,
    task: &Task,
) -> Range<T> {
    let finite = values.len() - usize::try_from(extent.nan + extent.inf).unwrap_or(0);
    if finite == 0 {
        return Range { min: T::ZERO, max: T::ZERO };
    }
    if symmetric {
        let [amax] = percentiles(values, finite, [p], T::abs, task);
        return Range { min: -amax, max: amax };
    }
    let [min, max] = percentiles(values, finite, [100.0 - p, p], |x| x, task);
    Range::around_zero(min, max)
}

/// The percentiles of `map` of the finite elements, of which there are `finite` > 0.
pub(crate) fn percentiles<T: Real, const N: usize>(
    values: &[T],
    finite: usize,
    wanted: [f64; N],
    map: impl Fn(T) -> T + Sync,
    task: &Task,
) -> [T; N] {
    let places = wanted.map(|p| place(p, finite));
    let found = order::statistics(values, finite, places.map(|(rank, _)| rank), map, task);
    let mut neighbours = found.into_iter();
    places.map(|(_, weight)| {
        let [low, high] = neighbours.next().unwrap_or([T::ZERO; 2]);
        interpolate(low, high, weight)
    })
}

/// The rank below a percentile among `n` sorted elements, and its place
/// between that and the next.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index below n, rounded down"
)]
pub(crate) fn place(p: f64, n: usize) -> (usize, f64) {
    let index = (n - 1) as f64 * (p / 100.0);
    if index >= (n - 1) as f64 {
        return (n - 1, 0.0);
    }
    let low = index.floor();
    (low as usize, index - low)
}

/// `numpy`'s `_lerp`: from the nearer end, the weight in the type of the array.
pub(crate) fn interpolate<T: Real>(low: T, high: T, weight: f64) -> T {
    let width = high - low;
    if !width.is_finite() {
        // NumPy overflows here.
        return low * T::from_f64(1.0 - weight) + high * T::from_f64(weight);
    }
    if weight < 0.5 {
        low + width * T::from_f64(weight)
    } else {
        high - width * T::from_f64(1.0 - weight)
    }
}

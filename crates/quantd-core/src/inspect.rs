//! What one looks at before choosing a scheme.

use rayon::prelude::*;

use quantd_kernels::real::Real;

use super::Task;
use super::params::Range;
use super::range::{BLOCK, histogram, mse, percentile};

/// What to find out.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bins of the histogram, at least 1.
    pub bins: usize,
    /// Percentiles, 0 to 100.
    pub percentiles: Vec<f64>,
}

/// Counts in bins of equal width between the smallest and the largest element.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Ends of the bins: one more than there are bins.
    pub edges: Vec<f64>,
    /// Finite elements in each bin; the last includes its end.
    pub counts: Vec<u64>,
}

/// Statistics of the finite elements of a slice, `None` where there are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Elements, finite or not.
    pub count: u64,
    /// NaN elements.
    pub nan: u64,
    /// Infinite elements.
    pub inf: u64,
    /// Elements equal to 0.
    pub zeros: u64,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Largest magnitude.
    pub abs_max: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
    /// The percentiles asked for, interpolated as `numpy.percentile` does.
    pub percentiles: Vec<(f64, Option<f64>)>,
    /// As `numpy.histogram` counts in f64.
    pub histogram: Histogram,
}

/// Finds out about one slice.
#[must_use]
pub fn inspect<T: Real>(values: &[T], options: &Options, task: &Task) -> Statistics {
    let extent = super::extent::whole(values, task);
    let count = values.len() as u64;
    let finite = count - extent.nan - extent.inf;
    let some = |value: f64| (finite > 0).then_some(value);
    let (min, max) = (extent.min.to_f64(), extent.max.to_f64());
    let unit = mse::unit(Range { min, max }).unwrap_or(1.0);
    let mean = sum(values, |x| x * unit, task) / finite as f64;
    let off = |x: f64| x * unit - mean;
    let variance = sum(values, |x| off(x) * off(x), task) / finite as f64;
    let (mean, std) = (mean / unit, variance.sqrt() / unit);
    let percentile = |p: f64| {
        let finite = usize::try_from(finite).unwrap_or(usize::MAX);
        let [value] = percentile::percentiles(values, finite, [p], |x| x, task);
        value.to_f64()
    };
    // In f64 whatever the elements are: the edges are read by people.
    let ends = if finite > 0 { [min, max] } else { [0.0, 1.0] };
    // Halved where the distance of the ends has no number.
    let part = if (ends[1] - ends[0]).is_finite() { 1.0 } else { 0.5 };
    let ends = ends.map(|end| end * part);
    let found = histogram::histogram(values, |x| x.to_f64() * part, options.bins, ends, task);
    Statistics {
        count,
        nan: extent.nan,
        inf: extent.inf,
        zeros: zeros(values, task),
        min: some(min),
        max: some(max),
        abs_max: some(min.abs().max(max.abs())),
        mean: some(mean),
        std: some(std),
        percentiles: options
            .percentiles
            .iter()
            .map(|&p| (p, (finite > 0).then(|| percentile(p))))
            .collect(),
        histogram: Histogram {
            edges: found.edges.into_iter().map(|edge| edge / part).collect(),
            counts: found.counts,
        },
    }
}

fn zeros<T: Real>(values: &[T], task: &Task) -> u64 {
    let block = |block: &[T]| {
        if task.is_cancelled() {
            return 0;
        }
        block.iter().filter(|x| **x == T::ZERO).count() as u64
    };
    values.par_chunks(BLOCK).map(block).sum()
}

/// The sum of `term` of the finite elements, block by block in their order.
fn sum<T: Real>(values: &[T], term: impl Fn(f64) -> f64 + Sync, task: &Task) -> f64 {
    let block = |block: &[T]| -> f64 {
        if task.is_cancelled() {
            return 0.0;
        }
        block.iter().filter(|x| x.is_finite()).map(|x| term(x.to_f64())).sum()
    };
    let parts: Vec<f64> = values.par_chunks(BLOCK).map(block).collect();
    parts.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_largest_and_smallest_numbers_are_numbers() {
        let options = Options { bins: 2, percentiles: Vec::new() };
        for most in [f64::MAX, 1e200, 1.0, 1e-200, f64::from_bits(1 << 20)] {
            let found = inspect(&[most, -most, most, most], &options, &Task::default());
            let [mean, std] = [found.mean, found.std].map(Option::unwrap);
            assert!((mean / most - 0.5).abs() < 1e-5, "{mean} of {most}");
            assert!((std / most - 0.75_f64.sqrt()).abs() < 1e-5, "{std} of {most}");
        }
    }
}

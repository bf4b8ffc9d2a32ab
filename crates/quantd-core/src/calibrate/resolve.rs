//! From what was seen to ranges, scales and zero points.

use rayon::prelude::*;

use crate::params::{Numerics, Range};
use crate::range::cross_entropy::{self, Lines};
use crate::range::entropy::ort;
use crate::range::entropy::tensorrt::{self, Thresholds};
use crate::range::histogram::Sparse;
use crate::range::{mse, percentile};
use crate::{ErrorKind, QuantError, Task};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Extent, QuantParams};

use super::histogram::{Cell, Histogram, magnitude};
use super::{Calibration, Method, Slice};

impl Calibration {
    /// The clipping range of each slice, as codes of `numerics` need it: the
    /// searches, and percentiles of symmetric codes, depend on them.
    ///
    /// # Errors
    /// [`QuantError`] when nothing was seen yet (field `calibrator`), or when
    /// the type cannot hold the ends (field `scale_dtype`).
    pub fn ranges<T: Real>(
        &self,
        numerics: &Numerics,
        task: &Task,
    ) -> Result<Vec<Range<T>>, QuantError> {
        if self.seen.batches == 0 {
            return Err(QuantError::of(
                ErrorKind::NotLearnt,
                "calibrator",
                "no batch was fed to the calibrator yet",
            )
            .cure("feed batches first"));
        }
        self.slices.par_iter().map(|slice| self.range(slice, numerics, task)).collect()
    }

    /// Scale and zero point of each slice for codes of `numerics`: one for
    /// granularity tensor, one a channel otherwise.
    ///
    /// # Errors
    /// Those of [`ranges`](Self::ranges).
    pub fn parameters<T: Real>(
        &self,
        numerics: &Numerics,
        task: &Task,
    ) -> Result<Vec<QuantParams<T>>, QuantError> {
        let ranges = self.ranges(numerics, task)?;
        Ok(ranges.into_iter().map(|range| numerics.affine(range)).collect())
    }

    fn range<T: Real>(
        &self,
        slice: &Slice,
        numerics: &Numerics,
        task: &Task,
    ) -> Result<Range<T>, QuantError> {
        let [min, max] = slice.extent.map(T::from_f64);
        if !(min.is_finite() && max.is_finite()) {
            return Err(QuantError::field("scale_dtype", "the range overflows F32")
                .cure("ask for scale_dtype F64"));
        }
        let whole = Range::around_zero(min, max);
        if magnitude(slice.extent) <= 0.0 {
            return Ok(whole);
        }
        if let Some(average) = slice.average {
            let [min, max] = average.map(T::from_f64);
            return Ok(Range::around_zero(min, max));
        }
        Ok(match (self.plan.method(), &slice.histogram) {
            (Method::CrossEntropy { .. }, _) => self.by_softmax(whole, numerics, task),
            (Method::Percentile(p), Some(counts)) => {
                let [min, max] = percentiles(slice, counts, p, numerics).map(T::from_f64);
                Range::around_zero(min, max)
            }
            (Method::Mse, Some(counts)) => {
                let cells = counts.cells(slice.finite - counts.counted());
                least_error(&cells, counts.top, whole, numerics, task)
            }
            (Method::EntropyOrt, Some(counts)) => {
                let extent = Extent { min, max, nan: 0, inf: 0 };
                by_both_sides(slice, counts, extent, task)
            }
            (Method::EntropyTensorrt, Some(counts)) => {
                by_magnitude(slice, counts, whole, Thresholds::OfOutliers, (numerics, task))
            }
            (Method::EntropyModelopt, Some(counts)) => {
                by_magnitude(slice, counts, whole, Thresholds::All, (numerics, task))
            }
            (Method::MinMax | Method::MovingAverage { .. }, _) | (_, None) => whole,
        })
    }

    fn by_softmax<T: Real>(&self, whole: Range<T>, numerics: &Numerics, task: &Task) -> Range<T> {
        let Some(sample) = &self.sample else { return whole };
        let values: Vec<T> = sample.elements().map(T::from_f64).collect();
        let lines = Lines { values: &values, line: sample.line(), weights: &sample.counts() };
        cross_entropy::weighted(lines, whole, numerics, task)
    }
}

/// The ends of range percentile: each within one bin of the exact percentile.
fn percentiles(slice: &Slice, counts: &Histogram, p: f64, numerics: &Numerics) -> [f64; 2] {
    let zeros = slice.finite - counts.counted();
    let [min, max] = slice.extent;
    if numerics.symmetric {
        let cells = counts.magnitudes(zeros);
        let amax = percentile_of(&cells, counts.top, [None, Some(magnitude(slice.extent))], p);
        return [-amax, amax];
    }
    let cells = counts.cells(zeros);
    [100.0 - p, p].map(|p| percentile_of(&cells, counts.top, [Some(min), Some(max)], p))
}

/// The percentile of elements that lie evenly spread in their cells, the ends
/// where they are known. An element that is thought to be elsewhere in its cell
/// is less than a width off, hence so is what lies between two of them.
fn percentile_of(cells: &[Cell], top: i32, ends: [Option<f64>; 2], p: f64) -> f64 {
    let total: u64 = cells.iter().map(|cell| cell.count).sum();
    let n = usize::try_from(total).unwrap_or(usize::MAX);
    let (rank, weight) = percentile::place(p, n);
    let last = n.saturating_sub(1);
    let [min, max] = [ends[0].unwrap_or(0.0), ends[1].unwrap_or(f64::MAX)];
    let element = |rank: usize| match ends {
        [_, Some(max)] if rank >= last => max,
        [Some(min), _] if rank == 0 => min,
        _ => spread(cells, top, rank as u64).clamp(min, max),
    };
    percentile::interpolate(element(rank), element(rank + 1), weight)
}

/// The element of a rank that some cell has.
fn spread(cells: &[Cell], top: i32, rank: u64) -> f64 {
    let mut before = 0;
    let found = cells.iter().find_map(|cell| {
        let within = rank - before;
        before += cell.count;
        let share = (within as f64 + 0.5) / cell.count as f64;
        (rank < before).then(|| libm::ldexp(cell.low + cell.width * share, top))
    });
    found.unwrap_or(0.0)
}

/// The range of least squared error among the candidates of the exact search,
/// the widest first, where elements lie evenly spread in their cells.
fn least_error<T: Real>(
    cells: &[Cell],
    top: i32,
    whole: Range<T>,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    let (mut best, mut least) = (whole, f64::INFINITY);
    for candidate in mse::candidates(whole, numerics).iter() {
        if task.is_cancelled() {
            break;
        }
        let error = squared_error(cells, top, numerics.affine(candidate), numerics);
        if error < least {
            (best, least) = (candidate, error);
        }
    }
    best
}

/// Sum over all elements of the squared distance to the nearest restored
/// number, in units of 2^top.
///
/// With n the code nearest to t, less the zero point, and r = t - n s, the
/// integral of the squared distance from 0 to t is `n s^3 / 12 + r^3 / 3`,
/// also where n stays at the last code.
fn squared_error<T: Real>(
    cells: &[Cell],
    top: i32,
    affine: QuantParams<T>,
    numerics: &Numerics,
) -> f64 {
    let scale = libm::ldexp(affine.scale.to_f64(), -top);
    let codes = numerics.code_range();
    let ends = [codes.min, codes.max].map(|code| f64::from(code - affine.zero_point));
    let integral = |t: f64| {
        let n = (t / scale).round().clamp(ends[0], ends[1]);
        let r = t - n * scale;
        n * scale * scale * scale / 12.0 + r * r * r / 3.0
    };
    let error = |cell: &Cell| {
        // Zero is restored exactly.
        if cell.width <= 0.0 {
            return 0.0;
        }
        let mean = (integral(cell.low + cell.width) - integral(cell.low)) / cell.width;
        cell.count as f64 * mean
    };
    cells.iter().map(error).sum()
}

/// The values that a slice has, where they are few.
fn few<T: Real>(slice: &Slice) -> Option<Vec<(T, u64)>> {
    let pairs = slice.distinct.as_ref()?.pairs();
    Some(pairs.iter().map(|&(x, count)| (T::from_f64(x), count)).collect())
}

/// The search of ONNX Runtime over the values themselves, or over bins from
/// minus to plus the end of the last occupied one; zeros are in the first one above 0.
fn by_both_sides<T: Real>(
    slice: &Slice,
    counts: &Histogram,
    extent: Extent<T>,
    task: &Task,
) -> Range<T> {
    if let Some(values) = few(slice) {
        return ort::weighted(&values, extent, task);
    }
    let used = counts.used();
    let below = counts.negative[..used].iter().rev();
    let mut bins: Vec<u64> = below.chain(&counts.positive[..used]).copied().collect();
    if let Some(bin) = bins.get_mut(used) {
        *bin += slice.finite - counts.counted();
    }
    let magnitude = |k: usize| T::from_f64(counts.edge(k));
    let edge = |k: usize| if k < used { -magnitude(used - k) } else { magnitude(k - used) };
    ort::of(&bins, edge, extent, task)
}

/// The search of TensorRT over the values themselves, or over bins of
/// magnitudes from 0 to the end of the last occupied one.
fn by_magnitude<T: Real>(
    slice: &Slice,
    counts: &Histogram,
    whole: Range<T>,
    thresholds: Thresholds,
    how: (&Numerics, &Task),
) -> Range<T> {
    if let Some(values) = few(slice) {
        return tensorrt::weighted(&values, whole, thresholds, how);
    }
    let sides = counts.positive.iter().zip(&counts.negative);
    let mut bins: Vec<u64> = sides.take(counts.used()).map(|(a, b)| a + b).collect();
    if let Some(bin) = bins.first_mut() {
        *bin += slice.finite - counts.counted();
    }
    let edge = |bin| T::from_f64(counts.edge(bin));
    tensorrt::of(Sparse::from_counts(bins), edge, whole, thresholds, how)
}

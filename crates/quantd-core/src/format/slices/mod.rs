//! Tensors whose elements share scales slice by slice: what integers, floats and blocks of floats have in common.

mod layout;
mod restore;
mod work;

use rayon::prelude::*;

use crate::partition::Partition;
use crate::report::Report;
use crate::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};
use crate::source::Source;
use crate::tensor::{DType, Tensor};
use crate::{QuantError, Task, extent, range};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Extent, QuantParams};

pub(super) use layout::{granularity, named, several};
pub(super) use restore::{Restored, Stored, check_count, restore, scales, to_dtype};
pub(crate) use work::{Bits, Grid, Piece, Work};

/// Slices that are worth handing to another thread where little is done to each.
pub(super) const PART: usize = 1 << 12;

/// A tensor's elements with what several schemes of one granularity share.
#[derive(Debug)]
pub(crate) struct Prepared<'a, T: Real> {
    pub(super) x: &'a Source<'a, T>,
    pub(super) dims: &'a [usize],
    pub(super) partition: Partition,
    pub(super) extents: Vec<Extent<T>>,
    pub(super) total: Extent<T>,
    pub(super) source_bits: usize,
}

impl<'a, T: Real> Prepared<'a, T> {
    /// Lays the granularity over the tensor and finds the extent of each slice.
    ///
    /// # Errors
    /// [`QuantError`] when the granularity does not fit the shape.
    pub(super) fn new(
        x: &'a Source<'a, T>,
        tensor: &'a Tensor,
        granularity: Granularity,
        task: &Task,
    ) -> Result<Self, QuantError> {
        let partition = Partition::new(granularity, tensor.shape())?;
        let extents = extent::extents(x, &partition, task);
        let total =
            extents.par_iter().with_min_len(PART).copied().reduce(Extent::default, Extent::join);
        let source_bits = 8 * tensor.dtype().size();
        let dims = tensor.shape().dims();
        Ok(Self { x, dims, partition, extents, total, source_bits })
    }

    /// Refuses NaN where a scheme does.
    ///
    /// # Errors
    /// [`QuantError`] names the first one.
    pub(super) fn check_nan(&self, nan: NanPolicy) -> Result<(), QuantError> {
        if self.total.nan == 0 || nan != NanPolicy::Refuse {
            return Ok(());
        }
        let first = self.x.first_nan().unwrap_or_default();
        Err(QuantError::nan(first).cure("send finite numbers, or choose nan: zero, min or max"))
    }

    /// Refuses another number of values than one, or one a slice.
    ///
    /// # Errors
    /// [`QuantError`] about `field`.
    pub(super) fn check_count(&self, field: &'static str, count: usize) -> Result<(), QuantError> {
        let slices = self.partition.slices();
        if count == 1 || count == slices {
            return Ok(());
        }
        let detail = format!("{count} values for {slices} slices");
        Err(QuantError::field(field, detail).cure("send one value, or one for each slice"))
    }

    /// The ends of each slice that a caller gave, as `T`.
    ///
    /// # Errors
    /// [`QuantError`] about `min`, `max` or `range`.
    pub(super) fn given_ends(
        &self,
        [min, max]: [&[f64]; 2],
    ) -> Result<impl Fn(usize) -> Result<[T; 2], QuantError>, QuantError> {
        self.check_count("min", min.len())?;
        self.check_count("max", max.len())?;
        Ok(move |slice| {
            let ends = [pick(min, slice), pick(max, slice)].map(T::from_f64);
            if ends.iter().all(|end| end.is_finite()) {
                return Ok(ends);
            }
            Err(QuantError::field("range", "min or max overflows the tensor's type"))
        })
    }

    /// A scale that a caller gave, as `T`.
    ///
    /// # Errors
    /// [`QuantError`] about `scale`.
    pub(super) fn given_scale(&self, scale: &[f64], slice: usize) -> Result<T, QuantError> {
        let scale = T::from_f64(pick(scale, slice));
        if scale > T::ZERO && scale.is_finite() {
            return Ok(scale);
        }
        Err(QuantError::field("scale", "not a positive number in the tensor's type"))
    }
}

/// One value for all slices, or one a slice.
pub(super) fn pick(values: &[f64], slice: usize) -> f64 {
    values[if values.len() == 1 { 0 } else { slice }]
}

/// The reports of schemes on one tensor. The extents of the slices are found once for each granularity, not once a
/// scheme.
///
/// # Errors
/// The index of the first scheme that does not fit the tensor, and why.
pub(super) fn measure<T: Real>(
    x: &Source<'_, T>,
    tensor: &Tensor,
    schemes: &[&Scheme],
    report: impl Fn(&Prepared<'_, T>, &Scheme) -> Result<Report, QuantError>,
    task: &Task,
) -> Result<Vec<Report>, (usize, QuantError)> {
    let mut reports: Vec<Option<Report>> = vec![None; schemes.len()];
    // One granularity after the other, so that one table of slices is held at a time.
    for first in 0..schemes.len() {
        if reports[first].is_some() {
            continue;
        }
        let granularity = schemes[first].granularity;
        let prepared =
            Prepared::new(x, tensor, granularity, task).map_err(|error| (first, error))?;
        for i in first..schemes.len() {
            if schemes[i].granularity == granularity {
                let report = report(&prepared, schemes[i]).map_err(|error| (i, error))?;
                reports[i] = Some(report);
            }
            if task.is_cancelled() {
                return Ok(Vec::new());
            }
        }
    }
    Ok(reports.into_iter().flatten().collect())
}

/// Bytes beside a tensor and its codes that a scheme works with: what a search looks at, and the table of slices.
pub(super) fn working_bytes(
    [elements, slices]: [usize; 2],
    dtype: DType,
    range: &RangeMethod,
) -> usize {
    const SLICE: usize = size_of::<Extent<f64>>() + 2 * size_of::<QuantParams<f64>>() + 8;
    let compute = if dtype == DType::F64 { 8 } else { 4 };
    // Elements of other types are gathered as they are, and converted then.
    let converted = if matches!(dtype, DType::F64 | DType::F32) { 0 } else { dtype.size() };
    let gathered = compute + converted;
    let (searched, tables) = match range {
        RangeMethod::MinMax | RangeMethod::Explicit { .. } | RangeMethod::Given { .. } => (0, 0),
        RangeMethod::Mse => (gathered, range::mse::working_bytes(elements)),
        RangeMethod::Percentile(_)
        | RangeMethod::EntropyOrt
        | RangeMethod::EntropyTensorrt
        | RangeMethod::EntropyModelopt => (gathered, 0),
        // The softmax in f64, codes and what they restore to.
        RangeMethod::CrossEntropy { .. } => (gathered + compute + 12, 0),
    };
    let own = elements.saturating_mul(searched).saturating_add(tables);
    own.saturating_add(slices.saturating_mul(SLICE))
}

/// Bytes that restoring takes beside parts and result: parameters of slices, and elements in the type of the scale.
pub(super) fn restoring_bytes([elements, slices]: [usize; 2], scale: DType, dtype: DType) -> usize {
    let computed = if scale == DType::F64 { 8 } else { 4 };
    // A scale in its type, a zero point in three, both as one and as columns with the reciprocal.
    let slice = 4 * computed + 4 * size_of::<i64>();
    let elements = if dtype.size() == computed { 0 } else { elements };
    slices.saturating_mul(slice).saturating_add(elements.saturating_mul(computed))
}

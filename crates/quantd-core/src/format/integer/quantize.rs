//! Tensor and scheme to codes, parameters and report.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use crate::tensor::{DType, Shape, Tensor};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Extent, QuantParams};
use quantd_kernels::sums::ErrorSums;
use quantd_kernels::table::Table;

use super::work::Work;
use crate::params::{CodeType, Numerics, Range};
use crate::partition::Partition;
use crate::report::{Report, Size};
use crate::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};
use crate::source::{Source, Sources};
use crate::{QuantError, Task, extent, gather, partition, range};

/// Codes and parameters of one tensor.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Codes in the shape of the source: I8, U8, I16 or U16.
    pub codes: Tensor,
    /// Scales, F32 or F64, in the shape of [`Partition::scale_dims`].
    pub scale: Tensor,
    /// Zero points in the shape of the scales and the type of the codes.
    pub zero_point: Tensor,
}

/// Slices that are worth handing to another thread where little is done to each.
const PART: usize = 1 << 12;

/// A tensor's elements with what several schemes of one granularity share.
#[derive(Debug)]
pub(super) struct Prepared<'a, T: Real> {
    pub(super) x: &'a Source<'a, T>,
    dims: &'a [usize],
    granularity: Granularity,
    pub(super) partition: Partition,
    pub(super) extents: Vec<Extent<T>>,
    pub(super) total: Extent<T>,
    source_bits: usize,
}

/// What it makes of a tensor, what was lost over the whole of it, and slice by slice where that was asked for.
type Quantized = (Encoded, Report, Vec<Report>);

/// Quantizes `tensor`; with `per_slice` also reports on each slice.
///
/// # Errors
/// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
pub(super) fn quantize(
    tensor: &Tensor,
    scheme: &Scheme,
    per_slice: bool,
    task: &Task,
) -> Result<Quantized, QuantError> {
    match &Sources::of(tensor, task.isa()) {
        Sources::F32(x) => {
            let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
            prepared.quantize(scheme, DType::F32, per_slice, task)
        }
        Sources::F64(x) => {
            let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
            prepared.quantize(scheme, DType::F64, per_slice, task)
        }
    }
}

/// The codes of `tensor` alone, for those who have no use for a report.
///
/// # Errors
/// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
pub fn encode(tensor: &Tensor, scheme: &Scheme, task: &Task) -> Result<Encoded, QuantError> {
    fn encode<T: Real>(
        x: &Source<'_, T>,
        tensor: &Tensor,
        scheme: &Scheme,
        scale_dtype: DType,
        task: &Task,
    ) -> Result<Encoded, QuantError> {
        let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
        let table = Table::new(&prepared.affines(scheme, task)?);
        Ok(prepared.encode(scheme, &table, scale_dtype, false, task)?.0)
    }
    match &Sources::of(tensor, task.isa()) {
        Sources::F32(x) => encode(x, tensor, scheme, DType::F32, task),
        Sources::F64(x) => encode(x, tensor, scheme, DType::F64, task),
    }
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
                let report = prepared.measure(schemes[i], task).map_err(|error| (i, error))?;
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
    scheme: &Scheme,
) -> usize {
    const SLICE: usize = size_of::<Extent<f64>>() + 2 * size_of::<QuantParams<f64>>() + 8;
    let compute = if dtype == DType::F64 { 8 } else { 4 };
    // Elements of other types are gathered as they are, and converted then.
    let converted = if matches!(dtype, DType::F64 | DType::F32) { 0 } else { dtype.size() };
    let gathered = compute + converted;
    let (searched, tables) = match scheme.range {
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
        Ok(Self { x, dims, granularity, partition, extents, total, source_bits })
    }

    fn quantize(
        &self,
        scheme: &Scheme,
        scale_dtype: DType,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        let table = Table::new(&self.affines(scheme, task)?);
        let (encoded, sums) = self.encode(scheme, &table, scale_dtype, true, task)?;
        let work = Work { prepared: self, table: &table, scheme, task };
        let slices = if per_slice { work.slice_reports() } else { Vec::new() };
        Ok((encoded, self.report(&sums, scheme), slices))
    }

    /// Codes and parameters and, `with_sums`, what the codes lose.
    fn encode(
        &self,
        scheme: &Scheme,
        table: &Table<T>,
        scale_dtype: DType,
        with_sums: bool,
        task: &Task,
    ) -> Result<(Encoded, ErrorSums), QuantError> {
        let code_type = scheme.numerics.code_type();
        let dtype = code_type.dtype();
        let work = Work { prepared: self, table, scheme, task };
        let (codes, sums) = match code_type {
            CodeType::I8 => work.encode::<i8>(with_sums),
            CodeType::U8 => work.encode::<u8>(with_sums),
            CodeType::I16 => work.encode::<i16>(with_sums),
            CodeType::U16 => work.encode::<u16>(with_sums),
        };
        let shape = |dims: &[usize]| Shape::new(dims.to_vec()).ok();
        let parts = (|| {
            let scale_shape = shape(self.partition.scale_dims())?;
            Some(Encoded {
                codes: Tensor::view(dtype, shape(self.dims)?, Arc::new(codes), 0)?,
                scale: Tensor::from_elements(scale_dtype, scale_shape.clone(), table.scales())?,
                zero_point: zero_points(code_type, scale_shape, table.zero_points())?,
            })
        })();
        let encoded = parts.ok_or_else(|| QuantError::field("data", "the result is too large"))?;
        Ok((encoded, sums))
    }

    /// What the scheme would lose, without making codes.
    ///
    /// # Errors
    /// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
    pub(super) fn measure(&self, scheme: &Scheme, task: &Task) -> Result<Report, QuantError> {
        let table = Table::new(&self.affines(scheme, task)?);
        let sums = Work { prepared: self, table: &table, scheme, task }.measure();
        Ok(self.report(&sums, scheme))
    }

    fn report(&self, sums: &ErrorSums, scheme: &Scheme) -> Report {
        let size = self.size(scheme, self.x.len(), self.partition.slices());
        Report::new(sums, self.total.nan, self.total.inf, size)
    }

    pub(super) fn size(&self, scheme: &Scheme, elements: usize, slices: usize) -> Size {
        let bits = scheme.numerics.bits;
        let zero_point = if scheme.numerics.symmetric { 0 } else { bits };
        let bits =
            elements as f64 * f64::from(bits) + slices as f64 * f64::from(T::BITS + zero_point);
        Size { elements, bits, source_bits: self.source_bits }
    }

    /// Scale and zero point of each slice.
    fn affines(&self, scheme: &Scheme, task: &Task) -> Result<Vec<QuantParams<T>>, QuantError> {
        if self.total.nan > 0 && scheme.nan == NanPolicy::Refuse {
            let first = self.x.first_nan().unwrap_or_default();
            return Err(
                QuantError::nan(first).cure("send finite numbers, or choose nan: zero, min or max")
            );
        }
        let numerics = &scheme.numerics;
        match &scheme.range {
            RangeMethod::Given { scale, zero_point } => self.given(numerics, scale, zero_point),
            RangeMethod::Explicit { min, max } => self.explicit(numerics, min, max),
            RangeMethod::MinMax => {
                let affine = |extent: &Extent<T>| {
                    numerics.affine(Range::around_zero(extent.min, extent.max))
                };
                Ok(self.extents.par_iter().with_min_len(PART).map(affine).collect())
            }
            RangeMethod::Percentile(_)
            | RangeMethod::Mse
            | RangeMethod::EntropyOrt
            | RangeMethod::EntropyTensorrt
            | RangeMethod::EntropyModelopt
            | RangeMethod::CrossEntropy { .. } => {
                let axis = self.softmax_axis(&scheme.range)?;
                let find = |slice| {
                    numerics.affine(self.range(&scheme.range, (slice, axis), numerics, task))
                };
                Ok((0..self.partition.slices()).into_par_iter().map(find).collect())
            }
        }
    }

    fn explicit(
        &self,
        numerics: &Numerics,
        min: &[f64],
        max: &[f64],
    ) -> Result<Vec<QuantParams<T>>, QuantError> {
        self.check_count("min", min.len())?;
        self.check_count("max", max.len())?;
        let affine = |slice| {
            let [min, max] = [pick(min, slice), pick(max, slice)].map(T::from_f64);
            if !(min.is_finite() && max.is_finite()) {
                return Err(QuantError::field("range", "min or max overflows the tensor's type"));
            }
            Ok(numerics.affine(Range::around_zero(min, max)))
        };
        (0..self.partition.slices()).into_par_iter().with_min_len(PART).map(affine).collect()
    }

    /// The axis that a softmax runs along in a whole tensor; every other slice is one line of it, also where there is
    /// only one.
    fn softmax_axis(&self, method: &RangeMethod) -> Result<Option<usize>, QuantError> {
        match (method, self.granularity, self.dims) {
            (RangeMethod::CrossEntropy { axis }, Granularity::Tensor, &[_, ..]) => {
                partition::resolve_axis(*axis, self.dims.len()).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn range(
        &self,
        method: &RangeMethod,
        (slice, axis): (usize, Option<usize>),
        numerics: &Numerics,
        task: &Task,
    ) -> Range<T> {
        let extent = self.extents[slice];
        if task.is_cancelled() {
            return Range::around_zero(extent.min, extent.max);
        }
        let values = self.x.slice(&self.partition, slice);
        let (values, line) = match axis {
            Some(axis) => (gather::lines(&values, self.dims, axis), self.dims[axis]),
            None => (Cow::Borrowed(&*values), values.len()),
        };
        range::find(method, range::Slice { values: &values, extent, line }, numerics, task)
    }

    fn given(
        &self,
        numerics: &Numerics,
        scale: &[f64],
        zero_point: &[i32],
    ) -> Result<Vec<QuantParams<T>>, QuantError> {
        self.check_count("scale", scale.len())?;
        if !zero_point.is_empty() {
            self.check_count("zero_point", zero_point.len())?;
        }
        let default = if numerics.symmetric { numerics.middle() } else { 0 };
        (0..self.partition.slices())
            .into_par_iter()
            .with_min_len(PART)
            .map(|slice| {
                let scale = T::from_f64(pick(scale, slice));
                if !(scale > T::ZERO && scale.is_finite()) {
                    return Err(QuantError::field(
                        "scale",
                        "not a positive number in the tensor's type",
                    ));
                }
                let zero_point = zero_point.get(if zero_point.len() == 1 { 0 } else { slice });
                Ok(QuantParams { scale, zero_point: zero_point.copied().unwrap_or(default) })
            })
            .collect()
    }

    fn check_count(&self, field: &'static str, count: usize) -> Result<(), QuantError> {
        let slices = self.partition.slices();
        if count == 1 || count == slices {
            return Ok(());
        }
        let detail = format!("{count} values for {slices} slices");
        Err(QuantError::field(field, detail).cure("send one value, or one for each slice"))
    }
}

/// One value for all slices, or one a slice.
fn pick(values: &[f64], slice: usize) -> f64 {
    values[if values.len() == 1 { 0 } else { slice }]
}

fn zero_points(code_type: CodeType, shape: Shape, zero_points: &[i32]) -> Option<Tensor> {
    fn collect<C: Code>(dtype: DType, shape: Shape, zero_points: &[i32]) -> Option<Tensor> {
        let slices = zero_points.par_iter().with_min_len(PART);
        let codes: Vec<C> = slices.map(|&zero| C::from_code(zero)).collect();
        Tensor::from_elements(dtype, shape, &codes)
    }
    let dtype = code_type.dtype();
    match code_type {
        CodeType::I8 => collect::<i8>(dtype, shape, zero_points),
        CodeType::U8 => collect::<u8>(dtype, shape, zero_points),
        CodeType::I16 => collect::<i16>(dtype, shape, zero_points),
        CodeType::U16 => collect::<u16>(dtype, shape, zero_points),
    }
}

//! Tensor and scheme to codes, parameters and report.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use crate::format::pack::Packing;
use crate::format::slices::{Bits, PART, Prepared, Work};
use crate::params::{CodeType, Numerics, Range};
use crate::report::Report;
use crate::scheme::{Granularity, RangeMethod, Scheme};
use crate::source::{Source, Sources};
use crate::tensor::{DType, Shape, Tensor};
use crate::{QuantError, Task, gather, partition, range};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Extent, QuantParams};
use quantd_kernels::sums::ErrorSums;
use quantd_kernels::table::Table;

use super::grid::Integers;

/// Codes and parameters of one tensor.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Codes in the shape of the source, I8, U8, I16 or U16, or packed, U8.
    pub codes: Tensor,
    /// Scales, F32 or F64, in the shape of [`crate::partition::Partition::scale_dims`].
    pub scale: Tensor,
    /// Zero points in the shape of the scales and the type of the codes.
    pub zero_point: Tensor,
}

/// What it makes of a tensor, what was lost over the whole of it, and slice by slice where that was asked for.
type Quantized = (Encoded, Report, Vec<Report>);

/// What is worked out of one tensor under one scheme.
struct Quantizing<'a, T: Real> {
    prepared: &'a Prepared<'a, T>,
    scheme: &'a Scheme,
    numerics: &'a Numerics,
    task: &'a Task,
}

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
            Quantizing::new(&prepared, scheme, task)?.quantize(DType::F32, per_slice)
        }
        Sources::F64(x) => {
            let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
            Quantizing::new(&prepared, scheme, task)?.quantize(DType::F64, per_slice)
        }
    }
}

/// The codes of `tensor` alone, one an element, for those who have no use for a report.
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
        let scheme = Scheme { packed: false, ..scheme.clone() };
        let quantizing = Quantizing::new(&prepared, &scheme, task)?;
        let table = Table::new(&quantizing.affines()?);
        Ok(quantizing.encode(&table, scale_dtype, false)?.0)
    }
    match &Sources::of(tensor, task.isa()) {
        Sources::F32(x) => encode(x, tensor, scheme, DType::F32, task),
        Sources::F64(x) => encode(x, tensor, scheme, DType::F64, task),
    }
}

/// What the scheme would lose, without making codes.
///
/// # Errors
/// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
pub(super) fn measure<T: Real>(
    prepared: &Prepared<'_, T>,
    scheme: &Scheme,
    task: &Task,
) -> Result<Report, QuantError> {
    let quantizing = Quantizing::new(prepared, scheme, task)?;
    let table = Table::new(&quantizing.affines()?);
    // Of which type they would be does not matter.
    let work = quantizing.work::<i32>(&table);
    Ok(work.report(&work.measure()))
}

impl<'a, T: Real> Quantizing<'a, T> {
    fn new(
        prepared: &'a Prepared<'a, T>,
        scheme: &'a Scheme,
        task: &'a Task,
    ) -> Result<Self, QuantError> {
        Ok(Self { prepared, scheme, numerics: scheme.integers("codes")?, task })
    }

    fn quantize(&self, scale_dtype: DType, per_slice: bool) -> Result<Quantized, QuantError> {
        let table = Table::new(&self.affines()?);
        let (encoded, sums) = self.encode(&table, scale_dtype, true)?;
        let work = self.work::<i32>(&table);
        let slices = if per_slice { work.slice_reports() } else { Vec::new() };
        Ok((encoded, work.report(&sums), slices))
    }

    fn work<'t, C: Code>(&'t self, table: &'t Table<T>) -> Work<'t, T, Integers<C>> {
        let Self { prepared, scheme, numerics, task } = self;
        let zero_point = if numerics.symmetric { 0 } else { numerics.bits };
        let bits = Bits { element: numerics.bits, slice: T::BITS + zero_point, tensor: 0 };
        let grid = Integers::new(numerics.how(), scheme.nan);
        Work { prepared, table, grid, bits, task }
    }

    /// Codes and parameters and, `with_sums`, what the codes lose.
    fn encode(
        &self,
        table: &Table<T>,
        scale_dtype: DType,
        with_sums: bool,
    ) -> Result<(Encoded, ErrorSums), QuantError> {
        let code_type = self.numerics.code_type();
        let packing = Packing::new(self.numerics.bits);
        let (codes, sums) = match (code_type, self.scheme.packed) {
            (CodeType::I8, false) => self.work::<i8>(table).encode(with_sums),
            (CodeType::U8, false) => self.work::<u8>(table).encode(with_sums),
            (CodeType::I8, true) => self.work::<i8>(table).encode_packed(packing),
            (CodeType::U8, true) => self.work::<u8>(table).encode_packed(packing),
            (CodeType::I16, _) => self.work::<i16>(table).encode(with_sums),
            (CodeType::U16, _) => self.work::<u16>(table).encode(with_sums),
        };
        let shape = |dims: &[usize]| Shape::new(dims.to_vec()).ok();
        let parts = (|| {
            let scale_dims = self.prepared.partition.scale_dims();
            let scale_shape = shape(scale_dims)?;
            let (dtype, codes_shape) = match self.scheme.packed {
                true => (DType::U8, Shape::vector(codes.bytes().len()).ok()?),
                false => (code_type.dtype(), shape(self.prepared.dims)?),
            };
            Some(Encoded {
                codes: Tensor::view(dtype, codes_shape, Arc::new(codes), 0)?,
                scale: Tensor::from_elements(scale_dtype, scale_shape.clone(), table.scales())?,
                zero_point: zero_points(code_type, scale_shape, table.zero_points())?,
            })
        })();
        let encoded = parts.ok_or_else(|| QuantError::field("data", "the result is too large"))?;
        Ok((encoded, sums))
    }

    /// Scale and zero point of each slice.
    fn affines(&self) -> Result<Vec<QuantParams<T>>, QuantError> {
        let Self { prepared, scheme, numerics, .. } = self;
        prepared.check_nan(scheme.nan)?;
        let slices = (0..prepared.partition.slices()).into_par_iter();
        match &scheme.range {
            RangeMethod::Given { scale, zero_point } => self.given(scale, zero_point),
            RangeMethod::Explicit { min, max } => {
                let ends = prepared.given_ends([min, max])?;
                let affine = |slice| {
                    ends(slice).map(|[min, max]| numerics.affine(Range::around_zero(min, max)))
                };
                slices.with_min_len(PART).map(affine).collect()
            }
            RangeMethod::MinMax => {
                let affine = |extent: &Extent<T>| {
                    numerics.affine(Range::around_zero(extent.min, extent.max))
                };
                Ok(prepared.extents.par_iter().with_min_len(PART).map(affine).collect())
            }
            RangeMethod::Percentile(_)
            | RangeMethod::Mse
            | RangeMethod::EntropyOrt
            | RangeMethod::EntropyTensorrt
            | RangeMethod::EntropyModelopt
            | RangeMethod::CrossEntropy { .. } => {
                let axis = self.softmax_axis()?;
                Ok(slices.map(|slice| numerics.affine(self.range(slice, axis))).collect())
            }
        }
    }

    /// The axis that a softmax runs along in a whole tensor; every other slice is one line of it, also where there is
    /// only one.
    fn softmax_axis(&self) -> Result<Option<usize>, QuantError> {
        let dims = self.prepared.dims;
        match (&self.scheme.range, self.scheme.granularity, dims) {
            (RangeMethod::CrossEntropy { axis }, Granularity::Tensor, &[_, ..]) => {
                partition::resolve_axis(*axis, dims.len()).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn range(&self, slice: usize, axis: Option<usize>) -> Range<T> {
        let Prepared { x, partition, extents, dims, .. } = self.prepared;
        let extent = extents[slice];
        if self.task.is_cancelled() {
            return Range::around_zero(extent.min, extent.max);
        }
        let values = x.slice(partition, slice);
        let (values, line) = match axis {
            Some(axis) => (gather::lines(&values, dims, axis), dims[axis]),
            None => (Cow::Borrowed(&*values), values.len()),
        };
        let slice = range::Slice { values: &values, extent, line };
        range::find(&self.scheme.range, slice, self.numerics, self.task)
    }

    fn given(&self, scale: &[f64], zero_point: &[i32]) -> Result<Vec<QuantParams<T>>, QuantError> {
        let Self { prepared, numerics, .. } = self;
        prepared.check_count("scale", scale.len())?;
        if !zero_point.is_empty() {
            prepared.check_count("zero_point", zero_point.len())?;
        }
        let default = if numerics.symmetric { numerics.middle() } else { 0 };
        let affine = |slice| {
            let scale = prepared.given_scale(scale, slice)?;
            let zero_point = zero_point.get(if zero_point.len() == 1 { 0 } else { slice });
            Ok(QuantParams { scale, zero_point: zero_point.copied().unwrap_or(default) })
        };
        let slices = 0..prepared.partition.slices();
        slices.into_par_iter().with_min_len(PART).map(affine).collect()
    }
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

//! Codes and parameters back to real numbers.

use std::sync::Arc;

use crate::format::slices::{Stored, check_count, restore, restoring_bytes, scales, to_dtype};
use crate::partition::Partition;
use crate::scheme::Granularity;
use crate::tensor::{Buffer, DType, Reals, Shape, Tensor};
use crate::{QuantError, Task};
use quantd_kernels::Isa;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, QuantParams};
use quantd_kernels::table::Table;

use super::codes::Stated;

/// Codes one an element, and what they mean.
#[derive(Debug)]
pub struct Codes<'a> {
    /// Codes in the shape of the tensor: I8, U8, I16 or U16, or I32 for biases.
    pub codes: &'a Tensor,
    /// Scales, one for all slices or one a slice; F64 is computed in f64, all others in f32.
    pub scale: &'a Tensor,
    /// Zero points of any integer type, one or one a slice; `None` for 0.
    pub zero_point: Option<&'a Tensor>,
    /// Which elements share them.
    pub granularity: Granularity,
    /// What the codes were said to be.
    pub stated: Stated,
}

/// Computes `(code - zero_point) * scale` in the type of the scale and returns
/// it as `dtype`: F64, F32, F16 or BF16, rounded to nearest, ties to even.
///
/// # Errors
/// [`QuantError`] when the parts do not fit one another.
pub fn dequantize(parts: &Codes<'_>, dtype: DType, task: &Task) -> Result<Tensor, QuantError> {
    let partition = Partition::new(parts.granularity, parts.codes.shape())?;
    let zero_points = zero_points(parts, &partition)?;
    parts.stated.check(parts.codes, &zero_points)?;
    if !parts.scale.dtype().is_float() {
        return Err(QuantError::field("scale", "not a floating-point type").cure("send F32 or F64"));
    }
    let buffer = match parts.scale.reals() {
        Reals::F32(scale) => {
            let table = Table::new(&affines(&scale, &zero_points, &partition)?);
            to_dtype::<f32>(restored(parts.codes, &table, &partition, task)?, dtype)
        }
        Reals::F64(scale) => {
            let table = Table::new(&affines(&scale, &zero_points, &partition)?);
            to_dtype::<f64>(restored(parts.codes, &table, &partition, task)?, dtype)
        }
    };
    let shape = parts.codes.shape().clone();
    Tensor::view(dtype, shape, Arc::new(buffer), 0)
        .ok_or_else(|| QuantError::field("output_dtype", "not a floating-point type"))
}

/// Bytes that [`dequantize`] takes beside its result: parameters of slices, and elements in the type of the scale.
///
/// # Errors
/// [`QuantError`] when the granularity does not fit the shape.
pub(super) fn working_bytes(
    shape: &Shape,
    granularity: Granularity,
    scale: DType,
    dtype: DType,
) -> Result<usize, QuantError> {
    let slices = Partition::new(granularity, shape)?.slices();
    Ok(restoring_bytes([shape.len(), slices], scale, dtype))
}

fn restored<T: Real>(
    codes: &Tensor,
    table: &Table<T>,
    partition: &Partition,
    task: &Task,
) -> Result<Buffer, QuantError> {
    match codes.dtype() {
        DType::I8 => Ok(restored_of::<T, i8>(codes, table, partition, task)),
        DType::U8 => Ok(restored_of::<T, u8>(codes, table, partition, task)),
        DType::I16 => Ok(restored_of::<T, i16>(codes, table, partition, task)),
        DType::U16 => Ok(restored_of::<T, u16>(codes, table, partition, task)),
        DType::I32 => Ok(restored_of::<T, i32>(codes, table, partition, task)),
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::I64
        | DType::U64
        | DType::U32
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::F8E4M3Fnuz
        | DType::F8E5M2Fnuz
        | DType::F8E8M0 => {
            Err(QuantError::field("codes", "not a type of codes")
                .cure("send I8, U8, I16, U16 or I32"))
        }
    }
}

fn restored_of<T: Real, C: Code>(
    codes: &Tensor,
    table: &Table<T>,
    partition: &Partition,
    task: &Task,
) -> Buffer {
    let codes = Stored::Plain(codes.elements::<C>());
    restore(&codes, (table, partition), Isa::dequantize, task)
}

fn affines<T: Real>(
    scale: &[T],
    zero_points: &[i32],
    partition: &Partition,
) -> Result<Vec<QuantParams<T>>, QuantError> {
    let scales = scales(scale, partition.slices())?.into_iter().enumerate();
    let zero_point = |slice| zero_points[if zero_points.len() == 1 { 0 } else { slice }];
    Ok(scales.map(|(slice, scale)| QuantParams { scale, zero_point: zero_point(slice) }).collect())
}

fn zero_points(parts: &Codes<'_>, partition: &Partition) -> Result<Vec<i32>, QuantError> {
    let Some(tensor) = parts.zero_point else {
        return Ok(vec![0]);
    };
    if tensor.dtype().is_float() {
        return Err(QuantError::field("zero_point", "not an integer type"));
    }
    check_count("zero_point", tensor.shape().len(), partition.slices())?;
    // Exact in f32 for every zero point of 16 bits; of codes of 32 bits anything larger is refused.
    let Reals::F32(reals) = tensor.reals() else {
        return Err(QuantError::field("zero_point", "not an integer type"));
    };
    let bound = 65_536.0;
    if let Some(i) = reals.iter().position(|z| z.abs() > bound) {
        return Err(QuantError::field("zero_point", format!("zero point {i} is out of range")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    Ok(reals.iter().map(|&z| z as i32).collect())
}

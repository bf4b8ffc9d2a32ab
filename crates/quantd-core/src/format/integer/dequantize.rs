//! Codes and parameters back to real numbers.

use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::tensor::{Buffer, DType, Reals, Shape, Tensor};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, QuantParams};
use quantd_kernels::table::{Expanded, Table};
use quantd_kernels::{Filling, Stores};

use crate::partition::{CHUNK, Partition};
use crate::scheme::Granularity;
use crate::walk::Walk;
use crate::{QuantError, Task};

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
            let restored = restore::<f32>(parts.codes, &table, &partition, task)?;
            convert(restored, Real::to_f64, f16::from_f32, bf16::from_f32, dtype)
        }
        Reals::F64(scale) => {
            let table = Table::new(&affines(&scale, &zero_points, &partition)?);
            let restored = restore::<f64>(parts.codes, &table, &partition, task)?;
            convert(restored, Real::to_f64, f16_from_f64, bf16_from_f64, dtype)
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
    let computed = if scale == DType::F64 { 8 } else { 4 };
    // A scale in its type, a zero point in three, both as one and as columns with the reciprocal.
    let slice = 4 * computed + 4 * size_of::<i64>();
    let slices = Partition::new(granularity, shape)?.slices();
    let elements = if dtype.size() == computed { 0 } else { shape.len() };
    Ok(slices.saturating_mul(slice).saturating_add(elements.saturating_mul(computed)))
}

fn restore<T: Real>(
    codes: &Tensor,
    table: &Table<T>,
    partition: &Partition,
    task: &Task,
) -> Result<Buffer, QuantError> {
    match codes.dtype() {
        DType::I8 => Ok(restore_codes::<T, i8>(codes, table, partition, task)),
        DType::U8 => Ok(restore_codes::<T, u8>(codes, table, partition, task)),
        DType::I16 => Ok(restore_codes::<T, i16>(codes, table, partition, task)),
        DType::U16 => Ok(restore_codes::<T, u16>(codes, table, partition, task)),
        DType::I32 => Ok(restore_codes::<T, i32>(codes, table, partition, task)),
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::I64
        | DType::U64
        | DType::U32 => {
            Err(QuantError::field("codes", "not a type of codes")
                .cure("send I8, U8, I16, U16 or I32"))
        }
    }
}

fn restore_codes<T: Real, C: Code>(
    codes: &Tensor,
    table: &Table<T>,
    partition: &Partition,
    task: &Task,
) -> Buffer {
    let codes = codes.elements::<C>();
    let mut filling = Filling::of::<T>(codes.len());
    let walk = Walk { isa: task.isa(), partition, table };
    let stores = Stores::of(filling.len());
    let (parts, written) = filling.parts::<T>(CHUNK);
    codes.par_chunks(CHUNK).zip(parts).enumerate().for_each_init(
        Expanded::default,
        |spread, (i, (codes, x))| {
            if task.is_cancelled() {
                return;
            }
            walk.spans([i * CHUNK, i * CHUNK + codes.len()], spread, |[from, to], params| {
                walk.isa.dequantize(&codes[from..to], params, stores, &mut x[from..to]);
            });
            written.whole(x);
        },
    );
    filling.finish()
}

/// The elements of `restored`, of type `T`, as `dtype`; an empty buffer for a
/// type that is not a floating-point one.
fn convert<T: Real>(
    mut restored: Buffer,
    to_f64: fn(T) -> f64,
    to_f16: fn(T) -> f16,
    to_bf16: fn(T) -> bf16,
    dtype: DType,
) -> Buffer {
    fn map<T: Real, U: Pod + Send + Sync>(restored: &mut Buffer, to: fn(T) -> U) -> Buffer {
        let source = &*restored.elements_mut::<T>();
        let mut filling = Filling::of::<U>(source.len());
        let (parts, written) = filling.parts::<U>(CHUNK);
        source.par_chunks(CHUNK).zip(parts).for_each(|(source, target)| {
            source.iter().zip(&mut *target).for_each(|(&source, target)| *target = to(source));
            written.whole(target);
        });
        filling.finish()
    }
    match dtype {
        DType::F32 | DType::F64 if 8 * dtype.size() == T::BITS as usize => restored,
        DType::F64 => map(&mut restored, to_f64),
        DType::F32 => map(&mut restored, |x: T| <f32 as Real>::from_f64(x.to_f64())),
        DType::F16 => map(&mut restored, to_f16),
        DType::BF16 => map(&mut restored, to_bf16),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 => Buffer::default(),
        DType::U64 | DType::U32 | DType::U16 | DType::U8 => Buffer::default(),
    }
}

/// The nearest value, ties to even; `half` rounds twice, by way of f32.
fn f16_from_f64(x: f64) -> f16 {
    f16::from_f32(f32_to_odd(x))
}

/// The nearest value, ties to even; `half` rounds twice.
fn bf16_from_f64(x: f64) -> bf16 {
    bf16::from_f32(f32_to_odd(x))
}

/// `x` in f32, rounded to odd: the last bit says that something was cut off,
/// so that a second rounding sees no tie where there is none.
#[expect(clippy::cast_possible_truncation, reason = "what is cut off is remembered")]
fn f32_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if !near.is_finite() || back.total_cmp(&x).is_eq() {
        return near;
    }
    let toward_zero = near.to_bits() - u32::from(back.abs() > x.abs());
    f32::from_bits(toward_zero | 1)
}

fn affines<T: Real>(
    scale: &[T],
    zero_points: &[i32],
    partition: &Partition,
) -> Result<Vec<QuantParams<T>>, QuantError> {
    let slices = partition.slices();
    check_count("scale", scale.len(), slices)?;
    if let Some(i) = scale.iter().position(|scale| !(*scale > T::ZERO && scale.is_finite())) {
        let detail = format!("element {i} is not a positive finite number");
        return Err(QuantError::field("scale", detail));
    }
    let pick = |count: usize, slice: usize| if count == 1 { 0 } else { slice };
    Ok((0..slices)
        .map(|slice| QuantParams {
            scale: scale[pick(scale.len(), slice)],
            zero_point: zero_points[pick(zero_points.len(), slice)],
        })
        .collect())
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

fn check_count(field: &'static str, count: usize, slices: usize) -> Result<(), QuantError> {
    if count == 1 || count == slices {
        return Ok(());
    }
    Err(QuantError::field(field, format!("{count} values for {slices} slices"))
        .cure("send one value, or one for each slice, and name their granularity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f64_to_bf16_rounds_once() {
        let tiny = 2.0_f64.powi(-40);
        let half_step = 2.0_f64.powi(-8);
        for (x, expect) in [
            (1.0 + half_step, 1.0),
            (1.0 + half_step + tiny, 1.007_812_5),
            (1.0 + half_step - tiny, 1.0),
            (1.0 + 3.0 * half_step, 1.015_625),
            (1.0 + 3.0 * half_step - tiny, 1.007_812_5),
            (0.0, 0.0),
            (1e-60, 0.0),
            (1e300, f32::INFINITY),
            (f64::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(bf16_from_f64(x), bf16::from_f32(expect), "{x}");
            assert_eq!(bf16_from_f64(-x), bf16::from_f32(-expect), "{x}");
        }
        assert!(bf16_from_f64(f64::NAN).is_nan());
    }

    /// `numpy.float64(x).astype(numpy.float16)`.
    #[test]
    fn f64_to_f16_rounds_once() {
        for (x, expect) in [
            (1.000_488_281_250_909_5, 1.000_976_6),
            (1.000_488_281_25, 1.0),
            (65_519.999_999_999_9, 65_504.0),
            (65_520.0, f32::INFINITY),
            (2.980_232_238_772_242e-8, 5.960_464_5e-8),
            (2.980_232_238_769_531e-8, 0.0),
        ] {
            assert_eq!(f16_from_f64(x), f16::from_f32(expect), "{x}");
            assert_eq!(f16_from_f64(-x), f16::from_f32(-expect), "{x}");
        }
    }
}

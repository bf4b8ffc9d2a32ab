//! Codes in slices back to real numbers.

use std::borrow::Cow;

use bytemuck::{Pod, cast_slice_mut};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::format::pack::{self, Packing};
use crate::partition::{CHUNK, Partition};
use crate::tensor::{Buffer, DType};
use crate::walk::Walk;
use crate::{QuantError, Task};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::table::{Expanded, Table};
use quantd_kernels::{Filling, Isa, Stores};

/// Codes as they are stored.
#[derive(Debug)]
pub(in crate::format) enum Stored<'a, C: Pod> {
    /// One an element.
    Plain(Cow<'a, [C]>),
    /// So many, of one byte each, side by side.
    Packed(&'a [u8], Packing, usize),
}

impl<C: Pod> Stored<'_, C> {
    fn len(&self) -> usize {
        match self {
            Self::Plain(codes) => codes.len(),
            Self::Packed(_, _, len) => *len,
        }
    }

    /// Those of chunk `i`, in `room` if they have to be unpacked.
    fn chunk<'s>(&'s self, i: usize, room: &'s mut Vec<C>) -> &'s [C] {
        let len = CHUNK.min(self.len() - i * CHUNK);
        match self {
            Self::Plain(codes) => &codes[i * CHUNK..][..len],
            Self::Packed(bytes, packing, _) => {
                let [whole, own] =
                    [CHUNK, len].map(|len| pack::packed_len(len, packing.bits()).unwrap_or(0));
                room.resize(len, C::zeroed());
                packing.unpack(&bytes[i * whole..][..own], cast_slice_mut(room));
                room
            }
        }
    }
}

/// What codes and the scales of their slices stand for: `decode` says it of some.
pub(in crate::format) fn restore<T: Real, C: Code>(
    codes: &Stored<'_, C>,
    (table, partition): (&Table<T>, &Partition),
    decode: impl Fn(Isa, &[C], Params<'_, T>, Stores, &mut [T]) + Sync,
    task: &Task,
) -> Buffer {
    let mut filling = Filling::of::<T>(codes.len());
    let walk = Walk { isa: task.isa(), partition, table };
    let stores = Stores::of(filling.len());
    let (parts, written) = filling.parts::<T>(CHUNK);
    let rooms = || (Expanded::default(), Vec::new());
    parts.enumerate().for_each_init(rooms, |(spread, room), (i, x)| {
        if task.is_cancelled() {
            return;
        }
        let codes = codes.chunk(i, room);
        walk.spans([i * CHUNK, i * CHUNK + codes.len()], spread, |[from, to], params| {
            decode(walk.isa, &codes[from..to], params, stores, &mut x[from..to]);
        });
        written.whole(x);
    });
    filling.finish()
}

/// Real numbers that are computed with, and how they become halves.
pub(in crate::format) trait Restored: Real {
    /// The nearest, ties to even.
    fn to_f16(self) -> f16;
    /// The nearest, ties to even.
    fn to_bf16(self) -> bf16;
}

impl Restored for f32 {
    fn to_f16(self) -> f16 {
        f16::from_f32(self)
    }

    fn to_bf16(self) -> bf16 {
        bf16::from_f32(self)
    }
}

impl Restored for f64 {
    fn to_f16(self) -> f16 {
        f16_from_f64(self)
    }

    fn to_bf16(self) -> bf16 {
        bf16_from_f64(self)
    }
}

/// The elements of `restored`, of type `T`, as `dtype`; an empty buffer for a
/// type that is not a floating-point one.
pub(in crate::format) fn to_dtype<T: Restored>(mut restored: Buffer, dtype: DType) -> Buffer {
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
        DType::F64 => map(&mut restored, T::to_f64),
        DType::F32 => map(&mut restored, |x: T| <f32 as Real>::from_f64(x.to_f64())),
        DType::F16 => map(&mut restored, T::to_f16),
        DType::BF16 => map(&mut restored, T::to_bf16),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 => Buffer::default(),
        DType::U64 | DType::U32 | DType::U16 | DType::U8 => Buffer::default(),
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            Buffer::default()
        }
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

/// Scales as they come, positive and finite, as many as there are slices, or one for all.
///
/// # Errors
/// [`QuantError`] about `scale`.
pub(in crate::format) fn scales<T: Real>(scale: &[T], slices: usize) -> Result<Vec<T>, QuantError> {
    check_count("scale", scale.len(), slices)?;
    if let Some(i) = scale.iter().position(|scale| !(*scale > T::ZERO && scale.is_finite())) {
        let detail = format!("element {i} is not a positive finite number");
        return Err(QuantError::field("scale", detail));
    }
    Ok((0..slices).map(|slice| scale[if scale.len() == 1 { 0 } else { slice }]).collect())
}

/// Refuses another number of values than one, or one a slice.
///
/// # Errors
/// [`QuantError`] about `field`.
pub(in crate::format) fn check_count(
    field: &'static str,
    count: usize,
    slices: usize,
) -> Result<(), QuantError> {
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

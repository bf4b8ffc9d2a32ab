//! JSON documents: split first, then read each part as what it is meant to be.
//!
//! [`members`] finds the fields, [`read_tensor`] reads numbers straight into an
//! aligned typed buffer, [`read_value`] everything small; [`write_tensor`] and
//! its siblings are the way out. There is no tree of a whole document, because
//! a tensor as a tree takes thirty times its size.

mod number;
mod parts;
mod pretty;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use half::{bf16, f16};

use self::parts::Read;
pub use self::pretty::write_pretty;
use self::read::{Element, Fault, Nesting, skip};
pub use self::scan::{Member, find, members, members_up_to};
pub(crate) use self::scan::{elements_up_to, unescape};
pub use self::text::{Room, Text};
pub(crate) use self::value::below;
pub use self::value::{bytes_of_value, read_value, read_value_up_to};
pub use self::write::{text_of_one, write_reals_f32, write_reals_f64, write_string, write_tensor};
use super::{CodecError, Limits, Within};
use quantd_core::tensor::{Buffer, DType, Filling, Shape, Tensor};

/// Standard alphabet, padded or not: clients do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads nested arrays of numbers, or one number, as a tensor.
///
/// Without `shape` the nesting gives it. With one, the data must be nested like
/// it, or be one flat array. Floats are rounded to `dtype` once, from the exact
/// decimal value, and may be the strings `"NaN"`, `"Infinity"` and `"-Infinity"`;
/// integer types, and floats of eight bits as the patterns that they are, take integer literals only.
///
/// # Errors
/// Anything else, located by a JSON pointer that starts with `pointer`, or more
/// elements or bytes than `limits` allow, or than there is room for.
pub fn read_tensor(
    text: &[u8],
    dtype: DType,
    shape: Option<&Shape>,
    pointer: &str,
    (limits, room): Within<'_>,
) -> Result<Tensor, CodecError> {
    let reader = Reader { text, dtype, pointer };
    let bound = memchr::memchr_iter(b',', text).count().saturating_add(1);
    check_size(bound, dtype, limits).map_err(|error| error.at(pointer))?;
    room(bound.saturating_mul(dtype.size()))?;
    let (buffer, nesting) = match dtype {
        DType::F64 => reader.fill::<f64>(bound, room),
        DType::F32 => reader.fill::<f32>(bound, room),
        DType::F16 => reader.fill::<f16>(bound, room),
        DType::BF16 => reader.fill::<bf16>(bound, room),
        DType::I64 => reader.fill::<i64>(bound, room),
        DType::I32 => reader.fill::<i32>(bound, room),
        DType::I16 => reader.fill::<i16>(bound, room),
        DType::I8 => reader.fill::<i8>(bound, room),
        DType::U64 => reader.fill::<u64>(bound, room),
        DType::U32 => reader.fill::<u32>(bound, room),
        DType::U16 => reader.fill::<u16>(bound, room),
        DType::U8 => reader.fill::<u8>(bound, room),
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            reader.fill::<u8>(bound, room)
        }
    }?;
    let shape = reader.shape(&nesting, shape)?;
    limits.check(&shape).map_err(|error| error.at(pointer))?;
    Tensor::view(dtype, shape, Arc::new(buffer), 0).ok_or_else(|| inconsistent(pointer))
}

/// Reads a string of base64 as the little-endian elements of a tensor.
///
/// # Errors
/// The value is not such a string, or its length is not that of `shape`; or there is no room.
pub fn read_base64(
    text: &[u8],
    dtype: DType,
    shape: &Shape,
    pointer: &str,
    (limits, room): Within<'_>,
) -> Result<Tensor, CodecError> {
    check_size(shape.len(), dtype, limits).map_err(|error| error.at(pointer))?;
    let text = skip(text).trim_ascii_end();
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return Err(CodecError::malformed("a string of base64 is expected here").at(pointer));
    };
    // Some encoders escape every slash, which base64 is full of.
    let encoded = if memchr::memchr(b'\\', inner).is_some() {
        room(text.len())?;
        let unescaped = scan::unescape(text).ok_or_else(|| not_base64(pointer))?;
        Cow::Owned(unescaped.into_owned().into_bytes())
    } else {
        Cow::Borrowed(inner)
    };
    let padding = encoded.iter().rev().take_while(|&&byte| byte == b'=').count();
    let found = decoded_len(encoded.len().saturating_sub(padding));
    let expected = shape.len().saturating_mul(dtype.size());
    if found != expected {
        return Err(CodecError::malformed(format!(
            "the base64 holds {found} bytes where shape {shape} of {dtype} takes {expected}"
        ))
        .at(pointer));
    }
    room(expected)?;
    // The decoder wants room for whole groups.
    let mut buffer = Buffer::zeroed(expected.saturating_add(3));
    /// Digits between two looks at whether to go on, and the bytes they hold.
    const PART: (usize, usize) = (4 << 20, 3 << 20);
    let mut rest = buffer.bytes_mut();
    let mut decoded = 0_usize;
    for digits in encoded.chunks(PART.0) {
        room(0)?;
        let found = BASE64.decode_slice(digits, rest).map_err(|_| not_base64(pointer))?;
        decoded = decoded.saturating_add(found);
        rest = rest.get_mut(PART.1..).unwrap_or_default();
    }
    // Padding ends a stream, so a part in the middle that has some is too short.
    if decoded != expected {
        return Err(not_base64(pointer));
    }
    buffer.truncate(expected);
    Tensor::view(dtype, shape.clone(), Arc::new(buffer), 0).ok_or_else(|| inconsistent(pointer))
}

/// Bytes that `digits` base64 digits hold, without the overflow of `digits * 6 / 8`.
fn decoded_len(digits: usize) -> usize {
    let rest = digits % 4;
    (digits / 4).saturating_mul(3).saturating_add(rest.saturating_sub(1))
}

fn not_base64(pointer: &str) -> CodecError {
    CodecError::malformed("the string is not base64")
        .at(pointer)
        .cure("use the standard alphabet (+ and /) without line breaks")
}

fn check_size(elements: usize, dtype: DType, limits: &Limits) -> Result<(), CodecError> {
    if elements > limits.max_elements {
        let detail = format!("the tensor has more than {} elements", limits.max_elements);
        return Err(CodecError::too_large(detail).cure("split the tensor"));
    }
    if elements.saturating_mul(dtype.size()) > limits.max_bytes {
        let detail = format!("the tensor takes more than {} bytes", limits.max_bytes);
        return Err(CodecError::too_large(detail).cure("split the tensor"));
    }
    Ok(())
}

/// Cannot happen while counts and shapes agree, which is checked before.
#[cold]
fn inconsistent(pointer: &str) -> CodecError {
    CodecError::malformed("the elements do not fill the shape").at(pointer)
}

/// One tensor being read.
struct Reader<'a> {
    text: &'a [u8],
    dtype: DType,
    pointer: &'a str,
}

impl Reader<'_> {
    fn fill<T: Element>(
        &self,
        bound: usize,
        room: Room<'_>,
    ) -> Result<(Buffer, Nesting), CodecError> {
        let mut filling = Filling::of::<T>(bound);
        let (elements, written) = filling.elements::<T>();
        let mut nesting = Nesting::default();
        let mut refusal = None;
        let mut goes_on = || {
            refusal = room(0).err();
            refusal.is_none()
        };
        let read = match parts::read(self.text, elements, &mut goes_on) {
            Read::Whole(dims) => {
                nesting = Nesting::of(&dims);
                Ok(())
            }
            Read::Stopped => Err(Fault::Stopped),
            Read::Nothing => nesting.read(self.text, elements, &mut goes_on),
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        match read {
            Ok(()) => {
                // Of empty arrays there are fewer elements than commas say.
                let rest = elements.iter_mut().skip(nesting.len);
                rest.for_each(|element| *element = T::zeroed());
                written.whole(elements);
                Ok((filling.finish(), nesting))
            }
            Err(fault) => Err(fault.error(self.dtype.name(), self.dtype.is_float()).at(format!(
                "{}{}",
                self.pointer,
                nesting.path()
            ))),
        }
    }

    /// The shape of what was read: the wanted one, or that of the nesting.
    fn shape(&self, nesting: &Nesting, wanted: Option<&Shape>) -> Result<Shape, CodecError> {
        let dims = nesting.dims();
        let Some(wanted) = wanted else {
            return Shape::new(dims)
                .map_err(|error| CodecError::malformed(error.to_string()).at(self.pointer));
        };
        if nesting.len != wanted.len() {
            let (found, needed) = (nesting.len, wanted.len());
            return Err(CodecError::malformed(format!(
                "{found} elements where shape {wanted} takes {needed}"
            ))
            .at(self.pointer));
        }
        // Below an empty array there is nothing to nest.
        let nested =
            dims == wanted.dims() || (dims.last() == Some(&0) && wanted.dims().starts_with(&dims));
        if dims.len() == 1 || nested {
            return Ok(wanted.clone());
        }
        Err(CodecError::malformed(format!("the nesting is not that of shape {wanted}"))
            .at(self.pointer)
            .cure("nest the data like the shape, or send one flat array"))
    }
}

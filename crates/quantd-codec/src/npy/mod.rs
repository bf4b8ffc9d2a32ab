//! NumPy `.npy` arrays, versions 1 to 3.
//!
//! The header is a Python literal. It is read by a parser that knows dicts of
//! the three required keys and nothing else: no evaluation, no arithmetic, no
//! other literal. Native arrays in C order are viewed in place; big-endian and
//! Fortran-ordered ones are copied once. Object arrays are pickles, that is
//! programs, and are never read (CVE-2019-6446).

use std::sync::Arc;

use bytemuck::Pod;
use ndarray::{ArrayView, IxDyn, ShapeBuilder};

use super::sniff::{self, Known};
use super::{CodecError, Within};
use quantd_core::tensor::{Buffer, DType, MAX_RANK, Shape, Tensor};

mod header;

/// First bytes of every such file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header: three short fields need no more.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// The data of what we write starts at a multiple of this, as NumPy's does.
const ALIGN: usize = 64;

/// Reads an array; a view of `buffer` unless its elements must be rearranged.
///
/// # Errors
/// The file is malformed, of a dtype that is not read here, of another length
/// than its shape says, or above `limits`; or there is no room for its elements in another order.
pub fn read(buffer: Arc<Buffer>, (limits, room): Within<'_>) -> Result<Tensor, CodecError> {
    let (text, start) = split(buffer.bytes())?;
    let header = header::parse(text)?;
    let element = header.element()?;
    let shape = header.shape()?;
    limits.check(&shape).map_err(|error| error.at("shape"))?;
    let found = buffer.bytes().len().saturating_sub(start);
    let expected = shape.len().saturating_mul(element.dtype.size());
    if expected > limits.max_bytes {
        let detail = format!("the array takes more than {} bytes", limits.max_bytes);
        return Err(CodecError::too_large(detail).at("shape").cure("split the array"));
    }
    if found != expected {
        return Err(CodecError::malformed(format!(
            "{found} bytes of data where shape {shape} of {} takes {expected}",
            element.dtype
        ))
        .at_offset(start)
        .cure("send the whole file and nothing behind it"));
    }
    let tensor = Tensor::view(element.dtype, shape, buffer, start);
    let tensor = tensor.ok_or_else(|| CodecError::malformed("the data ends too early"))?;
    let swap = element.big_endian && element.dtype.size() > 1;
    let fortran = header.fortran_order && tensor.shape().rank() > 1;
    if !swap && !fortran {
        return Ok(tensor);
    }
    room(expected)?;
    match element.dtype.size() {
        8 => rearranged::<8>(&tensor, swap, fortran),
        4 => rearranged::<4>(&tensor, swap, fortran),
        2 => rearranged::<2>(&tensor, swap, fortran),
        _ => rearranged::<1>(&tensor, swap, fortran),
    }
}

/// The header of a file of version 1.0 with little-endian elements in C order,
/// padded so that the data starts at a multiple of 64. `BF16` has no name in
/// NumPy and is written as the opaque `V2`: widen such a tensor before. Floats of eight bits have none either and are
/// their bit patterns.
#[must_use]
pub fn header(dtype: DType, shape: &Shape) -> Vec<u8> {
    debug_assert!(dtype != DType::BF16, "npy cannot name bfloat16");
    let mut tuple = String::from("(");
    for (i, dim) in shape.dims().iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        tuple.push_str(&format!("{separator}{dim},"));
    }
    if shape.rank() > 1 {
        tuple.pop(); // only a tuple of one needs the comma at its end
    }
    let descr = descr(dtype);
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}), }}");
    let prefix = MAGIC.len().saturating_add(4);
    let total = prefix.saturating_add(dict.len()).saturating_add(1).next_multiple_of(ALIGN);
    let mut out = Vec::with_capacity(total);
    out.extend(MAGIC);
    out.extend([1, 0]);
    // MAX_RANK dimensions of ten digits fit 16 bits many times.
    let length = u16::try_from(total.saturating_sub(prefix)).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(dict.as_bytes());
    out.resize(total.saturating_sub(1), b' ');
    out.push(b'\n');
    out
}

const _: () = assert!(MAX_RANK * 12 + 100 < 1 << 16);

const fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::BF16 => "<V2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::U8 => "|u1",
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            "|u1"
        }
    }
}

/// Header text and offset of the data.
fn split(bytes: &[u8]) -> Result<(&[u8], usize), CodecError> {
    let ended = || CodecError::malformed("the npy file ends inside its header").at("header");
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        let error = CodecError::malformed("the file does not start with the npy magic");
        return Err(sniff::mistaken(Known::Npy, bytes, error.at_offset(0)));
    };
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(ended)?;
    let (length, rest) = match version {
        [1, 0] => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(ended)?;
            (u32::from(u16::from_le_bytes(*length)), rest)
        }
        [2 | 3, 0] => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(ended)?;
            (u32::from_le_bytes(*length), rest)
        }
        _ => {
            return Err(CodecError::unsupported("this version of the npy format is not read")
                .at_offset(MAGIC.len())
                .cure("write version 1.0, 2.0 or 3.0"));
        }
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_HEADER_BYTES {
        let detail = format!("the npy header is longer than {MAX_HEADER_BYTES} bytes");
        return Err(CodecError::too_large(detail).at("header"));
    }
    let (text, data) = rest.split_at_checked(length).ok_or_else(ended)?;
    Ok((text, bytes.len().saturating_sub(data.len())))
}

/// A copy in native order and row-major layout.
fn rearranged<const N: usize>(
    tensor: &Tensor,
    swap: bool,
    fortran: bool,
) -> Result<Tensor, CodecError>
where
    [u8; N]: Pod,
{
    let mut buffer = Buffer::zeroed(tensor.bytes().len());
    let to: &mut [[u8; N]] = buffer.elements_mut();
    let (from, _) = tensor.bytes().as_chunks::<N>();
    let dims = IxDyn(tensor.shape().dims());
    if fortran {
        let view = ArrayView::from_shape(dims.f(), from)
            .map_err(|_| CodecError::malformed("the data does not fill the shape").at("shape"))?;
        for (to, from) in to.iter_mut().zip(view.iter()) {
            *to = *from;
        }
    } else {
        to.copy_from_slice(from);
    }
    if swap {
        to.iter_mut().for_each(|element| element.reverse());
    }
    Tensor::view(tensor.dtype(), tensor.shape().clone(), Arc::new(buffer), 0)
        .ok_or_else(|| CodecError::malformed("the data does not fill the shape").at("shape"))
}

#[cfg(test)]
mod tests;

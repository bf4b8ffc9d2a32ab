//! NumPy's npy format, versions 1 to 3.
//!
//! Only plain numbers are read. Object arrays are pickles, which run code when
//! loaded; they and structured types are refused. The header, a Python
//! dictionary, is read by a parser that knows just the three keys it has.

use std::sync::Arc;

use bytemuck::Pod;
use ndarray::{ArrayView, IxDyn, ShapeBuilder};

use crate::tensor::{Buffer, DType, MAX_RANK, Shape, Tensor};

use super::{CodecError, Limits};

/// First bytes of a file.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header; NumPy's own for plain arrays stay below 1 KiB.
const MAX_HEADER: usize = 64 << 10;
/// The data starts at a multiple of this in what is written.
const ALIGNMENT: usize = 64;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran: bool,
    dims: Vec<usize>,
}

/// Reads a file. The tensor is a view of `buffer` where the file is in C order
/// and little-endian; otherwise it is rearranged once.
///
/// # Errors
/// [`CodecError`] names the header key or the offset at fault.
pub fn read(buffer: Arc<Buffer>, limits: &Limits) -> Result<Tensor, CodecError> {
    let (text, start) = header_text(buffer.bytes())?;
    let header = Parser { text, position: 0 }.header()?;
    let shape = Shape::new(header.dims.clone())
        .map_err(|error| CodecError::malformed(error.to_string()).at("header, shape"))?;
    if shape.len() > limits.max_elements {
        return Err(CodecError::too_large(format!("more than {} elements", limits.max_elements))
            .at("header, shape"));
    }
    let expected = shape.len().saturating_mul(header.dtype.size());
    let found = buffer.bytes().len().saturating_sub(start);
    if expected != found {
        return Err(CodecError::malformed(format!(
            "{shape} of {} is {expected} bytes, {found} follow the header",
            header.dtype
        ))
        .at_offset(start));
    }
    let view = Tensor::view(header.dtype, shape, buffer, start)
        .ok_or_else(|| CodecError::malformed("the data is cut short").at_offset(start))?;
    let native = if header.big_endian { swapped(&view) } else { Some(view) };
    let fortran = header.fortran && header.dims.len() > 1;
    native
        .and_then(|tensor| if fortran { c_order(&tensor) } else { Some(tensor) })
        .ok_or_else(|| CodecError::malformed("the data could not be rearranged"))
}

/// The header of a file of those elements, padded so that they are aligned.
/// NumPy has no name for BF16; it is written as two opaque bytes.
#[must_use]
pub fn header(dtype: DType, shape: &Shape) -> Vec<u8> {
    let descr = match dtype {
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
    };
    let mut dims = shape.dims().iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    if shape.rank() == 1 {
        dims.push(',');
    }
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let mut file = MAGIC.to_vec();
    file.extend([1, 0, 0, 0]);
    let prefix = file.len();
    file.extend(text.as_bytes());
    // One byte more for the newline that ends a header.
    let padded = file.len().saturating_add(1).next_multiple_of(ALIGNMENT);
    file.resize(padded.saturating_sub(1), b' ');
    file.push(b'\n');
    let len = u16::try_from(file.len().saturating_sub(prefix)).unwrap_or(u16::MAX);
    if let Some([.., low, high]) = file.get_mut(..prefix) {
        [*low, *high] = len.to_le_bytes();
    }
    file
}

/// The dictionary and where the data starts.
fn header_text(bytes: &[u8]) -> Result<(&[u8], usize), CodecError> {
    let short = || CodecError::malformed("shorter than an npy header").at_offset(0);
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| CodecError::malformed("does not start as an npy file").at_offset(0))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (len, rest, prefix) = match version {
        [1, 0] => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
            (usize::from(u16::from_le_bytes(*len)), rest, 10_usize)
        }
        [2 | 3, 0] => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            (usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX), rest, 12)
        }
        _ => {
            return Err(CodecError::unsupported("an npy version that is not read")
                .at_offset(6)
                .cure("versions 1.0, 2.0 and 3.0 are"));
        }
    };
    if len > MAX_HEADER {
        return Err(CodecError::too_large(format!("the header is longer than {MAX_HEADER} bytes"))
            .at_offset(8));
    }
    let text = rest.get(..len).ok_or_else(short)?;
    Ok((text, prefix.saturating_add(len)))
}

/// The tensor with the bytes of each element reversed.
fn swapped(tensor: &Tensor) -> Option<Tensor> {
    let mut buffer = Buffer::copy_of(tensor.bytes());
    buffer.bytes_mut().chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
    Tensor::view(tensor.dtype(), tensor.shape().clone(), Arc::new(buffer), 0)
}

/// The elements of a Fortran-order file in C order.
fn c_order(tensor: &Tensor) -> Option<Tensor> {
    fn rearrange<T: Pod>(tensor: &Tensor) -> Option<Tensor> {
        let elements = tensor.elements::<T>();
        let shape = IxDyn(tensor.shape().dims()).f();
        let view = ArrayView::from_shape(shape, &elements).ok()?;
        let ordered = view.as_standard_layout();
        Tensor::from_elements(tensor.dtype(), tensor.shape().clone(), ordered.as_slice()?)
    }
    match tensor.dtype().size() {
        8 => rearrange::<u64>(tensor),
        4 => rearrange::<u32>(tensor),
        2 => rearrange::<u16>(tensor),
        _ => rearrange::<u8>(tensor),
    }
}

/// A parser for `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
struct Parser<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, detail: &'static str) -> CodecError {
        CodecError::malformed(detail).at(format!("header, byte {}", self.position))
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn take(&mut self, token: &[u8]) -> bool {
        while self.rest().first().is_some_and(|byte| b" \n".contains(byte)) {
            self.position = self.position.saturating_add(1);
        }
        let found = self.rest().starts_with(token);
        self.position = self.position.saturating_add(if found { token.len() } else { 0 });
        found
    }

    fn header(mut self) -> Result<Header, CodecError> {
        let (mut descr, mut fortran, mut dims) = (None, None, None);
        if !self.take(b"{") {
            return Err(self.error("not a dictionary"));
        }
        while !self.take(b"}") {
            let key = self.string()?;
            if !self.take(b":") {
                return Err(self.error("expected a colon"));
            }
            let new = match key {
                b"descr" => descr.replace(self.descr()?).is_none(),
                b"fortran_order" => fortran.replace(self.boolean()?).is_none(),
                b"shape" => dims.replace(self.tuple()?).is_none(),
                _ => return Err(self.error("an unknown key")),
            };
            if !new {
                return Err(self.error("a key given twice"));
            }
            if !self.take(b",") && !self.rest().trim_ascii_start().starts_with(b"}") {
                return Err(self.error("expected a comma or the end of the dictionary"));
            }
        }
        self.take(b"");
        if !self.rest().is_empty() {
            return Err(self.error("text after the dictionary"));
        }
        match (descr, fortran, dims) {
            (Some((dtype, big_endian)), Some(fortran), Some(dims)) => {
                Ok(Header { dtype, big_endian, fortran, dims })
            }
            _ => Err(self.error("descr, fortran_order or shape is missing")),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], CodecError> {
        let quote = if self.take(b"'") {
            b'\''
        } else if self.take(b"\"") {
            b'"'
        } else {
            return Err(self.error("expected a string"));
        };
        let rest = self.rest();
        let len = memchr::memchr(quote, rest).ok_or_else(|| self.error("a string without end"))?;
        self.position = self.position.saturating_add(len).saturating_add(1);
        Ok(rest.get(..len).unwrap_or_default())
    }

    fn boolean(&mut self) -> Result<bool, CodecError> {
        if self.take(b"True") {
            Ok(true)
        } else if self.take(b"False") {
            Ok(false)
        } else {
            Err(self.error("expected True or False"))
        }
    }

    /// Element type and whether it is big-endian.
    fn descr(&mut self) -> Result<(DType, bool), CodecError> {
        let refuse = |detail: &'static str, cure: &'static str| {
            Err(CodecError::unsupported(detail).at("header, descr").cure(cure))
        };
        if self.take(b"[") {
            return refuse("a structured type", "send one field as an array of its own");
        }
        let descr = self.string()?;
        let (order, name) = match descr {
            [order @ (b'<' | b'>' | b'=' | b'|'), name @ ..] => (*order, name),
            name => (b'=', name),
        };
        let dtype = match name {
            b"f8" => DType::F64,
            b"f4" => DType::F32,
            b"f2" => DType::F16,
            b"i8" => DType::I64,
            b"i4" => DType::I32,
            b"i2" => DType::I16,
            b"i1" => DType::I8,
            b"u8" => DType::U64,
            b"u4" => DType::U32,
            b"u2" => DType::U16,
            b"u1" => DType::U8,
            b"O" => return refuse("Python objects, which are never read", "convert to numbers"),
            b"b1" | b"?" => return refuse("booleans", "convert with .astype('u1')"),
            b"V2" => {
                return refuse(
                    "opaque elements of 2 bytes",
                    "bfloat16 has no npy name: send safetensors",
                );
            }
            [b'c', ..] => return refuse("complex numbers", "send real and imaginary part"),
            _ => return refuse("an element type that is not read", "convert with .astype('f4')"),
        };
        Ok((dtype, order == b'>' && dtype.size() > 1))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, CodecError> {
        if !self.take(b"(") {
            return Err(self.error("expected a tuple"));
        }
        let mut dims = Vec::new();
        while !self.take(b")") {
            if dims.len() >= MAX_RANK {
                return Err(self.error("more than 8 dimensions"));
            }
            dims.push(self.size()?);
            let comma = self.take(b",");
            let end = self.rest().trim_ascii_start().starts_with(b")");
            // `(3)` is a number in Python, `(3,)` a tuple.
            if !comma && (!end || dims.len() == 1) {
                return Err(self.error("expected a comma"));
            }
        }
        Ok(dims)
    }

    fn size(&mut self) -> Result<usize, CodecError> {
        self.take(b"");
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        let size = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| self.error("expected a size"))?;
        self.position = self.position.saturating_add(digits);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Arc<Buffer> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        let len = header.len().to_le_bytes();
        bytes.extend(&len[..if version == 1 { 2 } else { 4 }]);
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        Arc::new(Buffer::copy_of(&bytes))
    }

    fn plain(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
    }

    #[track_caller]
    fn refused(header: &str, expect: &str) {
        let error = read(file(1, header, &[0; 8]), &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn orders_and_versions() {
        let bytes: Vec<u8> = (1..=6).collect();
        for version in 1..=3 {
            let c =
                read(file(version, &plain("|u1", "False", "(2, 3)"), &bytes), &Limits::default());
            assert_eq!(c.unwrap().bytes(), [1, 2, 3, 4, 5, 6]);
            let f =
                read(file(version, &plain("|u1", "True", "(2, 3)"), &bytes), &Limits::default());
            assert_eq!(f.unwrap().bytes(), [1, 3, 5, 2, 4, 6]);
        }
        let big =
            read(file(1, &plain(">i2", "False", "(3,)"), &bytes), &Limits::default()).unwrap();
        assert_eq!(&*big.elements::<i16>(), [0x0102, 0x0304, 0x0506]);
        let scalar =
            read(file(1, &plain("<f4", "False", "()"), &1.5_f32.to_le_bytes()), &Limits::default());
        assert_eq!(scalar.unwrap().shape(), &Shape::scalar());
        let empty =
            read(file(1, &plain("<f4", "True", "(0, 3)"), &[]), &Limits::default()).unwrap();
        assert_eq!(empty.shape().dims(), [0, 3]);
    }

    #[test]
    fn what_is_written_is_read_here_and_by_ndarray() {
        let shape = Shape::new(vec![2, 2]).unwrap();
        let mut bytes = header(DType::F32, &shape);
        assert_eq!(bytes.len() % 64, 0);
        let numbers = [1.0_f32, -2.5, 3.25, 0.0];
        bytes.extend(bytemuck::cast_slice::<f32, u8>(&numbers));
        let tensor = read(Arc::new(Buffer::copy_of(&bytes)), &Limits::default()).unwrap();
        assert_eq!(&*tensor.elements::<f32>(), numbers);
        let array = <ndarray::Array2<f32> as ndarray_npy::ReadNpyExt>::read_npy(&*bytes).unwrap();
        assert_eq!(array.as_slice().unwrap(), numbers);
    }

    #[test]
    fn hostile_headers_are_named() {
        refused(
            &plain("|O", "False", "(2,)"),
            "header, descr: Python objects, which are never read",
        );
        refused(&plain("<c8", "False", "(1,)"), "header, descr: complex numbers");
        refused(&plain("|b1", "False", "(8,)"), "header, descr: booleans");
        refused(
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "header, descr: a structured type",
        );
        refused(
            &plain("<f4", "False", "(3,)"),
            "byte 68: [3] of F32 is 12 bytes, 8 follow the header",
        );
        refused(&plain("<f4", "False", "(2)"), "header, byte 58: expected a comma");
        refused(&plain("<f4", "False", "(-1,)"), "header, byte 57: expected a size");
        refused(
            &plain("<f4", "False", "(1099511627776,)"),
            "header, shape: dimension 0 is above 2^31",
        );
        refused(
            &plain("<f4", "False", "(99999999999999999999999,)"),
            "header, byte 57: expected a size",
        );
        refused(
            &plain("<f4", "False", "(1,1,1,1,1,1,1,1,1)"),
            "header, byte 73: more than 8 dimensions",
        );
        refused(&plain("<f4", "maybe", "(2,)"), "header, byte 35: expected True or False");
        refused(
            "{'descr': '<f4', 'shape': (2,)}",
            "header, byte 31: descr, fortran_order or shape is missing",
        );
        refused("{'shape': (2,), 'shape': (2,)}", "header, byte 29: a key given twice");
        refused("{'shape': (2,), 'x': 1}", "header, byte 20: an unknown key");
        refused("[]", "header, byte 0: not a dictionary");
        refused("{'descr': '<f4", "header, byte 11: a string without end");
        let error = |bytes: &[u8]| {
            read(Arc::new(Buffer::copy_of(bytes)), &Limits::default()).unwrap_err().to_string()
        };
        assert_eq!(
            error(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
            "byte 8: the header is longer than 65536 bytes"
        );
        assert_eq!(error(b"\x93NUMPY\x01\x00\xff\x00{"), "byte 0: shorter than an npy header");
        assert_eq!(error(b"\x93NUMPY\x04\x00"), "byte 6: an npy version that is not read");
        assert_eq!(error(b"PK"), "byte 0: does not start as an npy file");
    }
}

//! Tensors as nested JSON arrays, compact.
//!
//! Codes of eight bits come from a table of finished text; other integers are
//! written two digits at a time; floats are the shortest text that reads back as
//! the same number. Numbers that JSON lacks are the strings `"NaN"`,
//! `"Infinity"` and `"-Infinity"`.

use bytemuck::Pod;
use half::{bf16, f16};

use super::text::Text;
use crate::CodecError;
use quantd_core::tensor::{DType, Shape, Tensor};

/// Rows of an empty tensor that are written out. A shape such as `[2^31, 0]`
/// has no elements, but would take gigabytes of brackets; above this bound an
/// empty tensor is written as `[]`.
const MAX_EMPTY_ROWS: usize = 1 << 16;

/// Appends a tensor of any dtype. A scalar is a bare number. `F16` and `BF16`
/// are written as the f32 of the same value, floats of eight bits as their bit patterns.
///
/// # Errors
/// There is no room for the text.
pub fn write_tensor(out: &mut Text<'_>, tensor: &Tensor) -> Result<(), CodecError> {
    let shape = tensor.shape();
    match tensor.dtype() {
        DType::F64 => write_reals_f64(out, &tensor.elements(), shape),
        DType::F32 => write_reals_f32(out, &tensor.elements(), shape),
        DType::F16 => write_nested(out, shape, &tensor.elements::<f16>(), |out, row| {
            write_floats(out, row, f16::to_f32)
        }),
        DType::BF16 => write_nested(out, shape, &tensor.elements::<bf16>(), |out, row| {
            write_floats(out, row, bf16::to_f32)
        }),
        DType::I64 => integers::<i64>(out, tensor),
        DType::I32 => integers::<i32>(out, tensor),
        DType::I16 => integers::<i16>(out, tensor),
        DType::U64 => integers::<u64>(out, tensor),
        DType::U32 => integers::<u32>(out, tensor),
        DType::U16 => integers::<u16>(out, tensor),
        DType::I8 => {
            write_nested(out, shape, tensor.bytes(), |out, row| write_codes(out, row, &SIGNED))
        }
        DType::U8
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::F8E4M3Fnuz
        | DType::F8E5M2Fnuz
        | DType::F8E8M0 => {
            write_nested(out, shape, tensor.bytes(), |out, row| write_codes(out, row, &UNSIGNED))
        }
    }
}

/// Most bytes of text for a number of a tensor of that type, with its comma.
#[must_use]
pub const fn text_of_one(dtype: DType) -> usize {
    match dtype {
        DType::F64 => FLOAT,
        DType::F32 | DType::F16 | DType::BF16 => 17,
        DType::I64 | DType::U64 => INTEGER,
        DType::I32 | DType::U32 => 12,
        DType::I16 | DType::U16 => 7,
        DType::I8 | DType::U8 => 5,
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => 5,
    }
}

/// Appends f64 numbers, nested as `shape` says, which must have as many elements.
///
/// # Errors
/// There is no room for the text.
pub fn write_reals_f64(
    out: &mut Text<'_>,
    values: &[f64],
    shape: &Shape,
) -> Result<(), CodecError> {
    write_nested(out, shape, values, |out, row| write_floats(out, row, |x| x))
}

/// Appends f32 numbers, nested as `shape` says, which must have as many elements.
///
/// # Errors
/// There is no room for the text.
pub fn write_reals_f32(
    out: &mut Text<'_>,
    values: &[f32],
    shape: &Shape,
) -> Result<(), CodecError> {
    write_nested(out, shape, values, |out, row| write_floats(out, row, |x| x))
}

/// Appends a string, quoted and escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for chunk in text.as_bytes().chunk_by(|a, b| plain(*a) && plain(*b)) {
        match chunk {
            [b'"'] => out.extend(b"\\\""),
            [b'\\'] => out.extend(b"\\\\"),
            [b'\n'] => out.extend(b"\\n"),
            [b'\r'] => out.extend(b"\\r"),
            [b'\t'] => out.extend(b"\\t"),
            [control] if !plain(*control) => {
                out.extend(format!("\\u{control:04x}").as_bytes());
            }
            text => out.extend(text),
        }
    }
    out.push(b'"');
}

const fn plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// Appends brackets as `shape` says around what `row` appends for each
/// innermost row, or for the element of a scalar.
fn write_nested<T>(
    out: &mut Text<'_>,
    shape: &Shape,
    elements: &[T],
    row: impl Fn(&mut Text<'_>, &[T]) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    debug_assert_eq!(elements.len(), shape.len());
    if shape.is_empty() {
        let outer = shape.dims().iter().take_while(|&&dim| dim != 0);
        let rows = outer.copied().try_fold(1_usize, usize::checked_mul);
        if rows.is_none_or(|rows| rows > MAX_EMPTY_ROWS) {
            return out.push(b"[]");
        }
    }
    nest(out, shape.dims(), elements, &row)
}

/// Recurses once a dimension, of which a shape has few.
fn nest<T>(
    out: &mut Text<'_>,
    dims: &[usize],
    elements: &[T],
    row: &impl Fn(&mut Text<'_>, &[T]) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let Some((&count, inner)) = dims.split_first() else { return row(out, elements) };
    out.next(1)?.push(b'[');
    if inner.is_empty() {
        row(out, elements)?;
    } else {
        let stride = elements.len().checked_div(count).unwrap_or(0);
        let mut rest = elements;
        for i in 0..count {
            if i > 0 {
                out.next(1)?.push(b',');
            }
            let (part, tail) = rest.split_at_checked(stride).unwrap_or((rest, &[]));
            nest(out, inner, part, row)?;
            rest = tail;
        }
    }
    out.next(1)?.push(b']');
    Ok(())
}

/// Text of one code and the comma behind it, then the length of both.
type Piece = [u8; 8];

static UNSIGNED: [Piece; 256] = pieces(false);
static SIGNED: [Piece; 256] = pieces(true);

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where an overflow or a bad index is a build error"
)]
const fn pieces(signed: bool) -> [Piece; 256] {
    let mut table = [[0; 8]; 256];
    let mut code = 0;
    while code < 256 {
        let negative = signed && code > 127;
        let value = if negative { 256 - code } else { code };
        let mut piece = [0; 8];
        let mut len = 0;
        if negative {
            piece[0] = b'-';
            len = 1;
        }
        let mut unit = 100;
        while unit > 0 {
            if value >= unit || unit == 1 {
                piece[len] = b'0' + (value / unit % 10) as u8;
                len += 1;
            }
            unit /= 10;
        }
        piece[len] = b',';
        piece[7] = len as u8 + 1;
        table[code] = piece;
        code += 1;
    }
    table
}

/// Text is collected here before it is appended: one bounds check of the
/// vector for many numbers.
const BLOCK: usize = 4096;
/// Sign, twenty digits and a comma.
const INTEGER: usize = 22;
/// Longest text of a float, and a comma.
const FLOAT: usize = 26;
/// Codes that fit a block whatever their text.
const PIECES: usize = BLOCK / size_of::<Piece>();

/// Appends 8-bit codes, separated by commas. Every piece is copied whole, the
/// part behind its text is overwritten by the next.
fn write_codes(out: &mut Text<'_>, codes: &[u8], table: &[Piece; 256]) -> Result<(), CodecError> {
    let mut block = [0_u8; BLOCK];
    for part in codes.chunks(PIECES) {
        let mut used = 0_usize;
        for &code in part {
            let Some(piece) = table.get(usize::from(code)) else { continue };
            let Some(room) = block.get_mut(used..).and_then(|rest| rest.first_chunk_mut()) else {
                break;
            };
            *room = *piece;
            used = used.wrapping_add(usize::from(piece[7]));
        }
        out.next(used)?.extend_from_slice(block.get(..used).unwrap_or_default());
    }
    drop_comma(out, codes.len());
    Ok(())
}

/// Removes the comma behind the last of `count` elements.
fn drop_comma(out: &mut Text<'_>, count: usize) {
    if count > 0 {
        out.pop();
    }
}

/// "00" to "99".
static PAIRS: [[u8; 2]; 100] = pairs();

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where an overflow or a bad index is a build error"
)]
const fn pairs() -> [[u8; 2]; 100] {
    let mut table = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
}

/// An integer as sign and magnitude.
trait Integer: Pod {
    fn parts(self) -> (bool, u64);
}

macro_rules! integer {
    (signed: $($type:ty),*) => {$(
        impl Integer for $type {
            fn parts(self) -> (bool, u64) {
                (self < 0, u64::from(self.unsigned_abs()))
            }
        }
    )*};
    (unsigned: $($type:ty),*) => {$(
        impl Integer for $type {
            fn parts(self) -> (bool, u64) {
                (false, u64::from(self))
            }
        }
    )*};
}

integer!(signed: i64, i32, i16);
integer!(unsigned: u64, u32, u16);

fn integers<T: Integer>(out: &mut Text<'_>, tensor: &Tensor) -> Result<(), CodecError> {
    write_nested(out, tensor.shape(), &tensor.elements::<T>(), |out, row| {
        let mut text = [0_u8; INTEGER];
        for part in row.chunks(BLOCK / INTEGER) {
            let room = out.next(part.len().saturating_mul(INTEGER))?;
            for &value in part {
                let (negative, magnitude) = value.parts();
                let start = write_backwards(&mut text, negative, magnitude);
                room.extend_from_slice(text.get(start..).unwrap_or_default());
            }
        }
        drop_comma(out, row.len());
        Ok(())
    })
}

/// Writes number and comma at the end of `text`, and returns where they start.
#[inline]
fn write_backwards(text: &mut [u8; INTEGER], negative: bool, mut value: u64) -> usize {
    let mut start = text.len();
    let mut put = |byte: u8| {
        start = start.wrapping_sub(1);
        if let Some(slot) = text.get_mut(start) {
            *slot = byte;
        }
    };
    put(b',');
    while value >= 10 {
        let pair = usize::try_from(value % 100).ok().and_then(|pair| PAIRS.get(pair));
        let [tens, ones] = pair.copied().unwrap_or_default();
        put(ones);
        put(tens);
        value /= 100;
    }
    // A number of two digits more ended in a pair, except when it was zero.
    if value > 0 || start == INTEGER - 1 {
        start = start.wrapping_sub(1);
        if let Some(slot) = text.get_mut(start) {
            *slot = b'0' | value.to_le_bytes()[0];
        }
    }
    if negative {
        start = start.wrapping_sub(1);
        if let Some(slot) = text.get_mut(start) {
            *slot = b'-';
        }
    }
    start
}

/// Appends floats, separated by commas.
fn write_floats<S: Copy, T: zmij::Float + Into<f64>>(
    out: &mut Text<'_>,
    row: &[S],
    to: impl Fn(S) -> T,
) -> Result<(), CodecError> {
    let mut buffer = zmij::Buffer::new();
    for part in row.chunks(BLOCK / FLOAT) {
        let room = out.next(part.len().saturating_mul(FLOAT))?;
        for &value in part {
            let value = to(value);
            let wide: f64 = value.into();
            if wide.is_finite() {
                room.extend_from_slice(buffer.format_finite(value).as_bytes());
            } else {
                room.extend_from_slice(non_finite(wide));
            }
            room.push(b',');
        }
    }
    drop_comma(out, row.len());
    Ok(())
}

#[cold]
fn non_finite(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"\"NaN\""
    } else if value > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    }
}

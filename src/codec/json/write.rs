//! Tensors as nested arrays.

use half::{bf16, f16};

use crate::tensor::{DType, Tensor};

/// Appends a tensor: nested arrays, a bare number for a scalar. Floats have
/// the shortest text that gives the same number back; what is not finite is
/// quoted.
pub fn write_tensor(out: &mut Vec<u8>, tensor: &Tensor) {
    let dims = tensor.shape().dims();
    match tensor.dtype() {
        DType::F64 => nested(out, &tensor.elements::<f64>(), dims, float_row(|x: f64| x)),
        DType::F32 => nested(out, &tensor.elements::<f32>(), dims, float_row(|x: f32| x)),
        DType::F16 => {
            nested(out, &tensor.elements::<f16>(), dims, float_row(f16::to_f32));
        }
        DType::BF16 => {
            nested(out, &tensor.elements::<bf16>(), dims, float_row(bf16::to_f32));
        }
        DType::I8 => nested(out, tensor.bytes(), dims, |out, row| byte_row(out, row, &SIGNED)),
        DType::U8 => nested(out, tensor.bytes(), dims, |out, row| byte_row(out, row, &UNSIGNED)),
        DType::I64 => nested(out, &tensor.elements::<i64>(), dims, integer_row),
        DType::I32 => nested(out, &tensor.elements::<i32>(), dims, integer_row),
        DType::I16 => nested(out, &tensor.elements::<i16>(), dims, integer_row),
        DType::U64 => nested(out, &tensor.elements::<u64>(), dims, integer_row),
        DType::U32 => nested(out, &tensor.elements::<u32>(), dims, integer_row),
        DType::U16 => nested(out, &tensor.elements::<u16>(), dims, integer_row),
    }
}

/// Appends a string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing text to memory has no way to fail.
    drop(serde_json::to_writer(out, text));
}

/// Brackets around rows; `row` appends numbers with a comma after each.
fn nested<T>(
    out: &mut Vec<u8>,
    elements: &[T],
    dims: &[usize],
    row: impl Fn(&mut Vec<u8>, &[T]) + Copy,
) {
    match dims {
        [] => {
            row(out, elements);
            out.pop();
        }
        [_] => {
            out.push(b'[');
            row(out, elements);
            if !elements.is_empty() {
                out.pop();
            }
            out.push(b']');
        }
        [count, inner @ ..] => {
            out.push(b'[');
            let size = elements.len().checked_div(*count).unwrap_or(0);
            let mut rest = elements;
            for i in 0..*count {
                if i > 0 {
                    out.push(b',');
                }
                let (own, tail) = rest.split_at_checked(size).unwrap_or((rest, &[]));
                rest = tail;
                nested(out, own, inner, row);
            }
            out.push(b']');
        }
    }
}

fn float_row<T: Copy, F: zmij::Float + Into<f64> + Copy>(
    widen: impl Fn(T) -> F + Copy,
) -> impl Fn(&mut Vec<u8>, &[T]) + Copy {
    move |out, row| {
        let mut text = zmij::Buffer::new();
        for &x in row {
            let x = widen(x);
            let value: f64 = x.into();
            out.extend_from_slice(match value {
                _ if value.is_finite() => text.format_finite(x).as_bytes(),
                _ if value.is_nan() => b"\"NaN\"",
                _ if value > 0.0 => b"\"Infinity\"",
                _ => b"\"-Infinity\"",
            });
            out.push(b',');
        }
    }
}

fn integer_row<T: itoa::Integer + Copy>(out: &mut Vec<u8>, row: &[T]) {
    let mut text = itoa::Buffer::new();
    for &x in row {
        out.extend_from_slice(text.format(x).as_bytes());
        out.push(b',');
    }
}

/// Text of each byte with a comma, and its length in the last place.
type Table = [[u8; 8]; 256];
const UNSIGNED: Table = table(false);
const SIGNED: Table = table(true);

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "all bytes, in order"
)]
const fn table(signed: bool) -> Table {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = if signed { (byte as u8 as i8) as i32 } else { byte as i32 };
        let magnitude = value.unsigned_abs();
        let mut len = 0;
        if value < 0 {
            table[byte][len] = b'-';
            len += 1;
        }
        let mut unit = if magnitude >= 100 {
            100
        } else if magnitude >= 10 {
            10
        } else {
            1
        };
        while unit > 0 {
            table[byte][len] = b'0' + (magnitude / unit % 10) as u8;
            len += 1;
            unit /= 10;
        }
        table[byte][len] = b',';
        table[byte][7] = len as u8 + 1;
        byte += 1;
    }
    table
}

/// Appends bytes through a table: eight bytes are copied for each, of which
/// the next one overwrites what is too much.
fn byte_row(out: &mut Vec<u8>, row: &[u8], table: &Table) {
    const BLOCK: usize = 512;
    let mut block = [0; BLOCK * 5 + 8];
    for codes in row.chunks(BLOCK) {
        let mut end = 0_usize;
        for &code in codes {
            let Some(text) = table.get(usize::from(code)) else { continue };
            if let Some(place) = block.get_mut(end..).and_then(|rest| rest.first_chunk_mut::<8>()) {
                *place = *text;
            }
            let [.., len] = *text;
            end = end.wrapping_add(usize::from(len));
        }
        out.extend_from_slice(block.get(..end).unwrap_or_default());
    }
}

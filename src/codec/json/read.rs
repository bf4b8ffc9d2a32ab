//! Nested arrays of numbers into the buffer of a tensor.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use half::{bf16, f16};

use crate::codec::{CodecError, Limits};
use crate::tensor::{Buffer, DType, MAX_RANK, Shape, Tensor};

use super::number::{Element, Fault};

/// Reads a number, or arrays of numbers nested up to 8 deep, as a tensor of
/// `dtype`. Without a `shape` the nesting gives it; with one, the data has
/// that nesting or is flat. `pointer` is where the text stands.
///
/// # Errors
/// [`CodecError`] at the element at fault.
pub fn read_tensor(
    text: &[u8],
    dtype: DType,
    shape: Option<&Shape>,
    pointer: &str,
    limits: &Limits,
) -> Result<Tensor, CodecError> {
    let mut reader = Reader::new(text, pointer);
    let (buffer, dims) = match dtype {
        DType::F64 => reader.read::<f64>(limits),
        DType::F32 => reader.read::<f32>(limits),
        DType::F16 => reader.read::<f16>(limits),
        DType::BF16 => reader.read::<bf16>(limits),
        DType::I64 => reader.read::<i64>(limits),
        DType::I32 => reader.read::<i32>(limits),
        DType::I16 => reader.read::<i16>(limits),
        DType::I8 => reader.read::<i8>(limits),
        DType::U64 => reader.read::<u64>(limits),
        DType::U32 => reader.read::<u32>(limits),
        DType::U16 => reader.read::<u16>(limits),
        DType::U8 => reader.read::<u8>(limits),
    }?;
    let bad = |detail: String| CodecError::malformed(detail).at(pointer);
    let nested = Shape::new(dims).map_err(|error| bad(error.to_string()))?;
    let shape = match shape {
        None => nested,
        Some(shape) if *shape == nested => nested,
        Some(shape) if nested.rank() == 1 && nested.len() == shape.len() => shape.clone(),
        Some(shape) => {
            return Err(bad(format!("the data has shape {nested}, not {shape}"))
                .cure("nest the data as its shape says, or send it flat"));
        }
    };
    Tensor::view(dtype, shape, Arc::new(buffer), 0)
        .ok_or_else(|| bad("the data does not fit its shape".to_owned()))
}

/// Reads a string of base64 (padding optional) as the little-endian elements of a tensor.
///
/// # Errors
/// [`CodecError`] at `pointer` when it is not base64 or not of the shape's length.
pub fn read_base64(
    text: &[u8],
    dtype: DType,
    shape: &Shape,
    pointer: &str,
    limits: &Limits,
) -> Result<Tensor, CodecError> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    let bad = |detail: String| CodecError::malformed(detail).at(pointer);
    if shape.len() > limits.max_elements {
        return Err(too_many(limits).at(pointer));
    }
    let [b'"', encoded @ .., b'"'] = text else {
        return Err(bad("not a string".to_owned()));
    };
    let expected = shape.len().saturating_mul(dtype.size());
    let mut buffer = Buffer::zeroed(base64::decoded_len_estimate(encoded.len()).max(expected));
    let len = ENGINE
        .decode_slice(encoded, buffer.bytes_mut())
        .map_err(|_| bad("not base64".to_owned()))?;
    if len != expected {
        return Err(bad(format!("{shape} of {dtype} is {expected} bytes, the text has {len}")));
    }
    buffer.truncate(len);
    Tensor::view(dtype, shape.clone(), Arc::new(buffer), 0)
        .ok_or_else(|| bad("the data does not fit its shape".to_owned()))
}

fn too_many(limits: &Limits) -> CodecError {
    CodecError::too_large(format!("more than {} elements", limits.max_elements))
}

/// The place in the text and in the nesting.
struct Reader<'a> {
    text: &'a [u8],
    position: usize,
    pointer: &'a str,
    /// Index of the current item on each open level.
    index: [usize; MAX_RANK],
    /// Open levels.
    depth: usize,
    /// Items of an array of each level, once one has been closed.
    dims: [Option<usize>; MAX_RANK],
    /// Level of the numbers, once one has been seen.
    leaf: Option<usize>,
}

impl<'a> Reader<'a> {
    const fn new(text: &'a [u8], pointer: &'a str) -> Self {
        Self {
            text,
            position: 0,
            pointer,
            index: [0; MAX_RANK],
            depth: 0,
            dims: [None; MAX_RANK],
            leaf: None,
        }
    }

    /// An error at the current item.
    fn error(&self, detail: impl Into<std::borrow::Cow<'static, str>>) -> CodecError {
        let mut at = self.pointer.to_owned();
        for index in self.index.iter().take(self.depth) {
            at.push('/');
            at.push_str(&index.to_string());
        }
        CodecError::malformed(detail).at(at)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn advance(&mut self, by: usize) {
        self.position = self.position.saturating_add(by);
    }

    /// The next byte that is not white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.position) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.advance(1),
                next => return next.copied(),
            }
        }
    }

    fn read<T: Element>(&mut self, limits: &Limits) -> Result<(Buffer, Vec<usize>), CodecError> {
        // Every array of k items has k - 1 commas, so that n numbers have n - 1.
        let most = memchr::memchr_iter(b',', self.text).count().saturating_add(1);
        if most > limits.max_elements {
            return Err(too_many(limits).at(self.pointer));
        }
        let mut buffer = Buffer::zeroed(most.saturating_mul(size_of::<T>()));
        let mut slots = buffer.elements_mut::<T>().iter_mut();
        let mut count = 0_usize;
        loop {
            if self.peek() == Some(b'[') {
                self.open()?;
                if self.peek() != Some(b']') {
                    continue;
                }
            } else {
                let value = self.scalar()?;
                if let Some(slot) = slots.next() {
                    *slot = value;
                    count = count.saturating_add(1);
                }
                if let Some(index) = self.depth.checked_sub(1).and_then(|at| self.index.get_mut(at))
                {
                    *index = index.saturating_add(1);
                }
            }
            if self.close_and_step()? {
                break;
            }
        }
        if self.peek().is_some() {
            return Err(self.error("text after the end of the array"));
        }
        buffer.truncate(count.saturating_mul(size_of::<T>()));
        Ok((buffer, self.dims.iter().map_while(|dim| *dim).collect()))
    }

    fn open(&mut self) -> Result<(), CodecError> {
        if self.leaf.is_some_and(|leaf| self.depth >= leaf) {
            return Err(self
                .error("an array beside numbers")
                .cure("all rows need the same length and depth"));
        }
        let Some(index) = self.index.get_mut(self.depth) else {
            return Err(self.error(format!("nested more than {MAX_RANK} deep")));
        };
        *index = 0;
        self.depth = self.depth.saturating_add(1);
        self.advance(1);
        Ok(())
    }

    /// After an item: closes the arrays that end here and steps over a comma.
    /// Whether the outermost has ended.
    fn close_and_step(&mut self) -> Result<bool, CodecError> {
        loop {
            if self.depth == 0 {
                return Ok(true);
            }
            match self.peek() {
                Some(b']') => self.close()?,
                Some(b',') => {
                    self.advance(1);
                    return Ok(false);
                }
                Some(_) => return Err(self.error("expected a comma or the end of the array")),
                None => return Err(self.error("the array does not end")),
            }
        }
    }

    fn close(&mut self) -> Result<(), CodecError> {
        self.advance(1);
        self.depth = self.depth.saturating_sub(1);
        let items = self.index.get(self.depth).copied().unwrap_or_default();
        let known = self.dims.get_mut(self.depth);
        if let Some(known) = known {
            let expected = *known.get_or_insert(items);
            if expected != items {
                let detail = format!("{items} items, but {expected} in the arrays before");
                return Err(self.error(detail).cure("all rows need the same length and depth"));
            }
        }
        if let Some(index) = self.depth.checked_sub(1).and_then(|at| self.index.get_mut(at)) {
            *index = index.saturating_add(1);
        }
        Ok(())
    }

    fn scalar<T: Element>(&mut self) -> Result<T, CodecError> {
        let leaf = *self.leaf.get_or_insert(self.depth);
        let empty_below = self.dims.get(self.depth).is_some_and(Option::is_some);
        if leaf != self.depth || empty_below {
            return Err(self
                .error("a number beside arrays")
                .cure("all rows need the same length and depth"));
        }
        match T::parse(self.rest()) {
            Ok((value, len)) => {
                self.advance(len);
                // Anything but a separator belongs to the number and makes it none.
                match self.text.get(self.position) {
                    None | Some(b',' | b']' | b' ' | b'\t' | b'\r' | b'\n') => Ok(value),
                    Some(_) => Err(self.error("not a number")),
                }
            }
            Err(Fault::Syntax) => self.special(),
            Err(Fault::Overflow) => Err(self
                .error("above the largest number of its type")
                .cure("use a wider dtype, or the string \"Infinity\"")),
            Err(Fault::Fraction) => Err(self
                .error("not an integer")
                .cure("integer types take numbers without point or exponent")),
            Err(Fault::Range) => Err(self.error("outside of its integer type")),
        }
    }

    /// `"NaN"`, `"Infinity"`, `"-Infinity"`, or an error that tells what is wrong.
    fn special<T: Element>(&mut self) -> Result<T, CodecError> {
        const SPECIALS: [(&[u8], f64); 3] = [
            (b"\"NaN\"", f64::NAN),
            (b"\"Infinity\"", f64::INFINITY),
            (b"\"-Infinity\"", f64::NEG_INFINITY),
        ];
        let rest = self.rest();
        for (text, value) in SPECIALS {
            if rest.starts_with(text) {
                self.advance(text.len());
                return T::special(value)
                    .ok_or_else(|| self.error("an integer type has no such value"));
            }
        }
        let bare = [&b"NaN"[..], b"nan", b"Infinity", b"-Infinity", b"inf", b"null"];
        if bare.iter().any(|word| rest.starts_with(word)) {
            return Err(self
                .error("not a number")
                .cure("write \"NaN\", \"Infinity\" or \"-Infinity\" in quotes, or send binary"));
        }
        match rest.first() {
            None => Err(self.error("the array does not end")),
            Some(b'"') => Err(self.error("a string").cure("numbers stand without quotes; only \"NaN\", \"Infinity\" and \"-Infinity\" have them")),
            Some(b'{') => Err(self.error("an object").cure("tensors are nested arrays of numbers")),
            Some(_) => Err(self.error("not a number")),
        }
    }
}

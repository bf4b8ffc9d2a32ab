//! Nested arrays of numbers into one typed buffer.
//!
//! No tree, no vector per row: the number of commas bounds the elements, so the
//! buffer is taken once, and one pass fills it. The depth of the input is
//! bounded by [`MAX_RANK`] and costs no stack.

use bytemuck::Pod;
use half::{bf16, f16};

use super::number::{self, BFLOAT16, BINARY16, BINARY32, BINARY64};
use crate::CodecError;
use quantd_core::tensor::MAX_RANK;

/// Elements between two looks at whether to go on: some tenths of a millisecond.
const LOOK: usize = 1 << 14;

/// What can be wrong with one value; small, so that the hot path stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Ended,
    NotANumber,
    Null,
    Boolean,
    Object,
    BareNonFinite,
    String,
    PlusSign,
    LeadingZero,
    NoWhole,
    NoFraction,
    NoExponent,
    Overflow,
    NotAnInteger,
    Range,
    Separator,
    TrailingComma,
    TooDeep,
    Depth,
    Ragged,
    Trailing,
    Capacity,
    /// Not of the text: whoever waits for it has gone.
    Stopped,
}

impl Fault {
    /// Why `text` does not start with a number.
    #[cold]
    pub(super) fn of_non_number(text: &[u8]) -> Self {
        match text {
            [] => Self::Ended,
            [b'n', ..] => Self::Null,
            [b't' | b'f' | b'T' | b'F', ..] => Self::Boolean,
            [b'{', ..] => Self::Object,
            [b'"', ..] => Self::String,
            [b'N' | b'I', ..] | [b'-', b'N' | b'I', ..] => Self::BareNonFinite,
            [b'+', ..] => Self::PlusSign,
            [b'.', ..] | [b'-', b'.', ..] => Self::NoWhole,
            [b'[', ..] => Self::Depth,
            [b']', ..] => Self::TrailingComma,
            _ => Self::NotANumber,
        }
    }

    /// The error of an element type of that name, without its place.
    pub(super) fn error(self, dtype: &str, float: bool) -> CodecError {
        let detail = match (self, float) {
            (Self::Overflow, _) => format!("the number is above the largest finite {dtype}"),
            (Self::NotAnInteger, _) => {
                format!("{dtype} takes integers only, without point or exponent")
            }
            (Self::Range, _) => format!("the integer is out of range for {dtype}"),
            (Self::TooDeep, _) => format!("arrays are nested more than {MAX_RANK} deep"),
            (Self::String, false) => return Self::quoted_integer(),
            _ => return CodecError::malformed(self.detail()).cure(self.cure()),
        };
        CodecError::malformed(detail).cure(self.cure())
    }

    fn quoted_integer() -> CodecError {
        CodecError::malformed("a string is not an integer").cure(Self::String.cure())
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::Ended => "the value ends inside an array or a number",
            Self::Null => "null is not a number",
            Self::Boolean => "a boolean is not a number",
            Self::Object => "an object is not a number",
            Self::BareNonFinite => "NaN and Infinity are not JSON",
            Self::String => {
                "the only strings read as floats are \"NaN\", \"Infinity\" and \"-Infinity\""
            }
            Self::PlusSign => "a JSON number has no plus sign",
            Self::LeadingZero => "a JSON number has no leading zeros",
            Self::NoWhole => "a digit must precede the decimal point",
            Self::NoFraction => "a digit must follow the decimal point",
            Self::NoExponent => "a digit must follow the exponent sign",
            Self::Separator => "a comma or a closing bracket is expected here",
            Self::TrailingComma => "a value must follow the comma",
            Self::Depth => "numbers and arrays are mixed at one level",
            Self::Ragged => "the array is ragged: its length differs from its first sibling's",
            Self::Trailing => "the value is followed by other bytes",
            Self::Capacity => "there are more elements than commas allow",
            Self::Stopped => "the work was stopped",
            Self::NotANumber
            | Self::Overflow
            | Self::NotAnInteger
            | Self::Range
            | Self::TooDeep => "a number is expected here",
        }
    }

    const fn cure(self) -> &'static str {
        match self {
            Self::Null => "write the string \"NaN\" for a missing float, or send binary",
            Self::Boolean => "write 1 or 0",
            Self::BareNonFinite => {
                "write the string \"NaN\", \"Infinity\" or \"-Infinity\", or send binary"
            }
            Self::String => "write numbers without quotes",
            Self::NoWhole => "write 0.5, not .5",
            Self::NoFraction => "write 5.0 or 5, not 5.",
            Self::Overflow => {
                "write the string \"Infinity\" if infinity is meant, or use a wider dtype"
            }
            Self::NotAnInteger => "write 1, not 1.0 or 1e0, or use a float dtype",
            Self::Range => "use a wider dtype",
            Self::TooDeep => "send at most 8 dimensions",
            Self::Depth => "nest every element equally deep",
            Self::Ragged => "make all rows of one level equally long",
            Self::Ended
            | Self::NotANumber
            | Self::Object
            | Self::PlusSign
            | Self::LeadingZero
            | Self::NoExponent
            | Self::Separator
            | Self::TrailingComma
            | Self::Trailing
            | Self::Capacity
            | Self::Stopped => "",
        }
    }
}

/// A type that JSON numbers are read as.
pub(super) trait Element: Pod + Send {
    /// Reads the number that `text` starts with, and returns what follows it.
    fn parse(text: &[u8]) -> Result<(Self, &[u8]), Fault>;
}

/// The floats written as strings.
#[cold]
fn non_finite(text: &[u8]) -> Option<(f64, &[u8])> {
    let named: [(&[u8], f64); 3] = [
        (b"\"NaN\"", f64::NAN),
        (b"\"Infinity\"", f64::INFINITY),
        (b"\"-Infinity\"", f64::NEG_INFINITY),
    ];
    named.into_iter().find_map(|(name, value)| Some((value, text.strip_prefix(name)?)))
}

macro_rules! float {
    ($type:ty, $bits:ty, $format:expr, $from_f64:expr, $slow:expr) => {
        impl Element for $type {
            #[inline(always)]
            fn parse(text: &[u8]) -> Result<(Self, &[u8]), Fault> {
                if let [b'"', ..] = text {
                    let (value, rest) = non_finite(text).ok_or(Fault::String)?;
                    return Ok(($from_f64(value), rest));
                }
                let (literal, rest) = number::scan(text)?;
                let (negative, bits) = literal.round($format);
                let magnitude = match bits {
                    Some(bits) => <$bits>::try_from(bits).map_err(|_| Fault::Overflow)?,
                    None => $slow(&literal).ok_or(Fault::Overflow)?,
                };
                let sign = <$bits>::from(negative).rotate_right(1);
                Ok((Self::from_bits(magnitude | sign), rest))
            }
        }
    };
}

#[expect(clippy::cast_possible_truncation, reason = "NaN and the infinities exist in both")]
const fn non_finite_f32(value: f64) -> f32 {
    value as f32
}

fn slow_f64(literal: &number::Literal<'_>) -> Option<u64> {
    number::slow_f64(literal).filter(|value| value.is_finite()).map(|value| value.abs().to_bits())
}

fn slow_f32(literal: &number::Literal<'_>) -> Option<u32> {
    number::slow_f32(literal).filter(|value| value.is_finite()).map(|value| value.abs().to_bits())
}

fn slow_f16(literal: &number::Literal<'_>) -> Option<u16> {
    number::slow_narrow(literal, BINARY16).and_then(|bits| u16::try_from(bits).ok())
}

fn slow_bf16(literal: &number::Literal<'_>) -> Option<u16> {
    number::slow_narrow(literal, BFLOAT16).and_then(|bits| u16::try_from(bits).ok())
}

float!(f64, u64, BINARY64, std::convert::identity, slow_f64);
float!(f32, u32, BINARY32, non_finite_f32, slow_f32);
float!(f16, u16, BINARY16, Self::from_f64, slow_f16);
float!(bf16, u16, BFLOAT16, Self::from_f64, slow_bf16);

/// Sign, magnitude and rest of an integer literal; the magnitude saturates
/// above what 64 bits hold, which is out of range for every type.
#[inline]
fn integer(text: &[u8]) -> Result<(bool, u128, &[u8]), Fault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut rest = digits;
    let mut value = 0_u64;
    let mut wide = 0_u128;
    while let [byte @ b'0'..=b'9', tail @ ..] = rest {
        let digit = u64::from(byte & 15);
        match value.checked_mul(10).and_then(|value| value.checked_add(digit)) {
            Some(next) => value = next,
            None => wide = u128::MAX,
        }
        rest = tail;
    }
    match (digits, rest) {
        ([b'0', b'0'..=b'9', ..], _) => Err(Fault::LeadingZero),
        (_, [b'.' | b'e' | b'E', ..]) if rest.len() < digits.len() => Err(Fault::NotAnInteger),
        _ if rest.len() == digits.len() => Err(Fault::of_non_number(text)),
        _ => Ok((negative, wide | u128::from(value), rest)),
    }
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Element for $type {
            #[inline]
            fn parse(text: &[u8]) -> Result<(Self, &[u8]), Fault> {
                let (negative, magnitude, rest) = integer(text)?;
                let value = i128::try_from(magnitude).map_err(|_| Fault::Range)?;
                let value = if negative { value.wrapping_neg() } else { value };
                Ok((Self::try_from(value).map_err(|_| Fault::Range)?, rest))
            }
        }
    )*};
}

integer!(i64, i32, i16, i8, u64, u32, u16, u8);

/// Place and extent of what was read.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// Members read so far of each open array, outermost first.
    counts: [usize; MAX_RANK],
    /// Open arrays.
    depth: usize,
    /// Extents, once the first array of a level is closed.
    dims: [Option<usize>; MAX_RANK],
    /// Depth of the numbers, once one is read or an empty array closed.
    rank: Option<usize>,
    /// Numbers read.
    pub(super) len: usize,
}

impl Nesting {
    /// Of numbers that were all read, in arrays of these extents.
    pub(super) fn of(extents: &[usize]) -> Self {
        let mut dims = [None; MAX_RANK];
        dims.iter_mut().zip(extents).for_each(|(dim, &extent)| *dim = Some(extent));
        let len = extents.iter().fold(1_usize, |len, &extent| len.saturating_mul(extent));
        Self { dims, rank: Some(extents.len()), len, ..Self::default() }
    }

    /// Extents, when all was read.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.dims.iter().take(self.rank.unwrap_or(0)).map(|dim| dim.unwrap_or(0)).collect()
    }

    /// Indices of the value being read, as the end of a JSON pointer.
    pub(super) fn path(&self) -> String {
        self.counts.iter().take(self.depth).map(|index| format!("/{index}")).collect()
    }

    fn open(&mut self) -> Result<(), Fault> {
        if self.rank.is_some_and(|rank| self.depth >= rank) {
            return Err(Fault::Depth);
        }
        *self.counts.get_mut(self.depth).ok_or(Fault::TooDeep)? = 0;
        self.depth = self.depth.wrapping_add(1);
        Ok(())
    }

    /// Closes the innermost array, of `count` members. On an error the path
    /// then is that of the array.
    fn close(&mut self, count: usize) -> Result<(), Fault> {
        let opened = self.depth;
        self.depth = opened.checked_sub(1).ok_or(Fault::Separator)?;
        if count == 0 && *self.rank.get_or_insert(opened) != opened {
            return Err(Fault::Depth);
        }
        let dim = self.dims.get_mut(self.depth).ok_or(Fault::TooDeep)?;
        if *dim.get_or_insert(count) == count { Ok(()) } else { Err(Fault::Ragged) }
    }

    fn count(&self) -> usize {
        self.depth.checked_sub(1).and_then(|level| self.counts.get(level)).map_or(0, |count| *count)
    }

    fn set_count(&mut self, count: usize) {
        if let Some(slot) = self.depth.checked_sub(1).and_then(|level| self.counts.get_mut(level)) {
            *slot = count;
        }
    }

    /// Reads a whole value into `out`. On an error [`path`](Self::path) tells where. Now and then `goes_on` is
    /// asked whether to.
    pub(super) fn read<T: Element>(
        &mut self,
        text: &[u8],
        out: &mut [T],
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Fault> {
        let mut slots = out.iter_mut();
        let mut rest = skip(text);
        let mut after_comma = false;
        loop {
            match rest {
                [b'[', tail @ ..] => {
                    self.open()?;
                    rest = skip(tail);
                    after_comma = false;
                    continue;
                }
                [b']', tail @ ..] if self.depth > 0 && !after_comma => {
                    self.close(0)?;
                    rest = tail;
                }
                _ => {
                    if *self.rank.get_or_insert(self.depth) != self.depth {
                        T::parse(rest)?;
                        return Err(Fault::Depth);
                    }
                    rest = self.row(rest, &mut slots, goes_on)?;
                }
            }
            rest = skip(rest);
            // Close what ends here, up to the next comma.
            loop {
                if self.depth == 0 {
                    return if rest.is_empty() { Ok(()) } else { Err(Fault::Trailing) };
                }
                match rest {
                    [b',', tail @ ..] => {
                        self.set_count(self.count().wrapping_add(1));
                        rest = skip(tail);
                        after_comma = true;
                        break;
                    }
                    [b']', tail @ ..] => {
                        self.close(self.count().wrapping_add(1))?;
                        rest = skip(tail);
                    }
                    [] => return Err(Fault::Ended),
                    _ => return Err(Fault::Separator),
                }
            }
        }
    }

    /// Reads numbers up to the end of the innermost array, whose closing
    /// bracket is left to the caller.
    #[inline]
    fn row<'a, T: Element>(
        &mut self,
        mut rest: &'a [u8],
        slots: &mut std::slice::IterMut<'_, T>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<&'a [u8], Fault> {
        let before = slots.len();
        let first = self.count();
        loop {
            if slots.len().is_multiple_of(LOOK) && !goes_on() {
                return Err(Fault::Stopped);
            }
            let place = before.wrapping_sub(slots.len());
            let parsed = T::parse(rest)
                .and_then(|parsed| slots.next().map(|slot| (slot, parsed)).ok_or(Fault::Capacity));
            let (slot, (value, tail)) = match parsed {
                Ok(parsed) => parsed,
                Err(fault) => {
                    self.set_count(first.wrapping_add(place));
                    return Err(fault);
                }
            };
            *slot = value;
            rest = skip(tail);
            match rest {
                [b',', tail @ ..] if self.depth > 0 => rest = skip(tail),
                _ => {
                    self.set_count(first.wrapping_add(place));
                    self.len = self.len.wrapping_add(place).wrapping_add(1);
                    return Ok(rest);
                }
            }
        }
    }
}

/// What follows the whitespace that `text` starts with.
#[inline]
pub(super) fn skip(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

//! Small values (options, shapes, names) to [`serde_json::Value`], strictly.
//!
//! `serde_json` keeps the last of two equal keys, names no place in a tree and
//! recurses; so objects and arrays are split here, level by level, and only
//! strings and numbers are left to it. Not meant for tensors: those go to
//! [`read_tensor`](super::read_tensor).

use serde_json::{Map, Value};

use super::number;
use super::read::{Fault, skip};
use super::scan::{MAX_MEMBERS, Member, elements_up_to, members_up_to, pointer_to, unescape};
use crate::CodecError;

/// Levels of arrays and objects; bounds the recursion below.
const MAX_DEPTH: usize = 16;
/// Bytes of one string, escapes included.
const MAX_STRING_BYTES: usize = 64 << 10;
/// Bytes of text.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// Members of all objects in a value, for each that one of them may have.
const OBJECTS: usize = 64;

/// Bytes of a value of an array while it is read and turned into what is wanted: its place in the text, twice
/// over while the list of them grows, and a [`Value`].
const ELEMENT: usize = 96;
/// The same of a member of an object, with its name.
const MEMBER: usize = 400;

/// Most bytes that reading a value takes.
#[must_use]
pub fn bytes_of_value(text: &[u8]) -> usize {
    let count = |byte: u8| memchr::memchr_iter(byte, text).count();
    let (elements, members) = (count(b',').saturating_add(1), count(b':'));
    let own = elements.saturating_mul(ELEMENT).saturating_add(members.saturating_mul(MEMBER));
    own.saturating_add(text.len())
}

/// Reads a small value whose objects have at most 64 members, and 4096 together.
///
/// # Errors
/// The text is over 16 MiB or not one JSON value, nests deeper than 16, holds a
/// string over 64 KiB, a number over the range of f64, a name twice, or more
/// members than that.
pub fn read_value(text: &[u8], pointer: &str) -> Result<Value, CodecError> {
    read_value_up_to(text, pointer, MAX_MEMBERS)
}

/// Reads a small value whose objects have at most `members` members, and 64 times as many together.
///
/// # Errors
/// See [`read_value`].
pub fn read_value_up_to(text: &[u8], pointer: &str, members: usize) -> Result<Value, CodecError> {
    if text.len() > MAX_VALUE_BYTES {
        let detail = format!("the value is longer than {MAX_VALUE_BYTES} bytes");
        return Err(CodecError::too_large(detail).at(pointer));
    }
    let mut members = Members { each: members, left: members.saturating_mul(OBJECTS) };
    read_at(text, 0, &mut members).map_err(|error| below(error, pointer))
}

/// Members that may still come: what nobody knows by name is refused before it costs anything.
struct Members {
    each: usize,
    left: usize,
}

impl Members {
    /// The members of one object.
    fn split<'a>(&mut self, text: &'a [u8]) -> Result<Vec<Member<'a>>, CodecError> {
        let members = members_up_to(text, self.each.min(self.left))?;
        self.left = self.left.saturating_sub(members.len());
        Ok(members)
    }
}

/// Where an error is, is said on its way up: nothing is written where all is well.
fn read_at(text: &[u8], depth: usize, allowed: &mut Members) -> Result<Value, CodecError> {
    let text = skip(text).trim_ascii_end();
    if depth > MAX_DEPTH || (depth == MAX_DEPTH && matches!(text, [b'[' | b'{', ..])) {
        let detail = format!("values are nested more than {MAX_DEPTH} deep");
        return Err(CodecError::malformed(detail));
    }
    let next = depth.saturating_add(1);
    match text {
        [b'{', ..] => {
            let mut map = Map::new();
            for member in allowed.split(text)? {
                let value = read_at(member.value, next, allowed)
                    .map_err(|error| below(error, &pointer_to("", &member.key)))?;
                map.insert(member.key.into_owned(), value);
            }
            Ok(Value::Object(map))
        }
        [b'[', ..] => {
            let elements = elements_up_to(text, MAX_VALUE_BYTES)?;
            let mut values = Vec::with_capacity(elements.len());
            for (i, value) in elements.into_iter().enumerate() {
                let value = read_at(value, next, allowed);
                values.push(value.map_err(|error| below(error, &format!("/{i}")))?);
            }
            Ok(Value::Array(values))
        }
        [b'"', ..] if text.len() > MAX_STRING_BYTES => {
            let detail = format!("the string is longer than {MAX_STRING_BYTES} bytes");
            Err(CodecError::too_large(detail))
        }
        [b'"', ..] => match unescape(text) {
            Some(string) => Ok(Value::String(string.into_owned())),
            None => Err(CodecError::malformed("the string is not valid JSON in UTF-8")),
        },
        b"true" => Ok(Value::Bool(true)),
        b"false" => Ok(Value::Bool(false)),
        b"null" => Ok(Value::Null),
        _ => read_number(text),
    }
}

fn read_number(text: &[u8]) -> Result<Value, CodecError> {
    let fault = match number::scan(text) {
        Ok((_, [])) => match serde_json::from_slice(text) {
            Ok(value) => return Ok(value),
            Err(_) => Fault::Overflow,
        },
        Ok(_) => Fault::Trailing,
        Err(fault @ (Fault::Null | Fault::Boolean | Fault::String)) => {
            debug_assert!(fault != Fault::String, "strings are read before");
            return Err(CodecError::malformed("the value is not valid JSON"));
        }
        Err(Fault::NotANumber) => {
            return Err(CodecError::malformed("the value is not valid JSON"));
        }
        Err(fault) => fault,
    };
    Err(fault.error("F64", true))
}

/// An error of the scanner, under the pointer of the value it scanned: its
/// byte offsets are those of a part of the document and would mislead.
pub(crate) fn below(error: CodecError, pointer: &str) -> CodecError {
    let inner = error.at.as_deref().filter(|at| at.starts_with('/')).unwrap_or_default();
    let at = format!("{pointer}{inner}");
    error.at(at)
}

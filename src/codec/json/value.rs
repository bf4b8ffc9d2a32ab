//! Small values, strictly.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::codec::CodecError;

/// Most levels of nesting; options have far fewer.
const MAX_DEPTH: usize = 16;
/// Longest string.
const MAX_STRING: usize = 64 << 10;
/// Longest text: room for a scale for each of a million groups.
const MAX_TEXT: usize = 32 << 20;

const DUPLICATE: &str = "a name is given twice";
const LONG: &str = "a string is too long";

/// Parses the value of an option.
///
/// # Errors
/// [`CodecError`] at `pointer` for text that is no JSON, too deep or too long,
/// and for an object with a name given twice.
pub fn read_value(text: &[u8], pointer: &str) -> Result<Value, CodecError> {
    let bad = |error: CodecError| error.at(pointer);
    if text.len() > MAX_TEXT {
        return Err(bad(CodecError::too_large(format!("longer than {MAX_TEXT} bytes"))));
    }
    if depth(text) > MAX_DEPTH {
        return Err(bad(CodecError::malformed(format!("nested more than {MAX_DEPTH} deep"))));
    }
    serde_json::from_slice::<Strict>(text).map(|Strict(value)| value).map_err(|error| {
        // Our own words are known; the parser's may quote the text.
        let own = error.to_string();
        let detail = [DUPLICATE, LONG].into_iter().find(|word| own.starts_with(word));
        bad(CodecError::malformed(detail.unwrap_or("not valid JSON")))
    })
}

/// Deepest nesting of brackets outside of strings.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value whose objects have no name twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.len() > MAX_STRING { Err(E::custom(LONG)) } else { Ok(value.into()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = access.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(Value::Object(map))
    }
}

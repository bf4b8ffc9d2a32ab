//! Splits an object or array into its members without reading them.
//!
//! Numbers by the million pass through here untouched, so values are skipped
//! at the speed of memchr. Nothing recurses: nesting is a counter. What a value
//! holds is the business of whoever reads it next; only where it ends is known
//! here.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::{memchr2, memchr3};

use super::read::skip;
use crate::CodecError;
use crate::names::MAX_KEY_BYTES;
use crate::sniff::{self, Known};

/// Members that are compared one by one: a set costs more than it saves.
const FEW: usize = 16;
/// Members of an object of named fields, of which any route knows far fewer.
pub(super) const MAX_MEMBERS: usize = 64;

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Name, with escapes undone.
    pub key: Cow<'a, str>,
    /// Text of the value, not yet known to be valid JSON.
    pub value: &'a [u8],
    /// Byte offset of the value in the text.
    pub offset: usize,
}

impl Member<'_> {
    /// Whether the value is `null`, which counts as no member.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value == b"null"
    }
}

/// The member of that name, unless it is `null`.
#[must_use]
pub fn find<'m, 'a>(members: &'m [Member<'a>], key: &str) -> Option<&'m Member<'a>> {
    members.iter().find(|member| member.key == key && !member.is_null())
}

/// Splits an object of at most 64 members.
///
/// # Errors
/// See [`members_up_to`].
pub fn members(text: &[u8]) -> Result<Vec<Member<'_>>, CodecError> {
    members_up_to(text, MAX_MEMBERS)
}

/// Splits an object of at most `max` members. Each value is delimited, not
/// validated.
///
/// # Errors
/// The text is empty, starts with a byte order mark, is not one object, has too
/// many members, two of the same name, or a name that is too long or malformed.
pub fn members_up_to(text: &[u8], max: usize) -> Result<Vec<Member<'_>>, CodecError> {
    let mut cursor = Cursor { text, rest: text };
    cursor.start(b'{', "a JSON object is expected here")?;
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut seen = HashSet::new();
    if cursor.take(b'}') {
        return cursor.finish(members);
    }
    loop {
        let at = cursor.offset();
        let key = cursor.key()?;
        if members.len() >= max {
            return Err(CodecError::too_large(format!("the object has more than {max} members"))
                .at_offset(at));
        }
        let is_known = if members.len() < FEW {
            members.iter().any(|member| member.key == key)
        } else {
            if seen.is_empty() {
                seen.extend(members.iter().map(|member| member.key.clone()));
            }
            !seen.insert(key.clone())
        };
        if is_known {
            return Err(CodecError::malformed("the name occurs twice in one object")
                .at(pointer_to("", &key))
                .cure("send each name once"));
        }
        if !cursor.take(b':') {
            return Err(cursor.expected("a colon is expected here"));
        }
        let offset = cursor.offset();
        let value = cursor.value()?;
        members.push(Member { key, value, offset });
        if cursor.take(b'}') {
            return cursor.finish(members);
        }
        if !cursor.take(b',') {
            return Err(cursor.expected("a comma or a closing brace is expected here"));
        }
    }
}

/// Splits an array of at most `max` values.
pub(crate) fn elements_up_to(text: &[u8], max: usize) -> Result<Vec<&[u8]>, CodecError> {
    let mut cursor = Cursor { text, rest: text };
    cursor.start(b'[', "a JSON array is expected here")?;
    let mut elements = Vec::new();
    if cursor.take(b']') {
        return cursor.finish(elements);
    }
    loop {
        if elements.len() >= max {
            return Err(CodecError::too_large(format!("the array has more than {max} values"))
                .at_offset(cursor.offset()));
        }
        elements.push(cursor.value()?);
        if cursor.take(b']') {
            return cursor.finish(elements);
        }
        if !cursor.take(b',') {
            return Err(cursor.expected("a comma or a closing bracket is expected here"));
        }
    }
}

/// The JSON pointer of a member of the object at `parent`. Control characters
/// of a name are replaced, so that no message carries them into a log.
pub(super) fn pointer_to(parent: &str, key: &str) -> String {
    let mut pointer = format!("{parent}/");
    for c in key.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c if c.is_control() => pointer.push(char::REPLACEMENT_CHARACTER),
            c => pointer.push(c),
        }
    }
    pointer
}

/// Undoes the escapes of a string literal, quotes included in `literal`.
pub(crate) fn unescape(literal: &[u8]) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.iter().all(|&byte| byte >= b' ' && !matches!(byte, b'\\' | b'"')) {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(literal).ok().map(Cow::Owned)
}

/// Position in a text.
struct Cursor<'a> {
    text: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn offset(&self) -> usize {
        self.text.len().saturating_sub(self.rest.len())
    }

    fn start(&mut self, open: u8, otherwise: &'static str) -> Result<(), CodecError> {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            return Err(CodecError::malformed("the document starts with a byte order mark")
                .at_offset(0)
                .cure("send UTF-8 without a byte order mark"));
        }
        self.rest = skip(self.text);
        if self.rest.is_empty() {
            return Err(CodecError::malformed("the document is empty").cure("send a JSON object"));
        }
        if self.take(open) {
            return Ok(());
        }
        Err(sniff::mistaken(Known::Json, self.text, self.expected(otherwise)))
    }

    /// Skips `byte` and the whitespace behind it, when it comes next.
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = skip(rest);
                true
            }
            _ => false,
        }
    }

    fn expected(&self, detail: &'static str) -> CodecError {
        if self.rest.is_empty() {
            return CodecError::malformed("the document ends too early")
                .at_offset(self.offset())
                .cure("send the whole document");
        }
        CodecError::malformed(detail).at_offset(self.offset())
    }

    fn finish<T>(&self, found: T) -> Result<T, CodecError> {
        if self.rest.is_empty() {
            return Ok(found);
        }
        Err(CodecError::malformed("the document is followed by other bytes")
            .at_offset(self.offset())
            .cure("send one JSON document"))
    }

    fn key(&mut self) -> Result<Cow<'a, str>, CodecError> {
        if self.rest.first() != Some(&b'"') {
            return Err(self.expected("a member name in double quotes is expected here"));
        }
        let at = self.offset();
        let literal = self.value()?;
        // Six bytes of text a byte of name at most (\u0041), and two quotes.
        let short = literal.len() <= MAX_KEY_BYTES.saturating_mul(6).saturating_add(2);
        let key = if short { unescape(literal) } else { Some(Cow::Borrowed("")) };
        match key {
            Some(key) if short && key.len() <= MAX_KEY_BYTES => Ok(key),
            Some(_) => {
                let detail = format!("a member name is longer than {MAX_KEY_BYTES} bytes");
                Err(CodecError::too_large(detail).at_offset(at))
            }
            None => {
                Err(CodecError::malformed("a member name is not valid JSON in UTF-8").at_offset(at))
            }
        }
    }

    /// Takes the value that comes next and the whitespace behind it.
    fn value(&mut self) -> Result<&'a [u8], CodecError> {
        let start = self.rest;
        let after = match start {
            [b'"', rest @ ..] => after_string(rest),
            [b'[', rest @ ..] => after_nested(rest, b'[', b']'),
            [b'{', rest @ ..] => after_nested(rest, b'{', b'}'),
            _ => {
                let ends = |byte: &u8| {
                    matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\n' | b'\r' | b'\t')
                };
                let end = start.iter().position(ends).unwrap_or(start.len());
                start.get(end..).filter(|_| end > 0)
            }
        };
        let Some(after) = after else {
            let unfinished = matches!(start, [] | [b'"' | b'[' | b'{', ..]);
            if unfinished {
                self.rest = &[];
            }
            return Err(self.expected("a value is expected here"));
        };
        self.rest = skip(after);
        Ok(start.get(..start.len().saturating_sub(after.len())).unwrap_or_default())
    }
}

/// What follows the string whose opening quote precedes `text`.
fn after_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let (_, hit) = text.split_at_checked(memchr2(b'"', b'\\', text)?)?;
        match hit {
            [b'"', rest @ ..] => return Some(rest),
            [_, _, rest @ ..] => text = rest,
            _ => return None,
        }
    }
}

/// What follows the array or object whose opening bracket precedes `text`.
/// Brackets of the other kind are ignored: in valid JSON they are balanced.
fn after_nested(mut text: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    let mut depth = 1_usize;
    loop {
        let (_, hit) = text.split_at_checked(memchr3(open, close, b'"', text)?)?;
        let (&first, rest) = hit.split_first()?;
        text = rest;
        if first == b'"' {
            text = after_string(rest)?;
        } else if first == open {
            depth = depth.checked_add(1)?;
        } else {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(rest);
            }
        }
    }
}

//! Splitting an object into its members.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::codec::CodecError;

/// Most members of an object, unless the caller allows more.
const MAX_MEMBERS: usize = 64;
/// Longest key, as it stands in the text.
const MAX_KEY: usize = 4096;

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name, escapes resolved.
    pub key: Cow<'a, str>,
    /// The text of its value; delimited, but not yet known to be valid.
    pub value: &'a [u8],
    /// Where the value stands in the document.
    pub offset: usize,
}

/// Splits an object into its members, at most 64.
///
/// # Errors
/// [`CodecError`] for anything but one object, and for a name given twice.
pub fn members(text: &[u8]) -> Result<Vec<Member<'_>>, CodecError> {
    members_up_to(text, MAX_MEMBERS)
}

/// Splits an object into its members, at most `max`.
///
/// # Errors
/// [`CodecError`] for anything but one object, and for a name given twice.
pub fn members_up_to(text: &[u8], max: usize) -> Result<Vec<Member<'_>>, CodecError> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(CodecError::malformed("a byte order mark")
            .at_offset(0)
            .cure("send UTF-8 without one"));
    }
    let mut cursor = Cursor { text, position: 0 };
    cursor.expect(b'{', "expected an object")?;
    let mut members = Vec::new();
    let mut seen = HashSet::new();
    if cursor.take(b'}') {
        cursor.end()?;
        return Ok(members);
    }
    loop {
        let key = cursor.key()?;
        cursor.expect(b':', "expected a colon")?;
        if members.len() >= max {
            return Err(CodecError::too_large(format!("more than {max} members"))
                .at_offset(cursor.position));
        }
        if !seen.insert(key.clone()) {
            let name: String = key.chars().take(128).collect();
            let pointer = name.replace('~', "~0").replace('/', "~1");
            return Err(CodecError::malformed("given twice").at(format!("/{pointer}")));
        }
        cursor.space();
        let offset = cursor.position;
        let value = cursor.value()?;
        members.push(Member { key, value, offset });
        if cursor.take(b',') {
            continue;
        }
        cursor.expect(b'}', "expected a comma or the end of the object")?;
        cursor.end()?;
        return Ok(members);
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn advance(&mut self, by: usize) {
        self.position = self.position.saturating_add(by).min(self.text.len());
    }

    fn space(&mut self) {
        let space = self.rest().iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.advance(space);
    }

    /// Skips white space and then `byte`, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.rest().first() == Some(&byte);
        self.advance(usize::from(found));
        found
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), CodecError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(otherwise)) }
    }

    fn error(&self, detail: &'static str) -> CodecError {
        CodecError::malformed(detail).at_offset(self.position)
    }

    fn end(&mut self) -> Result<(), CodecError> {
        self.space();
        if self.rest().is_empty() {
            Ok(())
        } else {
            Err(self.error("text after the end of the object"))
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, CodecError> {
        self.space();
        let start = self.position;
        if self.rest().first() != Some(&b'"') {
            return Err(self.error("expected the name of a member"));
        }
        self.string()?;
        let text = self.text.get(start..self.position).unwrap_or_default();
        let bad = |detail| CodecError::malformed(detail).at_offset(start);
        if text.len() > MAX_KEY {
            return Err(bad("the name of a member is too long"));
        }
        if let [b'"', inner @ .., b'"'] = text
            && !inner.iter().any(|&byte| byte == b'\\' || byte < b' ')
        {
            return std::str::from_utf8(inner)
                .map(Cow::Borrowed)
                .map_err(|_| bad("the name of a member is not UTF-8"));
        }
        serde_json::from_slice(text)
            .map(Cow::Owned)
            .map_err(|_| bad("the name of a member is not a string"))
    }

    /// Skips a string, of which only the end is looked for.
    fn string(&mut self) -> Result<(), CodecError> {
        self.advance(1);
        loop {
            let Some(at) = memchr::memchr2(b'"', b'\\', self.rest()) else {
                return Err(self.error("a string without end"));
            };
            let escape = self.rest().get(at) == Some(&b'\\');
            self.advance(at.saturating_add(if escape { 2 } else { 1 }));
            if !escape {
                return Ok(());
            }
        }
    }

    /// Skips a value and returns its text. Brackets of the value's own kind are
    /// counted; whether the rest of it is valid is for its reader to see.
    fn value(&mut self) -> Result<&'a [u8], CodecError> {
        let start = self.position;
        match self.rest().first() {
            Some(b'[') => self.brackets(b'[', b']')?,
            Some(b'{') => self.brackets(b'{', b'}')?,
            Some(b'"') => self.string()?,
            Some(_) => {
                let end = |byte: &u8| b",}] \t\r\n".contains(byte);
                let len = self.rest().iter().position(end).unwrap_or(self.rest().len());
                self.advance(len);
            }
            None => {}
        }
        let value = self.text.get(start..self.position).unwrap_or_default();
        if value.is_empty() { Err(self.error("expected a value")) } else { Ok(value) }
    }

    fn brackets(&mut self, open: u8, close: u8) -> Result<(), CodecError> {
        let (start, mut depth) = (self.position, 0_usize);
        loop {
            let Some(at) = memchr::memchr3(open, close, b'"', self.rest()) else {
                return Err(CodecError::malformed("the value does not end").at_offset(start));
            };
            self.advance(at);
            let byte = self.rest().first().copied();
            if byte == Some(b'"') {
                self.string()?;
                continue;
            }
            self.advance(1);
            depth =
                if byte == Some(open) { depth.saturating_add(1) } else { depth.saturating_sub(1) };
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

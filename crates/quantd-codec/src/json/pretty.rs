//! A JSON text laid out for people: two spaces a level, and an array of nothing but scalars, such as
//! a row of a tensor, on one line.
//!
//! Made of text that was written here; numbers and strings stay as they are, byte for byte.

use memchr::{memchr, memchr2, memchr3};

use super::Text;
use crate::CodecError;

/// Appends `text` laid out, and a line end behind it.
///
/// # Errors
/// There is no room for it.
pub fn write_pretty(out: &mut Text<'_>, mut text: &[u8]) -> Result<(), CodecError> {
    let mut depth = 0_usize;
    while let Some((&first, rest)) = text.split_first() {
        let len = match first {
            b'[' | b'{' => match flat(text) {
                Some(len) => {
                    write_flat(out, text.get(..len).unwrap_or_default())?;
                    len
                }
                None => {
                    out.push(&[first])?;
                    depth = depth.saturating_add(1);
                    end_line(out, depth)?;
                    1
                }
            },
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                end_line(out, depth)?;
                out.push(&[first])?;
                1
            }
            b',' => {
                out.push(b",")?;
                end_line(out, depth)?;
                1
            }
            b':' => {
                out.push(b": ")?;
                1
            }
            byte if byte.is_ascii_whitespace() => 1,
            b'"' => {
                let len = string(text);
                out.push(text.get(..len).unwrap_or_default())?;
                len
            }
            _ => {
                let ends = |byte: &u8| b",:]}".contains(byte) || byte.is_ascii_whitespace();
                let len = rest.iter().position(ends).unwrap_or(rest.len()).saturating_add(1);
                out.push(text.get(..len).unwrap_or_default())?;
                len
            }
        };
        text = text.get(len..).unwrap_or_default();
    }
    out.push(b"\n")
}

fn end_line(out: &mut Text<'_>, depth: usize) -> Result<(), CodecError> {
    out.push(b"\n")?;
    (0..depth).try_for_each(|_| out.push(b"  "))
}

/// Bytes of the string that `text` begins with.
fn string(text: &[u8]) -> usize {
    let mut at = 1_usize;
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        let end = at.saturating_add(found);
        if text.get(end) == Some(&b'"') {
            return end.saturating_add(1);
        }
        at = end.saturating_add(2);
    }
    text.len()
}

/// Bytes of the array or object that `text` begins with, if there is none within it and it fits a
/// line: an array of scalars, or nothing.
fn flat(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"{") {
        return text.starts_with(b"{}").then_some(2);
    }
    let mut at = 1_usize;
    loop {
        let rest = text.get(at..)?;
        let found = memchr3(b'"', b'[', b']', rest)?;
        let before = rest.get(..found)?;
        if memchr(b'{', before).is_some() {
            return None;
        }
        at = at.checked_add(found)?;
        match text.get(at)? {
            b'"' => at = at.checked_add(string(text.get(at..)?))?,
            b']' => return at.checked_add(1),
            _ => return None,
        }
    }
}

/// Writes an array of scalars with a space behind each comma.
fn write_flat(out: &mut Text<'_>, mut text: &[u8]) -> Result<(), CodecError> {
    while let Some(found) = memchr2(b',', b'"', text) {
        let (before, rest) = text.split_at_checked(found).unwrap_or((text, &[]));
        out.push(before)?;
        let len = if rest.starts_with(b",") {
            out.push(b", ")?;
            1
        } else {
            let len = string(rest);
            out.push(rest.get(..len).unwrap_or_default())?;
            len
        };
        text = rest.get(len..).unwrap_or_default();
    }
    out.push(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretty(text: &str) -> String {
        let mut room = |_| Ok(());
        let mut out = Text::new(&mut room);
        write_pretty(&mut out, text.as_bytes()).unwrap();
        String::from_utf8(out.finish().concat()).unwrap()
    }

    #[test]
    fn rows_are_lines_and_numbers_stay_as_they_are() {
        let text = r#"{"codes":[[1,-2],[3,4]],"scale":1.0e-7,"none":[],"empty":{},"s":"a,[b\\\"]:","w":["x,y",null]}"#;
        let expect = r#"{
  "codes": [
    [1, -2],
    [3, 4]
  ],
  "scale": 1.0e-7,
  "none": [],
  "empty": {},
  "s": "a,[b\\\"]:",
  "w": ["x,y", null]
}
"#;
        assert_eq!(pretty(text), expect);
        // What is laid out already comes out the same.
        assert_eq!(pretty(expect).replace(char::is_whitespace, ""), text.replace(' ', ""));
    }

    #[test]
    fn what_holds_more_is_broken_up() {
        assert_eq!(pretty("[1,{\"a\":2}]\n"), "[\n  1,\n  {\n    \"a\": 2\n  }\n]\n");
        assert_eq!(pretty("[[[1]]]"), "[\n  [\n    [1]\n  ]\n]\n");
        assert_eq!(pretty("-0.5\n"), "-0.5\n");
    }

    #[test]
    fn no_text_is_read_beyond_its_end() {
        let text = r#"{"a":[1,"b\\"],"c":[{"d":[]}]}"#;
        for len in 0..text.len() {
            pretty(&text[..len]);
        }
    }
}

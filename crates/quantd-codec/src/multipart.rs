//! `multipart/form-data` (RFC 7578): the one file in a form, and the fields beside it.
//!
//! Read where it lies: a part is a range of the body.

use std::ops::Range;

use memchr::memmem;

use super::CodecError;

/// Bytes from the start of a form within which its file begins.
pub const MAX_HEAD: usize = 64 << 10;
/// Parts of one form.
const MAX_PARTS: usize = 64;
/// Bytes of the header of a part, and of the value of a field.
const MAX_TEXT: usize = 8 << 10;
/// Most characters of a boundary (RFC 2046, 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// A form of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where the file lies in the body.
    pub content: Range<usize>,
    /// Names and values of the other parts, in their order.
    pub fields: Vec<(String, String)>,
}

/// The head of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Name of the field.
    pub name: String,
    /// Name of the file, where it is one.
    pub file_name: Option<String>,
    /// Media type, where it says one.
    pub content_type: Option<String>,
    /// Where its content lies, as far as it is there.
    pub content: Range<usize>,
}

impl Part {
    /// Whether the part is a file: it has a file's name, or is called one.
    fn is_file(&self) -> bool {
        self.file_name.is_some() || self.name == "file"
    }
}

/// Finds the file in the start of a form.
///
/// # Errors
/// The start is no form ([malformed](super::Reason::Malformed)), or has no file.
pub fn file_in(start: &[u8], boundary: &str) -> Result<Part, CodecError> {
    let mut parts = Parts::new(start, boundary)?;
    while let Some(part) = parts.head()? {
        if part.is_file() {
            return Ok(part);
        }
        if parts.skip_content().is_none() {
            break;
        }
    }
    Err(no_file())
}

/// Reads a whole form.
///
/// # Errors
/// It is broken, has several files or none, or more than some fields of some length
/// ([malformed](super::Reason::Malformed)).
pub fn read(body: &[u8], boundary: &str) -> Result<Form, CodecError> {
    let mut parts = Parts::new(body, boundary)?;
    let (mut content, mut fields) = (None, Vec::new());
    for _ in 0..MAX_PARTS {
        let Some(part) = parts.head()? else {
            let content = content.ok_or_else(no_file)?;
            return Ok(Form { content, fields });
        };
        let end = parts
            .skip_content()
            .ok_or_else(|| broken("a part has no end").at_offset(part.content.start))?;
        let range = part.content.start..end;
        if part.is_file() {
            if content.replace(range).is_some() {
                return Err(broken("several files in one form").cure("send one file a request"));
            }
        } else {
            let text = body.get(range).filter(|text| text.len() <= MAX_TEXT);
            let text = text.and_then(|text| std::str::from_utf8(text).ok());
            let text = text.ok_or_else(|| {
                broken("a field of the form is not a short text").at_offset(part.content.start)
            })?;
            fields.push((part.name, text.to_owned()));
        }
    }
    Err(broken(format!("more than {MAX_PARTS} parts in one form")))
}

fn broken(detail: impl Into<std::borrow::Cow<'static, str>>) -> CodecError {
    CodecError::malformed(detail)
}

fn no_file() -> CodecError {
    broken("no file in the form").cure("send one, as curl -F file=@w.npy does, after few fields")
}

/// The parts of a form, one behind the other.
struct Parts<'a> {
    body: &'a [u8],
    /// What stands before every part but the first.
    delimiter: Vec<u8>,
    /// Behind the last delimiter, or at the content of a part.
    at: usize,
}

impl<'a> Parts<'a> {
    fn new(body: &'a [u8], boundary: &str) -> Result<Self, CodecError> {
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return Err(broken("the boundary of the form is none"));
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first has no line end before it, unless something stands there to be ignored.
        let first = delimiter.get(2..).unwrap_or_default();
        let at = if body.starts_with(first) {
            Some(first.len())
        } else {
            let found = memmem::find(body, &delimiter);
            found.and_then(|found| found.checked_add(delimiter.len()))
        };
        let at = at.ok_or_else(|| broken("the body has no part behind its boundary"))?;
        Ok(Self { body, delimiter, at })
    }

    /// Reads the head of the next part; `None` behind the last.
    fn head(&mut self) -> Result<Option<Part>, CodecError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(None);
        }
        let wrong = |what: &'static str| broken(what).at_offset(self.at);
        let head = rest.get(..rest.len().min(MAX_TEXT)).unwrap_or_default();
        let len = memmem::find(head, b"\r\n\r\n").ok_or_else(|| wrong("a part has no head"))?;
        let head = head.get(..len).unwrap_or_default();
        let head = std::str::from_utf8(head).map_err(|_| wrong("a part's head is not UTF-8"))?;
        let start = self.at.saturating_add(len).saturating_add(4);
        let mut part = Part { content: start..self.body.len(), ..Part::default() };
        for line in head.split("\r\n") {
            let Some((key, value)) = line.split_once(':') else { continue };
            if key.eq_ignore_ascii_case("content-disposition") {
                part.name = parameter(value, "name").unwrap_or_default();
                part.file_name = parameter(value, "filename");
            } else if key.eq_ignore_ascii_case("content-type") {
                part.content_type = Some(value.trim().to_owned());
            }
        }
        self.at = start;
        Ok(Some(part))
    }

    /// Goes to the next part; gives the end of the content of this one, if it is there.
    fn skip_content(&mut self) -> Option<usize> {
        let found = memmem::find(self.body.get(self.at..)?, &self.delimiter)?;
        let end = self.at.saturating_add(found);
        self.at = end.saturating_add(self.delimiter.len());
        Some(end)
    }
}

/// The parameter of that name in a header such as `form-data; name="a"; filename="b"`.
#[must_use]
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (text, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (text, tail) = after.split_at_checked(end)?;
                (text.trim().to_owned(), tail)
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = tail.split_once(';')?.1;
    }
}

/// What stands before the closing quote, and what is behind it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let (mut out, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((out, text.get(at.saturating_add(1)..)?)),
            c => {
                escaped = false;
                out.push(c);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> String {
        let mut body = String::new();
        for (head, content) in parts {
            body += &format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n");
        }
        body + "--b--\r\n"
    }

    /// The content of a file, and the fields beside it.
    type Read<'a> = (&'a str, Vec<(String, String)>);

    fn file(body: &str) -> Result<Read<'_>, String> {
        let form = read(body.as_bytes(), "b").map_err(|error| error.to_string())?;
        Ok((&body[form.content], form.fields))
    }

    #[test]
    fn the_file_is_found_among_fields() {
        let upload = ("name=\"f\"; filename=\"w.npy\"", "\x01\r\n--\r\nb\r\n");
        let fields = vec![("bits".to_owned(), "4".to_owned()), ("axis".to_owned(), String::new())];
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
            let all = [upload, ("name=\"bits\"", "4"), ("name=axis", "")];
            let body = form(&order.map(|i| all[i]));
            assert_eq!(file(&body), Ok((upload.1, fields.clone())), "{order:?}");
            let found = file_in(body.as_bytes(), "b").unwrap();
            assert_eq!(found.file_name.as_deref(), Some("w.npy"));
        }
        let body = form(&[("name=file", "")]);
        assert_eq!(file(&body), Ok(("", vec![])));
        // Something before the first part is ignored, and so is what follows the last.
        let body = format!("preamble\r\n{}epilogue", form(&[("name=file", "x")]));
        assert_eq!(file(&body), Ok(("x", vec![])));
    }

    #[test]
    fn parameters_are_quoted_or_not() {
        let value = r#"form-data; name="a;b=\"c\""; FileName=w.npy ; x="#;
        assert_eq!(parameter(value, "name").as_deref(), Some("a;b=\"c\""));
        assert_eq!(parameter(value, "filename").as_deref(), Some("w.npy"));
        assert_eq!(parameter(value, "x").as_deref(), Some(""));
        assert_eq!(parameter(value, "y"), None);
        assert_eq!(parameter("form-data", "name"), None);
        assert_eq!(parameter("form-data; name=\"a", "name"), None);
    }

    #[test]
    fn broken_forms_are_refused() {
        let upload = ("name=file; filename=x", "1");
        let long = "x".repeat(MAX_TEXT + 1);
        let many = vec![("name=a", "1"); MAX_PARTS + 1];
        for (body, detail) in [
            (String::new(), "no part behind its boundary"),
            ("--c\r\n\r\n".to_owned(), "no part behind its boundary"),
            ("--b".to_owned(), "a part has no head"),
            ("--b\r\ncontent-disposition: form-data".to_owned(), "a part has no head"),
            (form(&[upload]).replace("--b--", ""), "a part has no end"),
            (form(&[]), "no file in the form"),
            (form(&[("name=a", "1")]), "no file in the form"),
            (form(&[upload, upload]), "several files"),
            (form(&[("name=a", &long), upload]), "not a short text"),
            (form(&many), "more than 64 parts"),
        ] {
            let error = file(&body).unwrap_err();
            assert!(error.contains(detail), "{error} for {body:.80}");
        }
        assert!(read(b"--\r\n", "").is_err());
        let whole = form(&[("name=a", "1"), upload]);
        for len in 0..whole.len() {
            // No panic, whatever is cut off.
            drop(file_in(&whole.as_bytes()[..len], "b"));
            drop(read(&whole.as_bytes()[..len], "b"));
        }
    }
}

//! Names that callers give to what they keep on the server.

use std::fmt;
use std::sync::Arc;

use super::error::{Error, Kind, Place};

/// What a name is.
pub const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$";
/// Longest name.
const MAX_LEN: usize = 128;

/// The name of a calibrator or layer: one path segment and one file name, as [`PATTERN`] says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes `text` if it is a name.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] at `place` if not.
    pub fn new(text: &str, place: Place) -> Result<Self, Error> {
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= MAX_LEN && text.bytes().all(rest) {
            return Ok(Self(text.into()));
        }
        Err(Error::new(Kind::InvalidOption, "not a name").at(place).cure(format!(
            "use letters, digits and . _ -, a letter or digit first, at most {MAX_LEN} in all"
        )))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_path_segment() {
        let name = |text: &str| Name::new(text, Place::Pointer("/name".to_owned()));
        for text in ["a", "0", "layer_1.v2-x", &"n".repeat(128)] {
            assert_eq!(name(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a\\b",
            "a b",
            "\u{e9}",
            "a\0",
            "a\n",
            &"n".repeat(129),
        ] {
            assert_eq!(name(text).unwrap_err().kind, Kind::InvalidOption, "{text:?}");
        }
    }
}

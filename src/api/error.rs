//! What can go wrong with a request, in the caller's terms.
//!
//! Knows no status codes: `http::problem` alone turns a [`Kind`] into one.

use std::fmt;

use quantd_codec::{CodecError, Reason};
use quantd_core::{ErrorKind, QuantError};

/// What the caller can do about an [`Error`]: one kind for each reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body is not what its format says: send a correct one.
    MalformedBody,
    /// An option is unknown, out of bounds or contradicts another: change it.
    InvalidOption,
    /// The tensor is of a kind that is not read: convert it first.
    UnsupportedTensor,
    /// The data holds NaN and the scheme refuses it: choose a policy.
    NonFinite,
    /// No media type that the caller accepts can be made.
    NotAcceptable,
    /// The body is of a media type or content coding that is not read.
    UnsupportedMediaType,
    /// Above a configured limit: send less.
    TooLarge,
    /// The body did not arrive in time.
    Timeout,
    /// The work could not end in time, and was not begun: ask for less.
    TooMuchWork,
    /// The work did not end in time, and was stopped: ask for less.
    OutOfTime,
    /// No capacity at the moment: try again later.
    Overloaded,
    /// The server is stopping: try another one.
    Draining,
    /// The head of the request is not one of HTTP: mend the client.
    MalformedRequest,
    /// Path and query are too long: send the options in the body.
    UriTooLong,
    /// The head has too many or too long fields: send fewer.
    HeadTooLarge,
    /// Asked for by a page of somebody else: name its origin or the host.
    Forbidden,
    /// No key, or not a known one.
    Unauthorized,
    /// No such resource.
    NotFound,
    /// What there is contradicts the request: another of that name, or nothing learnt yet.
    Conflict,
    /// No room for what is to be kept: unload something, or raise the bound.
    Storage,
    /// The resource has no such method.
    MethodNotAllowed,
    /// A part of a protocol that is not spoken here: do without.
    NotImplemented,
    /// A defect of the service; nothing the caller can do.
    Internal,
}

/// Where in the request the fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// JSON pointer into the body.
    Pointer(String),
    /// Name of a query parameter.
    Parameter(String),
    /// Name of a header.
    Header(&'static str),
}

impl Place {
    /// What a sentence calls the place: the last name of it, with what counts elements behind.
    fn subject(&self) -> Option<String> {
        let pointer = match self {
            Self::Parameter(name) => return Some(name.clone()),
            Self::Header(name) => return Some((*name).to_owned()),
            Self::Pointer(pointer) => pointer,
        };
        let is_index = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let mut subject = String::new();
        for part in pointer.split('/').skip(1) {
            if is_index(part) && !subject.is_empty() {
                subject.push_str(&format!("[{part}]"));
            } else {
                subject = part.replace("~1", "/").replace("~0", "~");
            }
        }
        Some(subject).filter(|subject| !subject.is_empty())
    }
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Kind of failure.
    pub kind: Kind,
    /// The field at fault, when one is.
    pub place: Option<Place>,
    /// What is wrong: safe for the caller, no payload, no internals.
    pub detail: String,
    /// What to do instead, one line; may be empty.
    pub cure: String,
}

impl Error {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, place: None, detail: detail.into(), cure: String::new() }
    }

    /// The same error at a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same error with a cure.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }

    /// What is wrong as a sentence that names the field. Details are written without it: as
    /// predicates (`missing`, `not a preset`, `does not go with ..`) or as sentences of their own.
    #[must_use]
    pub fn sentence(&self) -> String {
        let detail = &self.detail;
        let names_resource = matches!(self.kind, Kind::NotFound | Kind::Conflict | Kind::Storage);
        let Some(subject) = self.place.as_ref().and_then(Place::subject) else {
            return detail.clone();
        };
        let mut words = detail.split(|c: char| !c.is_alphanumeric() && !"_-.".contains(c));
        let base = subject.split('[').next();
        if names_resource || words.any(|word| Some(word) == base) {
            return detail.clone();
        }
        match detail.split([' ', ';', ',']).next().unwrap_or_default() {
            "missing" | "not" | "given" | "above" | "beyond" | "explicit" => {
                format!("{subject} is {detail}")
            }
            "unknown" => format!("{subject} is an {detail}"),
            "does" | "needs" | "contradicts" | "differs" => format!("{subject} {detail}"),
            _ => format!("{subject}: {detail}"),
        }
    }

    /// The same error about the tensor of that name.
    #[must_use]
    pub fn about(mut self, tensor: &str) -> Self {
        self.detail = format!("tensor {tensor:?}: {}", self.detail);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place::Pointer(place) | Place::Parameter(place)) => write!(f, "{place}: ")?,
            Some(Place::Header(place)) => write!(f, "{place}: ")?,
            None => {}
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        let kind = match error.reason {
            Reason::Malformed => Kind::MalformedBody,
            Reason::Unsupported => Kind::UnsupportedTensor,
            Reason::TooLarge => Kind::TooLarge,
            Reason::NoRoom => Kind::Overloaded,
            Reason::Stopped => Kind::OutOfTime,
        };
        let mut result = Self::new(kind, error.detail).cure(error.cure);
        match error.at {
            Some(at) if at.starts_with('/') => result.place = Some(Place::Pointer(at)),
            Some(at) => result.detail = format!("{at}: {}", result.detail),
            None => {}
        }
        result
    }
}

impl Error {
    /// An error of the core about a scheme field or the data, placed where the
    /// caller wrote it.
    #[must_use]
    pub fn of_quant(error: QuantError, place: impl FnOnce(&str) -> Place) -> Self {
        let kind = match error.kind {
            ErrorKind::Misfit => Kind::InvalidOption,
            ErrorKind::Malformed => Kind::MalformedBody,
            ErrorKind::NonFinite => Kind::NonFinite,
            ErrorKind::NotLearnt | ErrorKind::NotKept => Kind::Conflict,
        };
        let detail = error.detail.into_owned();
        Self { kind, place: Some(place(error.field)), detail, cure: error.cure.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_names_its_field() {
        let sentence = |pointer: &str, detail: &str| {
            let place = Place::Pointer(pointer.to_owned());
            Error::new(Kind::InvalidOption, detail).at(place).sentence()
        };
        for (pointer, detail, expect) in [
            ("/shape", "missing", "shape is missing"),
            ("/scheme/bits", "unknown option", "bits is an unknown option"),
            ("/scheme", "not a preset", "scheme is not a preset"),
            ("/scheme/axis", "does not go with range mse", "axis does not go with range mse"),
            ("/scheme/scale", "4 values for 3 slices", "scale: 4 values for 3 slices"),
            ("/data/1/2", "null is not a number", "data[1][2]: null is not a number"),
            ("/packed", "only codes below 8 bits are packed", "only codes below 8 bits are packed"),
            ("/tensors/a~1b", "not an object", "a/b is not an object"),
            ("", "not an object", "not an object"),
        ] {
            assert_eq!(sentence(pointer, detail), expect);
        }
        let gone = Error::new(Kind::NotFound, "no such layer").at(Place::Parameter("name".into()));
        assert_eq!(gone.sentence(), "no such layer");
        assert_eq!(Error::new(Kind::TooLarge, "too large").sentence(), "too large");
    }
}

//! What a computation refuses.

use std::borrow::Cow;
use std::fmt;

/// What a caller can do about a [`QuantError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An option, a shape or parameters do not fit: change them.
    Misfit,
    /// Stored parts are not what their format says: send them as they were made.
    Malformed,
    /// The data has NaN, which the scheme refuses: choose what becomes of it.
    NonFinite,
    /// Nothing was learnt yet that could be answered: feed batches first.
    NotLearnt,
    /// What is needed was not kept: make it again, and keep it.
    NotKept,
}

/// A tensor that a scheme does not fit, or one that cannot be quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantError {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// The scheme field (or `data`) at fault.
    pub field: &'static str,
    /// What is wrong, lower case, no full stop.
    pub detail: Cow<'static, str>,
    /// What to send instead; empty when the detail says it.
    pub cure: Cow<'static, str>,
}

impl QuantError {
    /// A misfit of one field.
    #[must_use]
    pub fn field(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Misfit, field, detail)
    }

    /// An error of that kind about one field.
    #[must_use]
    pub fn of(kind: ErrorKind, field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, field, detail: detail.into(), cure: Cow::Borrowed("") }
    }

    /// Element `index` is NaN.
    pub(crate) fn nan(index: usize) -> Self {
        Self::of(ErrorKind::NonFinite, "data", format!("element {index} is NaN"))
    }

    /// The same error with a cure.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<Cow<'static, str>>) -> Self {
        self.cure = cure.into();
        self
    }
}

impl fmt::Display for QuantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}

impl std::error::Error for QuantError {}

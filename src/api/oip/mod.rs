//! The vocabulary of `/v2`, the Open Inference Protocol: operations as models
//! with named inputs and outputs.
//!
//! Options are those of `/v1`, as flat request parameters, and every number is
//! made by the code that `/v1` uses: only names and documents differ.

mod builtin;
pub mod documents;
mod exchange;
pub mod hosted;
mod models;

pub use builtin::run;
pub use exchange::{Body, Call, decode, encode};
pub use models::{CATALOG, Model, Operation, Spec, VERSION, find};

use super::error::{Error, Kind, Place};

/// Longest version; all of it digits.
const MAX_VERSION: usize = 18;

/// Whether `text` can be a version: 1 to 18 digits.
#[must_use]
pub fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a layer of that name could not be reached as a model.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == "stats" || find(name).is_some()
}

/// The error about a tensor that a model has not, or that a request lacks.
fn tensor_error(detail: String, pointer: String, known: &[&str]) -> Error {
    Error::new(Kind::MalformedBody, detail)
        .at(Place::Pointer(pointer))
        .cure(format!("the model has {}", known.join(", ")))
}

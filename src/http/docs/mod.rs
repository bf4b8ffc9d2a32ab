//! Schemas and examples of the `OpenAPI` document. The types here are never
//! made: bodies are decoded and written by `api`, field by field, and the
//! contract tests hold both against one another.
#![expect(dead_code, reason = "the types exist for their schemas")]

mod body;
mod calibrators;
mod examples;
mod failures;
mod layers;
mod query;

pub(super) use body::*;
pub(super) use calibrators::*;
pub(super) use examples::*;
pub(super) use failures::*;
pub(super) use layers::*;
pub(super) use query::*;

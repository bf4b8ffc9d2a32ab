//! Schemas and examples of the `OpenAPI` document. The types here are never
//! made: bodies are decoded and written by `api`, field by field, and the
//! contract tests hold both against one another.
#![expect(dead_code, reason = "the types exist for their schemas")]

mod body;
mod calibrators;
mod examples;
mod layers;
mod query;

use utoipa::IntoResponses;

use super::problem::Problem;

pub(super) use body::*;
pub(super) use calibrators::*;
pub(super) use examples::*;
pub(super) use layers::*;
pub(super) use query::*;

/// Every failure of the tensor routes.
#[derive(IntoResponses)]
pub(super) enum Problems {
    /// The body or an option is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// No key, or not a known one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// Asked for by a page of another origin, or under the name of another host.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The method is not one of the route's.
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(Problem),
    /// No acceptable type of answer.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(Problem),
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(Problem),
    /// Above a limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is of a type or coding that is not read.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// The tensor holds NaN or is of a kind that is not read, or the work cannot end in time.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// A defect of the server.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// No room at the moment, or stopping; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The work did not end in time, and was stopped.
    #[response(status = 504, content_type = "application/problem+json")]
    OutOfTime(Problem),
}

/// Further failures of the routes that keep things under names.
#[derive(IntoResponses)]
pub(super) enum NamedProblems {
    /// Nothing of that name.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// What there is contradicts the request.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
}

/// A further failure of the routes that keep something of a size.
#[derive(IntoResponses)]
pub(super) enum StorageProblems {
    /// No room for what is to be kept, in memory or on disk.
    #[response(status = 507, content_type = "application/problem+json")]
    Storage(Problem),
}

/// Failures of the routes that take nothing.
#[derive(IntoResponses)]
pub(super) enum ReadProblems {
    /// No key, or not a known one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// Asked for by a page of another origin, or under the name of another host.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The method is not one of the route's.
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(Problem),
    /// A defect of the server.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
}

//! Failures as RFC 9457 problem documents: the only place with their statuses.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{Error, Kind, Place};

use super::document;

/// A field at fault and what to do about it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<&'static str>,
    /// What is wrong with it.
    pub detail: String,
    /// What to send instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

/// A failed request (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stable identifier of the kind of failure.
    #[serde(rename = "type")]
    #[schema(example = "urn:quantd:error:invalid-option")]
    pub kind: &'static str,
    /// The kind in words.
    #[schema(example = "Invalid option")]
    pub title: &'static str,
    /// The status of the answer.
    #[schema(example = 400)]
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// What to do, in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cure: String,
    /// The id of the request, as in `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The same as `detail`, for clients that look here.
    pub error: String,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// `detail` for those who name the place before it.
    #[serde(skip)]
    bare: String,
}

/// A stable identifier of a kind of failure.
macro_rules! urn {
    ($name:literal) => {
        concat!("urn:quantd:error:", $name)
    };
}

/// Identifier, title and status of a kind of failure.
const fn describe(kind: Kind) -> (&'static str, &'static str, StatusCode) {
    match kind {
        Kind::MalformedBody => (urn!("malformed-body"), "Malformed body", StatusCode::BAD_REQUEST),
        Kind::InvalidOption => (urn!("invalid-option"), "Invalid option", StatusCode::BAD_REQUEST),
        Kind::UnsupportedTensor => {
            (urn!("unsupported-tensor"), "Unsupported tensor", StatusCode::UNPROCESSABLE_ENTITY)
        }
        Kind::NonFinite => {
            (urn!("non-finite"), "NaN in the data", StatusCode::UNPROCESSABLE_ENTITY)
        }
        Kind::NotAcceptable => {
            (urn!("not-acceptable"), "Not acceptable", StatusCode::NOT_ACCEPTABLE)
        }
        Kind::UnsupportedMediaType => (
            urn!("unsupported-media-type"),
            "Unsupported media type",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        Kind::TooLarge => (urn!("too-large"), "Too large", StatusCode::PAYLOAD_TOO_LARGE),
        Kind::Timeout => (urn!("timeout"), "Request timeout", StatusCode::REQUEST_TIMEOUT),
        Kind::TooMuchWork => {
            (urn!("too-much-work"), "Too much work", StatusCode::UNPROCESSABLE_ENTITY)
        }
        Kind::OutOfTime => (urn!("out-of-time"), "Out of time", StatusCode::GATEWAY_TIMEOUT),
        Kind::Overloaded => (urn!("overloaded"), "Overloaded", StatusCode::SERVICE_UNAVAILABLE),
        Kind::Draining => (urn!("draining"), "Stopping", StatusCode::SERVICE_UNAVAILABLE),
        Kind::MalformedRequest => {
            (urn!("malformed-request"), "Malformed request", StatusCode::BAD_REQUEST)
        }
        Kind::UriTooLong => (urn!("uri-too-long"), "URI too long", StatusCode::URI_TOO_LONG),
        Kind::HeadTooLarge => {
            (urn!("head-too-large"), "Head too large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        Kind::Forbidden => (urn!("forbidden"), "Forbidden", StatusCode::FORBIDDEN),
        Kind::Unauthorized => (urn!("unauthorized"), "Unauthorized", StatusCode::UNAUTHORIZED),
        Kind::NotFound => (urn!("not-found"), "Not found", StatusCode::NOT_FOUND),
        Kind::Conflict => (urn!("conflict"), "Conflict", StatusCode::CONFLICT),
        Kind::Storage => (urn!("storage"), "No room to keep it", StatusCode::INSUFFICIENT_STORAGE),
        Kind::MethodNotAllowed => {
            (urn!("method-not-allowed"), "Method not allowed", StatusCode::METHOD_NOT_ALLOWED)
        }
        Kind::NotImplemented => {
            (urn!("not-implemented"), "Not implemented", StatusCode::NOT_IMPLEMENTED)
        }
        Kind::Internal => (urn!("internal"), "Internal error", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, title, status) = describe(error.kind);
        let detail = error.sentence();
        let Error { place, detail: bare, cure, .. } = error;
        let errors = place.map(|place| {
            let mut field = FieldProblem {
                pointer: None,
                parameter: None,
                header: None,
                detail: detail.clone(),
                cure: cure.clone(),
            };
            match place {
                Place::Pointer(pointer) => field.pointer = Some(pointer),
                Place::Parameter(parameter) => field.parameter = Some(parameter),
                Place::Header(header) => field.header = Some(header),
            }
            field
        });
        Self {
            kind,
            title,
            status: status.as_u16(),
            error: detail.clone(),
            detail,
            cure,
            instance: None,
            errors: errors.into_iter().collect(),
            bare,
        }
    }
}

/// A failure in the form of the Open Inference Protocol, which every path under `/v2` answers with.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProtocolError {
    /// Where the fault is, what it is, and what to do instead.
    #[schema(example = "/inputs/0/datatype: not a datatype that is taken")]
    pub error: String,
}

impl From<&Problem> for ProtocolError {
    fn from(problem: &Problem) -> Self {
        let field = problem.errors.first();
        let place = field.and_then(|field| {
            let other = field.parameter.as_deref().or(field.header);
            field.pointer.as_deref().or(other)
        });
        let mut error = match place {
            Some(place) => format!("{place}: {}", problem.bare),
            None => problem.detail.clone(),
        };
        if !problem.cure.is_empty() {
            error.push_str("; ");
            error.push_str(&problem.cure);
        }
        Self { error }
    }
}

/// Whether failures of the path take the form of the Open Inference Protocol.
pub(super) fn speaks_protocol(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a failure of a request looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// That of the inference protocol.
    pub(super) protocol: bool,
    /// Laid out for people.
    pub(super) pretty: bool,
}

/// Puts the document of a failure into its response: the problem with the id
/// of the request, or the protocol's form.
pub(super) fn finish(mut problem: Problem, id: Option<&str>, form: Form, response: &mut Response) {
    problem.instance = id.map(str::to_owned);
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    // Of the document before, which another one takes the place of.
    headers.remove(header::CONTENT_ENCODING);
    let body = if form.protocol {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        document::text(&ProtocolError::from(&problem), form.pretty)
    } else {
        document::text(&problem, form.pretty)
    };
    *response.body_mut() = Body::from(body.unwrap_or_default());
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = document::text(&self, false).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of a body that is not read must not be taken for the next request.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        // The request-id layer fills in the instance of whatever carries one.
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

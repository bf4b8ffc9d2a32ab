//! The part that all requests with tensors share: formats and memory are settled from the head, then the
//! body is received.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;

use crate::api::answer::{Answer, Style};
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::Query;
use crate::api::name::Name;
use crate::api::payload::{Format, Payload};
use crate::service::admission::Permit;
use crate::service::{Outcome, Service};
use quantd_codec::encoding::{self, Encoding};
use quantd_codec::multipart;
use quantd_core::tensor::Buffer;

use super::App;
use super::body::{self, Bounds, Held};
use super::negotiate::{self, Accept, BodyType};

/// What an operation answers with and needs.
#[derive(Clone, Copy)]
pub(super) struct ContentPolicy<'a> {
    /// Formats of the answer, the one for a JSON request first, the one for a binary request second.
    pub(super) formats: &'a [Format],
    /// Bytes that a request may need in all, from its format and those of its body.
    pub(super) cost: &'a (dyn Fn(Format, usize) -> usize + Sync),
}

/// A request whose body is here, and nothing of it decoded.
#[derive(Debug)]
pub(super) struct Received {
    /// The body and the query.
    pub(super) payload: Payload,
    /// Format of the answer.
    pub(super) format: Format,
    /// How the text of the answer leaves.
    pub(super) style: Style,
    /// The right to hold what the request needs.
    pub(super) permit: Permit,
}

/// New work goes elsewhere from the moment the server is told to stop.
pub(super) fn refuse_when_draining(app: &App) -> Result<(), Error> {
    if app.is_draining() {
        return Err(Error::new(Kind::Draining, "the server is stopping").cure("ask another one"));
    }
    Ok(())
}

/// Refuses a request that could not be served whatever its body holds, before anything is read for it: by a server
/// that is stopping, or of a length that is not allowed or, by `cost`, could never be admitted.
pub(super) fn check(
    app: &App,
    headers: &HeaderMap,
    cost: &(dyn Fn(usize) -> usize + Sync),
) -> Result<Option<usize>, Error> {
    refuse_when_draining(app)?;
    let length = body::declared_length(headers, app.service.limits().max_bytes)?;
    app.service.compute().check(cost(length.unwrap_or(0)))?;
    Ok(length)
}

/// Reads the body of a request, of the length that was checked, behind `lead` bytes of zeros, and waits for the right to hold what the request needs,
/// by `cost` from the bytes of its body.
pub(super) async fn receive_bytes(
    app: &App,
    (length, body): (Option<usize>, Body),
    lead: usize,
    cost: &(dyn Fn(usize) -> usize + Sync),
) -> Result<(Buffer, Permit), Error> {
    let bounds = Bounds { max_bytes: app.service.limits().max_bytes, timeout: app.body_timeout };
    let compute = app.service.compute();
    let mut held = Held { compute, cost, permit: None };
    let buffer = body::receive(body, length, lead, bounds, &mut held).await?;
    match held.permit {
        Some(permit) => Ok((buffer, permit)),
        // Without a body there was nothing to admit.
        None => Ok((buffer, compute.admit(cost(0)).await?)),
    }
}

/// Receives a request: refuses it by its head where that tells enough, then reads its body with the right to hold
/// its bytes.
pub(super) async fn receive(
    app: &App,
    request: Request,
    policy: ContentPolicy<'_>,
) -> Result<Received, Error> {
    refuse_when_draining(app)?;
    // Whole, and not by extractors: those would copy all headers.
    let (Parts { headers, uri, .. }, body) = request.into_parts();
    let headers = &headers;
    let mut query = Query::new(uri.query().unwrap_or_default())?;
    let pretty = query.take_flag(negotiate::PRETTY)?;
    let body_type = negotiate::body_type(headers, &query)?;
    let encoding = negotiate::body_encoding(headers)?;
    let assumed = match &body_type {
        BodyType::Known(format) => *format,
        BodyType::Unnamed | BodyType::Form | BodyType::Multipart(_) => Format::Json,
    };
    let accept = Accept::of(headers)?;
    accept.format(policy.formats, assumed)?;
    let cost = |bytes: usize| (policy.cost)(assumed, bytes);
    let length = check(app, headers, &cost)?;
    let (buffer, permit) = receive_bytes(app, (length, body), 0, &cost).await?;
    let format = match (&body_type, encoding) {
        (BodyType::Known(format), _) => *format,
        (_, Encoding::Identity) => {
            let start = buffer.bytes();
            negotiate::sniff(&body_type, start.get(..multipart::MAX_HEAD).unwrap_or(start))?
        }
        (_, encoding) => {
            let start = encoding::start(encoding, buffer.bytes(), multipart::MAX_HEAD)?;
            negotiate::sniff(&body_type, &start)?
        }
    };
    let boundary = match body_type {
        BodyType::Multipart(boundary) => Some(boundary),
        BodyType::Known(_) | BodyType::Unnamed | BodyType::Form => None,
    };
    Ok(Received {
        payload: Payload { body: Arc::new(buffer), format, encoding, boundary, query },
        format: accept.format(policy.formats, format)?,
        style: Style { pretty, encoding: negotiate::reply_encoding(headers) },
        permit,
    })
}

/// Bytes of an entry of a list, and of its text.
const ENTRY: usize = 4 << 10;

/// Answers with a document of so many entries, once there is room for it.
pub(super) async fn document<T: Serialize>(
    app: &App,
    name: &'static str,
    entries: usize,
    query: Option<&str>,
    make: impl FnOnce(&Service) -> T,
) -> Result<Response, Error> {
    let received = Instant::now();
    let mut permit = app.service.admit(entries.saturating_add(1).saturating_mul(ENTRY)).await?;
    let started = Instant::now();
    let answer = Answer::document(&make(&app.service), &mut |bytes| permit.grow_by(bytes))?;
    let answer = match super::document::is_pretty(query) {
        true => answer.laid_out(&mut |bytes| permit.grow_by(bytes))?,
        false => answer,
    };
    permit.shrink(answer.len());
    let outcome = Outcome { answer, compute: started.elapsed(), permit: Arc::new(permit) };
    Ok(body::respond(name, outcome, received.elapsed()))
}

/// The name in the path of a request.
pub(super) struct Named(pub(super) Name);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let place = Place::Parameter("name".to_owned());
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Name::new(&name, place).map(Self),
            // What is no UTF-8 is no name either.
            Err(_) => Name::new("", place).map(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use tower::ServiceExt;

    use super::*;
    use crate::Quantd;
    use crate::config::Serve;

    const PATHS: [&str; 3] =
        ["/v1/layers/none/forward", "/v1/layers/none/evaluate", "/v2/models/none/infer"];

    /// Neither a server that stops nor a body that could never be held lets a layer be looked for.
    #[tokio::test]
    async fn a_layer_is_looked_for_once_its_request_could_be_served() {
        let quantd = Quantd::new(&Serve::for_tests()).unwrap();
        let status = async |path: &str, length: usize| {
            let request = Request::post(path).header("content-length", length);
            let request = request.body(Body::empty()).unwrap();
            quantd.router().oneshot(request).await.unwrap().status()
        };
        for path in PATHS {
            assert_eq!(status(path, 0).await, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(status(path, usize::MAX).await, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        }
        quantd.app.drain();
        for path in PATHS {
            assert_eq!(status(path, 0).await, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        }
    }
}

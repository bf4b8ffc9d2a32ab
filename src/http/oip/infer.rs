//! Inference.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;

use crate::api::answer::Style;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::Query;
use crate::api::oip::Body as Received;
use crate::http::{App, body, exchange, negotiate};
use crate::service::models::Inference;

use super::docs::{self, Failures, InferAnswer, InferRequest, ModelPath, VersionPath};
use super::{HEADER_LENGTH, Named};

/// Bytes that a request may need from those of its body: text of numbers is
/// about as long as the numbers and their answer, of binary elements the answer
/// is mostly smaller. What goes beyond asks for more once it is known.
fn cost(header: Option<usize>, body: usize) -> usize {
    let factor = if header.is_none() { 4 } else { 2 };
    body.saturating_mul(factor).saturating_add(64 << 10)
}

/// The bytes of the JSON header, if the request says them.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let bad = |detail: &str| {
        Err(Error::new(Kind::MalformedBody, detail)
            .at(Place::Header("inference-header-content-length"))
            .cure("send the bytes of the JSON before compression, or leave the header out"))
    };
    let mut found = None;
    for value in headers.get_all(HEADER_LENGTH) {
        // Digits only: `parse` would take a plus sign.
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let Some(length) = digits.and_then(|text| text.parse::<usize>().ok()) else {
            return bad("not a number of bytes");
        };
        if found.is_some_and(|found| found != length) {
            return bad("given twice, with different values");
        }
        found = Some(length);
    }
    Ok(found)
}

async fn carry_out(
    app: &App,
    named: Named,
    request: Request,
    received: Instant,
) -> Result<Response, Error> {
    let (Parts { headers, uri, .. }, body) = request.into_parts();
    let headers = &headers;
    let length = exchange::check(app, headers, &|bytes| cost(Some(0), bytes))?;
    let target = named.find(app).await?;
    let mut query = Query::new(uri.query().unwrap_or_default())?;
    let pretty = query.take_flag(negotiate::PRETTY)?;
    let header = header_length(headers)?;
    let encoding = negotiate::body_encoding(headers)?;
    // The elements behind the header start where vectors are read from.
    let lead = header.map_or(0, |header| header.wrapping_neg() % body::MAX_LEAD);
    let cost = |bytes| cost(header, bytes);
    let (bytes, permit) = exchange::receive_bytes(app, (length, body), lead, &cost).await?;
    let inference = Inference {
        target,
        body: Received { bytes: Arc::new(bytes), lead, header, encoding, query },
        style: Style { pretty, encoding: negotiate::asked_encoding(headers) },
        received,
    };
    let started = Instant::now();
    let outcome = app.service.infer(permit, inference).await?;
    Ok(body::respond("infer", outcome, started.elapsed()))
}

async fn handle(app: App, named: Named, request: Request) -> Result<Response, Error> {
    let received = Instant::now();
    carry_out(&app, named, request, received).await
}

/// Run a model.
///
/// Inputs and outputs are JSON numbers, or bytes behind the JSON (the binary
/// tensor data extension, announced by `Inference-Header-Content-Length`), or
/// both mixed. With a header length of 0 the body is the elements of the only
/// input. Options of a built-in model are the scheme fields of `/v1`, as flat
/// request parameters or in the query: `bits` or `scheme.bits`.
#[utoipa::path(
    post, path = "/v2/models/{model}/infer", operation_id = "v2_infer", tag = "inference protocol",
    params(ModelPath, docs::InferHeaders),
    request_body(description = "Inputs, options, and the outputs that are wanted.",
        content(
            (InferRequest = "application/json", example = json!(docs::infer_example())),
            (docs::BinaryBody = "application/octet-stream"))),
    responses(
        (status = 200, description = "The outputs.",
            content(
                (InferAnswer = "application/json", example = json!(docs::infer_answer_example())),
                (docs::BinaryBody = "application/octet-stream"))),
        Failures))]
pub(super) async fn infer(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Result<Response, Error> {
    handle(app, named, request).await
}

/// Run a version of a model.
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/infer", operation_id = "v2_version_infer",
    tag = "inference protocol", params(VersionPath, docs::InferHeaders),
    request_body(description = "Inputs, options, and the outputs that are wanted.",
        content(
            (InferRequest = "application/json", example = json!(docs::infer_example())),
            (docs::BinaryBody = "application/octet-stream"))),
    responses(
        (status = 200, description = "The outputs.",
            content(
                (InferAnswer = "application/json"),
                (docs::BinaryBody = "application/octet-stream"))),
        Failures))]
pub(super) async fn version_infer(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Result<Response, Error> {
    handle(app, named, request).await
}

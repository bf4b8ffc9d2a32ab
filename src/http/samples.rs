//! `GET /v1/samples/{name}`.

use std::time::Instant;

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;

use crate::api::answer::Style;
use crate::api::error::{Error, Kind};
use crate::api::payload::Format;
use crate::api::samples::{self, FORMATS};

use super::{App, body, docs, document, exchange, negotiate};

/// A tensor to try things on.
///
/// Made, not measured, and the same on every machine: normal weights, weights with outliers, a
/// convolution's kernel, or activations behind a rectifier. An npy file, unless `Accept` says otherwise; the
/// JSON answer is a request of quantize.
#[utoipa::path(
    get, path = "/v1/samples/{name}", operation_id = "sample", tag = "tensors",
    params(docs::SamplePath),
    responses(
        (status = 200, description = "The tensor, F32.",
            content(
                (docs::BinaryBody = "application/x-npy"),
                (docs::BinaryBody = "application/x-safetensors"),
                (docs::RestoredTensor = "application/json"),
                (docs::BinaryBody = "application/octet-stream"))),
        (status = 404, description = "No such sample.",
            body = super::Problem, content_type = "application/problem+json"),
        (status = 406, description = "No acceptable type of answer.",
            body = super::Problem, content_type = "application/problem+json"),
        (status = 503, description = "No room at the moment, or stopping; try again after `Retry-After`.",
            body = super::Problem, content_type = "application/problem+json"),
        docs::ReadProblems))]
pub(super) async fn sample(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    exchange::refuse_when_draining(&app)?;
    let sample = samples::find(&name)?;
    let format = negotiate::Accept::of(&headers)?.format(&FORMATS, Format::Json)?;
    let pretty = document::is_pretty(query.as_deref());
    let style = Style { pretty, encoding: negotiate::reply_encoding(&headers) };
    let permit = app.service.admit(sample.cost()).await?;
    let started = Instant::now();
    let outcome = app.service.work(permit, "sample", 0, move |context| {
        if context.task.is_cancelled() {
            return Err(Error::new(Kind::Internal, "cancelled"));
        }
        let answer = sample.answer(format, &mut |bytes| context.take(bytes))?;
        answer.styled(style, context)
    });
    let outcome = outcome.await?;
    Ok(body::respond("sample", outcome, started.elapsed()))
}

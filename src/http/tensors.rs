//! `POST /v1/quantize`, `/v1/dequantize`, `/v1/compare`, `/v1/inspect`, `/v1/matmul`.
//!
//! A handler decodes nothing: it settles formats and memory from the head of
//! the request, receives the body and hands both on as a command.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::error::Error;
use crate::service::{Command, Operation};

use super::exchange::{self, ContentPolicy, Received};
use super::{App, body, docs};

async fn handle(app: App, operation: Operation, request: Request) -> Result<Response, Error> {
    let policy = ContentPolicy {
        formats: operation.formats(),
        cost: &|format, body| operation.cost(format, body),
    };
    let Received { payload, format, style, permit } =
        exchange::receive(&app, request, policy).await?;
    let command = Command { operation, payload, format, style };
    let started = Instant::now();
    let outcome = app.service.run(permit, command).await?;
    Ok(body::respond(operation.name(), outcome, started.elapsed()))
}

/// Quantize tensors.
///
/// Takes one tensor (JSON, npy or bare elements) or several (safetensors, or
/// JSON `tensors`) and a scheme; answers with codes, scales, zero points, the
/// scheme as resolved and a report of what was lost. Of a safetensors file the
/// weights are quantized (floating point, two dimensions or more), and what is
/// none passes as it is; `include` and `exclude` say otherwise.
#[utoipa::path(
    post, path = "/v1/quantize", operation_id = "quantize", tag = "tensors",
    params(docs::SchemeQuery, docs::QuantizeQuery),
    request_body(description = "The tensors. Options stand in the body for JSON and in the query for everything else; what JSON does not say may stand in the query too.",
        content(
            (docs::QuantizeRequest = "application/json", examples(
                    ("default" = (summary = "No scheme: int8, or what the form says", value = json!(docs::quantize_plain()))),
                    ("rows" = (summary = "A scale for each row", value = json!(docs::quantize_rows()))),
                    ("groups" = (summary = "Groups of 4 bits, packed", value = json!(docs::quantize_groups()))),
                    ("percentile" = (summary = "A range without the extremes", value = json!(docs::quantize_percentile()))),
                    ("several" = (summary = "Several tensors", value = json!(docs::quantize_several()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Codes, parameters and report.",
            content(
                (docs::QuantizeAnswer = "application/json", example = json!(docs::quantize_answer_example())),
                (docs::BinaryBody = "application/x-safetensors"),
                (docs::BinaryBody = "application/x-npy"),
                (docs::BinaryBody = "application/octet-stream"))),
        docs::Problems))]
pub(super) async fn quantize(State(app): State<App>, request: Request) -> Result<Response, Error> {
    handle(app, Operation::Quantize, request).await
}

/// Restore real numbers from codes.
///
/// Takes exactly what `quantize` answered, in any of its formats; what passed
/// there passes here.
#[utoipa::path(
    post, path = "/v1/dequantize", operation_id = "dequantize", tag = "tensors",
    params(docs::SchemeQuery, docs::DequantizeQuery),
    request_body(description = "An answer of quantize. For npy and bare elements, which are codes alone, scale and zero point stand in the query.",
        content(
            (docs::DequantizeRequest = "application/json", examples(
                    ("rows" = (summary = "A scale for each row", value = json!(docs::dequantize_rows()))),
                    ("packed" = (summary = "4-bit codes, two a byte", value = json!(docs::dequantize_packed()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The restored tensors.",
            content(
                (docs::DequantizeAnswer = "application/json"),
                (docs::BinaryBody = "application/x-safetensors"),
                (docs::BinaryBody = "application/x-npy"),
                (docs::BinaryBody = "application/octet-stream"))),
        docs::Problems))]
pub(super) async fn dequantize(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Error> {
    handle(app, Operation::Dequantize, request).await
}

/// Compare schemes on one tensor.
///
/// Reports on each scheme of a list, or on a sweep of common ones, in one
/// table, and marks those that no other beats in both bits and error. Of
/// several tensors `include` and `exclude` say which is meant; else it is the
/// only weight of a file.
#[utoipa::path(
    post, path = "/v1/compare", operation_id = "compare", tag = "tensors",
    params(docs::TensorQuery, docs::CompareQuery),
    request_body(description = "One tensor.",
        content(
            (docs::CompareRequest = "application/json", examples(
                    ("default" = (summary = "A sweep of common schemes", value = json!(docs::compare_sweep()))),
                    ("listed" = (summary = "A list of schemes", value = json!(docs::compare_listed()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The table.", body = crate::api::documents::CompareDoc),
        docs::Problems))]
pub(super) async fn compare(State(app): State<App>, request: Request) -> Result<Response, Error> {
    handle(app, Operation::Compare, request).await
}

/// Look at a tensor before choosing a scheme.
///
/// Extremes, moments, percentiles, histogram and the count of what is not
/// finite, over the tensor and, when a granularity is named, slice by slice. Of
/// several tensors `include` and `exclude` say which is meant.
#[utoipa::path(
    post, path = "/v1/inspect", operation_id = "inspect", tag = "tensors",
    params(docs::TensorQuery, docs::InspectQuery),
    request_body(description = "One tensor.",
        content(
            (docs::InspectRequest = "application/json", examples(
                    ("default" = (summary = "The tensor as a whole", value = json!(docs::inspect_whole()))),
                    ("rows" = (summary = "Each row too", value = json!(docs::inspect_rows()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The statistics.", body = crate::api::documents::InspectDoc),
        docs::Problems))]
pub(super) async fn inspect(State(app): State<App>, request: Request) -> Result<Response, Error> {
    handle(app, Operation::Inspect, request).await
}

/// Multiply matrices in 8-bit integers.
///
/// Operands are real numbers, quantized on the fly, or codes as `quantize`
/// answers them; A is `[.., m, k]`, B `[.., k, n]` (or `[.., n, k]` with
/// `transpose_b`), leading dimensions broadcast. The sums are exact; they are
/// answered as they are, scaled to real numbers, or requantized.
#[utoipa::path(
    post, path = "/v1/matmul", operation_id = "matmul", tag = "tensors",
    params(docs::MatmulQuery),
    request_body(description = "Both operands: in JSON, or as the tensors a and b of a safetensors file.",
        content(
            (docs::MatmulRequest = "application/json", examples(
                    ("default" = (summary = "Real numbers, quantized on the way", value = json!(docs::matmul_real()))),
                    ("quantized" = (summary = "Codes, a bias and a ReLU", value = json!(docs::matmul_codes()))))),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The product.",
            content(
                (docs::MatmulAnswer = "application/json"),
                (docs::BinaryBody = "application/x-safetensors"),
                (docs::BinaryBody = "application/x-npy"),
                (docs::BinaryBody = "application/octet-stream"))),
        docs::Problems))]
pub(super) async fn matmul(State(app): State<App>, request: Request) -> Result<Response, Error> {
    handle(app, Operation::Matmul, request).await
}

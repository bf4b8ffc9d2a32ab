//! `/v1/layers`: layers that are kept, and run.

use std::time::Instant;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::answer::Style;
use crate::api::error::Error;
use crate::api::layers::documents::{EvaluationDoc, LayerDoc, LayersDoc};
use crate::api::name::Name;
use crate::api::payload::Format;
use quantd_codec::encoding::Encoding;

use super::document::Document;
use super::exchange::{self, ContentPolicy, Named, Received};
use super::{App, body, docs};

/// Answers of documents.
const DOCUMENTS: &[Format] = &[Format::Json];
/// Answers of tensors.
const TENSORS: &[Format] = &[Format::Json, Format::Safetensors, Format::Npy, Format::Raw];

/// The body, what it decodes to, and the answer.
const fn cost(format: Format, body: usize) -> usize {
    let factor = match format {
        Format::Json => 3,
        Format::Safetensors | Format::Npy | Format::Raw => 2,
    };
    body.saturating_mul(factor).saturating_add(64 << 10)
}

/// The least of it, for a body whose format is not known yet.
const fn least(body: usize) -> usize {
    cost(Format::Raw, body)
}

async fn make(app: App, name: Option<Name>, request: Request) -> Result<Response, Error> {
    let policy = ContentPolicy { formats: DOCUMENTS, cost: &cost };
    let Received { payload, style, permit, .. } = exchange::receive(&app, request, policy).await?;
    let started = Instant::now();
    let style = Style { encoding: Encoding::Identity, ..style };
    let mut outcome = app.service.make_layer(permit, name, payload, style).await?;
    let created = outcome.answer.created.take();
    let mut response = body::respond("make_layer", outcome, started.elapsed());
    if created.is_some() {
        *response.status_mut() = StatusCode::CREATED;
        body::locate(&mut response, "/v1/layers", created);
    }
    Ok(response)
}

/// Make a layer.
///
/// Weights, quantized here or by `quantize`, with bias, activation and the way
/// input and output become codes; or a chain of layers. A name that is taken is
/// refused: PUT replaces.
#[utoipa::path(
    post, path = "/v1/layers", operation_id = "make_layer", tag = "layers",
    params(docs::LayerQuery),
    request_body(description = "Weight and bias: in JSON, or as the tensors weight and bias of a safetensors file, or as what quantize answered; in the other formats the weight alone.",
        content(
            (docs::LayerRequest = "application/json", examples(
                    ("real" = (summary = "Real numbers, quantized here", value = json!(docs::layer_real()))),
                    ("codes" = (summary = "Codes, and a static input", value = json!(docs::layer_codes()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 201, description = "The layer, which is there, at `Location`, and saved.", body = LayerDoc,
            headers(("location" = String, description = "Path of the layer."))),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, Error> {
    make(app, None, request).await
}

/// Make or replace a layer of that name.
///
/// One that is there is replaced at once, the version is one higher; what runs
/// ends on the old one.
#[utoipa::path(
    put, path = "/v1/layers/{name}", operation_id = "put_layer", tag = "layers",
    params(docs::NamePath, docs::LayerQuery),
    request_body(description = "As for POST; the name may be left out.",
        content(
            (docs::LayerRequest = "application/json", examples(
                    ("real" = (summary = "Real numbers, quantized here", value = json!(docs::layer_real()))),
                    ("codes" = (summary = "Codes, and a static input", value = json!(docs::layer_codes()))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The layer, which is in place of the one before and saved.", body = LayerDoc),
        (status = 201, description = "The layer, which is there, at `Location`, and saved.", body = LayerDoc,
            headers(("location" = String, description = "Path of the layer."))),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn replace(
    State(app): State<App>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Error> {
    make(app, Some(name), request).await
}

/// List all layers.
#[utoipa::path(get, path = "/v1/layers", operation_id = "list_layers", tag = "layers",
    responses((status = 200, description = "In the order of their names.", body = LayersDoc),
        docs::Problems))]
pub(super) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let entries = app.service.layers().list_len();
    exchange::document(&app, "list_layers", entries, query.as_deref(), |service| {
        service.layers().list()
    })
    .await
}

/// Describe a layer.
#[utoipa::path(get, path = "/v1/layers/{name}", operation_id = "describe_layer", tag = "layers",
    params(docs::NamePath),
    responses((status = 200, description = "The layer.", body = LayerDoc),
        docs::Problems, docs::NamedProblems))]
pub(super) async fn describe(
    State(app): State<App>,
    Named(name): Named,
) -> Result<Document<LayerDoc>, Error> {
    app.service.layers().describe(&name).map(Document)
}

/// Remove a layer, its file included.
#[utoipa::path(delete, path = "/v1/layers/{name}", operation_id = "delete_layer", tag = "layers",
    params(docs::NamePath),
    responses((status = 200, description = "What was removed.", body = LayerDoc),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn delete(
    State(app): State<App>,
    Named(name): Named,
) -> Result<Document<LayerDoc>, Error> {
    app.service.layers().delete(&name).await.map(Document)
}

/// Run a layer.
///
/// Takes one tensor, `[.., inputs]` or `[batch, channels, height, width]`: real
/// numbers, or codes where the input is static.
#[utoipa::path(
    post, path = "/v1/layers/{name}/forward", operation_id = "run_layer", tag = "layers",
    params(docs::NamePath, docs::TensorQuery, docs::RunQuery),
    request_body(description = "One tensor.",
        content(
            (docs::RunRequest = "application/json", examples(("row" = (summary = "One row", value = json!({"data": [[0.5, -1.0]]}))),
                ("rows" = (summary = "Two rows", value = json!({"data": [[0.5, -1.0], [2.0, 0.25]]}))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The result.",
            content(
                (docs::ForwardAnswer = "application/json"),
                (docs::BinaryBody = "application/x-safetensors"),
                (docs::BinaryBody = "application/x-npy"),
                (docs::BinaryBody = "application/octet-stream"))),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn forward(
    State(app): State<App>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Error> {
    exchange::check(&app, request.headers(), &least)?;
    let hosted = app.service.layers().get(&name, None).await?;
    let policy = ContentPolicy { formats: TENSORS, cost: &cost };
    let Received { payload, format, style, permit } =
        exchange::receive(&app, request, policy).await?;
    let started = Instant::now();
    let outcome = app.service.run_layer(permit, hosted, payload, (format, style)).await?;
    Ok(body::respond("forward", outcome, started.elapsed()))
}

/// Compare a layer with its real numbers.
///
/// Runs both on the caller's data, side by side: how far the results are
/// apart, what the layer takes of the memory, and how much faster it is.
#[utoipa::path(
    post, path = "/v1/layers/{name}/evaluate", operation_id = "evaluate_layer", tag = "layers",
    params(docs::NamePath, docs::TensorQuery),
    request_body(description = "One tensor.",
        content(
            (crate::api::schemas::TensorBody = "application/json", examples(("row" = (summary = "One row", value = json!({"data": [[0.5, -1.0]]}))),
                ("rows" = (summary = "Two rows", value = json!({"data": [[0.5, -1.0], [2.0, 0.25]]}))))),
            (docs::BinaryBody = "application/octet-stream"),
            (docs::BinaryBody = "application/x-npy"),
            (docs::BinaryBody = "application/x-safetensors"),
            (docs::FileForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Errors, memory and times.", body = EvaluationDoc),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn evaluate(
    State(app): State<App>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Error> {
    exchange::check(&app, request.headers(), &least)?;
    let hosted = app.service.layers().get(&name, None).await?;
    let policy = ContentPolicy { formats: DOCUMENTS, cost: &cost };
    let Received { payload, style, permit, .. } = exchange::receive(&app, request, policy).await?;
    let started = Instant::now();
    let outcome = app.service.evaluate_layer(permit, hosted, payload, style).await?;
    Ok(body::respond("evaluate", outcome, started.elapsed()))
}

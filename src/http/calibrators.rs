//! `/v1/calibrators`: ranges learnt over batches.

use std::time::Instant;

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::answer::{Answer, Style};
use crate::api::context::Context;
use crate::api::error::Error;
use crate::api::fields::Query;
use crate::api::payload::{Format, Payload};
use crate::service::calibrators::Calibrators;

use super::document::Document;
use super::exchange::{self, ContentPolicy, Named, Received};
use super::{App, body, docs, negotiate};

/// What is answered with.
const FORMATS: &[Format] = &[Format::Json];
/// Bytes that a request without a body is admitted with.
const SMALL: usize = 64 << 10;

/// Receives a request and does its work on the compute pool.
async fn receive(
    app: App,
    operation: &'static str,
    request: Request,
    work: impl FnOnce(&Calibrators, Payload, &mut Context<'_>) -> Result<Answer, Error>
    + Clone
    + Send
    + 'static,
) -> Result<Response, Error> {
    let policy = ContentPolicy { formats: FORMATS, cost: &Calibrators::cost };
    let Received { payload, style, permit, .. } = exchange::receive(&app, request, policy).await?;
    let calibrators = app.service.calibrators().clone();
    let length = payload.body.bytes().len();
    let started = Instant::now();
    let work = move |context: &mut Context<'_>| {
        work(&calibrators, payload, context)?.styled(style, context)
    };
    let mut outcome = app.service.work(permit, operation, length, work).await?;
    let created = outcome.answer.created.take();
    let mut response = body::respond(operation, outcome, started.elapsed());
    body::locate(&mut response, "/v1/calibrators", created);
    Ok(response)
}

/// What a request without a body asks for, and how its answer is to leave.
fn asked(headers: &HeaderMap, query: Option<String>) -> Result<(Query, Style), Error> {
    negotiate::Accept::of(headers)?.format(FORMATS, Format::Json)?;
    let mut query = Query::new(&query.unwrap_or_default())?;
    let pretty = query.take_flag(negotiate::PRETTY)?;
    Ok((query, Style { pretty, encoding: negotiate::reply_encoding(headers) }))
}

/// Does work that needs no body on the compute pool.
async fn read(
    app: App,
    operation: &'static str,
    style: Style,
    work: impl FnOnce(&Calibrators, &mut Context<'_>) -> Result<Answer, Error> + Clone + Send + 'static,
) -> Result<Response, Error> {
    let permit = app.service.admit(SMALL).await?;
    let calibrators = app.service.calibrators().clone();
    let started = Instant::now();
    let work = move |context: &mut Context<'_>| work(&calibrators, context)?.styled(style, context);
    let outcome = app.service.work(permit, operation, 0, work).await?;
    Ok(body::respond(operation, outcome, started.elapsed()))
}

/// Make a calibrator.
///
/// From options, or from the `document` that another one was exported as.
/// A name that is taken is refused unless `replace` is set.
#[utoipa::path(
    post, path = "/v1/calibrators", operation_id = "create_calibrator", tag = "calibrators",
    request_body(description = "How it learns.", content(
        (docs::CalibratorRequest = "application/json", examples(
                    ("percentile" = (summary = "A percentile over all batches", value = json!(docs::calibrator_example()))),
                    ("channels" = (summary = "A range for each channel", value = json!(docs::calibrator_channels()))))))),
    responses(
        (status = 201, description = "It is there, at `Location`.", body = docs::CalibratorAnswer,
            headers(("location" = String, description = "Path of the calibrator."))),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, Error> {
    let work = |calibrators: &Calibrators, payload, context: &mut Context<'_>| {
        calibrators.create(payload, context)
    };
    let mut response = receive(app, "calibrator", request, work).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// List the calibrators.
#[utoipa::path(
    get, path = "/v1/calibrators", operation_id = "list_calibrators", tag = "calibrators",
    responses((status = 200, description = "In the order of their names.", body = crate::api::calibrators::List),
        docs::Problems))]
pub(super) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let entries = app.service.calibrators().len();
    exchange::document(&app, "list_calibrators", entries, query.as_deref(), |service| {
        service.calibrators().list()
    })
    .await
}

/// What a calibrator has learnt.
///
/// Range, scales and zero points for the codes that it was created for, or for
/// those that the query names.
#[utoipa::path(
    get, path = "/v1/calibrators/{name}", operation_id = "describe_calibrator", tag = "calibrators",
    params(docs::CalibratorPath, docs::CalibratorQuery),
    responses((status = 200, description = "All there is to say.", body = docs::CalibratorAnswer),
        docs::Problems, docs::NamedProblems))]
pub(super) async fn describe(
    State(app): State<App>,
    Named(name): Named,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let (query, style) = asked(&headers, query)?;
    read(app, "calibrator", style, move |calibrators, context| {
        calibrators.describe(&name, query, context)
    })
    .await
}

/// Delete a calibrator.
#[utoipa::path(
    delete, path = "/v1/calibrators/{name}", operation_id = "delete_calibrator", tag = "calibrators",
    params(docs::CalibratorPath),
    responses((status = 200, description = "It is gone.", body = docs::Deleted),
        docs::Problems, docs::NamedProblems))]
pub(super) async fn delete(State(app): State<App>, Named(name): Named) -> Result<Response, Error> {
    app.service.calibrators().remove(&name)?;
    Ok(Document(docs::Deleted { deleted: name.as_str().to_owned() }).into_response())
}

/// Feed a batch to a calibrator.
///
/// One tensor in any format. Answers with what the calibrator has seen and its
/// range now; all of the batch counts, or nothing of it.
#[utoipa::path(
    post, path = "/v1/calibrators/{name}/batches", operation_id = "feed_calibrator", tag = "calibrators",
    params(docs::CalibratorPath, docs::TensorQuery, docs::BatchQuery),
    request_body(description = "One tensor.", content(
        (docs::BatchRequest = "application/json", example = json!(docs::batch_example())),
        (docs::BinaryBody = "application/octet-stream"),
        (docs::BinaryBody = "application/x-npy"),
        (docs::BinaryBody = "application/x-safetensors"),
        (docs::FileForm = "multipart/form-data"))),
    responses((status = 200, description = "What it knows now.", body = docs::CalibratorAnswer),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn feed(
    State(app): State<App>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Error> {
    // Before a body is received for nothing.
    app.service.calibrators().get(&name)?;
    receive(app, "calibrate", request, move |calibrators, payload, context| {
        calibrators.feed(&name, payload, context)
    })
    .await
}

/// Merge another calibrator into one.
///
/// The other is one of this server, or one that was exported: replicas
/// calibrate apart and are joined. It must have been created alike.
#[utoipa::path(
    post, path = "/v1/calibrators/{name}/merge", operation_id = "merge_calibrator", tag = "calibrators",
    params(docs::CalibratorPath),
    request_body(description = "The other one, by its name or as it was exported.", content(
        (docs::MergeRequest = "application/json", example = json!(docs::merge_example())))),
    responses((status = 200, description = "What it knows now.", body = docs::CalibratorAnswer),
        docs::Problems, docs::NamedProblems, docs::StorageProblems))]
pub(super) async fn merge(
    State(app): State<App>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Error> {
    app.service.calibrators().get(&name)?;
    receive(app, "calibrator", request, move |calibrators, payload, context| {
        calibrators.merge(&name, payload, context)
    })
    .await
}

/// Export a calibrator.
///
/// As one document, from which it is made again, or that is merged into another.
#[utoipa::path(
    get, path = "/v1/calibrators/{name}/export", operation_id = "export_calibrator", tag = "calibrators",
    params(docs::CalibratorPath),
    responses((status = 200, description = "The document.", body = crate::api::calibrators::schemas::CalibratorDocument),
        docs::Problems, docs::NamedProblems))]
pub(super) async fn export(
    State(app): State<App>,
    Named(name): Named,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let (_, style) = asked(&headers, query)?;
    read(app, "calibrator", style, move |calibrators, context| calibrators.export(&name, context))
        .await
}

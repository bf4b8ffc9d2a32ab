//! What models there are, what they take and give, and what they were asked.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{Error, Kind};
use crate::api::oip::documents::{ModelConfig, ModelMetadata, ModelNames, Statistics};
use crate::http::{App, exchange};

use super::Named;
use super::docs::{Failures, ModelFailures, ModelPath, ReadinessFailures, VersionPath};
use crate::http::document::Document;

/// Whether a model takes requests.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelReady {
    /// Its name.
    name: String,
    /// It does.
    ready: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

fn readiness(app: &App, named: Named) -> Result<Response, Error> {
    let Some(loaded) = app.service.is_model_ready(&named.model, named.version.as_deref()) else {
        return Err(Error::new(Kind::NotFound, "no such model, or no such version of it"));
    };
    let error = match (app.is_ready(), loaded) {
        (false, _) => Some("the server is stopping"),
        (true, false) => Some("the model is unloaded"),
        (true, true) => None,
    };
    let ready = error.is_none();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Document(ModelReady { name: named.model, ready, error })).into_response())
}

async fn described(app: &App, named: &Named) -> Result<ModelMetadata, Error> {
    Ok(named.find(app).await?.metadata())
}

async fn counted(app: &App, named: &Named) -> Result<Document<Statistics>, Error> {
    let target = named.find(app).await?;
    Ok(Document(Statistics { model_stats: vec![app.service.statistics(&target)] }))
}

/// Names of all models.
#[utoipa::path(get, path = "/v2/models", operation_id = "v2_models", tag = "inference protocol",
    responses((status = 200, description = "The names.", body = ModelNames), Failures))]
pub(super) async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    exchange::document(&app, "models", app.service.model_count(), query.as_deref(), |service| {
        let mut models: Vec<_> = service.index().into_iter().map(|entry| entry.name).collect();
        models.dedup();
        ModelNames { models }
    })
    .await
}

/// Inputs and outputs of a model.
#[utoipa::path(get, path = "/v2/models/{model}", operation_id = "v2_model",
    tag = "inference protocol", params(ModelPath),
    responses((status = 200, description = "The model.", body = ModelMetadata), ModelFailures))]
pub(super) async fn metadata(
    State(app): State<App>,
    named: Named,
) -> Result<Document<ModelMetadata>, Error> {
    described(&app, &named).await.map(Document)
}

/// Inputs and outputs of a version of a model.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", operation_id = "v2_version",
    tag = "inference protocol", params(VersionPath),
    responses((status = 200, description = "The model.", body = ModelMetadata), ModelFailures))]
pub(super) async fn version_metadata(
    State(app): State<App>,
    named: Named,
) -> Result<Document<ModelMetadata>, Error> {
    described(&app, &named).await.map(Document)
}

/// Whether a model takes requests.
#[utoipa::path(get, path = "/v2/models/{model}/ready", operation_id = "v2_model_ready",
    tag = "inference protocol", params(ModelPath),
    responses(
        (status = 200, description = "It does.", body = ModelReady),
        (status = 503, description = "The server is stopping, or the model is unloaded.", body = ModelReady),
        ReadinessFailures))]
pub(super) async fn ready(State(app): State<App>, named: Named) -> Result<Response, Error> {
    readiness(&app, named)
}

/// Whether a version of a model takes requests.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready",
    operation_id = "v2_version_ready", tag = "inference protocol", params(VersionPath),
    responses(
        (status = 200, description = "It does.", body = ModelReady),
        (status = 503, description = "The server is stopping, or the model is unloaded.", body = ModelReady),
        ReadinessFailures))]
pub(super) async fn version_ready(State(app): State<App>, named: Named) -> Result<Response, Error> {
    readiness(&app, named)
}

/// A model in the terms of Triton's configuration.
#[utoipa::path(get, path = "/v2/models/{model}/config", operation_id = "v2_model_config",
    tag = "inference protocol", params(ModelPath),
    responses((status = 200, description = "The configuration.", body = ModelConfig), ModelFailures))]
pub(super) async fn config(
    State(app): State<App>,
    named: Named,
) -> Result<Document<ModelConfig>, Error> {
    described(&app, &named).await.map(ModelConfig::from).map(Document)
}

/// A version of a model in the terms of Triton's configuration.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/config",
    operation_id = "v2_version_config", tag = "inference protocol", params(VersionPath),
    responses((status = 200, description = "The configuration.", body = ModelConfig), ModelFailures))]
pub(super) async fn version_config(
    State(app): State<App>,
    named: Named,
) -> Result<Document<ModelConfig>, Error> {
    described(&app, &named).await.map(ModelConfig::from).map(Document)
}

/// Counts and durations of all models.
#[utoipa::path(get, path = "/v2/models/stats", operation_id = "v2_statistics",
    tag = "inference protocol",
    responses((status = 200, description = "Since the server started.", body = Statistics), Failures))]
pub(super) async fn all_statistics(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    exchange::document(&app, "statistics", app.service.model_count(), query.as_deref(), |service| {
        Statistics { model_stats: service.all_statistics() }
    })
    .await
}

/// Counts and durations of a model.
#[utoipa::path(get, path = "/v2/models/{model}/stats", operation_id = "v2_model_statistics",
    tag = "inference protocol", params(ModelPath),
    responses((status = 200, description = "Since the server started.", body = Statistics), ModelFailures))]
pub(super) async fn statistics(
    State(app): State<App>,
    named: Named,
) -> Result<Document<Statistics>, Error> {
    counted(&app, &named).await
}

/// Counts and durations of a version of a model.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/stats",
    operation_id = "v2_version_statistics", tag = "inference protocol", params(VersionPath),
    responses((status = 200, description = "Since the server started.", body = Statistics), ModelFailures))]
pub(super) async fn version_statistics(
    State(app): State<App>,
    named: Named,
) -> Result<Document<Statistics>, Error> {
    counted(&app, &named).await
}

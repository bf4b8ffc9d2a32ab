//! The repository of models, as Triton's extension has it.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value};

use crate::api::error::{Error, Kind, Place};
use crate::api::oip::documents::IndexEntry;
use crate::http::{App, exchange, negotiate};
use quantd_codec::json;

use super::Named;
use super::docs::{Failures, IndexRequest, LoadRequest, ModelPath, UnloadRequest};
use crate::http::document::Document;

/// Longest body of these requests.
const MAX_BODY: usize = 64 << 10;

/// The body as an object; an empty one says nothing.
async fn receive(app: &App, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Error> {
    if negotiate::body_encoding(headers)? != quantd_codec::encoding::Encoding::Identity {
        return Err(Error::new(Kind::UnsupportedMediaType, "the body is compressed")
            .at(Place::Header("content-encoding"))
            .cure("send it as it is"));
    }
    let needed = |bytes: usize| bytes;
    let length = exchange::check(app, headers, &needed)?;
    let (bytes, _permit) = exchange::receive_bytes(app, (length, body), 0, &needed).await?;
    let text = bytes.bytes();
    if text.len() > MAX_BODY {
        let detail = format!("the body is longer than {MAX_BODY} bytes");
        return Err(Error::new(Kind::TooLarge, detail));
    }
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match json::read_value(text, "")? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Error::new(Kind::MalformedBody, "a JSON object is expected here"))
        }
    }
}

/// The parameters of a request to load or unload.
fn parameters(mut body: Map<String, Value>) -> Result<Map<String, Value>, Error> {
    match body.remove("parameters") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Error::new(Kind::MalformedBody, "parameters are not an object")
            .at(Place::Pointer("/parameters".to_owned()))),
    }
}

/// Every model with its versions and state.
#[utoipa::path(post, path = "/v2/repository/index", operation_id = "v2_repository_index",
    tag = "inference protocol",
    request_body(description = "May be empty.", content((Option<IndexRequest> = "application/json"))),
    responses((status = 200, description = "The models.", body = Vec<IndexEntry>), Failures))]
pub(super) async fn index(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Error> {
    let body = receive(&app, &headers, body).await?;
    let ready = match body.get("ready") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => {
            return Err(Error::new(Kind::MalformedBody, "not a boolean")
                .at(Place::Pointer("/ready".to_owned())));
        }
    };
    exchange::document(&app, "index", app.service.model_count(), query.as_deref(), |service| {
        let mut entries = service.index();
        entries.retain(|entry| !ready || entry.state == "READY");
        entries
    })
    .await
}

/// Load a model.
///
/// Brings a layer back from the directory. Built-in models are always loaded. Files and configurations sent along are refused.
#[utoipa::path(post, path = "/v2/repository/models/{model}/load", operation_id = "v2_repository_load",
    tag = "inference protocol", params(ModelPath),
    request_body(description = "May be empty.", content((Option<LoadRequest> = "application/json"))),
    responses((status = 200, description = "It is loaded.", body = Object), Failures))]
pub(super) async fn load(
    State(app): State<App>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Document<Map<String, Value>>, Error> {
    let parameters = parameters(receive(&app, &headers, body).await?)?;
    if parameters.keys().any(|key| key == "config" || key.starts_with("file:")) {
        let detail = "models are not taken from the request";
        return Err(Error::new(Kind::NotImplemented, detail)
            .at(Place::Pointer("/parameters".to_owned()))
            .cure("leave config and file: out"));
    }
    app.service.load_model(&named.model).await?;
    Ok(Document(Map::new()))
}

/// Unload a model.
///
/// A layer stays on the disk, and is gone where there is no directory. Built-in models cannot be
/// unloaded.
#[utoipa::path(post, path = "/v2/repository/models/{model}/unload",
    operation_id = "v2_repository_unload", tag = "inference protocol", params(ModelPath),
    request_body(description = "May be empty.", content((Option<UnloadRequest> = "application/json"))),
    responses((status = 200, description = "It is unloaded.", body = Object), Failures))]
pub(super) async fn unload(
    State(app): State<App>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Document<Map<String, Value>>, Error> {
    parameters(receive(&app, &headers, body).await?)?;
    app.service.unload_model(&named.model).await?;
    Ok(Document(Map::new()))
}

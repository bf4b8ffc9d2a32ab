//! Health and description of the server, as the protocol has them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::oip::documents::ServerMetadata;
use crate::http::App;

use super::docs::ReadFailures;
use crate::http::document::Document;

/// Extensions of the protocol that are spoken.
const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// Whether the server is alive.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerLive)]
pub(super) struct Live {
    /// It is.
    live: bool,
}

/// Whether the server takes work.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerReady)]
pub(super) struct Ready {
    /// It takes new work.
    ready: bool,
    /// The process answers.
    live: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// Whether the server is alive.
#[utoipa::path(get, path = "/v2/health/live", operation_id = "v2_live", tag = "inference protocol",
    responses((status = 200, description = "It is.", body = Live), ReadFailures))]
pub(super) async fn live() -> Document<Live> {
    Document(Live { live: true })
}

/// Whether the server takes requests.
#[utoipa::path(get, path = "/v2/health/ready", operation_id = "v2_ready", tag = "inference protocol",
    responses(
        (status = 200, description = "It does.", body = Ready),
        (status = 503, description = "The server is stopping.", body = Ready),
        ReadFailures))]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let ready = app.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let error = (!ready).then_some("the server is stopping");
    (status, Document(Ready { ready, live: true, error })).into_response()
}

fn metadata() -> Document<ServerMetadata> {
    Document(ServerMetadata {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: EXTENSIONS.to_vec(),
    })
}

/// Name, version and extensions of the server.
#[utoipa::path(get, path = "/v2", operation_id = "v2_server", tag = "inference protocol",
    responses((status = 200, description = "The server.", body = ServerMetadata), ReadFailures))]
pub(super) async fn server() -> Document<ServerMetadata> {
    metadata()
}

/// The same under the other spelling of the path.
#[utoipa::path(get, path = "/v2/", operation_id = "v2_server_slash", tag = "inference protocol",
    responses((status = 200, description = "The server.", body = ServerMetadata), ReadFailures))]
pub(super) async fn server_slash() -> Document<ServerMetadata> {
    metadata()
}

//! Health, metrics and self-description.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::presets::PRESETS;
use crate::telemetry;
use quantd_kernels::Isa;

use super::App;
use super::docs::ReadProblems;
use super::document::Document;
use super::openapi;

/// Where things are.
#[derive(Serialize, ToSchema)]
pub(super) struct Index {
    /// `quantd`.
    name: &'static str,
    /// Version of the server.
    version: &'static str,
    /// Swagger UI.
    docs: &'static str,
    /// The `OpenAPI` document.
    openapi: &'static str,
    /// Every operation on tensors, and what is kept on the server.
    operations: [&'static str; 8],
    /// A call that works.
    example: &'static str,
}

/// What this server is.
///
/// Links to everything else and one call that works.
#[utoipa::path(get, path = "/", operation_id = "index", tag = "operations",
    responses((status = 200, description = "Links.", body = Index), ReadProblems))]
pub(super) async fn index() -> Document<Index> {
    Document(Index {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs/",
        openapi: "/openapi.json",
        operations: [
            "/v1/quantize",
            "/v1/dequantize",
            "/v1/compare",
            "/v1/inspect",
            "/v1/matmul",
            "/v1/samples/weights",
            "/v1/calibrators",
            "/v1/layers",
        ],
        example: r#"curl -d '{"data":[[0.1,-2.0],[3.3,0]],"scheme":"int8"}' localhost:8080/v1/quantize"#,
    })
}

/// A named scheme.
#[derive(Serialize, ToSchema)]
pub(super) struct PresetInfo {
    /// Name in requests.
    name: &'static str,
    /// What it is.
    summary: &'static str,
}

/// Bounds on requests.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitsInfo {
    /// Bytes of one body.
    max_body_bytes: usize,
    /// Bytes that all requests may hold.
    max_inflight_bytes: usize,
    /// Tensors of one request.
    max_tensors: usize,
    /// Elements of one tensor.
    max_elements: usize,
    /// Requests that may wait.
    max_queue: usize,
}

/// This server in numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct Info {
    /// `quantd`.
    name: &'static str,
    /// Version of the server.
    version: &'static str,
    /// Instruction set that the kernels use.
    isa: &'static str,
    /// Those that they could use on this machine, the slowest first.
    isa_available: Vec<&'static str>,
    /// Compute threads.
    threads: usize,
    /// Bounds on requests.
    limits: LimitsInfo,
    /// Named schemes.
    presets: Vec<PresetInfo>,
}

/// Version, limits and presets.
///
/// What a client may want to know before it sends anything.
#[utoipa::path(get, path = "/info", operation_id = "info", tag = "operations",
    responses((status = 200, description = "Version, limits, presets.", body = Info), ReadProblems))]
pub(super) async fn info(State(app): State<App>) -> Document<Info> {
    let limits = app.service.limits();
    let compute = app.service.compute().settings();
    Document(Info {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        isa: compute.isa.name(),
        isa_available: Isa::available().map(Isa::name).collect(),
        threads: compute.threads,
        limits: LimitsInfo {
            max_body_bytes: limits.max_bytes,
            max_inflight_bytes: compute.max_inflight_bytes,
            max_tensors: limits.max_tensors,
            max_elements: limits.max_elements,
            max_queue: compute.max_queue,
        },
        presets: PRESETS
            .iter()
            .map(|preset| PresetInfo { name: preset.name, summary: preset.summary })
            .collect(),
    })
}

/// State of the server.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// The process answers.
    live: bool,
    /// It takes new work.
    ready: bool,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operations",
    responses((status = 200, description = "It does.", body = Health), ReadProblems))]
pub(super) async fn livez(State(app): State<App>) -> Document<Health> {
    Document(Health { live: true, ready: app.is_ready() })
}

fn readiness(app: &App) -> Response {
    let ready = app.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Document(Health { live: true, ready })).into_response()
}

/// Whether new work is taken.
///
/// 503 from the moment the server is told to stop.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operations",
    responses(
        (status = 200, description = "It is.", body = Health),
        (status = 503, description = "The server is stopping.", body = Health),
        (status = 405, description = "The method is not one of the route's.",
            body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(app): State<App>) -> Response {
    readiness(&app)
}

/// The same as `/readyz`, under the name that many load balancers use.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "operations",
    responses(
        (status = 200, description = "New work is taken.", body = Health),
        (status = 503, description = "The server is stopping.", body = Health),
        (status = 405, description = "The method is not one of the route's.",
            body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn health(State(app): State<App>) -> Response {
    readiness(&app)
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, description = "Text format 0.0.4.", body = String,
        content_type = "text/plain"), ReadProblems))]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let inflight = app.service.compute().inflight_bytes();
    let text = telemetry::render_metrics(inflight, app.service.layers().held());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// This description.
///
/// With a way to present the key, where the server has one.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "operations",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object,
        content_type = "application/json"), ReadProblems))]
pub(super) async fn openapi_json(State(app): State<App>) -> Response {
    let document =
        if app.key_hash.is_some() { openapi::document_with_key() } else { openapi::document() };
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

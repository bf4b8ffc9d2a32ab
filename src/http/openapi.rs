//! The `OpenAPI` document, made from the routes.

use std::sync::LazyLock;

use axum::Router;
use utoipa::OpenApi;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::App;
use super::middleware::is_open;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "quantd",
        description = "Quantization of neural-network tensors: codes, parameters and what was lost. \
            Tensors travel as JSON, npy, safetensors or bare bytes; failures are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "this server")),
    components(schemas(super::ProtocolError)),
    tags(
        (name = "tensors", description = "Quantize, restore, compare, inspect, multiply."),
        (name = "calibrators", description = "Ranges learnt over batches."),
        (name = "layers", description = "Layers that are kept, and run in integers."),
        (name = "inference protocol", description = "The same as models of the Open Inference Protocol v2 \
            (KServe, Triton); failures are objects with `error`."),
        (name = "operations", description = "Health, metrics, description.")
    )
)]
struct Base;

/// The document without its paths.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The document of the routes, of a server without a key.
fn documented() -> utoipa::openapi::OpenApi {
    super::routes().split_for_parts().1
}

fn text(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Adds the ways to present a key, which all operations ask for but those of open paths.
fn lock(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    components
        .add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme(
        "api_key",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("api-key"))),
    );
    let ways = ["bearer", "api_key"].map(|way| SecurityRequirement::new(way, [""; 0]));
    document.security = Some(ways.into());
    for (path, item) in &mut document.paths.paths {
        if is_open(path)
            && let Some(operation) = &mut item.get
        {
            operation.security = Some(Vec::new());
        }
    }
}

/// The document that a server without a key serves, as `openapi/quantd.json` holds it.
#[must_use]
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| text(&documented()));
    &DOCUMENT
}

/// The document that a server with a key serves.
pub(super) fn document_with_key() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut document = documented();
        lock(&mut document);
        text(&document)
    });
    &DOCUMENT
}

/// Swagger UI at `/docs`; its files are part of the binary.
pub(super) fn swagger_ui() -> Router<App> {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json").try_it_out_enabled(true)).into()
}

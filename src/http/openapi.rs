//! The `OpenAPI` document, made from the routes.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{PathItem, RefOr};
use utoipa_swagger_ui::{Config, SwaggerUi, SyntaxHighlight};

use crate::api::guess;

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
    let (_, mut document) = super::routes().split_for_parts();
    document.paths.paths.values_mut().flat_map(operations).for_each(add_pretty);
    document
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

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// Adds the option of all that answer JSON, which no operation knows of.
fn add_pretty(operation: &mut Operation) {
    let responses = operation.responses.responses.iter();
    let has_json = responses.filter(|(status, _)| status.starts_with('2')).any(|(_, response)| {
        matches!(response, RefOr::T(response) if response.content.contains_key(super::negotiate::JSON))
    });
    if has_json {
        let parameter = ParameterBuilder::new()
            .name("pretty")
            .parameter_in(ParameterIn::Query)
            .description(Some("Lay an answer of JSON out for people: a row of a tensor is a line."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::Boolean)))
            .build();
        operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
    }
}

/// Every documented path and its methods.
static PATHS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let (_, document) = super::routes().split_for_parts();
    let methods = |item: &PathItem| {
        let all = [
            (item.get.is_some(), "GET, HEAD"),
            (item.put.is_some(), "PUT"),
            (item.post.is_some(), "POST"),
            (item.delete.is_some(), "DELETE"),
        ];
        let there: Vec<_> = all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        there.join(", ")
    };
    document.paths.paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
});

/// The methods of a documented path.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    PATHS.iter().find(|(documented, _)| documented == path).map(|(_, methods)| methods.as_str())
}

/// The documented path that was meant by one that is none.
pub(super) fn meant(path: &str) -> Option<String> {
    const MAX_LEN: usize = 128;
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let own = parts(path);
    if path.len() > MAX_LEN || own.is_empty() {
        return None;
    }
    // Names of a path stand for themselves, and its version may have been left out.
    let filled = |(template, _): &(String, String)| {
        let mut template = parts(template);
        let shift = template.len().checked_sub(own.len()).filter(|shift| *shift <= 1)?;
        let is_version = ["v1", "v2"].contains(&template[0].as_str());
        // Of a version alone any other is a near miss.
        if (shift == 1 && !is_version) || (template.len() == 1 && is_version) {
            return None;
        }
        for (part, own) in template[shift..].iter_mut().zip(&own) {
            if part.starts_with('{') {
                part.clone_from(own);
            }
        }
        Some((template[shift..].join("/"), format!("/{}", template.join("/"))))
    };
    let candidates: Vec<_> = PATHS.iter().filter_map(filled).collect();
    let near = guess::nearest(&own.join("/"), candidates.iter().map(|(short, _)| short.as_str()))?;
    candidates.iter().find(|(short, _)| short == near).map(|(_, whole)| whole.clone())
}

/// Swagger UI at `/docs`; its files are part of the binary.
pub(super) fn swagger_ui() -> Router<App> {
    let config = Config::from("/openapi.json")
        .try_it_out_enabled(true)
        .doc_expansion("list")
        .default_models_expand_depth(0)
        // It holds the page up for minutes where an answer has some hundred thousand numbers.
        .with_syntax_highlight(SyntaxHighlight::default().activated(false));
    SwaggerUi::new("/docs").config(config).into()
}

/// Longest page of Swagger UI.
const MAX_PAGE: usize = 1 << 20;

/// What the page is called by those who made it, and by us.
const TITLES: [&str; 2] = ["<title>Swagger UI</title>", "<title>quantd API</title>"];

/// Gives the page its title.
pub(super) async fn entitle(response: Response) -> Response {
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if !is_page {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_PAGE).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).replace(TITLES[0], TITLES[1]);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(text))
}

#[cfg(test)]
mod tests {
    use super::meant;

    #[test]
    fn near_paths_are_guessed() {
        for (path, expect) in [
            ("/quantize", Some("/v1/quantize")),
            ("/quantise", Some("/v1/quantize")),
            ("/v1/quantise", Some("/v1/quantize")),
            ("/v1/quantize/", Some("/v1/quantize")),
            ("/V1/Quantize", Some("/v1/quantize")),
            ("/v1/layer/fc1/forward", Some("/v1/layers/fc1/forward")),
            ("/layers", Some("/v1/layers")),
            ("/models", Some("/v2/models")),
            ("/helth", Some("/health")),
            ("/nope", None),
            ("/v1", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(meant(path).as_deref(), expect, "{path}");
        }
        assert_eq!(meant(&"/quantize".repeat(100)), None);
    }
}

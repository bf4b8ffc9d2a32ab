//! The whole middleware stack, in order, in [`wrap`].

use std::sync::LazyLock;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header,
};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;
use uuid::Uuid;

use crate::api::error::{Error, Kind};
use crate::telemetry;

use super::App;
use super::oip::Plain;
use super::problem::{self, Problem};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps the router. The first layer here is the first to see a request and
/// the last to see its answer.
pub(super) fn wrap(router: Router<App>, app: &App, cors: &[String]) -> Router<App> {
    // Answers of the tensor routes are compressed, where that pays, on the
    // compute pool; this is for the documents and pages.
    let compressible = SizeAbove::new(1024)
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/x-safetensors"))
        .and(NotForContentType::const_new("application/x-npy"))
        .and(|_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
            extensions.get::<Plain>().is_none()
        });
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn(identify))
            .layer(from_fn(observe))
            .layer(CatchPanicLayer::custom(|_| {
                Error::new(Kind::Internal, "the request met a defect of the server").into_response()
            }))
            .option_layer(cors_layer(cors))
            .layer(from_fn_with_state(app.clone(), authenticate))
            .layer(CompressionLayer::new().gzip(true).compress_when(compressible)),
    )
}

/// Gives every request an id: the caller's where it is a sane one.
async fn identify(mut request: Request, next: Next) -> Response {
    static FALLBACK: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("none"));
    let sane = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(plain)
    };
    let given = request.headers().get(&REQUEST_ID).filter(|value| sane(value)).cloned();
    let id = given.unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or_else(|_| FALLBACK.clone())
    });
    request.headers_mut().insert(&REQUEST_ID, id.clone());
    let protocol = problem::speaks_protocol(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem::finish(problem, id.to_str().ok(), protocol, &mut response);
    }
    response.headers_mut().insert(&REQUEST_ID, id);
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Counts the request for as long as it is handled, also when its client leaves.
struct Active;

impl Active {
    fn begin() -> Self {
        telemetry::active_requests(1.0);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        telemetry::active_requests(-1.0);
    }
}

/// Logs and measures each request once, from its outcome.
async fn observe(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _active = Active::begin();
    let route = matched.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = method_name(request.method());
    let id = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let span = tracing::info_span!("request", id, method, route = %route);
    let response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status(), started.elapsed());
    let problem = response.extensions().get::<Problem>();
    span.in_scope(|| {
        let ms = took.as_secs_f64() * 1e3;
        let (code, detail) = (status.as_u16(), problem.map(|problem| problem.detail.as_str()));
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(status = code, ms, detail, "failed");
        } else if let Some(detail) = detail {
            tracing::info!(status = code, ms, detail, "refused");
        } else {
            tracing::info!(status = code, ms, "answered");
        }
    });
    telemetry::request(method, route, status.as_u16(), took);
    response
}

/// A bounded set of words, whatever callers send.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// Lets requests through that present the key, and health checks.
async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let open = matches!(
        request.uri().path(),
        "/livez" | "/readyz" | "/health" | "/v2/health/live" | "/v2/health/ready"
    );
    let Some(expected) = app.key_hash.filter(|_| !open) else { return next.run(request).await };
    let headers = request.headers();
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let given = bearer.or_else(|| headers.get("api-key").map(HeaderValue::as_bytes));
    let hash: Option<[u8; 32]> = given.map(|key| Sha256::digest(key).into());
    if hash.is_some_and(|hash| bool::from(hash.ct_eq(&expected))) {
        return next.run(request).await;
    }
    Error::new(Kind::Unauthorized, "no valid key")
        .cure("send the key as Authorization: Bearer, or as api-key")
        .into_response()
}

/// None by default: then no page of another origin may call.
fn cors_layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins)
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::ACCEPT,
            header::AUTHORIZATION,
            HeaderName::from_static("api-key"),
            REQUEST_ID.clone(),
            super::oip::HEADER_LENGTH,
        ])
        .expose_headers([REQUEST_ID.clone(), super::oip::HEADER_LENGTH]);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use crate::config::Serve;
    use crate::service::Service;
    use crate::service::compute::Compute;
    use crate::service::layers::Layers;

    use super::*;

    async fn ask(path: &str, headers: HeaderMap) -> (StatusCode, HeaderMap, serde_json::Value) {
        let config = Serve::for_tests();
        let compute = Compute::new(config.compute()).unwrap();
        let layers = Layers::open(config.layers(), compute.clone()).unwrap();
        let service =
            Service::new(compute, config.limits(), config.calibrators(), layers, config.batching());
        let app = App::new(service, std::time::Duration::from_secs(1), None);
        let router =
            Router::new().route("/defect", get(async || -> &str { panic!("/secret/path") }));
        let router = wrap(router, &app, &[]).with_state(app);
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        *request.headers_mut() = headers;
        let (head, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_text() {
        let (status, headers, problem) = ask("/defect", HeaderMap::new()).await;
        assert_eq!(status, 500);
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(problem["type"], "urn:quantd:error:internal");
        assert_eq!(problem["instance"], headers["x-request-id"].to_str().unwrap());
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }

    #[tokio::test]
    async fn only_sane_request_ids_are_kept() {
        for (given, kept) in [("abc-1.2_3", true), ("a b", false), ("", false), ("<x>", false)] {
            let headers = HeaderMap::from_iter([(REQUEST_ID.clone(), given.parse().unwrap())]);
            let (_, headers, _) = ask("/defect", headers).await;
            assert_eq!(headers[&REQUEST_ID] == given, kept, "{given}");
        }
    }
}

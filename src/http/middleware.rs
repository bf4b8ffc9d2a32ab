//! The whole middleware stack, in order, in [`wrap`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower::util::MapRequestLayer;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;
use uuid::Uuid;

use crate::api::answer;
use crate::api::error::{Error, Kind};
use crate::telemetry;

use super::App;
use super::body::{self, Remainder};
use super::connection::Link;
use super::document;
use super::guard::Access;
use super::negotiate;
use super::problem::{self, Form, Problem};

/// Health of the server, for anyone.
const HEALTH: [&str; 5] = ["/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"];

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps the router. The first layer here is the first to see a request and
/// the last to see its answer.
pub(super) fn wrap(router: Router<App>, app: &App, access: &Access) -> Router<App> {
    let access = Arc::new(access.clone());
    let cors = cors_layer(&access.origins);
    let key = app.key_hash.map(|hash| from_fn_with_state(hash, authenticate));
    router.layer(
        ServiceBuilder::new()
            .layer_fn(move |inner| Observe { inner, access: Arc::clone(&access) })
            .layer(CatchPanicLayer::custom(|_| {
                Error::new(Kind::Internal, "the server failed on the request").into_response()
            }))
            .option_layer(cors)
            .option_layer(key),
    )
}

type Settle = MapRequestLayer<fn(Request) -> Request>;

/// Compresses documents and pages, for clients that take it.
pub(super) fn compression() -> (Settle, CompressionLayer<impl Predicate>) {
    let compress = CompressionLayer::new().gzip(true).compress_when(SizeAbove::new(1024));
    (Settle::new(negotiate::settle_encoding), compress)
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

/// The id of a request: the caller's where it is a sane one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static FALLBACK: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("none"));
    let sane = |value: &&HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(plain)
    };
    headers.get(&REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or_else(|_| FALLBACK.clone())
    })
}

/// Gives a request its id, refuses it where it has no access, and logs and measures it once, from its
/// outcome.
///
/// One service for all of it, and not one of `from_fn`, which copies the routes under it
/// for every request: each layer around a route costs some allocations.
#[derive(Clone)]
struct Observe<S> {
    inner: S,
    access: Arc<Access>,
}

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let active = Active::begin();
        let seen = RequestInfo {
            id: request_id(request.headers()),
            matched: request.extensions().get().cloned(),
            method: method_name(request.method()),
            form: Form {
                protocol: problem::speaks_protocol(request.uri().path()),
                pretty: document::is_pretty(request.uri().query()),
            },
        };
        let span = seen.span();
        let expects = request.headers().contains_key(header::EXPECT);
        let link: Option<Arc<Link>> = request.extensions().get().cloned();
        let access = self.access.check(&request, HEALTH.contains(&request.uri().path()));
        let (head, body) = request.into_parts();
        let (body, rest) = body::tracked(body);
        let answer = access.map(|()| self.inner.call(Request::from_parts(head, body)));
        Box::pin(async move {
            let response = match answer {
                Ok(answer) => answer.instrument(span.clone()).await.into_response(),
                Err(refusal) => refusal.into_response(),
            };
            let mut response = seen.attend(response, started.elapsed(), &span);
            if !drain_or_close(rest, expects, response.headers_mut()).await
                && let Some(link) = link
            {
                link.linger();
            }
            drop(active);
            Ok(response)
        })
    }
}

/// What is known of a request once it is answered.
struct RequestInfo {
    id: HeaderValue,
    matched: Option<MatchedPath>,
    method: &'static str,
    form: Form,
}

impl RequestInfo {
    fn route(&self) -> &str {
        self.matched.as_ref().map_or("other", MatchedPath::as_str)
    }

    fn span(&self) -> tracing::Span {
        let (id, method) = (self.id.to_str().unwrap_or_default(), self.method);
        tracing::info_span!("request", id, method, route = %self.route())
    }

    fn attend(self, mut response: Response, took: Duration, span: &tracing::Span) -> Response {
        let status = response.status();
        let problem = response.extensions_mut().remove::<Problem>();
        span.in_scope(|| log(status, took, problem.as_ref(), is_probe(self.route())));
        telemetry::request(self.method, self.route(), status.as_u16(), took);
        let Self { id, form, .. } = self;
        if let Some(problem) = problem {
            problem::finish(problem, id.to_str().ok(), form, &mut response);
        }
        let headers = response.headers_mut();
        headers.insert(&REQUEST_ID, id);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// A connection whose request was answered before its body was read is closed by hyper without a
/// word, and the next request of the client fails on it. A short rest is read; else the answer says
/// that the connection ends. A client that waits for leave to send its body is not given it.
/// Whether nothing of the body is left to come.
async fn drain_or_close(rest: Option<Remainder>, expects: bool, headers: &mut HeaderMap) -> bool {
    let Some(rest) = rest.and_then(Remainder::take) else { return true };
    let is_closing = headers.contains_key(header::CONNECTION);
    if !is_closing && !expects && body::discard(rest).await {
        return true;
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    false
}

/// Whether machines ask for it every few seconds.
fn is_probe(path: &str) -> bool {
    HEALTH.contains(&path) || path == "/metrics"
}

fn log(status: StatusCode, took: Duration, problem: Option<&Problem>, is_probe: bool) {
    // To the microsecond: the digits of a double are noise beyond it.
    let ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    let (code, detail) = (status.as_u16(), problem.map(|problem| problem.detail.as_str()));
    // What is not spoken here, what has to wait, and what takes too long is no failure of the server.
    let is_refusal = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_IMPLEMENTED | StatusCode::GATEWAY_TIMEOUT
    );
    if status.is_server_error() && !is_refusal {
        tracing::error!(status = code, ms, detail, "failed");
    } else if let Some(detail) = detail {
        tracing::info!(status = code, ms, detail, "refused");
    } else if is_probe {
        tracing::debug!(status = code, ms, "answered");
    } else {
        tracing::info!(status = code, ms, "answered");
    }
}

/// A bounded set of words, whatever callers send.
pub(super) fn method_name(method: &Method) -> &'static str {
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

/// Whether a path needs no key: health, and what a browser must see before it can be given one.
pub(super) fn is_open(path: &str) -> bool {
    let is_page = matches!(path, "/" | "/openapi.json" | "/docs") || path.starts_with("/docs/");
    is_page || HEALTH.contains(&path)
}

/// Lets requests through that present the key of that hash, and those of paths that need none.
async fn authenticate(State(expected): State<[u8; 32]>, request: Request, next: Next) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let headers = request.headers();
    // Names of authentication schemes have no case (RFC 9110, 11.1).
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    let given = bearer.or_else(|| headers.get("api-key").map(HeaderValue::as_bytes));
    let hash: Option<[u8; 32]> = given.map(|key| Sha256::digest(key).into());
    if hash.is_some_and(|hash| bool::from(hash.ct_eq(&expected))) {
        return next.run(request).await;
    }
    Error::new(Kind::Unauthorized, "no valid key")
        .cure("send the key as Authorization: Bearer, or as api-key")
        .into_response()
}

/// What pages may read of an answer: all that answers say beside their bodies.
fn exposed() -> Vec<HeaderName> {
    let facts = answer::facts().into_iter().filter_map(body::fact_header);
    let own = [header::CONTENT_DISPOSITION, header::LOCATION, header::RETRY_AFTER];
    [REQUEST_ID.clone(), super::oip::HEADER_LENGTH].into_iter().chain(own).chain(facts).collect()
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
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::ACCEPT,
            header::AUTHORIZATION,
            HeaderName::from_static("api-key"),
            REQUEST_ID.clone(),
            super::oip::HEADER_LENGTH,
        ])
        .expose_headers(exposed());
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
        let router = wrap(router, &app, &Access::default()).with_state(app);
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

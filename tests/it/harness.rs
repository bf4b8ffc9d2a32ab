//! A service without a socket, whose every answer is held against its document.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use jsonschema::Validator;
use quantd::Quantd;
use quantd::config::Serve;
use quantd::service::compute::Compute;
use quantd_kernels::Isa;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const JSON: &str = "application/json";
pub(crate) const NPY: &str = "application/x-npy";
pub(crate) const RAW: &str = "application/octet-stream";
pub(crate) const SAFETENSORS: &str = "application/x-safetensors";

pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(quantd::http::document()).unwrap());

/// An answer, complete.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an answer in JSON")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of a failure of the inference protocol.
    #[track_caller]
    pub(crate) fn protocol_error(&self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), JSON);
        let document = self.json();
        assert!(document.as_object().unwrap().keys().eq(["error"]), "{text}");
        document["error"].as_str().unwrap().to_owned()
    }

    /// The problem document, checked to be one of that kind and status.
    #[track_caller]
    pub(crate) fn problem(&self, kind: &str, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:quantd:error:{kind}"), "{text}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"], self.header("x-request-id"));
        problem
    }
}

/// The service under test.
pub(crate) struct Client {
    router: axum::Router,
    pub(crate) compute: Compute,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Serve)) -> Self {
        let mut config = Serve::for_tests();
        if let Some(isa) = forced() {
            config.isa = isa;
        }
        change(&mut config);
        let quantd = Quantd::new(&config).unwrap();
        Self { router: quantd.router(), compute: quantd.compute().clone() }
    }

    /// Sends a request and checks the answer against the document.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = self.send_unchecked(request).await;
        check(&method, &path, &answer);
        answer
    }

    /// Sends a request whose answer cannot be checked: it is compressed, or no documented one.
    pub(crate) async fn send_unchecked(&self, request: Request<Body>) -> Answer {
        let response = self.respond(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Sends a request, and leaves the body of the answer unread.
    pub(crate) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, JSON, JSON, body.to_string()).await
    }

    /// Posts bytes of one media type and accepts another.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        accept: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::post(path)
            .header("content-type", content_type)
            .header("accept", accept)
            .body(body.into());
        self.send(request.unwrap()).await
    }
}

/// The instruction set that the environment forces on the tests.
#[expect(clippy::disallowed_methods, reason = "tests have no other configuration")]
fn forced() -> Option<Isa> {
    let name = std::env::var("TEST_ISA").ok()?;
    Some(Isa::by_name(&name).unwrap_or_else(|| panic!("this machine has no {name}")))
}

/// The documented path that a path is one of: itself, or one with names in braces.
fn template(path: &str) -> &str {
    let fits = |template: &str| {
        let named = |(part, own): (&str, &str)| part == own || part.starts_with('{');
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(named)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    if paths.contains_key(path) {
        return path;
    }
    paths.keys().find(|template| fits(template)).map_or(path, String::as_str)
}

/// Holds an answer of a documented route against the document.
#[track_caller]
fn check(method: &Method, path: &str, answer: &Answer) {
    let path = template(path);
    let operation = &DOCUMENT["paths"][path][method.as_str().to_ascii_lowercase()];
    if operation.is_null() {
        let routed = !DOCUMENT["paths"][path].is_null();
        let expect = if routed { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
        // Extensions of the inference protocol that are not spoken say so.
        let unspoken = path.starts_with("/v2/") && answer.status == StatusCode::NOT_IMPLEMENTED;
        assert!(answer.status == expect || unspoken, "{method} {path} {}", answer.status);
        return;
    }
    let status = answer.status.as_str();
    let documented = &operation["responses"][status];
    assert!(!documented.is_null(), "{method} {path} has no documented {status}");
    let content_type = answer.header("content-type");
    let essence = content_type.split(';').next().unwrap();
    let media = &documented["content"][essence];
    assert!(!media.is_null(), "{method} {path} {status} has no documented {content_type}");
    if essence.ends_with("json") {
        let pointer = format!(
            "/paths/{}/{}/responses/{status}/content/{}/schema",
            path.replace('/', "~1"),
            method.as_str().to_ascii_lowercase(),
            essence.replace('/', "~1")
        );
        valid(&pointer, &answer.json());
    }
}

/// Whether `instance` is what the schema at that place of the document says.
#[track_caller]
pub(crate) fn valid(pointer: &str, instance: &Value) {
    static COMPILED: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
        LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap();
    let validator = *compiled.entry(pointer.to_owned()).or_insert_with(|| {
        let schema = DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("no schema at {pointer}"));
        let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        Box::leak(Box::new(jsonschema::validator_for(&whole).expect("a valid schema")))
    });
    let faults: Vec<String> =
        validator.iter_errors(instance).take(3).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{pointer}: {faults:?}\n{instance:.400}");
}

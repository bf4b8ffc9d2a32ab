//! The `OpenAPI` document: checked in, complete, and true in its examples.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Client, DOCUMENT, valid};

fn operations() -> Vec<(&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let methods = |path: &'static String, item: &'static Value| {
        let item = item.as_object().unwrap();
        item.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    };
    paths.iter().flat_map(|(path, item)| methods(path, item)).collect()
}

#[test]
fn the_document_checked_in_is_the_one_served() {
    let stored = include_str!("../../openapi/quantd.json");
    assert!(
        stored == quantd::http::document(),
        "openapi/quantd.json is out of date; run: cargo run -- openapi > openapi/quantd.json"
    );
    assert_eq!(operations().len(), 46, "an operation came or went: say so in CHANGELOG.md");
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1."));
}

/// Whether failures of the path have the form of the inference protocol.
fn is_protocol(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

#[test]
fn every_operation_is_described() {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}");
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{name}");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{name} {status}");
            let content = response["content"].as_object().unwrap();
            let is_health = path.ends_with('z') || path == "/health";
            if !status.starts_with('2') && !is_health {
                let failure =
                    if is_protocol(path) { "application/json" } else { "application/problem+json" };
                assert!(content.contains_key(failure), "{name} {status}");
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{name} {}", parameter["name"]);
        }
        if method == "post" && !is_protocol(path) {
            let content = operation["requestBody"]["content"].as_object().unwrap();
            let formats = match path {
                // Two operands do not fit a format of one tensor.
                "/v1/matmul" => 3,
                "/v1/calibrators" | "/v1/calibrators/{name}/merge" => 1,
                _ => 5,
            };
            assert_eq!(content.len(), formats, "{name}");
            for status in ["400", "401", "406", "408", "413", "415", "422", "500", "503"] {
                assert!(operation["responses"][status].is_object(), "{name} {status}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut references = Vec::new();
    walk(&DOCUMENT, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_example_runs() {
    let client = Client::new();
    let mut ran = 0;
    for (path, method, operation) in operations().into_iter().filter(|(_, m, _)| *m == "post") {
        let escaped = path.replace('/', "~1");
        let content = &operation["requestBody"]["content"]["application/json"];
        let named = content["examples"].as_object().into_iter().flat_map(|all| all.values());
        let mut requests: Vec<_> = named.map(|named| &named["value"]).collect();
        requests.extend(content.get("example"));
        // Those of the repository may be empty.
        assert_eq!(requests.is_empty(), path.starts_with("/v2/repository/"), "{path}");
        for (i, request) in requests.into_iter().enumerate() {
            valid(
                &format!("/paths/{escaped}/{method}/requestBody/content/application~1json/schema"),
                request,
            );
            // What the example before has made.
            let path = &filled(path, operation);
            let answer = client.post(path, request).await;
            assert!(
                answer.status.is_success(),
                "{path}: {}",
                String::from_utf8_lossy(&answer.body)
            );
            // What stands there as the answer is that of the first.
            let example = &operation["responses"]["200"]["content"]["application/json"]["example"];
            if example.is_object() && i == 0 {
                same(example, &answer.json(), path);
            }
            ran += 1;
        }
    }
    assert_eq!(ran, 25);
}

/// The path with the examples of its parameters.
fn filled(path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters.filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, p| {
        let made = if path.starts_with("/v1/calibrators") { "activations" } else { "fc1" };
        let (name, example) = (p["name"].as_str().unwrap(), p["example"].as_str().unwrap_or(made));
        path.replace(&format!("{{{name}}}"), example)
    })
}

/// Equal but for digits that an example leaves out.
#[track_caller]
fn same(example: &Value, answer: &Value, place: &str) {
    match (example, answer) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {a:?} {b:?}");
            a.iter().for_each(|(key, value)| same(value, &b[key], &format!("{place}/{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).for_each(|(a, b)| same(a, b, place));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-3 * b.abs(), "{place}: {a} in the example, {b}");
        }
        _ => assert_eq!(example, answer, "{place}"),
    }
}

#[tokio::test]
async fn the_pages_need_no_network() {
    let client = Client::new();
    for path in [
        "/",
        "/info",
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/openapi.json",
        "/v2",
        "/v2/",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/stats",
        "/v2/models/matmul_int8",
        "/v2/models/matmul_int8/versions/1/config",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    assert_eq!(client.get("/openapi.json").await.json(), *DOCUMENT);
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("quantd_build_info"), "{metrics}");
}

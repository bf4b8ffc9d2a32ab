//! What callers are told when a request cannot be carried out.

use axum::body::Body;
use axum::http::Request;
use quantd::config::Serve;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, JSON, NPY, RAW};

/// Kind, field and cure of a refusal.
fn refusal(answer: &Answer, kind: &str, status: u16) -> (String, Value) {
    let problem = answer.problem(kind, status);
    assert_eq!(problem["error"], problem["detail"]);
    for leak in ["src/", "/work", "/home", "panicked", "rustc", "unwrap"] {
        assert!(!problem.to_string().contains(leak), "{problem}");
    }
    let field = &problem["errors"][0];
    let place = ["pointer", "parameter", "header"].iter().find_map(|key| field[key].as_str());
    (place.unwrap_or_default().to_owned(), problem["cure"].clone())
}

#[tokio::test]
async fn options_are_refused_by_name() {
    let client = Client::new();
    let scheme = |scheme: Value| json!({"data": [1, 2], "scheme": scheme});
    for (body, place) in [
        (scheme(json!({"bits": 9})), "/scheme/bits"),
        (scheme(json!({"bits": "8"})), "/scheme/bits"),
        (scheme(json!({"Bits": 8})), "/scheme/Bits"),
        (scheme(json!({"axis": 1})), "/scheme/axis"),
        (scheme(json!({"range": "minmax"})), "/scheme/range"),
        (scheme(json!({"percentile": 101})), "/scheme/percentile"),
        (scheme(json!({"scale": [1, 2, 3]})), "/scheme/scale"),
        (scheme(json!({"scale": -1})), "/scheme/scale"),
        (scheme(json!({"min": 1, "max": -1})), "/scheme/min"),
        (scheme(json!({"group_size": 0})), "/scheme/group_size"),
        (scheme(json!({"block_shape": [1, 1]})), "/scheme/block_shape"),
        (scheme(json!("int9")), "/scheme"),
        (json!({"data": [1], "dtype": "FP32"}), "/dtype"),
        (json!({"data": [1], "shape": [-1]}), "/shape"),
        (json!({"data": [1], "per_slice": 1}), "/per_slice"),
        (json!({"data": [1], "sheme": "int8"}), "/sheme"),
        (json!({"dtype": "F32"}), "/data"),
    ] {
        let answer = client.post("/v1/quantize", &body).await;
        let (found, _) = refusal(&answer, "invalid-option", 400);
        assert_eq!(found, place, "{body}");
    }
    let answer =
        client.post_bytes("/v1/quantize?dtype=F32&shape=1&bits=77", RAW, JSON, vec![0; 4]).await;
    assert_eq!(refusal(&answer, "invalid-option", 400).0, "bits");
}

#[tokio::test]
async fn a_scheme_is_refused_alike_on_the_way_back() {
    let client = Client::new();
    for (path, mut body) in [
        ("/v1/quantize", json!({"data": [1]})),
        ("/v1/dequantize", json!({"codes": [1], "scale": 1})),
    ] {
        for (scheme, cure) in [(json!("int9"), "int8"), (json!(3), "name of a preset")] {
            body["scheme"] = scheme;
            let answer = client.post(path, &body).await;
            let (place, found) = refusal(&answer, "invalid-option", 400);
            assert_eq!(place, "/scheme", "{path}");
            assert!(found.as_str().unwrap().contains(cure), "{path}: {found}");
        }
    }
    for (fields, place, expect) in [
        (json!({"scheme": {"bits": 99}}), "/scheme/bits", "use 2, 3, 4, 5, 6, 7, 8 or 16"),
        (json!({"scheme": {"bits": 12}}), "/scheme/bits", "use 2, 3, 4, 5, 6, 7, 8 or 16"),
        (json!({"bits": 4}), "/bits", "put it into the scheme: \"scheme\": {\"bits\": ..}"),
        (json!({"bitz": 4}), "/bitz", "did you mean bits? put it into the scheme"),
        (json!({"colour": 4}), "/colour", "known here: data, data_b64"),
    ] {
        let mut body = fields;
        body["data"] = json!([1, 2]);
        let answer = client.post("/v1/quantize", &body).await;
        let (found, cure) = refusal(&answer, "invalid-option", 400);
        assert_eq!(found, place);
        assert!(cure.as_str().unwrap().starts_with(expect), "{cure}");
    }
    let named = json!({"tensors": {"w": {"codes": [1], "scale": 1, "data": [1]}}});
    let answer = client.post("/v1/dequantize", &named).await;
    assert_eq!(refusal(&answer, "invalid-option", 400).0, "/tensors/w/data");
}

#[tokio::test]
async fn broken_bodies_are_refused_where_they_break() {
    let client = Client::new();
    for (text, place) in [
        ("", ""),
        ("[1, 2]", ""),
        (r#"{"data": [1, 2"#, ""),
        (r#"{"data": [[1, 2], [3]]}"#, "/data/1"),
        (r#"{"data": [1, null]}"#, "/data/1"),
        (r#"{"data": [1, 1e39]}"#, "/data/1"),
        (r#"{"data": [1, 2], "shape": [3]}"#, "/data"),
        (r#"{"data": [1], "data": [2]}"#, ""),
        (r#"{"data_b64": "AAA", "shape": [1]}"#, "/data_b64"),
    ] {
        let answer = client.post_bytes("/v1/quantize", JSON, JSON, text).await;
        let (found, _) = refusal(&answer, "malformed-body", 400);
        assert!(found.starts_with(place), "{text}: {found}");
    }
    for body in [&b"\x93NUMPY"[..], b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04"] {
        let answer = client.post_bytes("/v1/quantize", NPY, JSON, body).await;
        refusal(&answer, "malformed-body", 400);
    }
    let answer = client.post("/v1/quantize", &json!({"data": [0, "NaN"]})).await;
    let (place, cure) = refusal(&answer, "non-finite", 422);
    assert_eq!(place, "/data");
    assert!(cure.as_str().unwrap().contains("nan"), "{cure}");
}

#[tokio::test]
async fn types_are_negotiated_or_refused() {
    let client = Client::new();
    let body = r#"{"data": [1, 2]}"#;
    // As `curl -d` sends it, and without any type.
    let form = "application/x-www-form-urlencoded";
    assert_eq!(client.post_bytes("/v1/quantize", form, "*/*", body).await.status, 200);
    let bare = Request::post("/v1/quantize").body(Body::from(body)).unwrap();
    assert_eq!(client.send(bare).await.status, 200);
    let answer = client.post_bytes("/v1/quantize", form, "*/*", "a=1&b=2").await;
    let (place, cure) = refusal(&answer, "unsupported-media-type", 415);
    assert_eq!(place, "content-type");
    assert!(cure.as_str().unwrap().contains("application/json"), "{cure}");
    let answer = client.post_bytes("/v1/quantize", "text/csv", JSON, "1,2").await;
    refusal(&answer, "unsupported-media-type", 415);
    let answer = client.post_bytes("/v1/quantize", JSON, "text/html", body).await;
    refusal(&answer, "not-acceptable", 406);
    let coded = Request::post("/v1/quantize")
        .header("content-type", JSON)
        .header("content-encoding", "br")
        .body(Body::from(body));
    refusal(&client.send(coded.unwrap()).await, "unsupported-media-type", 415);
    let long = "a/b,".repeat(2000);
    let answer = client.post_bytes("/v1/quantize", JSON, &long, body).await;
    assert_eq!(refusal(&answer, "invalid-option", 400).0, "accept");
}

/// A document that can be had in no coding that is accepted is answered without one, as tensors are.
#[tokio::test]
async fn documents_take_any_accept_encoding() {
    let client = Client::new();
    for (accepted, coding) in [
        ("identity;q=0", ""),
        ("*;q=0", ""),
        ("gzip;q=0, *;q=0", ""),
        ("zstd", ""),
        ("gzip;q=0, *", ""),
        ("identity;q=0, gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "gzip"),
    ] {
        for path in ["/info", "/docs/swagger-ui.css"] {
            let request = Request::get(path).header("accept-encoding", accepted);
            let answer = client.send_unchecked(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 200, "{path}: {accepted}");
            assert_eq!(answer.header("content-encoding"), coding, "{path}: {accepted}");
        }
    }
}

#[tokio::test]
async fn routes_and_methods_are_answered_with_problems() {
    let client = Client::new();
    for path in ["/nope", "/v1", "/v1/quantize/", "/docs/nope.js"] {
        refusal(&client.get(path).await, "not-found", 404);
    }
    let answer = client.get("/v1/quantize").await;
    refusal(&answer, "method-not-allowed", 405);
    assert_eq!(answer.header("allow"), "POST");
    // CORS is off: no page of another origin may call.
    let preflight = Request::options("/v1/quantize")
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST")
        .body(Body::empty());
    let answer = client.send(preflight.unwrap()).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn size_is_checked_before_the_body_is_read() {
    let client = Client::with(|config: &mut Serve| config.max_body_bytes = 1 << 20);
    // A body that fails the test when it is asked for its bytes.
    let unread = || {
        Body::from_stream(futures_util::stream::poll_fn(
            |_| -> std::task::Poll<Option<Result<Vec<u8>, std::io::Error>>> {
                panic!("the body was read")
            },
        ))
    };
    let declared = |bytes: u64| {
        Request::post("/v1/quantize")
            .header("content-type", RAW)
            .header("content-length", bytes)
            .body(unread())
            .unwrap()
    };
    for bytes in [(1 << 20) + 1, u64::MAX] {
        let answer = client.send(declared(bytes)).await;
        refusal(&answer, "too-large", 413);
        assert_eq!(answer.header("connection"), "close");
    }
    // More than all requests together may hold.
    let client = Client::with(|config: &mut Serve| config.max_inflight_bytes = 8 << 20);
    refusal(&client.send(declared(16 << 20)).await, "too-large", 413);
}

#[tokio::test]
async fn the_key_is_asked_for() {
    let client = Client::with(|config: &mut Serve| config.api_key = Some("secret".to_owned()));
    let answer = client.post("/v1/quantize", &json!({"data": [1]})).await;
    refusal(&answer, "unauthorized", 401);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(client.get("/livez").await.status, 200);
    for (name, value, status) in [
        ("authorization", "Bearer secret", 200),
        ("authorization", "bearer secret", 200),
        ("authorization", "Bearer", 401),
        ("api-key", "secret", 200),
        ("api-key", "secreT", 401),
        ("authorization", "Basic secret", 401),
    ] {
        let request = Request::post("/v1/quantize")
            .header("content-type", JSON)
            .header(name, value)
            .body(Body::from(r#"{"data": [1]}"#));
        assert_eq!(client.send(request.unwrap()).await.status, status, "{name}: {value}");
    }
}

#[tokio::test]
async fn what_shows_the_way_to_the_key_needs_none() {
    let client = Client::with(|config: &mut Serve| config.api_key = Some("secret".to_owned()));
    for path in ["/", "/openapi.json", "/livez", "/readyz", "/health"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    for path in ["/docs/", "/docs/swagger-ui.css"] {
        let page = client.send_unchecked(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(page.status, 200, "{path}");
    }
    for path in ["/info", "/metrics", "/v1/layers", "/v1/calibrators", "/v2", "/nope", "/docsx"] {
        let answer = client.send_unchecked(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let with_key = client.get("/openapi.json").await.json();
    let without = Client::new().get("/openapi.json").await.json();
    assert_eq!(with_key["security"], json!([{"bearer": []}, {"api_key": []}]));
    assert!(with_key["components"]["securitySchemes"]["bearer"].is_object());
    assert!(!without.to_string().contains("\"security"), "a padlock without a key");
    for (path, item) in with_key["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_open = matches!(
                &**path,
                "/" | "/openapi.json"
                    | "/livez"
                    | "/readyz"
                    | "/health"
                    | "/v2/health/live"
                    | "/v2/health/ready"
            );
            let expect = if is_open { json!([]) } else { Value::Null };
            assert_eq!(operation["security"], expect, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn pages_of_others_change_nothing_and_borrow_no_name() {
    let client = Client::new();
    let form = "application/x-www-form-urlencoded";
    for (method, path) in [
        ("POST", "/v1/layers"),
        ("POST", "/v1/quantize"),
        ("PUT", "/v1/layers/a"),
        ("DELETE", "/v1/layers/a"),
        ("POST", "/v1/calibrators"),
        ("DELETE", "/v1/calibrators/a"),
        ("POST", "/v2/repository/models/a/unload"),
    ] {
        for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost:8080")
                .header("content-type", form)
                .header(name, value)
                .body(Body::from("{}"));
            let answer = client.send(request.unwrap()).await;
            if path.starts_with("/v2") {
                let text = answer.protocol_error(403);
                assert!(text.starts_with("origin: ") && text.contains("--cors-origin"), "{text}");
            } else {
                assert_eq!(refusal(&answer, "forbidden", 403).0, "origin");
            }
        }
    }
    let get = |host: &str, path: &str| {
        Request::get(path).header("host", host).body(Body::empty()).unwrap()
    };
    let (place, cure) =
        refusal(&client.send(get("evil.example", "/v1/layers")).await, "forbidden", 403);
    assert_eq!(place, "host");
    assert!(cure.as_str().unwrap().contains("--allowed-hosts"), "{cure}");
    assert_eq!(client.send(get("evil.example", "/livez")).await.status, 200);
    let allowed =
        Client::with(|config: &mut Serve| config.allowed_hosts = vec!["evil.example".to_owned()]);
    assert_eq!(allowed.send(get("Evil.example:80", "/v1/layers")).await.status, 200);
}

/// Slices, rows and columns are sizes like any other, and a dimension of 0 does not hide them.
#[tokio::test]
async fn a_body_of_nothing_makes_no_tables() {
    let client = Client::with(|config: &mut Serve| config.max_inflight_bytes = 64 << 20);
    let most = 1_u32 << 30;
    for shape in [
        "0,2147483647".to_owned(),
        format!("0,{most}"),
        format!("{most},0"),
        "0,16777216".to_owned(),
    ] {
        let axis = if shape.starts_with('0') { -1 } else { 0 };
        for path in [
            format!(
                "/v1/dequantize?dtype=I8&shape={shape}&granularity=channel&axis={axis}&scale=1"
            ),
            format!("/v1/quantize?dtype=F32&shape={shape}&granularity=channel&axis={axis}"),
            format!(
                "/v1/quantize?dtype=F32&shape={shape}&granularity=group&axis={axis}&group_size=1&bits=4"
            ),
            format!("/v1/inspect?dtype=F32&shape={shape}&granularity=channel&axis={axis}"),
        ] {
            let answer = client.post_bytes(&path, RAW, JSON, Vec::new()).await;
            assert!([200, 400, 413].contains(&answer.status.as_u16()), "{path} {}", answer.status);
            assert!(answer.body.len() < 1 << 20, "{path}");
        }
    }
    for (a, b) in [
        (json!([268_435_456, 1, 0]), json!([1, 0, 1])),
        (json!([1, 0, 1]), json!([268_435_456, 1, 0])),
        (json!([1, 268_435_456, 0]), json!([1, 0, 1])),
        (json!([0, 1, 1]), json!([1, 1, 268_435_456])),
    ] {
        let empty = |shape| json!({"shape": shape, "data": []});
        let request = json!({"a": empty(a), "b": empty(b)});
        let answer = client.post("/v1/matmul", &request).await;
        assert!([200, 400, 413].contains(&answer.status.as_u16()), "{request} {}", answer.status);
        assert!(answer.body.len() < 1 << 20, "{request}");
    }
    let layer =
        json!({"name": "c", "kind": "conv2d", "padding": 1, "weight": {"data": [[[[1.0]]]]}});
    assert_eq!(client.post("/v1/layers", &layer).await.status, 201);
    let path = "/v1/layers/c/forward?dtype=F32&shape=16777216,1,1,0";
    let answer = client.post_bytes(path, RAW, RAW, Vec::new()).await;
    refusal(&answer, "too-large", 413);
}

/// A scale for each element takes many times the memory of the elements.
#[tokio::test]
async fn the_table_of_slices_is_admitted_too() {
    let client = Client::with(|config: &mut Serve| config.max_inflight_bytes = 8 << 20);
    let (elements, body) = (1 << 18, vec![0; 1 << 20]);
    let path = |scheme: &str| format!("/v1/quantize?dtype=F32&shape={elements}&{scheme}");
    let answer = client.post_bytes(&path("group_size=1"), RAW, RAW, body.clone()).await;
    let (_, cure) = refusal(&answer, "too-large", 413);
    assert!(cure.as_str().unwrap().contains("granularity"), "{cure}");
    let answer = client.post_bytes(&path("group_size=64"), RAW, RAW, body.clone()).await;
    assert_eq!(answer.status, 200);
    let path = path("group_size=2&per_slice=true");
    let answer = client.post_bytes(&path, RAW, RAW, body).await;
    assert_eq!(refusal(&answer, "invalid-option", 400).0, "per_slice");
}

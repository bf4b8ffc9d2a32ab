//! How answers look: line ends, layout for people, names of files.

use axum::body::Body;
use axum::http::Request;
use quantd::config::Serve;
use serde_json::json;

use crate::harness::{Answer, Client, JSON, NPY, RAW, SAFETENSORS};

const DATA: &str = r#"{"data":[[0.5,-1.0],[2.0,0.25]],"scheme":{"axis":0}}"#;

/// The text of an answer of JSON, which is one line or many, with an end.
#[track_caller]
fn lines(answer: &Answer) -> usize {
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text:?}");
    let declared = answer.header("content-length");
    assert!(declared.is_empty() || declared == text.len().to_string(), "{declared}");
    text.lines().count()
}

/// Makes a layer and a calibrator, so that there is something to say of them.
async fn furnished() -> Client {
    let client = Client::new();
    let layer = json!({"name": "fc", "weight": {"data": [[0.5, -0.25], [1.0, 0.75]]}});
    assert_eq!(client.post("/v1/layers", &layer).await.status, 201);
    let calibrator = json!({"name": "seen"});
    assert_eq!(client.post("/v1/calibrators", &calibrator).await.status, 201);
    let batch = json!({"data": [0.5, 1.5]});
    assert_eq!(client.post("/v1/calibrators/seen/batches", &batch).await.status, 200);
    client
}

/// Requests of every kind whose answer is JSON, as method, path and body.
const REQUESTS: [(&str, &str, &str); 24] = [
    ("POST", "/v1/quantize", DATA),
    ("POST", "/v1/compare", r#"{"data":[1,2]}"#),
    ("POST", "/v1/inspect", r#"{"data":[1,2]}"#),
    ("POST", "/v1/dequantize", r#"{"codes":[[1,2],[3,4]],"scale":1}"#),
    ("POST", "/v1/matmul", r#"{"a":{"data":[[1]]},"b":{"data":[[1]]}}"#),
    ("POST", "/v1/layers/fc/forward", r#"{"data":[[1,2]]}"#),
    ("POST", "/v1/layers/fc/evaluate", r#"{"data":[[1,2]]}"#),
    ("PUT", "/v1/layers/fc", r#"{"weight":{"data":[[0.5,-0.25]]}}"#),
    ("GET", "/v1/layers/fc", ""),
    ("GET", "/v1/layers", ""),
    ("GET", "/v1/calibrators", ""),
    ("GET", "/v1/calibrators/seen", ""),
    ("GET", "/v1/calibrators/seen/export", ""),
    ("GET", "/", ""),
    ("GET", "/info", ""),
    ("GET", "/livez", ""),
    ("GET", "/v2", ""),
    ("GET", "/v2/models/fc", ""),
    ("POST", "/v2/repository/index", ""),
    (
        "POST",
        "/v2/models/quantize_int8/infer",
        r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}"#,
    ),
    ("POST", "/v1/quantize", r#"{"data":[1],"bits":3}"#),
    ("GET", "/v1/layers/none", ""),
    ("GET", "/nowhere", ""),
    ("POST", "/v2/models/none/infer", "{}"),
];

#[tokio::test]
async fn every_answer_of_json_ends_its_line_and_can_be_laid_out() {
    let client = furnished().await;
    for (method, path, body) in REQUESTS {
        let ask = async |query: &str| {
            let request = Request::builder()
                .method(method)
                .uri(format!("{path}{query}"))
                .header("content-type", JSON)
                .body(Body::from(body));
            client.send(request.unwrap()).await
        };
        let plain = ask("").await;
        let pretty = ask("?pretty=true").await;
        assert_eq!(pretty.status, plain.status, "{path}");
        assert_eq!(lines(&plain), 1, "{path}");
        assert!(lines(&pretty) > 2, "{path}: {}", String::from_utf8_lossy(&pretty.body));
        assert_eq!(lines(&ask("?pretty=false").await), 1, "{path}");
        let keys = |answer: &Answer| -> Vec<String> {
            let document = answer.json();
            document.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
        };
        assert_eq!(keys(&plain), keys(&pretty), "{path}");
    }
    let document = client.get("/openapi.json").await;
    assert!(document.body.ends_with(b"}\n"));
}

#[tokio::test]
async fn a_row_of_a_tensor_is_a_line() {
    let client = Client::new();
    let answer = client.post_bytes("/v1/quantize?pretty", JSON, JSON, DATA).await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("  \"codes\": [\n    [64, -127],\n    [127, 16]\n  ],\n"), "{text}");
    assert!(text.contains("  \"shape\": [2, 2],\n"), "{text}");
    let problem = client.post_bytes("/v1/quantize?pretty=maybe", JSON, JSON, DATA).await;
    let problem = problem.problem("invalid-option", 400);
    assert_eq!(problem["errors"][0]["parameter"], "pretty");
    // Other formats are what they are.
    let plain = client.post_bytes("/v1/quantize", JSON, NPY, DATA).await;
    let pretty = client.post_bytes("/v1/quantize?pretty=true", JSON, NPY, DATA).await;
    assert_eq!(plain.body, pretty.body);
}

/// Indentation makes a long answer longer: that too is admitted before it is made.
#[tokio::test]
async fn layout_is_admitted_by_bytes() {
    let client = Client::with(|config: &mut Serve| config.max_inflight_bytes = 32 << 20);
    let (elements, body) = (1 << 20, vec![0; 1 << 20]);
    let path = |pretty: bool| {
        format!("/v1/dequantize?dtype=I8&shape={elements},1&scale=1&pretty={pretty}")
    };
    let plain = client.post_bytes(&path(false), RAW, JSON, body.clone()).await;
    assert_eq!(plain.status, 200);
    client.post_bytes(&path(true), RAW, JSON, body).await.problem("too-large", 413);
}

/// What follows the JSON of an inference starts where the header says.
#[tokio::test]
async fn binary_outputs_follow_their_json_at_once() {
    let client = Client::new();
    for query in ["", "?pretty=true"] {
        let body = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}],
            "outputs":[{"name":"q","parameters":{"binary_data":true}}]}"#;
        let path = format!("/v2/models/quantize_int8/infer{query}");
        let answer = client.post_bytes(&path, JSON, JSON, body).await;
        let length: usize = answer.header("inference-header-content-length").parse().unwrap();
        assert_eq!(answer.body.len(), length + 2);
        assert!(answer.body[..length].ends_with(b"}"));
    }
}

#[tokio::test]
async fn files_are_to_be_saved() {
    let client = Client::new();
    for (accept, name) in [
        (SAFETENSORS, "attachment; filename=\"quantize.safetensors\""),
        (NPY, "attachment; filename=\"quantize.npy\""),
        (RAW, "attachment; filename=\"quantize.bin\""),
        (JSON, ""),
    ] {
        let answer = client.post_bytes("/v1/quantize", JSON, accept, DATA).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-disposition"), name);
    }
}

/// A problem takes the place of the text that was compressed.
#[tokio::test]
async fn a_problem_says_nothing_of_a_coding() {
    let client = Client::new();
    let body = json!({"name": "x", "scheme": {"\u{1f980}".repeat(64): 1}});
    let request = Request::post("/v1/calibrators")
        .header("content-type", JSON)
        .header("accept-encoding", "gzip")
        .body(Body::from(body.to_string()));
    let answer = client.send(request.unwrap()).await;
    assert!(answer.body.len() > 1024, "short texts are not compressed");
    assert_eq!(answer.header("content-encoding"), "");
    answer.problem("invalid-option", 400);
}

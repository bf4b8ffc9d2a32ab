//! A service whose threads are all at work, and work that is too long.

use std::io::Write;

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quantd::config::Serve;
use quantd::service::compute::Length;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::harness::{Answer, Client, JSON, RAW};

/// Keeps the only thread of long work busy until what it gives is dropped.
async fn occupy(client: &Client) -> oneshot::Sender<()> {
    let (release, released) = oneshot::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let (compute, permit) = (client.compute.clone(), client.compute.admit(1).await.unwrap());
    tokio::spawn(async move {
        let work = move |_: &_, _: &mut _| {
            begun.send(()).unwrap();
            assert!(released.blocking_recv().is_err());
            Ok(())
        };
        compute.run(Length::Long, permit, work).await
    });
    has_begun.await.unwrap();
    release
}

/// A service with one thread, and little patience for another.
fn client(change: impl FnOnce(&mut Serve)) -> Client {
    Client::with(|config| {
        config.threads = 1;
        change(config);
    })
}

/// 65536 elements whose search is long work: a grid of 256 candidates, and an exponential for each.
async fn search(client: &Client) -> Answer {
    let scheme = "range=cross_entropy&signed=false&symmetric=false";
    let path = format!("/v1/quantize?dtype=F32&shape=65536&{scheme}");
    let elements = (0..=u16::MAX).flat_map(|i| f32::from(i % 1009).to_le_bytes());
    client.post_bytes(&path, RAW, JSON, elements.collect::<Vec<u8>>()).await
}

async fn put(client: &Client, path: &str, body: &Value) -> Answer {
    let request =
        Request::put(path).header("content-type", JSON).body(Body::from(body.to_string()));
    client.send(request.unwrap()).await
}

#[tokio::test]
async fn small_requests_do_not_wait_for_long_work() {
    let client = client(|config| config.max_queue_wait_ms = 600_000);
    let _busy = occupy(&client).await;
    let layer = json!({"weight": {"data": [[1, 2, 3], [4, 5, 6]]}});
    assert_eq!(put(&client, "/v1/layers/fc", &layer).await.status, 201);
    let calibrator = json!({"name": "c", "range": "entropy_ort"});
    for (path, body) in [
        ("/v1/quantize", json!({"data": [1, 2, 3]})),
        ("/v1/dequantize", json!({"codes": [1, 2, 3], "scale": 0.5})),
        ("/v1/compare", json!({"data": [1, 2, 3], "schemes": ["int8", "int4"]})),
        ("/v1/inspect", json!({"data": [1, 2, 3]})),
        ("/v1/matmul", json!({"a": {"data": [[1, 2]]}, "b": {"data": [[1], [2]]}})),
        ("/v1/layers/fc/forward", json!({"data": [[1, 2, 3]]})),
        ("/v1/layers/fc/forward", json!({"data": [[1, 2, 3]], "batch": false})),
        ("/v1/layers/fc/evaluate", json!({"data": [[1, 2, 3]]})),
        ("/v1/calibrators", calibrator),
        ("/v1/calibrators/c/batches", json!({"data": [1, 2, 3]})),
    ] {
        let answer = client.post(path, &body).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.status.is_success(), "{path}: {} {text}", answer.status);
    }
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]});
    for model in ["quantize_int8", "fc"] {
        let path = format!("/v2/models/{model}/infer");
        assert_eq!(client.post(&path, &json!({"inputs": [x]})).await.status, 200, "{model}");
    }
    for path in ["/v1/calibrators/c", "/v1/calibrators/c/export", "/livez", "/readyz", "/metrics"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(br#"{"data": [1, 2, 3]}"#).unwrap();
    let request = Request::post("/v1/quantize")
        .header("content-type", JSON)
        .header("content-encoding", "gzip")
        .body(Body::from(gzip.finish().unwrap()));
    assert_eq!(client.send(request.unwrap()).await.status, 200);
}

/// Whatever a small body asks for, and whatever a larger one holds.
#[tokio::test]
async fn long_work_waits_its_turn_and_not_for_ever() {
    let client = client(|config| config.max_queue_wait_ms = 1000);
    let busy = occupy(&client).await;
    search(&client).await.problem("overloaded", 503);
    let path = "/v1/quantize?dtype=F32&shape=131072";
    let answer = client.post_bytes(path, RAW, RAW, vec![0; 512 << 10]).await;
    answer.problem("overloaded", 503);
    assert_eq!(client.compute.inflight_bytes() >> 20, 0);
    drop(busy);
    let made = search(&client).await;
    assert_eq!(made.status, 200);
    // The same request anew has the same bytes as on threads that have nothing else to do.
    assert_eq!(made.body, search(&Client::new()).await.body);
}

/// A tensor in JSON that is read in a fraction of the time that work on it takes.
fn packed(shape: [usize; 2]) -> Value {
    let bytes: Vec<u8> = (0..=250).cycle().take(shape[0] * shape[1]).collect();
    json!({"dtype": "U8", "shape": shape, "data_b64": STANDARD.encode(bytes)})
}

/// The same with other members.
fn with(mut tensor: Value, others: &Value) -> Value {
    let members = tensor.as_object_mut().unwrap();
    members.extend(others.as_object().unwrap().clone());
    tensor
}

#[tokio::test]
async fn what_cannot_end_in_time_is_refused_before_it_is_begun() {
    let client = client(|config| config.max_compute_ms = 40);
    let refused = |answer: Answer| {
        let problem = answer.problem("too-much-work", 422);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("at least 0.") && detail.contains("0.04 s are allowed"),
            "{detail}"
        );
        assert!(problem["cure"].as_str().unwrap().contains("--max-compute-ms"), "{problem}");
    };
    let scheme = json!({"range": "cross_entropy", "signed": false, "symmetric": false});
    let square = packed([1024, 1024]);
    let quantize = with(square.clone(), &json!({"scheme": scheme}));
    refused(client.post("/v1/quantize", &quantize).await);
    let compare = with(square.clone(), &json!({"schemes": [scheme]}));
    refused(client.post("/v1/compare", &compare).await);
    let percentiles: Vec<f64> = (0..64).map(f64::from).collect();
    let inspect = with(square.clone(), &json!({"percentiles": percentiles}));
    refused(client.post("/v1/inspect", &inspect).await);
    let product = json!({"a": square, "b": packed([1024, 2048]), "report": true});
    refused(client.post("/v1/matmul", &product).await);
    let layer = json!({"weight": with(square, &json!({"scheme": scheme}))});
    refused(put(&client, "/v1/layers/fc", &layer).await);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_stopped() {
    let client = client(|config| config.max_compute_ms = 10);
    // Cheap by its estimate, but reading 16 Mi numbers takes some time.
    let body = format!(r#"{{"data":[1{}]}}"#, ",1".repeat((16 << 20) - 1));
    let answer = client.post_bytes("/v1/quantize", JSON, RAW, body).await;
    let problem = answer.problem("out-of-time", 504);
    assert!(problem["detail"].as_str().unwrap().contains("within 0.01 s"), "{problem}");
    assert_eq!(client.compute.inflight_bytes(), 0);
}

/// Ranges that were searched for are there until another batch comes.
#[tokio::test]
async fn a_calibrator_is_searched_once() {
    let client = client(|config| config.max_queue_wait_ms = 1000);
    let setup = json!({"name": "c", "range": "entropy_ort", "granularity": "channel", "axis": 0});
    assert_eq!(client.post("/v1/calibrators", &setup).await.status, 201);
    let row = |i: u32| (0..1024).map(|j| (i + j * j) % 1013).collect::<Vec<u32>>();
    let batch = json!({"data": (0..8).map(row).collect::<Vec<_>>()});
    let (path, batches) = ("/v1/calibrators/c", "/v1/calibrators/c/batches");
    assert_eq!(client.post(batches, &batch).await.status, 200);
    let busy = occupy(&client).await;
    client.get(path).await.problem("overloaded", 503);
    drop(busy);
    let first = client.get(path).await;
    assert_eq!(first.status, 200);
    let _busy = occupy(&client).await;
    let second = client.get(path).await;
    assert_eq!((second.status, second.body), (first.status, first.body));
    // Ranges in another type are others; so are those of more batches.
    client.get("/v1/calibrators/c?scale_dtype=F64").await.problem("overloaded", 503);
    assert_eq!(client.post(batches, &batch).await.status, 200);
    client.get(path).await.problem("overloaded", 503);
}

/// Though what is said of it takes a search, which is long work.
#[tokio::test]
async fn a_batch_counts_once() {
    let client = client(|_| {});
    for name in ["a", "b"] {
        let setup = json!({"name": name, "range": "entropy_ort"});
        assert_eq!(client.post("/v1/calibrators", &setup).await.status, 201);
    }
    let batch = json!({"data": (0..4096_u32).map(|i| i * i % 4093).collect::<Vec<_>>()});
    for count in 1..3 {
        let made = client.post("/v1/calibrators/a/batches", &batch).await.json();
        assert_eq!((&made["batches"], &made["elements"]), (&json!(count), &json!(4096 * count)));
    }
    for count in [2, 4] {
        let made = client.post("/v1/calibrators/b/merge", &json!({"from": "a"})).await.json();
        assert_eq!(made["batches"], count);
    }
}

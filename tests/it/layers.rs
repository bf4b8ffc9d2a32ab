//! Layers that are made, run and refused.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, JSON};

/// A directory for one test, gone when it is dropped.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quantd-it-{test}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

async fn put(client: &Client, name: &str, body: Value) -> Answer {
    let request = Request::put(format!("/v1/layers/{name}"))
        .header("content-type", JSON)
        .body(Body::from(body.to_string()));
    client.send(request.unwrap()).await
}

/// The layer under that name would be gone, and the chain could neither run nor be deleted.
#[tokio::test]
async fn a_chain_is_no_part_of_itself() {
    let client = Client::new();
    let layer = json!({"weight": {"data": [[1.0, 2.0], [3.0, 4.0]]}});
    assert_eq!(put(&client, "own", layer).await.status, 201);
    let problem = put(&client, "own", json!({"chain": ["own"]})).await;
    let problem = problem.problem("invalid-option", 400);
    assert_eq!(problem["errors"][0]["pointer"], "/chain");
    let answer = client.post("/v1/layers/own/forward", &json!({"data": [[1.0, 0.0]]})).await;
    assert_eq!(answer.status, 200);
    let request = Request::delete("/v1/layers/own").body(Body::empty());
    assert_eq!(client.send(request.unwrap()).await.status, 200);
}

#[tokio::test]
async fn images_without_pixels_have_the_bias_where_padding_is() {
    let client = Client::new();
    let layer = json!({"kind": "conv2d", "padding": 1, "bias": [5.0],
        "weight": {"data": [[[[1.0]]]]}});
    assert_eq!(put(&client, "padded", layer).await.status, 201);
    for (shape, expect) in [
        (json!([1, 1, 0, 0]), json!([[[[5.0, 5.0], [5.0, 5.0]]]])),
        (json!([1, 1, 0, 1]), json!([[[[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]]])),
        (json!([0, 1, 2, 2]), json!([])),
    ] {
        let body = json!({"data": [], "shape": shape});
        let answer = client.post("/v1/layers/padded/forward", &body).await;
        assert_eq!(answer.json()["data"], expect, "{shape}");
        let answer = client.post("/v1/layers/padded/evaluate", &body).await;
        assert_eq!(answer.status, 200, "{shape}");
    }
}

#[tokio::test]
async fn null_counts_as_absent() {
    let client = Client::new();
    let layer = json!({"weight": {"data": [[1.0, 2.0]], "data_b64": null, "scheme": null},
        "bias": null, "kind": null, "chain": null, "stride": null, "padding": null, "groups": null,
        "input": null, "output": null, "activation": null, "name": null});
    assert_eq!(put(&client, "nulls", layer).await.status, 201);
    let problem = put(&client, "nulls", json!({"weight": null})).await;
    assert_eq!(problem.problem("invalid-option", 400)["errors"][0]["pointer"], "/weight");
}

/// Whatever else is said of weights, each output has a scale of its own unless another granularity is named.
#[tokio::test]
async fn weights_have_a_scale_for_each_output_unless_told_otherwise() {
    let client = Client::new();
    let weight = |scheme: Value| json!({"data": [[1.0, 2.0], [30.0, 4.0]], "scheme": scheme});
    let of = async |layer: Value| {
        let answer = put(&client, "own", layer).await;
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    };
    for (scheme, granularity, bits) in [
        (json!(null), "channel", 8),
        (json!({}), "channel", 8),
        (json!({"bits": 8}), "channel", 8),
        (json!("int4"), "channel", 4),
        (json!({"signed": false, "range": "mse"}), "channel", 8),
        (json!({"granularity": "tensor"}), "tensor", 8),
        (json!({"preset": "int4", "granularity": "tensor"}), "tensor", 4),
        (json!("int4_g32"), "group", 4),
    ] {
        let made = of(json!({"weight": weight(scheme.clone())})).await;
        assert_eq!(
            (&made["weight"]["granularity"], &made["weight"]["bits"]),
            (&json!(granularity), &json!(bits)),
            "{scheme}"
        );
        if granularity != "group" {
            let made = of(json!({"transpose": true, "weight": weight(scheme.clone())})).await;
            assert_eq!(made["weight"]["granularity"], granularity, "{scheme}");
        }
    }
    let codes = json!({"codes": [[1, 2], [3, 4]], "scale": [0.5, 2.0]});
    let made = of(json!({"weight": codes, "input": {"scale": 1}})).await;
    assert_eq!(made["weight"]["granularity"], "channel");
    let answer = client.post("/v1/layers/own/forward", &json!({"data": [[1.0, 0.0]]})).await;
    assert_eq!(answer.json()["data"], json!([[0.5, 6.0]]));
}

#[tokio::test]
async fn nothing_said_of_an_input_or_output_is_nothing_said() {
    let client = Client::new();
    let layer = |mut layer: Value| {
        layer["weight"] = json!({"data": [[1.0, 2.0]]});
        layer
    };
    let plain = put(&client, "plain", layer(json!({}))).await.json();
    let empty = put(&client, "empty", layer(json!({"input": {}, "output": {}}))).await.json();
    for part in ["input", "output", "weight", "row_independent"] {
        assert_eq!(plain[part], empty[part], "{part}");
    }
    assert_eq!(empty["input"]["mode"], "dynamic_per_token");
    let problem = put(&client, "no", layer(json!({"output": {"requantize": "gemmlowp"}}))).await;
    assert_eq!(problem.problem("invalid-option", 400)["errors"][0]["pointer"], "/output/scale");
}

/// Of all layers there is room for one, and whoever loads it meets a change of the same layer.
#[tokio::test]
async fn loads_meet_changes_and_removals() {
    let Temporary(path) = &Temporary::new("races");
    let client = Client::with(|config| {
        config.layer_dir = Some(path.clone());
        // One takes 45 to 51 KB, as the instruction set has it.
        config.max_layer_bytes = 60_000;
    });
    let layer = || json!({"weight": {"data": vec![vec![1.0; 90]; 90]}});
    let repository = async |what: &str| {
        let path = format!("/v2/repository/models/own/{what}");
        client.post(&path, &json!({})).await.status
    };
    let remove = async || {
        let request = Request::delete("/v1/layers/own").body(Body::empty());
        client.send(request.unwrap()).await.status
    };
    assert_eq!(put(&client, "own", layer()).await.status, 201);
    for _ in 0..60 {
        assert_eq!(repository("unload").await, 200);
        let (load, put, again) =
            tokio::join!(repository("load"), put(&client, "own", layer()), repository("load"));
        assert_eq!([load, put.status, again].map(|status| status.as_u16()), [200; 3]);
    }
    for _ in 0..60 {
        assert_eq!(repository("unload").await, 200);
        let (load, removed) = tokio::join!(repository("load"), remove());
        assert!([200, 404].contains(&load.as_u16()), "{load}");
        assert_eq!(removed, 200);
        assert_eq!(put(&client, "own", layer()).await.status, 201);
    }
}

#[tokio::test]
async fn chains_take_room() {
    let client = Client::with(|config| config.max_layer_bytes = 200_000);
    assert_eq!(put(&client, "own", json!({"weight": {"data": [[1.0]]}})).await.status, 201);
    let before = client.get("/v1/layers").await.json()["memory_bytes"].as_u64().unwrap();
    let chain = || json!({"chain": vec!["own"; 256]});
    assert_eq!(put(&client, "net", chain()).await.status, 201);
    let held = client.get("/v1/layers").await.json()["memory_bytes"].as_u64().unwrap();
    assert!(held > before + 256 * 3, "{held}");
    let mut made = 1;
    loop {
        let answer = put(&client, &format!("net{made}"), chain()).await;
        if answer.status != 201 {
            answer.problem("storage", 507);
            break;
        }
        made += 1;
    }
    assert!((2..10).contains(&made), "{made}");
    // What is there runs.
    let answer = client.post("/v1/layers/net/forward", &json!({"data": [[1.0]]})).await;
    assert_eq!(answer.status, 200);
}

//! Layers that are made, run and refused.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, JSON};

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

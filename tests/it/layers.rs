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

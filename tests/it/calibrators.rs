//! Calibrators: each answer as described, and each refusal named.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Client, JSON, NPY};

async fn create(client: &Client, body: Value) {
    let answer = client.post("/v1/calibrators", &body).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn a_range_is_learnt_batch_by_batch() {
    let client = Client::new();
    create(&client, json!({"name": "a", "scheme": "uint8"})).await;
    let path = "/v1/calibrators/a/batches";
    let first = client.post(path, &json!({"data": [0.5, -1.0]})).await.json();
    assert_eq!(
        (&first["batches"], &first["min"], &first["max"]),
        (&json!(1), &json!(-1.0), &json!(0.5))
    );
    let second = client.post(path, &json!({"data": [[4.1, "Infinity"]]})).await.json();
    assert_eq!((&second["elements"], &second["inf_elements"]), (&json!(4), &json!(1)));
    // 5.1 / 255, and rne(1 / 0.02).
    assert_eq!((&second["scale"], &second["zero_point"]), (&json!(0.02), &json!(50)));
    assert_eq!(client.get("/v1/calibrators/a").await.json(), second);
    let four = client.get("/v1/calibrators/a?bits=4&signed=true&profile=torch").await.json();
    // 4.1 / 7.5
    assert_eq!((&four["scale"], &four["zero_point"]), (&json!(0.5466667), &json!(0)));
    let list = client.get("/v1/calibrators").await.json();
    assert_eq!(list["calibrators"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_method_answers_and_survives_a_round_trip() {
    let client = Client::new();
    for range in [
        "min_max",
        "moving_average",
        "mse",
        "entropy_ort",
        "entropy_tensorrt",
        "entropy_modelopt",
        "cross_entropy",
    ] {
        create(&client, json!({"name": range, "range": range})).await;
        let feed = format!("/v1/calibrators/{range}/batches");
        let empty = client.get(&format!("/v1/calibrators/{range}/export")).await.json();
        for data in [json!([[0.1, -2.0, 0.7]]), json!([[3.3, 0.0, 1.5]])] {
            let answer = client.post(&feed, &json!({"data": data})).await;
            assert_eq!(answer.status, 200, "{range}");
            assert!(answer.json()["max"].as_f64().unwrap() > 0.0, "{range}");
        }
        let export = client.get(&format!("/v1/calibrators/{range}/export")).await.json();
        for document in [empty, export] {
            let body = json!({"name": range, "document": document, "replace": true});
            create(&client, body).await;
            let again = client.get(&format!("/v1/calibrators/{range}/export")).await.json();
            assert_eq!(again, document, "{range}");
        }
        let body = json!({"from": range});
        let merged = client.post(&format!("/v1/calibrators/{range}/merge"), &body).await.json();
        assert_eq!(merged["batches"], 4, "{range}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_json_is_named() {
    let client = Client::new();
    create(&client, json!({"name": "a"})).await;
    let taken = client.post("/v1/calibrators", &json!({"name": "a"})).await;
    assert_eq!(taken.problem("conflict", 409)["errors"][0]["pointer"], "/name");
    client.get("/v1/calibrators/b").await.problem("not-found", 404);
    client.get("/v1/calibrators/a?bits=4").await.problem("conflict", 409);
    client.get("/v1/calibrators/a?bits=9").await.problem("invalid-option", 400);
    client.get("/v1/calibrators/a?group_size=9").await.problem("invalid-option", 400);
    client.get("/v1/calibrators/a%2Fb").await.problem("invalid-option", 400);
    let answer = client.post_bytes("/v1/calibrators", NPY, JSON, "x").await;
    answer.problem("unsupported-media-type", 415);
    let named = r#"{"name": "c"}"#;
    let answer = client.post_bytes("/v1/calibrators?name=b", JSON, JSON, named).await;
    assert_eq!(answer.problem("invalid-option", 400)["errors"][0]["parameter"], "name");
    let delete = || Request::delete("/v1/calibrators/a").body(Body::empty()).unwrap();
    assert_eq!(client.send(delete()).await.json(), json!({"deleted": "a"}));
    client.send(delete()).await.problem("not-found", 404);
}

#[tokio::test]
async fn no_more_are_kept_than_is_configured() {
    let client = Client::with(|config| config.max_calibrators = 1);
    create(&client, json!({"name": "a"})).await;
    client.post("/v1/calibrators", &json!({"name": "b"})).await.problem("storage", 507);
    create(&client, json!({"name": "a", "replace": true, "decay": 0.5})).await;
    let client = Client::with(|config| config.max_calibrator_bytes = 40_000);
    create(&client, json!({"name": "a", "percentile": 99, "axis": 0})).await;
    let path = "/v1/calibrators/a/batches";
    client.post(path, &json!({"data": [1, 2]})).await.problem("storage", 507);
    assert_eq!(client.post(path, &json!({"data": [[1, 2]]})).await.status, 200);
}

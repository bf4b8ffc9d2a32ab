//! The figures of the notebook that the project began with.

use quantd::config::Serve;
use serde_json::{Value, json};

use crate::harness::Client;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/seed_notebook.json")).unwrap()
}

#[track_caller]
fn close(found: &Value, expected: &Value) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} {expected}");
}

#[tokio::test]
async fn codes_scales_and_errors_reproduce() {
    let (client, golden) = (Client::new(), golden());
    for (name, signed) in [("asymmetric_uint8", false), ("symmetric_int8_restricted", true)] {
        let scheme = json!({"bits": 8, "signed": signed, "symmetric": signed});
        let request = json!({"data": golden["x"], "dtype": "F64", "scheme": scheme});
        let answer = client.post("/v1/quantize", &request).await.json();
        let expected = &golden[name];
        assert_eq!(answer["codes"], expected["codes"], "{name}");
        assert_eq!(answer["scale_dtype"], "F64");
        let zero_point = &expected["zero_point"];
        let zero_point = if zero_point.is_null() { &json!(0) } else { zero_point };
        assert_eq!(&answer["zero_point"], zero_point);
        close(&answer["scale"], &expected["scale"]);
        close(&answer["report"]["mse"], &expected["mse"]);
        let restored = client.post("/v1/dequantize", &answer).await.json();
        let pairs = restored["data"].as_array().unwrap().iter();
        for (found, printed) in pairs.zip(expected["dequantized"].as_array().unwrap()) {
            let (found, printed) = (found.as_f64().unwrap(), printed.as_f64().unwrap());
            assert!((found - printed).abs() <= 5.1e-9, "{name}: {found} {printed}");
        }
    }
}

/// Sums are added in an order that the shape fixes.
#[tokio::test]
async fn the_number_of_threads_changes_nothing() {
    let data: Vec<f64> =
        (0..300_000).map(|i| (f64::from(i) * 0.618).sin() * (f64::from(i) * 0.01).cos()).collect();
    let request =
        json!({"data": data, "shape": [300, 1000], "scheme": {"range": "mse", "bits": 4}});
    let mut answers = Vec::new();
    for threads in [1, 2, 3] {
        let client = Client::with(|config: &mut Serve| config.threads = threads);
        answers.push(client.post("/v1/quantize", &request).await.body);
    }
    assert!(answers[0] == answers[1] && answers[0] == answers[2]);
}

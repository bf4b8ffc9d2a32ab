//! `/v2`: the inference protocol's form of answers and failures.

use axum::body::Body;
use axum::http::Request;
use quantd::config::Serve;
use serde_json::{Value, json};

use crate::harness::{Answer, Client};

const INFER: &str = "/v2/models/quantize_int8/infer";

fn input(name: &str, datatype: &str, shape: &[usize], data: &Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
}

/// Output `name` of a JSON answer.
#[track_caller]
fn output(answer: &Answer, name: &str) -> Value {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let answer = answer.json();
    let outputs = answer["outputs"].as_array().unwrap();
    outputs.iter().find(|output| output["name"] == name).expect("the output")["data"].clone()
}

async fn binary(client: &Client, header: &Value, tail: &[u8]) -> Answer {
    let header = header.to_string();
    let request = Request::post(INFER)
        .header("inference-header-content-length", header.len())
        .body(Body::from([header.as_bytes(), tail].concat()));
    client.send(request.unwrap()).await
}

#[tokio::test]
async fn models_answer_what_v1_answers() {
    let client = Client::new();
    // Of a size that blocks divide.
    let data = json!([0.1, -2.0, 3.3, 0.0, 1.5, -0.25, 100.0, 7.0].repeat(16));
    for preset in quantd::api::presets::PRESETS.iter() {
        // The protocol has no JSON for halves.
        if ["f16", "bf16"].contains(&preset.name) {
            continue;
        }
        let request = json!({"inputs": [input("x", "FP32", &[2, 64], &data)]});
        let answer =
            client.post(&format!("/v2/models/quantize_{}/infer", preset.name), &request).await;
        let v1 = json!({"data": data, "shape": [2, 64], "scheme": preset.name});
        let v1 = client.post("/v1/quantize", &v1).await.json();
        let flat = |value: &Value| -> Vec<f64> {
            let numbers = value.to_string().replace(['[', ']'], "");
            numbers.split(',').map(|number| number.parse().unwrap()).collect()
        };
        for (name, field) in [("q", "codes"), ("scale", "scale"), ("zero_point", "zero_point")] {
            if v1.get(field).is_some() {
                assert_eq!(
                    flat(&output(&answer, name)),
                    flat(&v1[field]),
                    "{} {name}",
                    preset.name
                );
            }
        }
        assert_eq!(output(&answer, "metrics")[0], v1["report"]["mse"], "{}", preset.name);
    }
}

#[tokio::test]
async fn binary_elements_follow_the_header() {
    let client = Client::new();
    let bytes: Vec<u8> = [1.0_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let header = json!({
        "id": "7", "parameters": {"binary_data_output": true},
        "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "outputs": [{"name": "q"}, {"name": "zero_point", "parameters": {"binary_data": false}}]
    });
    let answer = binary(&client, &header, &bytes).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "application/octet-stream")
    );
    let length: usize = answer.header("inference-header-content-length").parse().unwrap();
    let document: Value = serde_json::from_slice(&answer.body[..length]).unwrap();
    assert_eq!(answer.body[length..], [64, 129]);
    assert_eq!(
        document,
        json!({"model_name": "quantize_int8", "model_version": "1", "id": "7", "outputs": [
            {"name": "q", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}},
            {"name": "zero_point", "datatype": "INT32", "shape": [1], "data": [0]}
        ]})
    );
}

#[tokio::test]
async fn failures_have_the_protocols_form_wherever_they_arise() {
    let client = Client::with(|config: &mut Serve| {
        config.api_key = Some("secret".to_owned());
        config.max_body_bytes = 2000;
    });
    let text = client.post(INFER, &json!({})).await.protocol_error(401);
    assert!(text.starts_with("no valid key"), "{text}");
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let keyed = |path: &str, body: String| {
        Request::post(path).header("api-key", "secret").body(Body::from(body)).unwrap()
    };
    for (path, body, status) in [
        (INFER, "{}".to_owned(), 400),
        (INFER, format!("{{\"inputs\": [{}]}}", " ".repeat(3000)), 413),
        ("/v2/models/nope/infer", "{}".to_owned(), 404),
        ("/v2/nope", "{}".to_owned(), 404),
        ("/v2/models/quantize_int8", "{}".to_owned(), 405),
        ("/v2/logging", "{}".to_owned(), 501),
    ] {
        let answer = client.send(keyed(path, body)).await;
        answer.protocol_error(status);
    }
    client.post("/v1/quantize", &json!({})).await.problem("unauthorized", 401);
}

#[tokio::test]
async fn a_stop_is_told() {
    let client = Client::new();
    let request = json!({"inputs": [input("x", "FP32", &[1], &json!([1]))]});
    assert_eq!(output(&client.post(INFER, &request).await, "q"), json!([127]));
    // No memory for anything: try again later.
    let client = Client::with(|config: &mut Serve| config.max_inflight_bytes = 1 << 10);
    let answer = client.post(INFER, &request).await;
    answer.protocol_error(413);
}

#[tokio::test]
async fn what_waited_too_long_is_not_computed() {
    let client = Client::new();
    let mut request = json!({"inputs": [input("x", "FP32", &[1], &json!([1]))]});
    // A microsecond has passed before the first byte is looked at.
    request["parameters"] = json!({"timeout": 1});
    let answer = client.post(INFER, &request).await;
    answer.protocol_error(503);
    assert_eq!(answer.header("retry-after"), "1");
}

/// As many scales as a large layer has channels are longer than any other option.
#[tokio::test]
async fn parameters_hold_a_scale_for_each_of_many_channels() {
    let client = Client::new();
    for channels in [4096, 65_536] {
        let scales: Vec<String> = (0..channels).map(|i| format!("{i}.1234")).collect();
        let n = scales.len();
        let request = json!({
            "inputs": [input("x", "FP32", &[n, 1], &json!(vec![1; n]))],
            "parameters": {"scale": scales.join(","), "granularity": "channel", "axis": 0}
        });
        let kept = output(&client.post(INFER, &request).await, "scale");
        assert_eq!(kept.as_array().unwrap().len(), n);
        assert_eq!(kept[4095].to_string().parse(), Ok(4095.1234_f32));
    }
    let with = |parameters: Value| json!({"inputs": [input("x", "FP32", &[1], &json!([1]))], "parameters": parameters});
    for parameters in [json!({"bits": [8]}), json!({"bits": {}}), json!([]), json!("bits")] {
        let text = client.post(INFER, &with(parameters)).await.protocol_error(400);
        assert!(text.starts_with("/parameters"), "{text}");
    }
}

/// Options have one form: bare or dotted, in the parameters or in the query; said twice they must agree.
#[tokio::test]
async fn options_are_taken_wherever_they_are_said() {
    let client = Client::new();
    let with = |parameters: Value| json!({"inputs": [input("x", "FP32", &[2, 2], &json!([1, 2, 3, -4]))], "parameters": parameters});
    let expect = client.post(INFER, &with(json!({"bits": 4, "axis": 0}))).await.json();
    for (query, parameters) in [
        ("", json!({"scheme.bits": 4, "axis": 0})),
        ("?bits=4&scheme.axis=0", json!({})),
        ("?scheme.bits=4", json!({"axis": 0, "bits": 4})),
    ] {
        let answer = client.post(&format!("{INFER}{query}"), &with(parameters)).await.json();
        assert_eq!(answer["outputs"], expect["outputs"], "{query}");
    }
    for (query, parameters, error) in [
        ("", json!({"scheme.bits": 4, "bits": 5}), "/parameters/scheme.bits: contradicts bits"),
        ("?bits=4", json!({"bits": 5}), "bits: the query contradicts /parameters/bits of the body"),
        ("?bitz=4", json!({}), "bitz: unknown option"),
        ("?bits=1", json!({}), "bits: not an integer"),
        ("?axis=7", json!({}), "axis: "),
        ("?binary_data_output=x", json!({}), "binary_data_output: not a boolean"),
    ] {
        let answer = client.post(&format!("{INFER}{query}"), &with(parameters)).await;
        let text = answer.protocol_error(400);
        assert!(text.starts_with(error), "{query}: {text}");
    }
    let product = |parameters: Value| {
        let sides = [
            input("a", "FP32", &[1, 2], &json!([1, 2])),
            input("b", "FP32", &[2, 1], &json!([3, -4])),
        ];
        json!({"inputs": sides, "parameters": parameters})
    };
    const MATMUL: &str = "/v2/models/matmul_int8/infer";
    let plain = client.post(MATMUL, &product(json!({}))).await.json();
    let coarse = client.post(MATMUL, &product(json!({"a_scheme.bits": 4}))).await.json();
    let asked = client.post(&format!("{MATMUL}?a_scheme.bits=4"), &product(json!({}))).await.json();
    assert_ne!(plain["outputs"], coarse["outputs"]);
    assert_eq!(coarse["outputs"], asked["outputs"]);
}

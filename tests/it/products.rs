//! `/v1/matmul`: every form of operand and result, against the definition.

use quantd_codec::Limits;
use serde_json::{Value, json};

use crate::harness::{Client, JSON, NPY, RAW, SAFETENSORS};

const MATMUL: &str = "/v1/matmul";

pub(crate) fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[tokio::test]
async fn sums_of_codes_are_exact() {
    let client = Client::new();
    // numpy: ((a.astype(int) - 128) @ (b.astype(int) - [1, -2])).tolist()
    let request = json!({
        "a": {"codes": [[0, 255, 7], [128, 129, 130]], "dtype": "U8", "zero_point": 128},
        "b": {"codes": [[-128, 127], [5, -6], [77, 0]], "zero_point": [1, -2],
            "scheme": {"granularity": "channel", "axis": 1}}
    });
    let answer = client.post(MATMUL, &request).await;
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!((&answer["dtype"], &answer["shape"]), (&json!("I32"), &json!([2, 2])));
    assert_eq!(answer["data"], json!([[7824, -17262], [156, 0]]));
    assert!(answer.get("a").is_none());
}

#[tokio::test]
async fn real_operands_say_what_was_found_and_lost() {
    let client = Client::new();
    let request = json!({
        "a": {"data": [[0.1, -2.0, 0.7], [3.3, 0.0, 1.5]]},
        "b": {"data": [[0.5, -0.25], [1.0, 0.75], [-0.6, 0.2]]},
        "bias": [1.0, -1.0], "relu": true, "report": true
    });
    let answer = client.post(MATMUL, &request).await.json();
    assert_eq!(answer["dtype"], "F32");
    assert_eq!(answer["a"]["scheme"]["signed"], false);
    assert_eq!(answer["b"]["scheme"]["axis"], -1);
    assert_eq!(answer["b"]["zero_point"], json!([0, 0]));
    let at = |i: usize, j: usize| answer["data"][i][j].as_f64().unwrap();
    // The real product is [[-1.37, -2.385], [1.75, -1.525]] with the bias.
    assert_eq!((at(0, 0), at(0, 1), at(1, 1)), (0.0, 0.0, 0.0));
    assert!((at(1, 0) - 1.75).abs() < 0.02, "{}", at(1, 0));
    let error = answer["report"]["max_abs_error"].as_f64().unwrap();
    assert!((error - (at(1, 0) - 1.75).abs()).abs() < 1e-6, "{error}");
    let mse = answer["report"]["mse"].as_f64().unwrap();
    assert!((mse - error * error / 4.0).abs() < 1e-9, "{mse}");
}

/// An answer of quantize is an operand as it is, and weights may lie either way.
#[tokio::test]
async fn what_quantize_answers_can_be_multiplied() {
    let client = Client::new();
    let x: Vec<Vec<f32>> = (0..3)
        .map(|i| (0..64).map(|k| ((i * 31 + k * 7) % 23) as f32 / 9.0 - 1.0).collect())
        .collect();
    let weights: Vec<Vec<f32>> = (0..5)
        .map(|j| (0..64).map(|k| ((j * 13 + k * 5) % 17) as f32 / 8.0 - 1.0).collect())
        .collect();
    for scheme in ["int8_per_channel", "int4_g32", "uint4_g128", "int8", "int4_per_channel"] {
        let a = json!({"data": x, "scheme": "int8_per_token"});
        let real = json!({"data": weights, "scheme": scheme});
        let direct = json!({"a": a, "b": real, "transpose_b": true});
        let direct = client.post(MATMUL, &direct).await.json();
        assert_eq!(direct["shape"], json!([3, 5]), "{direct}");
        let quantized = client.post("/v1/quantize", &real).await.json();
        let by_codes = json!({"a": a, "b": quantized, "transpose_b": true});
        let by_codes = client.post(MATMUL, &by_codes).await.json();
        assert_eq!(by_codes["data"], direct["data"], "{scheme}");
        // And as real numbers again, multiplied in f64.
        let restored = client.post("/v1/dequantize", &quantized).await.json();
        let a = client.post("/v1/quantize", &a).await.json();
        let a = client.post("/v1/dequantize", &a).await.json();
        for i in 0..3 {
            for j in 0..5 {
                let term = |k: usize| {
                    let of = |answer: &Value, i: usize| answer["data"][i][k].as_f64().unwrap();
                    of(&a, i) * of(&restored, j)
                };
                let expect: f64 = (0..64).map(term).sum();
                let found = direct["data"][i][j].as_f64().unwrap();
                assert!((found - expect).abs() < 1e-4, "{scheme} {i} {j}: {found} {expect}");
            }
        }
    }
}

#[tokio::test]
async fn batches_broadcast_as_numpy_does() {
    let client = Client::new();
    let request = json!({
        "a": {"codes": [[[1, 2]], [[3, 4]]]},
        "b": {"codes": [[[[1, 0], [0, 1]]], [[[2, 0], [0, 2]]], [[[0, 3], [3, 0]]]]}
    });
    let answer = client.post(MATMUL, &request).await.json();
    assert_eq!(answer["shape"], json!([3, 2, 1, 2]));
    let expect = json!([[[[1, 2]], [[3, 4]]], [[[2, 4]], [[6, 8]]], [[[6, 3]], [[12, 9]]]]);
    assert_eq!(answer["data"], expect);
    let empty = json!({
        "a": {"codes": [], "shape": [2, 0]}, "b": {"codes": [], "shape": [0, 3]}
    });
    let answer = client.post(MATMUL, &empty).await.json();
    assert_eq!(answer["data"], json!([[0, 0, 0], [0, 0, 0]]));
}

#[tokio::test]
async fn binary_and_json_say_the_same() {
    let client = Client::new();
    let (a, b) = ([0.1, -2.0, 0.7, 3.3, 0.0, 1.5], [0.5, -0.25, 1.0, 0.75, -0.6, 0.2]);
    let request = json!({
        "a": {"data": a, "shape": [2, 3], "scheme": "int8_per_token"},
        "b": {"data": b, "shape": [3, 2]}, "bias": [0.5, 0.25]
    });
    let expect = client.post(MATMUL, &request).await.json();
    let file = safetensors(&[
        ("a", "F32", &[2, 3], bytes_of(&a)),
        ("b", "F32", &[3, 2], bytes_of(&b)),
        ("bias", "F32", &[2], bytes_of(&[0.5, 0.25])),
    ]);
    let path = "/v1/matmul?a_scheme=int8_per_token";
    let json = client.post_bytes(path, SAFETENSORS, JSON, file.clone()).await;
    assert_eq!(json.json(), expect);
    let raw = client.post_bytes(path, SAFETENSORS, RAW, file.clone()).await;
    let numbers: Vec<f32> =
        raw.body.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    let rows: Vec<Vec<f32>> = serde_json::from_value(expect["data"].clone()).unwrap();
    assert_eq!(numbers, rows.concat());
    let npy = client.post_bytes(path, SAFETENSORS, NPY, file.clone()).await;
    assert!(npy.body.ends_with(&raw.body) && npy.body.starts_with(b"\x93NUMPY"));
    let own = client.post_bytes(path, SAFETENSORS, SAFETENSORS, file).await;
    let text = String::from_utf8_lossy(&own.body);
    for name in ["\"data\"", "\"a.scale\"", "\"b.zero_point\""] {
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_multiplied_is_named() {
    let client = Client::new();
    let a = json!({"codes": [[1, 2]], "scale": 0.5});
    let b = json!({"codes": [[1], [2]], "scale": [0.25]});
    let with = |field: &str, value: Value| {
        let mut request = json!({"a": a, "b": b});
        request[field] = value;
        request
    };
    let codes = |codes: Value, dims: [usize; 2]| json!({"codes": codes, "shape": dims, "scale": 1});
    for (request, pointer, detail) in [
        (json!({"a": a}), "/b", "b is missing"),
        (
            with("a", json!({"codes": [1, 2]})),
            "/a/shape",
            "shape: a matrix has two dimensions or more",
        ),
        (
            with("a", codes(json!([1, 2, 3]), [1, 3])),
            "/b/shape",
            "[2, 1] has a K of 2, a of shape [1, 3] one of 3",
        ),
        (
            with("b", json!({"codes": [[1], [2]], "zero_point": 200})),
            "/b/zero_point",
            "zero_point: element 0 is not a code",
        ),
        (
            with("b", json!({"codes": [[1], [2]], "scale": [1, 2, 3]})),
            "/b/scale",
            "scale: 3 values for 1 slices",
        ),
        (
            with("b", json!({"data": [[1], [2]], "scheme": {"granularity": "channel", "axis": 0}})),
            "/b/scheme/granularity",
            "granularity is not one that columns of a product have",
        ),
        (
            with("a", json!({"data": [[1, 2]], "scheme": {"bits": 16}})),
            "/a/scheme/bits",
            "products are of codes of up to 8 bits",
        ),
        (with("a", json!({"data": [[1, "NaN"]]})), "/a/data", "data: element 1 is NaN"),
        (with("bias", json!([1, 2])), "/bias", "bias: 2 values for 1 columns"),
        (with("output_dtype", json!("U8")), "/output_scale", "output_scale is missing"),
        (with("report", json!(true)), "/report", "report needs both operands as real numbers"),
        (with("colour", json!(1)), "/colour", "colour is an unknown option"),
    ] {
        let answer = client.post(MATMUL, &request).await;
        let kind =
            if detail.ends_with("NaN") { ("non-finite", 422) } else { ("invalid-option", 400) };
        let problem = answer.problem(kind.0, kind.1);
        assert_eq!(problem["detail"], detail, "{request}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}

#[tokio::test]
async fn what_is_too_deep_or_too_wide_is_refused() {
    let client = Client::new();
    let deep = json!({
        "a": {"codes": vec![255; 40_000], "shape": [1, 40_000], "dtype": "U8"},
        "b": {"codes": vec![255; 40_000], "shape": [40_000, 1], "dtype": "U8"}
    });
    let problem = client.post(MATMUL, &deep).await.problem("invalid-option", 400);
    assert_eq!(problem["detail"], "shape: a K of 40000 may overflow sums of 32 bits");
    let wide = json!({
        "a": {"codes": vec![1; 100_000], "shape": [100_000, 1]},
        "b": {"codes": vec![1; 100_000], "shape": [1, 100_000]}
    });
    assert!(100_000_u64.pow(2) > Limits::default().max_elements as u64);
    client.post(MATMUL, &wide).await.problem("too-large", 413);
    let one = client.post_bytes(MATMUL, NPY, JSON, Vec::new()).await;
    assert_eq!(one.status, 415);
}

//! Codes that are none of those that they are said to be, wherever codes are taken.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, JSON, NPY, RAW, SAFETENSORS};
use crate::products::safetensors;

const DEQUANTIZE: &str = "/v1/dequantize";

/// Codes and what is said of them, and the field and text of the refusal; `None` for good ones.
fn cases() -> Vec<(Value, Option<(&'static str, &'static str)>)> {
    let of = |dtype: &str, codes: [i32; 2], zero_point: i32, scheme: Value| json!({"dtype": dtype, "shape": [2], "codes": codes, "scale": 0.5, "zero_point": zero_point, "scheme": scheme});
    let sign = |dtype| {
        if dtype == "U8" { "U8 codes of a signed scheme" } else { "I8 codes of an unsigned scheme" }
    };
    vec![
        (of("I8", [7, -8], -8, json!({"bits": 4})), None),
        (
            of("I8", [0, 100], 0, json!({"bits": 4})),
            Some(("codes", "element 1 is not a code of 4 bits")),
        ),
        (of("I8", [-9, 0], 0, json!("int4")), Some(("codes", "element 0 is not a code of 4 bits"))),
        (
            of("I8", [0, 0], 8, json!({"bits": 4})),
            Some(("zero_point", "element 0 is not a code of 4 bits")),
        ),
        (of("U8", [3, 0], 3, json!({"bits": 2, "signed": false})), None),
        (
            of("U8", [4, 0], 0, json!({"bits": 2, "signed": false})),
            Some(("codes", "element 0 is not a code of 2 bits")),
        ),
        (of("U8", [255, 0], 255, json!({})), None),
        (of("U8", [255, 0], 300, json!({})), Some(("zero_point", "element 0 is not a code"))),
        (of("U8", [255, 0], -1, json!({})), Some(("zero_point", "element 0 is not a code"))),
        (of("U8", [1, 0], 0, json!("int8")), Some(("codes", sign("U8")))),
        (of("I8", [1, 0], 0, json!("uint8")), Some(("codes", sign("I8")))),
    ]
}

/// Those that only dequantize takes.
fn wide_cases() -> Vec<(Value, Option<(&'static str, &'static str)>)> {
    let of = |dtype: &str, codes: [i32; 2], zero_point: i32, scheme: Value| json!({"dtype": dtype, "shape": [2], "codes": codes, "scale": 0.5, "zero_point": zero_point, "scheme": scheme});
    let zero_point = Some(("zero_point", "element 0 is not a code of 16 bits"));
    vec![
        (of("U16", [65_535, 0], 65_535, json!("uint16")), None),
        (of("U16", [65_535, 0], 65_536, json!("uint16")), zero_point),
        (of("I16", [-32_768, 0], 32_767, json!({"bits": 16})), None),
        (of("I16", [0, 0], 32_768, json!({"bits": 16})), zero_point),
        (
            of("I16", [0, 128], 0, json!({"bits": 8})),
            Some(("codes", "element 1 is not a code of 8 bits")),
        ),
        (of("I32", [i32::MAX, 0], 0, json!({})), None),
        (
            of("I32", [0, 300], 0, json!("int8")),
            Some(("codes", "element 1 is not a code of 8 bits")),
        ),
    ]
}

#[track_caller]
fn check(answer: &Answer, expect: Option<(&str, &str)>, place: &str, at: &Value) {
    let Some((field, detail)) = expect else {
        assert_eq!(answer.status, 200, "{at}: {}", String::from_utf8_lossy(&answer.body));
        return;
    };
    let problem = answer.problem("invalid-option", 400);
    // A sentence that does not name the field begins with it.
    let sentence =
        if detail.contains(field) { detail.to_owned() } else { format!("{field}: {detail}") };
    let own = &problem["errors"][0];
    let found = own["pointer"].as_str().or(own["parameter"].as_str()).unwrap();
    assert_eq!(
        (found, problem["detail"].as_str()),
        (&*format!("{place}{field}"), Some(&*sentence)),
        "{at}"
    );
    assert!(
        !problem["cure"].as_str().unwrap_or_default().is_empty() || own["cure"].is_string(),
        "{problem}"
    );
}

fn bytes(item: &Value) -> Vec<u8> {
    let width = match item["dtype"].as_str().unwrap() {
        "I8" | "U8" => 1,
        "I16" | "U16" => 2,
        _ => 4,
    };
    let codes = item["codes"].as_array().unwrap().iter();
    codes.flat_map(|code| code.as_i64().unwrap().to_le_bytes()[..width].to_vec()).collect()
}

fn npy(item: &Value) -> Vec<u8> {
    let dtype = item["dtype"].as_str().unwrap();
    let descr =
        format!("{}{}", dtype[..1].to_lowercase(), dtype[1..].parse::<usize>().unwrap() / 8);
    let descr = if descr.ends_with('1') { format!("|{descr}") } else { format!("<{descr}") };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes(item));
    file
}

fn query(item: &Value) -> String {
    let scheme: Vec<String> = match item["scheme"].as_str() {
        Some(preset) => vec![format!("preset={preset}")],
        None => {
            let fields = item["scheme"].as_object().unwrap();
            fields.iter().map(|(name, value)| format!("{name}={value}")).collect()
        }
    };
    let scheme = scheme.join("&");
    format!("{DEQUANTIZE}?scale=0.5&zero_point={}&{scheme}", item["zero_point"])
}

#[tokio::test]
async fn dequantize_takes_only_what_is_stated_in_every_format() {
    let client = Client::new();
    for (item, expect) in cases().into_iter().chain(wide_cases()) {
        check(&client.post(DEQUANTIZE, &item).await, expect, "/", &item);
        let several = json!({"tensors": {"w": item}});
        let answer = client.post(DEQUANTIZE, &several).await;
        assert_eq!(answer.status == 200, expect.is_none(), "{item}");
        let path = query(&item);
        let answer = client.post_bytes(&path, NPY, JSON, npy(&item)).await;
        check(&answer, expect, "", &item);
        let raw = format!("{path}&dtype={}&shape=2", item["dtype"].as_str().unwrap());
        let answer = client.post_bytes(&raw, RAW, JSON, bytes(&item)).await;
        check(&answer, expect, "", &item);
        let zero_point = i32::try_from(item["zero_point"].as_i64().unwrap()).unwrap();
        let file = safetensors(&[
            ("codes", item["dtype"].as_str().unwrap(), &[2], bytes(&item)),
            ("scale", "F32", &[], 0.5_f32.to_le_bytes().to_vec()),
            ("zero_point", "I32", &[], zero_point.to_le_bytes().to_vec()),
        ]);
        let scheme = path.split('&').skip(2).collect::<Vec<_>>().join("&");
        let path = format!("{DEQUANTIZE}?{scheme}");
        let answer = client.post_bytes(&path, SAFETENSORS, JSON, file).await;
        check(&answer, expect, "/", &item);
    }
}

#[tokio::test]
async fn products_and_layers_take_only_what_is_stated() {
    let client = Client::new();
    for (item, expect) in cases() {
        let row = |mut item: Value, dims: [usize; 2]| {
            item["shape"] = json!(dims);
            item
        };
        let good = json!({"codes": [[1], [1]], "scale": 1});
        let a = row(item.clone(), [1, 2]);
        let answer = client.post("/v1/matmul", &json!({"a": a, "b": good})).await;
        check(&answer, expect, "/a/", &item);
        let good = json!({"codes": [[1, 1]], "scale": 1});
        let b = row(item.clone(), [2, 1]);
        let answer = client.post("/v1/matmul", &json!({"a": good, "b": b})).await;
        check(&answer, expect, "/b/", &item);
        let layer = json!({"name": "stated", "weight": a});
        let request = Request::put("/v1/layers/stated").header("content-type", JSON);
        let answer = client.send(request.body(Body::from(layer.to_string())).unwrap()).await;
        assert_eq!(answer.status == 200 || answer.status == 201, expect.is_none(), "{item}");
        if expect.is_some() {
            check(&answer, expect, "/weight/", &item);
        }
    }
}

#[tokio::test]
async fn inputs_of_layers_are_codes_of_their_bits() {
    let client = Client::new();
    let layer = json!({"name": "narrow", "weight": {"data": [[1.0, 1.0]]},
        "input": {"bits": 4, "signed": false, "scale": 0.5, "zero_point": 3}});
    assert_eq!(client.post("/v1/layers", &layer).await.status, 201);
    let forward = async |codes: [u8; 2]| {
        client.post("/v1/layers/narrow/forward", &json!({"dtype": "U8", "data": [codes]})).await
    };
    assert_eq!(forward([15, 0]).await.status, 200);
    let problem = forward([15, 16]).await.problem("invalid-option", 400);
    assert_eq!(problem["detail"], "data: element 1 is not a code of 4 bits");
}

#[tokio::test]
async fn the_inference_protocol_takes_only_what_is_stated() {
    let client = Client::new();
    let infer = async |model: &str, datatype: &str, code: i32, zero_point: i32| {
        let input = |name: &str, datatype: &str, data: Value| json!({"name": name, "shape": [1], "datatype": datatype, "data": [data]});
        let body = json!({"inputs": [input("q", datatype, json!(code)), input("scale", "FP32", json!(0.5)),
            input("zero_point", "INT32", json!(zero_point))]});
        client.post(&format!("/v2/models/dequantize_{model}/infer"), &body).await
    };
    assert_eq!(infer("int4", "INT8", 7, -8).await.status, 200);
    for (model, datatype, code, zero_point, text) in [
        ("int4", "INT8", 100, 0, "element 0 is not a code of 4 bits"),
        ("int4", "INT8", 0, 8, "element 0 is not a code of 4 bits"),
        ("uint8", "UINT8", 0, 300, "element 0 is not a code of 8 bits"),
        ("int8", "UINT8", 0, 0, "UINT8"),
        ("uint16", "UINT16", 0, 65_536, "element 0 is not a code of 16 bits"),
    ] {
        let error = infer(model, datatype, code, zero_point).await.protocol_error(400);
        let text = if text == "UINT8" { "U8 codes of a signed scheme" } else { text };
        assert!(error.contains(text), "{model}: {error}");
    }
    let input = |name: &str, dims: Value, datatype: &str, data: Value| json!({"name": name, "shape": dims, "datatype": datatype, "data": data});
    let body = json!({"inputs": [input("a", json!([1, 2]), "UINT8", json!([1, 2])),
        input("b", json!([2, 1]), "INT8", json!([1, 2])), input("a_zero_point", json!([1]), "INT32", json!([300]))]});
    let error = client.post("/v2/models/matmul_int8/infer", &body).await.protocol_error(400);
    assert!(error.contains("element 0 is not a code"), "{error}");
}

/// Scales as numbers are F32 or F64; a file may have any floating-point type, which F32 and F64 hold exactly.
#[tokio::test]
async fn types_of_scales() {
    let client = Client::new();
    for dtype in ["F16", "BF16", "I8", "U64"] {
        let item = json!({"codes": [1], "scale": 0.1, "scale_dtype": dtype});
        let problem = client.post(DEQUANTIZE, &item).await.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["pointer"], "/scale_dtype");
        let body = json!({"a": item, "b": {"codes": [[1]]}});
        let problem = client.post("/v1/matmul", &body).await.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["pointer"], "/a/scale_dtype");
        let path = format!("{DEQUANTIZE}?dtype=I8&shape=1&scale=0.1&scale_dtype={dtype}");
        let problem = client.post_bytes(&path, RAW, JSON, vec![1]).await;
        let problem = problem.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["parameter"], "scale_dtype");
    }
    let file = |dtype: &str, scale: Vec<u8>| {
        safetensors(&[("codes", "I8", &[2], vec![1, 255]), ("scale", dtype, &[], scale)])
    };
    // 0.75 in each of them.
    for (dtype, scale) in [
        ("BF16", vec![0x40, 0x3f]),
        ("F16", vec![0x00, 0x3a]),
        ("F32", 0.75_f32.to_le_bytes().to_vec()),
        ("F64", 0.75_f64.to_le_bytes().to_vec()),
    ] {
        let answer =
            client.post_bytes(DEQUANTIZE, SAFETENSORS, JSON, file(dtype, scale)).await.json();
        let expect = if dtype == "F64" { "F64" } else { "F32" };
        assert_eq!((&answer["dtype"], &answer["data"]), (&json!(expect), &json!([0.75, -0.75])));
    }
    let answer = client.post_bytes(DEQUANTIZE, SAFETENSORS, JSON, file("I8", vec![1])).await;
    assert_eq!(answer.problem("invalid-option", 400)["errors"][0]["pointer"], "/scale");
}

/// The width of a scheme says what codes without a type are.
#[tokio::test]
async fn codes_of_16_bits_need_no_type() {
    let client = Client::new();
    for (scheme, codes) in [("int16", [-32_768, 300]), ("uint16", [65_535, 0])] {
        let item = json!({"codes": codes, "scale": 1, "scheme": scheme});
        let answer = client.post(DEQUANTIZE, &item).await;
        assert_eq!(answer.json()["data"], json!(codes.map(f64::from)), "{scheme}");
    }
}

/// Several scales without a granularity belong to the only axis that they fit.
#[tokio::test]
async fn the_shape_of_scales_says_whose_they_are() {
    let client = Client::new();
    let restored = async |scale: Value| {
        let item = json!({"codes": [[1, 2, 3], [4, 5, 6]], "scale": scale});
        client.post(DEQUANTIZE, &item).await
    };
    for (scale, expect) in [
        (json!([1, 10]), json!([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]])),
        (json!([[1], [10]]), json!([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]])),
        (json!([1, 10, 100]), json!([[1.0, 20.0, 300.0], [4.0, 50.0, 600.0]])),
        (json!([[1, 10, 100]]), json!([[1.0, 20.0, 300.0], [4.0, 50.0, 600.0]])),
        (json!([[2]]), json!([[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]])),
    ] {
        assert_eq!(restored(scale.clone()).await.json()["data"], expect, "{scale}");
    }
    for scale in [json!([1, 2, 3, 4]), json!([[1, 2, 3], [4, 5, 6]])] {
        let problem = restored(scale).await.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["pointer"], "/scale");
    }
    // Either axis of a square.
    let item = json!({"codes": [[1, 2], [3, 4]], "scale": [1, 10]});
    assert_eq!(client.post(DEQUANTIZE, &item).await.status, 400);
    let path = format!("{DEQUANTIZE}?dtype=I8&shape=2,3&scale=1,10");
    let answer = client.post_bytes(&path, RAW, JSON, vec![1, 2, 3, 4, 5, 6]).await;
    assert_eq!(answer.json()["data"], json!([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]]));
}

#[tokio::test]
async fn operands_have_scales_by_rows_and_columns() {
    let client = Client::new();
    let product = async |a: Value, b: Value, transpose: bool| {
        let body = json!({"a": a, "b": b, "transpose_b": transpose});
        client.post("/v1/matmul", &body).await.json()["data"].clone()
    };
    let a = || json!({"codes": [[1, 0], [0, 1]], "scale": [1, 10]});
    let b = |zero_point: Value| json!({"codes": [[1, 2], [3, 4]], "scale": [1, 100], "zero_point": zero_point});
    assert_eq!(product(a(), b(json!(0)), false).await, json!([[1.0, 200.0], [30.0, 4000.0]]));
    assert_eq!(product(a(), b(json!(0)), true).await, json!([[1.0, 300.0], [20.0, 4000.0]]));
    assert_eq!(product(a(), b(json!([1, 2])), false).await, json!([[0.0, 0.0], [20.0, 2000.0]]));
    let zero_points = json!({"codes": [[1, 2], [3, 4]], "zero_point": [1, 2]});
    let rows = json!({"codes": [[1, 0], [0, 1]]});
    assert_eq!(product(rows, zero_points, false).await, json!([[0, 0], [2, 2]]));
}

//! The first call of the API, and that every format says the same.

use quantd::api::options::SCHEME_FIELDS;
use quantd::api::presets::PRESETS;
use serde_json::{Value, json};

use crate::harness::{Client, DOCUMENT, JSON, NPY, RAW, SAFETENSORS};

#[tokio::test]
async fn the_first_call() {
    let client = Client::new();
    let request = json!({
        "data": [[0.1, -2.0], [3.3, 0]], "dtype": "F32",
        "scheme": {"bits": 8, "signed": true, "symmetric": true, "granularity": "channel", "axis": 0,
            "range": "percentile", "percentile": 99.9}
    });
    let answer = client.post("/v1/quantize", &request).await;
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!((&answer["dtype"], &answer["shape"]), (&json!("I8"), &json!([2, 2])));
    // numpy.percentile([0.1, 2.0], 99.9) = 1.9981 and [3.3, 0]: 3.2967, over 127.
    assert_eq!(answer["codes"], json!([[6, -127], [127, 0]]));
    assert_eq!(answer["zero_point"], json!([0, 0]));
    assert_eq!(answer["scale"], json!([0.01573307, 0.025958268]));
    let scheme = &answer["scheme"];
    for &field in SCHEME_FIELDS.iter() {
        // A preset is resolved to its fields; scales and zero points stand beside the codes.
        let elsewhere = ["preset", "scale", "zero_point"].contains(&field);
        assert_eq!(scheme.get(field).is_some(), !elsewhere, "{field}");
    }
    assert_eq!((&scheme["range"], &scheme["percentile"]), (&json!("percentile"), &json!(99.9)));
    assert_eq!(scheme["restricted"], true);
    let report = answer["report"].as_object().unwrap();
    let fields = "mse mse_clipped mse_rounded max_abs_error sqnr_db cosine clipped nan inf zeroed \
        bits_per_element compression_ratio";
    assert!(report.keys().map(String::as_str).eq(fields.split_whitespace()), "{report:?}");
    // 3.3 is cut off, but by less than half a step: its code was not saturated.
    assert_eq!((&report["clipped"], &report["zeroed"]), (&json!(0), &json!(0)));
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn npy(dims: &str, numbers: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {dims}, }}");
    let header = format!("{header:117}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes_of(numbers));
    file
}

fn safetensors(dtype: &str, dims: &[usize], data: &[u8]) -> Vec<u8> {
    let header =
        json!({"w": {"dtype": dtype, "shape": dims, "data_offsets": [0, data.len()]}}).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

const X: [f32; 8] = [0.1, -2.0, 3.3, 0.0, 1.5, -0.25, 100.0, 7.0];

#[tokio::test]
async fn every_format_in_gives_the_same_answer() {
    let client = Client::new();
    let scheme = "bits=4&axis=0&range=mse";
    let request =
        json!({"data": X, "shape": [2, 4], "scheme": {"bits": 4, "axis": 0, "range": "mse"}});
    let expected = client.post("/v1/quantize", &request).await.json();
    let npy = npy("(2, 4)", &X);
    let raw_query = format!("/v1/quantize?dtype=F32&shape=2,4&{scheme}");
    let query = format!("/v1/quantize?{scheme}");
    for (path, content_type, body) in [
        (&raw_query, RAW, bytes_of(&X)),
        (&query, NPY, npy),
        (&query, JSON, request.to_string().into_bytes()),
    ] {
        let path = if content_type == JSON { "/v1/quantize" } else { path };
        let answer = client.post_bytes(path, content_type, JSON, body).await;
        assert_eq!(answer.json(), expected, "{content_type}");
    }
    let file = safetensors("F32", &[2, 4], &bytes_of(&X));
    let answer = client.post_bytes(&query, SAFETENSORS, JSON, file).await.json();
    assert_eq!(answer["tensors"]["w"], expected);
}

#[tokio::test]
async fn answers_go_straight_back_in_every_format() {
    let client = Client::new();
    for scheme in
        ["bits=8", "bits=3&packed=true&axis=1", "bits=4&group_size=3&signed=false&packed=true"]
    {
        let path = format!("/v1/quantize?dtype=F32&shape=2,4&{scheme}");
        let mut restored: Vec<Vec<u8>> = Vec::new();
        for format in [JSON, SAFETENSORS] {
            let codes = client.post_bytes(&path, RAW, format, bytes_of(&X)).await;
            assert_eq!(codes.status, 200, "{scheme} {}", String::from_utf8_lossy(&codes.body));
            for accept in [NPY, RAW] {
                let answer =
                    client.post_bytes("/v1/dequantize", format, accept, codes.body.clone()).await;
                assert_eq!(answer.status, 200, "{scheme} {format} {accept}");
                assert_eq!(answer.header("quantd-shape"), "2,4");
                restored.push(answer.body[answer.body.len() - 32..].to_vec());
            }
        }
        assert!(restored.iter().all(|bytes| *bytes == restored[0]), "{scheme}");
        let error =
            |(x, bytes): (&f32, &[u8])| (x - f32::from_le_bytes(bytes.try_into().unwrap())).abs();
        let largest = X.iter().zip(restored[0].chunks(4)).map(error).fold(0.0, f32::max);
        assert!(largest <= 17.0, "{scheme}: {largest}");
    }
}

#[tokio::test]
async fn every_preset_runs_and_is_described() {
    let client = Client::new();
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(DOCUMENT["components"]["schemas"]["PresetName"]["enum"], json!(names));
    let info = client.get("/info").await.json();
    let listed = info["presets"].as_array().unwrap().iter().map(|preset| &preset["name"]);
    assert!(listed.eq(names.iter().copied().map(Value::from).collect::<Vec<_>>().iter()));
    for name in names {
        // Of a size that blocks divide.
        let request = json!({"data": X.repeat(16), "shape": [2, 64], "scheme": name});
        assert_eq!(client.post("/v1/quantize", &request).await.status, 200, "{name}");
    }
}

#[test]
fn every_scheme_field_is_described() {
    let described = DOCUMENT["components"]["schemas"]["Scheme"]["properties"].as_object().unwrap();
    let fields: Vec<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(fields, *SCHEME_FIELDS);
    for path in ["quantize", "dequantize"] {
        let parameters = DOCUMENT["paths"][format!("/v1/{path}")]["post"]["parameters"].as_array();
        let names: Vec<&str> = parameters
            .unwrap()
            .iter()
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(names[..SCHEME_FIELDS.len()], **SCHEME_FIELDS, "{path}");
    }
}

#[tokio::test]
async fn compare_marks_the_front_and_sorts() {
    let client = Client::new();
    let answer = client.post("/v1/compare", &json!({"data": X, "shape": [2, 4]})).await.json();
    let rows = answer["results"].as_array().unwrap();
    assert!(rows.len() > 8 && rows.iter().any(|row| row["pareto"] == true));
    let sqnr = |row: &Value| row["report"]["sqnr_db"].as_f64().unwrap_or(f64::INFINITY);
    assert!(rows.windows(2).all(|pair| sqnr(&pair[0]) >= sqnr(&pair[1])));
    // A row is what quantize says of the same scheme.
    let request =
        json!({"data": X, "shape": [2, 4], "schemes": ["int4_g32", {"bits": 2}], "sort": "bits"});
    let rows = client.post("/v1/compare", &request).await.json();
    for (row, scheme) in [(0, json!({"bits": 2})), (1, json!("int4_g32"))] {
        let request = json!({"data": X, "shape": [2, 4], "scheme": scheme});
        let single = client.post("/v1/quantize", &request).await.json();
        assert_eq!(rows["results"][row]["scheme"], single["scheme"]);
        assert_eq!(rows["results"][row]["report"], single["report"]);
    }
}

#[tokio::test]
async fn statistics_of_a_tensor_with_everything() {
    let client = Client::new();
    let request = json!({
        "data": [[1, "NaN", 3], [0, "Infinity", -4]], "bins": 7, "percentiles": [50], "axis": 0
    });
    let answer = client.post("/v1/inspect", &request).await.json();
    let all = &answer["statistics"];
    assert_eq!((&all["count"], &all["nan"], &all["inf"]), (&json!(6), &json!(1), &json!(1)));
    assert_eq!((&all["min"], &all["max"], &all["mean"]), (&json!(-4.0), &json!(3.0), &json!(0.0)));
    assert_eq!(all["histogram"]["counts"], json!([1, 0, 0, 0, 1, 1, 1]));
    assert_eq!(all["percentiles"], json!([{"p": 50.0, "value": 0.5}]));
    assert_eq!(answer["slices"].as_array().unwrap().len(), 2);
    assert_eq!(answer["slices"][0]["mean"], 2.0);
}

#[tokio::test]
async fn numbers_near_the_largest_stay_numbers() {
    let client = Client::new();
    let data = json!([-3.3e38, 3.3e38]);
    for percentile in [50, 99] {
        let scheme = json!({"range": "percentile", "percentile": percentile, "symmetric": false});
        let answer = client.post("/v1/quantize", &json!({"data": data, "scheme": scheme})).await;
        let scale = answer.json()["scale"].as_f64().unwrap();
        assert!(scale > 0.0 && scale.is_finite(), "{percentile}: {scale}");
    }
    let request = json!({"data": [-1.7e308, 1.7e308, 1], "dtype": "F64", "bins": 2});
    let histogram = &client.post("/v1/inspect", &request).await.json()["statistics"]["histogram"];
    assert_eq!(histogram["edges"], json!([-1.7e308, 0.0, 1.7e308]));
    assert_eq!(histogram["counts"], json!([1, 2]));
    let request = json!({"data": [1e-200, 1e-200], "dtype": "F64", "scheme": {"scale": 1}});
    let report = &client.post("/v1/quantize", &request).await.json()["report"];
    assert_eq!((&report["zeroed"], &report["cosine"]), (&json!(2), &json!(0.0)));
}

#[tokio::test]
async fn packed_codes_are_bytes_unless_told_otherwise() {
    let client = Client::new();
    let scheme = json!({"bits": 4, "packed": true});
    let request = json!({"codes": [240], "shape": [2], "scale": 1, "scheme": scheme});
    let answer = client.post("/v1/dequantize", &request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"], json!([0.0, -1.0]));
}

/// Clients of typed languages write every member that they know.
#[tokio::test]
async fn null_counts_as_absent() {
    let client = Client::new();
    for (path, body, plain) in [
        (
            "/v1/quantize",
            json!({"data": [1, 2], "data_b64": null, "tensors": null, "shape": null, "dtype": null,
                "scheme": {"bits": 4, "axis": null, "scale": null}, "per_slice": null}),
            json!({"data": [1, 2], "scheme": {"bits": 4}}),
        ),
        (
            "/v1/quantize",
            json!({"data": null, "data_b64": "AACAPw==", "shape": [1]}),
            json!({"data": [1]}),
        ),
        (
            "/v1/dequantize",
            json!({"codes": [1, 2], "scale": 0.5, "zero_point": null, "tensors": null,
                "scheme": null, "report": null, "output_dtype": null}),
            json!({"codes": [1, 2], "scale": 0.5}),
        ),
        (
            "/v1/matmul",
            json!({"a": {"codes": [[1]], "scale": null, "zero_point": null},
                "b": {"codes": [[2]]}, "bias": null, "output_scale": null, "requantize": null}),
            json!({"a": {"codes": [[1]]}, "b": {"codes": [[2]]}}),
        ),
    ] {
        let (found, expect) = (client.post(path, &body).await, client.post(path, &plain).await);
        assert_eq!(found.status, 200, "{path}: {}", String::from_utf8_lossy(&found.body));
        assert_eq!(found.body, expect.body, "{path}");
    }
    for (path, body, place) in [
        ("/v1/quantize", json!({"data": null}), "/data"),
        ("/v1/quantize", json!({"data": [1], "nonsense": null}), "/nonsense"),
        ("/v1/dequantize", json!({"codes": null, "scale": 1}), "/codes"),
        ("/v1/matmul", json!({"a": null, "b": {"codes": [[2]]}}), "/a"),
    ] {
        let problem = client.post(path, &body).await.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["pointer"], place, "{body}");
    }
}

/// A file of one tensor fits an answer of one, whatever the tensor is called.
#[tokio::test]
async fn one_named_tensor_is_answered_bare() {
    let client = Client::new();
    let file = safetensors("F32", &[2, 4], &bytes_of(&X));
    let bare = client.post_bytes("/v1/quantize?dtype=F32&shape=2,4", RAW, NPY, bytes_of(&X)).await;
    let named = client.post_bytes("/v1/quantize", SAFETENSORS, NPY, file.clone()).await;
    assert_eq!(named.status, 200, "{}", String::from_utf8_lossy(&named.body));
    assert_eq!(named.body, bare.body);
    let codes = client.post_bytes("/v1/quantize", SAFETENSORS, SAFETENSORS, file).await;
    let restored = client.post_bytes("/v1/dequantize", SAFETENSORS, RAW, codes.body).await;
    assert_eq!(restored.header("quantd-shape"), "2,4");
}

/// It would be the metadata of the file.
#[tokio::test]
async fn no_tensor_of_a_file_is_called_metadata() {
    let client = Client::new();
    let body = json!({"tensors": {"__metadata__": {"codes": [1], "scale": 1}}}).to_string();
    let answer = client.post_bytes("/v1/dequantize", JSON, JSON, body.clone()).await;
    assert_eq!(answer.status, 200);
    let answer = client.post_bytes("/v1/dequantize", JSON, SAFETENSORS, body).await;
    answer.problem("not-acceptable", 406);
}

/// What does not fit a header is named in one: nothing is left out without a word.
#[tokio::test]
async fn a_bare_tensor_has_its_parameters_or_says_that_it_has_not() {
    let client = Client::new();
    let quantize = async |dims: [usize; 2], query: &str| {
        let (x, [rows, columns]) = (vec![1.5; dims[0] * dims[1]], dims);
        let path = format!("/v1/quantize?dtype=F32&shape={rows},{columns}&{query}");
        let answer = client.post_bytes(&path, RAW, NPY, bytes_of(&x)).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer
    };
    let answer = quantize([3, 2], "axis=0&signed=false&per_slice=true").await;
    assert_eq!(answer.header("quantd-omitted"), "");
    let (scale, zero_point) = (answer.header("quantd-scale"), answer.header("quantd-zero-point"));
    assert_eq!((scale.split(',').count(), zero_point.split(',').count()), (3, 3), "{scale}");
    let path = format!("/v1/dequantize?axis=0&scale={scale}&zero_point={zero_point}");
    let restored = client.post_bytes(&path, NPY, JSON, answer.body.clone()).await.json();
    assert_eq!(restored["shape"], json!([3, 2]));
    let x = restored["data"][2][1].as_f64().unwrap();
    assert!((x - 1.5).abs() < 1e-3, "{x}");
    // Reports of slices are the longest, then scales, then zero points.
    let answer = quantize([100, 2], "axis=0&per_slice=true").await;
    assert_eq!(answer.header("quantd-omitted"), "report.slices");
    let report: Value = serde_json::from_str(answer.header("quantd-report")).unwrap();
    assert!(report["mse"].is_number() && report["slices"].is_null());
    let answer = quantize([3000, 2], "axis=0").await;
    assert_eq!(answer.header("quantd-omitted"), "scale,zero_point");
    assert!(!answer.header("quantd-report").is_empty());
    assert!(answer.header("quantd-scale").is_empty());
}

/// What compare calls a scheme means that scheme to compare and to quantize.
#[tokio::test]
async fn rows_of_a_comparison_are_schemes() {
    let client = Client::new();
    let x: Vec<Vec<f64>> =
        (0..4_u32).map(|i| (0..160_u32).map(|j| f64::from(i * j % 17) - 8.5).collect()).collect();
    let rows = client.post("/v1/compare", &json!({"data": x})).await.json()["results"].clone();
    let rows = rows.as_array().unwrap();
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    let again = client.post("/v1/compare", &json!({"data": x, "schemes": names})).await.json();
    assert_eq!(again["results"].as_array().unwrap(), rows);
    for row in rows {
        let answer = client.post("/v1/quantize", &json!({"data": x, "scheme": row["name"]})).await;
        assert_eq!(answer.json()["scheme"], row["scheme"], "{}", row["name"]);
    }
    // Fields beside it say otherwise.
    let scheme = json!({"preset": "int8 channel mse", "range": "min_max", "axis": 1});
    let answer = client.post("/v1/quantize", &json!({"data": x, "scheme": scheme})).await.json();
    assert_eq!(answer["scheme"]["range"], "min_max");
    assert_eq!(
        (&answer["scheme"]["granularity"], &answer["scheme"]["axis"]),
        (&json!("channel"), &json!(1))
    );
}

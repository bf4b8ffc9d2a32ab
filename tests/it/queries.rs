//! Options as people and their libraries write them into queries, and beside JSON.

use serde_json::{Value, json};

use crate::harness::{Client, JSON, RAW};

/// 2 x 4 numbers in F32.
fn elements() -> Vec<u8> {
    (0_u8..8).flat_map(|i| (f32::from(i) - 2.5).to_le_bytes()).collect()
}

/// What quantize answers to elements with that query.
async fn quantized(client: &Client, query: &str) -> Value {
    let path = format!("/v1/quantize?{query}");
    let answer = client.post_bytes(&path, RAW, JSON, elements()).await;
    assert_eq!(answer.status, 200, "{query}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[tokio::test]
async fn queries_are_read_as_libraries_write_them() {
    let client = Client::new();
    let expect =
        quantized(&client, "dtype=F32&shape=2,4&bits=4&signed=false&granularity=channel").await;
    assert_eq!(expect["scheme"]["bits"], 4);
    for query in [
        "dtype=float32&shape=2,4&bits=4&signed=False&granularity=channel",
        "dtype=torch.float32&shape=2&shape=4&bits=4&signed=FALSE&granularity=channel",
        "dtype=f32&shape=(2,+4)&scheme.bits=4&scheme.signed=0&granularity=channel",
        "dtype=%3Cf4&shape[]=2&shape[]=4&scheme=uint4&scheme.granularity=channel",
        "dtype=np.float32&shape=[2,4]&preset=uint4&scheme.bits=4&bits=4&axis=0",
    ] {
        assert_eq!(quantized(&client, query).await, expect, "{query}");
    }
    let listed = "/v1/compare?dtype=F32&shape=2,4";
    let commas = format!("{listed}&schemes=int8,int4&sort=bits");
    let repeated = format!("{listed}&schemes=int8&schemes=int4&sort=bits");
    let commas = client.post_bytes(&commas, RAW, JSON, elements()).await;
    assert_eq!(client.post_bytes(&repeated, RAW, JSON, elements()).await.json(), commas.json());
    assert_eq!(commas.json()["results"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_said_twice_is_refused_by_name() {
    let client = Client::new();
    for (query, place, detail) in [
        ("bits=4&bits=4", "bits", "bits is given twice"),
        ("bits=4&bits=8", "bits", "bits is given twice"),
        ("preset=int8&preset=int4", "preset", "preset is given twice"),
        ("bits=4&scheme.bits=8", "scheme.bits", "scheme.bits contradicts bits"),
        ("bit=4", "bit", "bit is an unknown option"),
        ("signed=no", "signed", "signed is not a boolean"),
    ] {
        let path = format!("/v1/quantize?dtype=F32&shape=2,4&{query}");
        let answer = client.post_bytes(&path, RAW, JSON, elements()).await;
        let problem = answer.problem("invalid-option", 400);
        assert_eq!(problem["detail"], detail, "{query}");
        assert_eq!(problem["errors"][0]["parameter"], place, "{query}");
    }
}

/// A form beside a JSON body, as Swagger UI has one, says what the body does not.
#[tokio::test]
async fn a_query_adds_to_json() {
    let client = Client::new();
    let data = json!([[0.5, -1.0], [2.0, 0.25]]);
    let whole = json!({"data": data, "scheme": {"preset": "int4", "signed": false, "axis": 0}});
    let expect = client.post("/v1/quantize", &whole).await.json();
    for (query, body) in [
        ("preset=int4&signed=false&axis=0", json!({"data": data})),
        ("signed=false&axis=0", json!({"data": data, "scheme": "int4"})),
        ("preset=int4&axis=0", json!({"data": data, "scheme": {"signed": false, "axis": 0}})),
        ("scheme=int4&dtype=float32&axis=0", json!({"data": data, "scheme": {"signed": false}})),
    ] {
        let answer = client.post(&format!("/v1/quantize?{query}"), &body).await;
        assert_eq!(answer.status, 200, "{query}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json(), expect, "{query}");
    }
    let codes = json!({"codes": [[1, 2], [3, 4]]});
    let restored = client.post("/v1/dequantize?scale=0.5,2&axis=0&output_dtype=f64", &codes).await;
    assert_eq!(restored.json()["data"], json!([[0.5, 1.0], [6.0, 8.0]]));
    assert_eq!(restored.json()["dtype"], "F64");
    let sides = json!({"a": {"data": data}, "b": {"data": data}});
    let product = client.post("/v1/matmul?a_scheme=int8&b_scheme.bits=4&report=True", &sides).await;
    assert_eq!(product.json()["a"]["scheme"]["signed"], true);
    assert_eq!(product.json()["b"]["scheme"]["bits"], 4);
    assert!(product.json()["report"].is_object());
    let layer = json!({"name": "asked", "weight": {"data": data}});
    let layer = client.post("/v1/layers?bits=4&scheme.axis=0&activation=relu", &layer).await;
    assert_eq!(layer.status, 201, "{}", String::from_utf8_lossy(&layer.body));
    assert_eq!(layer.json()["activation"], "relu");
    for (path, body, place) in [
        ("/v1/quantize?bits=4", json!({"data": data, "scheme": {"bits": 8}}), "bits"),
        ("/v1/quantize?preset=int4", json!({"data": data, "scheme": "int8"}), "preset"),
        ("/v1/quantize?bits=99", json!({"data": data}), "bits"),
        ("/v1/quantize?dtype=F64", json!({"data": data, "dtype": "F32"}), "dtype"),
        ("/v1/quantize?dtype=X", json!({"data": data}), "dtype"),
        ("/v1/compare?sort=bits", json!({"data": data, "sort": "mse"}), "sort"),
        ("/v1/compare?schemes=int9", json!({"data": data}), "schemes"),
        ("/v1/inspect?bins=x", json!({"data": data}), "bins"),
        ("/v1/inspect?bit=1", json!({"data": data}), "bit"),
        ("/v1/dequantize?bitz=1", json!({"codes": [1], "scale": 1}), "bitz"),
        ("/v1/matmul?relu=2", sides, "relu"),
    ] {
        let problem = client.post(path, &body).await.problem("invalid-option", 400);
        assert_eq!(problem["errors"][0]["parameter"], place, "{path}: {problem}");
    }
}

#[tokio::test]
async fn types_have_their_other_names_in_json_too() {
    let client = Client::new();
    let body = |dtype: &str| json!({"data": [0.5, 1.5], "dtype": dtype});
    let expect = client.post("/v1/quantize", &body("F16")).await.json();
    for dtype in ["f16", "float16", "half", "torch.float16", "torch.half", "np.float16"] {
        assert_eq!(client.post("/v1/quantize", &body(dtype)).await.json(), expect, "{dtype}");
    }
    let codes = json!({"codes": [1], "dtype": "int8", "scale": 1, "scale_dtype": "float64",
        "output_dtype": "torch.bfloat16"});
    assert_eq!(client.post("/v1/dequantize", &codes).await.json()["dtype"], "BF16");
}

/// What is missing may stand there under another name.
#[tokio::test]
async fn what_was_meant_is_guessed() {
    guesses(&[
        (
            "/v1/quantize",
            json!({"tensor": [1, 2]}),
            "data is missing; tensor is not known here",
            "did you mean tensors?",
        ),
        (
            "/v1/quantize",
            json!({"data": [1], "scheme": {"bit": 4}}),
            "bit is an unknown option",
            "did you mean bits?",
        ),
        (
            "/v1/quantize",
            json!({"data": [1], "scheme": "in8"}),
            "scheme is not a preset",
            "did you mean int8?",
        ),
        (
            "/v1/quantize",
            json!({"data": [1], "scheme": {"range": "minmax"}}),
            "range is not one of the allowed values",
            "did you mean min_max?",
        ),
        (
            "/v1/dequantize",
            json!({"code": [1], "scale": 1}),
            "code is an unknown field",
            "did you mean codes?",
        ),
        (
            "/v1/matmul",
            json!({"a": {"data": [[1]]}, "B": {"data": [[1]]}}),
            "b is missing; B is not known here",
            "did you mean b?",
        ),
        (
            "/v1/layers",
            json!({"name": "x", "weights": {"data": [[1]]}}),
            "weight is missing; weights is not known here",
            "did you mean weight?",
        ),
        (
            "/v1/calibrators",
            json!({"nam": "x"}),
            "name is missing; nam is not known here",
            "did you mean name?",
        ),
    ])
    .await;
}

/// A field of a scheme that stands beside it, or in the query, under a name that is nearly its own.
#[tokio::test]
async fn what_belongs_into_a_scheme_is_guessed() {
    guesses(&[
        (
            "/v1/quantize",
            json!({"data": [1], "bit": 4}),
            "bit is an unknown option",
            "did you mean bits? put it into the scheme",
        ),
        (
            "/v1/quantize?bit=4",
            json!({"data": [1]}),
            "bit is an unknown option",
            "did you mean bits? known here",
        ),
        (
            "/v1/quantize",
            json!({"data": [1], "bits": 4}),
            "bits is an unknown option",
            "put it into the scheme",
        ),
        (
            "/v1/dequantize",
            json!({"codes": [1], "scale": 1, "sined": true}),
            "sined is an unknown field",
            "did you mean signed? put it into the scheme",
        ),
    ])
    .await;
}

/// Paths and bodies, what is wrong with these, and what the cure begins with.
async fn guesses(cases: &[(&str, Value, &str, &str)]) {
    let client = Client::new();
    for (path, body, detail, guess) in cases {
        let problem = client.post(path, body).await.problem("invalid-option", 400);
        assert_eq!(problem["detail"], *detail, "{path}");
        assert!(problem["cure"].as_str().unwrap().starts_with(guess), "{path}: {problem}");
        assert_eq!(problem["errors"][0]["detail"], *detail, "{path}");
    }
}

//! Whole checkpoints: what is quantized of several tensors, and what passes as it is.

use serde_json::{Map, Value, json};

use crate::harness::{Answer, Client, JSON, NPY, RAW, SAFETENSORS};
use crate::products::safetensors;

const QUANTIZE: &str = "/v1/quantize";
const DEQUANTIZE: &str = "/v1/dequantize";

type Entry = (&'static str, &'static str, &'static [usize], Vec<u8>);

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Two weights, and what is none.
fn checkpoint() -> Vec<Entry> {
    vec![
        ("fc.weight", "F32", &[2, 2], bytes_of(&[0.5, -1.0, 0.25, 1.0])),
        ("mask", "BOOL", &[3], vec![1, 0, 1]),
        // Not aligned.
        ("fc.bias", "F32", &[2], bytes_of(&[0.1, -0.2])),
        ("ids", "I64", &[1, 2], [0_i64.to_le_bytes(), 7_i64.to_le_bytes()].concat()),
        ("eight", "F8_E4M3", &[2, 2], vec![0x38, 0xb8, 0, 1]),
        ("half.weight", "F16", &[1, 2], vec![0, 0x3c, 0, 0xbc]),
        ("step", "F64", &[], 3.5_f64.to_le_bytes().to_vec()),
    ]
}

const PASSED: [&str; 5] = ["mask", "fc.bias", "ids", "eight", "step"];

/// Tensors of a file by name: type, dimensions, bytes; and its metadata.
fn read(answer: &Answer) -> (Map<String, Value>, Map<String, Value>) {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let length = u64::from_le_bytes(*answer.body.first_chunk().unwrap());
    let (header, data) = answer.body[8..].split_at(usize::try_from(length).unwrap());
    let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let metadata = header.remove("__metadata__").unwrap_or(json!({}));
    for described in header.values_mut() {
        let offset =
            |i: usize| usize::try_from(described["data_offsets"][i].as_u64().unwrap()).unwrap();
        let bytes = &data[offset(0)..offset(1)];
        *described = json!([described["dtype"], described["shape"], bytes]);
    }
    (header, metadata.as_object().unwrap().clone())
}

fn expected((_, dtype, shape, bytes): &Entry) -> Value {
    json!([dtype, shape, bytes])
}

async fn post(client: &Client, query: &str, entries: &[Entry], accept: &str) -> Answer {
    client
        .post_bytes(&format!("{QUANTIZE}?{query}"), SAFETENSORS, accept, safetensors(entries))
        .await
}

#[tokio::test]
async fn a_checkpoint_is_quantized_and_restored_as_a_whole() {
    let client = Client::new();
    let entries = checkpoint();
    let answer = post(&client, "preset=int8", &entries, SAFETENSORS).await;
    let (tensors, metadata) = read(&answer);
    let parts = ["codes", "scale", "zero_point"];
    let quantized = ["fc.weight", "half.weight"];
    let of_parts = quantized.iter().flat_map(|w| parts.map(|part| format!("{w}.{part}")));
    let all: Vec<String> = of_parts.chain(PASSED.map(str::to_owned)).collect();
    assert!(tensors.len() == all.len() && all.iter().all(|name| tensors.contains_key(name)));
    let passed: Value = serde_json::from_str(metadata["passed"].as_str().unwrap()).unwrap();
    assert_eq!(passed, json!(PASSED));
    let shapes: Value = serde_json::from_str(metadata["shape"].as_str().unwrap()).unwrap();
    assert_eq!(shapes, json!({"fc.weight": [2, 2], "half.weight": [1, 2]}));

    let restored =
        client.post_bytes(DEQUANTIZE, SAFETENSORS, SAFETENSORS, answer.body.clone()).await;
    let (restored, _) = read(&restored);
    assert_eq!(restored.len(), entries.len());
    for entry in &entries {
        let name = entry.0;
        if PASSED.contains(&name) {
            assert_eq!(tensors[name], expected(entry), "{name}");
            assert_eq!(restored[name], expected(entry), "{name}");
        } else {
            assert_eq!(restored[name][1], json!(entry.2), "{name}");
        }
    }
    // One tensor has no place for the others.
    for (path, body) in [(QUANTIZE, safetensors(&entries)), (DEQUANTIZE, answer.body)] {
        for accept in [NPY, RAW] {
            let answer = client.post_bytes(path, SAFETENSORS, accept, body.clone()).await;
            answer.problem("not-acceptable", 406);
        }
        let answer = client.post_bytes(path, SAFETENSORS, JSON, body).await;
        let problem = answer.problem("not-acceptable", 406);
        let detail = "tensor \"mask\": JSON has no numbers for elements of BOOL";
        assert_eq!(problem["detail"], detail);
    }
}

#[tokio::test]
async fn json_passes_tensors_as_numbers() {
    let client = Client::new();
    let entries: Vec<Entry> =
        checkpoint().into_iter().filter(|entry| !["mask", "eight"].contains(&entry.0)).collect();
    let of_file = post(&client, "preset=int8", &entries, JSON).await.json();
    let bias = json!({"dtype": "F32", "shape": [2], "data": [0.1, -0.2]});
    assert_eq!(of_file["tensors"]["fc.bias"], bias);
    let ids = json!({"dtype": "I64", "shape": [1, 2], "data": [[0, 7]]});
    assert_eq!(of_file["tensors"]["ids"], ids);
    // By name all of JSON is meant, unless it says otherwise.
    let tensors = json!({
        "fc.weight": {"data": [[0.5, -1.0], [0.25, 1.0]]},
        "half.weight": {"data": [[1, -1]], "dtype": "F16"},
        "fc.bias": bias, "ids": ids, "step": {"data": 3.5, "dtype": "F64"}
    });
    let all = client.post(QUANTIZE, &json!({"tensors": tensors})).await.json();
    assert!(
        all["tensors"].as_object().unwrap().values().all(|tensor| tensor["codes"] != json!(null))
    );
    for options in
        [json!({"include": "*.weight"}), json!({"exclude": ["re:(ids|step)$", "*.bias"]})]
    {
        let mut request = options;
        request["tensors"] = tensors.clone();
        let answer = client.post(QUANTIZE, &request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["tensors"], of_file["tensors"]);
        // And in the query.
        let tensors = json!({"tensors": request["tensors"]});
        let query = format!("{QUANTIZE}?include=*.weight");
        assert_eq!(client.post(&query, &tensors).await.json(), of_file);
    }
    let restored = client.post(DEQUANTIZE, &of_file).await;
    assert_eq!(restored.status, 200);
    let restored = restored.json();
    assert_eq!(restored["tensors"]["fc.bias"], bias);
    assert_eq!(restored["tensors"]["ids"], ids);
    assert_eq!(restored["tensors"]["step"], json!({"dtype": "F64", "shape": [], "data": 3.5}));
    assert_eq!(restored["tensors"]["half.weight"]["dtype"], "F32");
}

#[tokio::test]
async fn include_decides_whatever_type_and_shape_are() {
    let client = Client::new();
    let entries = checkpoint();
    let query = "include=ids,re:fc%5C.(bias%7Cweight)%7B1,1%7D&exclude=*.weight&exclude=mask";
    let (tensors, metadata) = read(&post(&client, query, &entries, SAFETENSORS).await);
    assert!(
        ["ids.codes", "fc.bias.codes", "fc.weight", "mask"]
            .iter()
            .all(|n| tensors.contains_key(*n))
    );
    assert_eq!(
        metadata.keys().collect::<Vec<_>>(),
        ["fc.bias", "ids", "passed", "report", "scheme", "shape"]
    );
    // A file without weights is taken as a whole.
    let vectors: Vec<Entry> =
        entries.iter().filter(|entry| !entry.0.ends_with("weight")).cloned().collect();
    let (tensors, _) = read(&post(&client, "", &vectors, SAFETENSORS).await);
    assert!(
        ["fc.bias.codes", "ids.codes", "step.codes", "mask", "eight"]
            .iter()
            .all(|n| tensors.contains_key(*n))
    );
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let client = Client::new();
    let entries = checkpoint();
    for (query, kind, status, detail) in [
        (
            "include=fc.wieght",
            "invalid-option",
            400,
            "include: pattern \"fc.wieght\" matches no tensor",
        ),
        ("exclude=*.bais", "invalid-option", 400, "exclude: pattern \"*.bais\" matches no tensor"),
        (
            "include=re:(",
            "invalid-option",
            400,
            "include is not a regular expression that is read here: unclosed group",
        ),
        ("exclude=*", "invalid-option", 400, "exclude: no tensor is left"),
        (
            "include=mask",
            "unsupported-tensor",
            422,
            "tensor \"mask\": the dtype of the tensor is not read here",
        ),
        (
            "include=*",
            "unsupported-tensor",
            422,
            "tensor \"mask\": the dtype of the tensor is not read here",
        ),
    ] {
        let problem = post(&client, query, &entries, SAFETENSORS).await.problem(kind, status);
        assert_eq!(problem["detail"], detail, "{query}");
        if kind == "invalid-option" {
            let parameter = query.split('=').next().unwrap();
            assert_eq!(problem["errors"][0]["parameter"], parameter);
        }
    }
    let near = post(&client, "include=fc.wieght", &entries, SAFETENSORS).await.json();
    assert!(near["cure"].as_str().unwrap().starts_with("did you mean fc.weight?"));
    let request = json!({"tensors": {"w": {"data": [1]}}, "include": ["w", "x"]});
    let problem = client.post(QUANTIZE, &request).await.problem("invalid-option", 400);
    assert_eq!(problem["errors"][0]["pointer"], "/include/1");
    // A tensor alone has no name to choose by.
    for request in [json!({"data": [1], "include": "*"}), json!({"data": [1], "exclude": ["x"]})] {
        let problem = client.post(QUANTIZE, &request).await.problem("invalid-option", 400);
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .ends_with("does not apply to a tensor without a name")
        );
    }
    let path = format!("{QUANTIZE}?dtype=F32&shape=1&include=w");
    let problem =
        client.post_bytes(&path, RAW, JSON, vec![0; 4]).await.problem("invalid-option", 400);
    assert_eq!(problem["errors"][0]["parameter"], "include");
}

#[tokio::test]
async fn names_are_there_once() {
    let client = Client::new();
    let entries: Vec<Entry> =
        vec![("w", "F32", &[1, 1], bytes_of(&[1.0])), ("w.codes", "F32", &[1], bytes_of(&[2.0]))];
    let problem = post(&client, "", &entries, SAFETENSORS).await.problem("not-acceptable", 406);
    assert!(
        problem["detail"].as_str().unwrap().starts_with("tensor \"w.codes\": it passes as it is")
    );
    let answer = post(&client, "", &entries, JSON).await;
    assert_eq!(client.post(DEQUANTIZE, &answer.json()).await.status, 200);
    // Quantized both, there is no such name.
    read(&post(&client, "include=*", &entries, SAFETENSORS).await);
    let request =
        json!({"tensors": {"w": {"data": [1]}, "__metadata__": {"data": [1]}}, "include": "w"});
    let answer = client.post_bytes(QUANTIZE, JSON, SAFETENSORS, request.to_string()).await;
    answer.problem("not-acceptable", 406);

    // What was answered never is so, what strangers send may be.
    let file = |passed: &str, entries: &[Entry]| {
        let file = safetensors(entries);
        let (_, header) = file[8..].split_at(1);
        let metadata = json!({"passed": passed}).to_string();
        let header = [b"{\"__metadata__\":", metadata.as_bytes(), b",", header].concat();
        let grown = header.len() - (file.len() - 9);
        let length = u64::from_le_bytes(*file.first_chunk().unwrap()) + grown as u64 - 1;
        [&length.to_le_bytes()[..], &header].concat()
    };
    let coded: Vec<Entry> = vec![
        ("w.codes", "I8", &[1], vec![1]),
        ("w.scale", "F32", &[], bytes_of(&[1.0])),
        ("w", "F32", &[1], bytes_of(&[2.0])),
    ];
    for (passed, detail) in [
        ("[\"w\"]", "tensor \"w\": it is there as codes, and once more as it is"),
        ("[]", "tensor \"w\" belongs to no codes"),
        ("[1]", "passed[0] is not a text"),
    ] {
        let body = file(passed, &coded);
        let answer = client.post_bytes(DEQUANTIZE, SAFETENSORS, SAFETENSORS, body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["detail"], detail);
    }
    let plain = json!({"tensors": {"w": {"data": [1]}}});
    let problem = client.post(DEQUANTIZE, &plain).await.problem("invalid-option", 400);
    assert_eq!(problem["errors"][0]["pointer"], "/tensors");
}

#[tokio::test]
async fn one_tensor_of_several_is_compared_and_inspected() {
    let client = Client::new();
    let file = safetensors(&checkpoint());
    let look = async |path: &str| client.post_bytes(path, SAFETENSORS, JSON, file.clone()).await;
    let compared = look("/v1/compare?schemes=int8&exclude=half*").await.json();
    assert_eq!(compared["shape"], json!([2, 2]));
    assert_eq!(
        compared["passed"],
        json!(["mask", "fc.bias", "ids", "eight", "half.weight", "step"])
    );
    let problem = look("/v1/compare").await.problem("invalid-option", 400);
    assert_eq!(problem["detail"], "2 tensors, but the operation takes one");
    assert!(problem["cure"].as_str().unwrap().contains("include"));
    let inspected = look("/v1/inspect?include=ids").await.json();
    assert_eq!(inspected["statistics"]["max"], json!(7.0));
    look("/v1/inspect").await.problem("invalid-option", 400);
    look("/v1/inspect?include=mask").await.problem("unsupported-tensor", 422);
    let request = json!({"tensors": {"a": {"data": [1]}, "b": {"data": [2]}}, "exclude": "a"});
    assert_eq!(client.post("/v1/inspect", &request).await.json()["statistics"]["max"], json!(2.0));
    let compared = client.post("/v1/compare", &request).await.json();
    assert_eq!(compared["passed"], json!(["a"]));
    // A tensor alone has nothing beside it.
    let alone = client.post("/v1/compare", &json!({"data": [1], "schemes": ["int8"]})).await.json();
    assert!(alone.get("passed").is_none());
}

#[tokio::test]
async fn an_answer_holds_the_body_that_it_shows_parts_of() {
    const N: usize = 1 << 20;
    let client = Client::new();
    let entries: Vec<Entry> =
        vec![("w", "F32", &[2, N / 2], vec![0; 4 * N]), ("b", "F32", &[1], bytes_of(&[1.0]))];
    let held = async |entries: &[Entry]| {
        let body = safetensors(entries);
        let request = axum::http::Request::post(QUANTIZE)
            .header("content-type", SAFETENSORS)
            .body(axum::body::Body::from(body));
        let response = client.respond(request.unwrap()).await;
        assert_eq!(response.status(), 200);
        client.compute.inflight_bytes()
    };
    let (whole, alone) = (held(&entries).await, held(&entries[..1]).await);
    // The codes, and with a tensor that passed the body.
    assert!((5 * N..6 * N).contains(&whole), "{whole}");
    assert!((N..2 * N).contains(&alone), "{alone}");
}

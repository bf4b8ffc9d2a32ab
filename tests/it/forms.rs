//! Bodies that say little of themselves: forms of one file, and what curl sends by default.

use serde_json::{Value, json};

use crate::harness::{Client, JSON, NPY, SAFETENSORS};

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=\"--x 1\"";

/// A form of those parts: what their heads say, and their content.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend(b"----x 1\r\nContent-Disposition: form-data; ");
        body.extend(head.as_bytes());
        body.extend(b"\r\n\r\n");
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"----x 1--\r\n");
    body
}

/// The same tensor as npy, as safetensors, as JSON and as bare elements.
async fn files(client: &Client) -> [(&'static str, Vec<u8>); 4] {
    let codes = r#"{"codes":[[1,-2],[3,127]],"scale":0.5}"#;
    let of = async |accept| client.post_bytes("/v1/dequantize", JSON, accept, codes).await.body;
    let raw = of("application/octet-stream").await;
    [
        ("w.npy", of(NPY).await),
        ("w.safetensors", of(SAFETENSORS).await),
        ("w.json", of(JSON).await),
        ("w.f32", raw),
    ]
}

/// Codes of the tensor of an answer, whatever it is called.
fn codes(answer: &Value) -> &Value {
    if answer["tensors"].is_object() {
        &answer["tensors"]["data"]["codes"]
    } else {
        &answer["codes"]
    }
}

#[tokio::test]
async fn a_file_in_a_form_is_a_body() {
    let client = Client::new();
    let expect = json!([[0, 0], [0, 7]]);
    for (name, file) in files(&client).await {
        // As curl, requests and browsers call it.
        for kind in ["", "\r\nContent-Type: application/octet-stream"] {
            let head = format!("name=\"upload\"; filename=\"{name}\"{kind}");
            let parts: [(&str, &[u8]); 4] = [
                ("name=\"bits\"", b"4"),
                (&head, &file),
                ("name=\"dtype\"", b"F32"),
                ("name=\"shape\"", b"2,2"),
            ];
            let parts = if name == "w.f32" { &parts[..] } else { &parts[..2] };
            let answer = client.post_bytes("/v1/quantize", MULTIPART, JSON, form(parts)).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 200, "{name}: {text}");
            assert_eq!(*codes(&answer.json()), expect, "{name}: {text}");
        }
    }
    let (name, npy) = &files(&client).await[0];
    let head = format!("name=file; filename={name}");
    let one = form(&[(&head, npy)]);
    let answer = client.post_bytes("/v1/quantize?bits=4", MULTIPART, "*/*", one.clone()).await;
    assert_eq!(answer.header("content-type"), SAFETENSORS, "binary in, binary out");
    let layer = client.post_bytes("/v1/layers?name=form", MULTIPART, JSON, one.clone()).await;
    assert_eq!(layer.status, 201);
    let ran = client.post_bytes("/v1/layers/form/forward", MULTIPART, JSON, one).await;
    assert_eq!(ran.json()["shape"], json!([2, 2]));
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_said() {
    let client = Client::new();
    let (_, npy) = files(&client).await[0].clone();
    let file = ("name=f; filename=w.npy", npy.as_slice());
    for (body, kind, text) in [
        (form(&[("name=bits", b"4")]), "malformed-body", "no file in the form"),
        (form(&[file, file]), "malformed-body", "several files in one form"),
        (form(&[file, ("name=bit", b"4")]), "invalid-option", "bit is an unknown option"),
        (form(&[file, ("name=bits", b"4"), ("name=bits", b"8")]), "invalid-option", "given twice"),
        (form(&[("name=f; filename=x", b"\x01\x02")]), "invalid-option", "dtype is missing"),
        (b"a=1".to_vec(), "malformed-body", "no part behind its boundary"),
    ] {
        let answer = client.post_bytes("/v1/quantize", MULTIPART, JSON, body).await;
        let problem = answer.problem(kind, 400);
        assert!(problem["detail"].as_str().unwrap().contains(text), "{problem}");
    }
    let answer = client.post_bytes("/v1/quantize", "multipart/form-data", JSON, npy).await;
    answer.problem("unsupported-media-type", 415);
}

/// `curl --data-binary @w.npy` says that anything is a form.
#[tokio::test]
async fn files_are_known_by_their_first_bytes() {
    let client = Client::new();
    for (name, file) in &files(&client).await[..3] {
        let answer = client.post_bytes("/v1/quantize?bits=4", FORM, JSON, file.clone()).await;
        assert_eq!(answer.status, 200, "{name}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(*codes(&answer.json()), json!([[0, 0], [0, 7]]), "{name}");
    }
}

#[tokio::test]
async fn what_there_is_is_said_where_something_else_was_asked() {
    let client = Client::new();
    for (path, guess) in [
        ("/quantize", "/v1/quantize"),
        ("/v1/quantise", "/v1/quantize"),
        ("/v1/layer/fc1/forward", "/v1/layers/fc1/forward"),
    ] {
        let problem = client.get(path).await.problem("not-found", 404);
        let cure = problem["cure"].as_str().unwrap();
        assert!(cure.starts_with(&format!("did you mean {guess}? ")), "{path}: {cure}");
    }
    let problem = client.get("/v1/quantize/").await.problem("not-found", 404);
    assert!(problem["cure"].as_str().unwrap().starts_with("leave out the slash"), "{problem}");
    let unknown = client.get("/v2/model/fc1").await.protocol_error(404);
    assert!(unknown.contains("did you mean /v2/models/fc1?"), "{unknown}");
    for (path, method, allowed) in [
        ("/v1/quantize", "GET", "POST"),
        ("/v1/layers/x", "POST", "PUT, GET, HEAD, DELETE"),
        ("/info", "POST", "GET, HEAD"),
    ] {
        let request = axum::http::Request::builder().method(method).uri(path);
        let answer = client.send(request.body(axum::body::Body::empty()).unwrap()).await;
        let problem = answer.problem("method-not-allowed", 405);
        let detail = problem["detail"].as_str().unwrap();
        let named = |list: &str| {
            let mut methods: Vec<_> = list.split(',').map(|m| m.trim().to_owned()).collect();
            methods.sort();
            methods
        };
        assert!(detail.starts_with(&format!("{method} is not allowed here")), "{detail}");
        assert_eq!(named(detail.split_once("allowed are ").unwrap().1), named(allowed), "{path}");
        assert_eq!(named(answer.header("allow")), named(allowed), "{path}");
    }
}

//! Bodies that are something else than they are sent as: the answer says what.

use serde_json::json;

use crate::harness::{Client, JSON, NPY, RAW, SAFETENSORS};

/// First bytes of files, and what answers call them.
fn files() -> Vec<(Vec<u8>, &'static str)> {
    let zip = |name: &str| {
        let mut bytes = b"PK\x03\x04\x14\0\0\0\0\0".to_vec();
        bytes.resize(26, 0);
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
        bytes.extend([0; 64]);
        bytes
    };
    let problem = json!({"type": "urn:quantd:error:invalid-option", "status": 400}).to_string();
    vec![
        (Vec::new(), "empty"),
        (
            b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".to_vec(),
            "an npy file",
        ),
        (zip("w.npy"), "an npz archive"),
        (zip("archive/data.pkl"), "a PyTorch checkpoint"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), "a gzip stream"),
        (b"\x28\xb5\x2f\xfd\x04\x58\x09\0\0".to_vec(), "a zstd stream"),
        (b"<!doctype html><title>502</title>".to_vec(), "an HTML or XML document"),
        (b"upstream connect error or disconnect".to_vec(), "text"),
        (problem.into_bytes(), "a JSON document"),
        (b"GGUF\x03\0\0\0\x23\x01\0\0".to_vec(), "a GGUF model"),
        (b"\x08\x07\x12\x07pytorch\x1a\x05".to_vec(), "an ONNX model"),
        (b"\x80\x04\x95\x1e\0\0\0\0\0\0\0}".to_vec(), "a pickle"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), "an HDF5 file"),
        (b"\x02\0\0\0\0\0\0\0{}".to_vec(), "a safetensors file"),
    ]
}

#[tokio::test]
async fn a_file_of_another_kind_is_named() {
    let client = Client::new();
    for (body, what) in files() {
        for (kind, own) in [(SAFETENSORS, "a safetensors file"), (NPY, "an npy file")] {
            if what == own {
                continue;
            }
            for path in ["/v1/quantize", "/v1/dequantize", "/v1/inspect"] {
                let answer = client.post_bytes(path, kind, "*/*", body.clone()).await;
                let problem = answer.problem("malformed-body", 400);
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(what) && detail.contains(own), "{path} {what}: {problem}");
            }
        }
        let is_text = ["empty", "text", "a JSON document"].contains(&what);
        let answer = client.post_bytes("/v1/quantize", JSON, JSON, body.clone()).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 400, "{what}: {text}");
        assert!(is_text || text.contains(what), "{what}: {text}");
        // Elements of another number than the shape has.
        let answer = client.post_bytes("/v1/quantize?dtype=F32&shape=999", RAW, JSON, body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 400 && text.contains(what), "{what}: {text}");
    }
}

/// Where nothing says what the body is, and it is nothing that is read.
#[tokio::test]
async fn an_unnamed_file_is_named() {
    let client = Client::new();
    for (body, what) in files() {
        if ["an npy file", "a safetensors file", "a JSON document"].contains(&what) {
            continue;
        }
        let answer = client.post_bytes("/v1/quantize", RAW, JSON, body).await;
        let problem = answer.problem("unsupported-media-type", 415);
        assert!(problem["detail"].as_str().unwrap().contains(what), "{what}: {problem}");
    }
}

/// They were read to the last before the first was refused.
#[tokio::test]
async fn unknown_names_are_refused_at_the_first() {
    // Room for what they would become is not what they are refused for.
    let client = Client::with(|config| config.max_inflight_bytes = 4 << 30);
    let many: String = (0..1_000_000).map(|i| format!("\"k{i}\":0,")).collect();
    let many = format!("{{{many}\"z\":0}}");
    for body in [
        many.clone(),
        format!("{{\"data\":[1],\"scheme\":{many}}}"),
        format!("{{\"data\":[1],\"scheme\":{{\"min\":[{many}]}}}}"),
        format!("{{\"data\":[1],\"shape\":{many}}}"),
    ] {
        let answer = client.post_bytes("/v1/quantize", JSON, JSON, body).await;
        let problem = answer.problem("too-large", 413);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("the object has more than 64 members"), "{problem}");
    }
    let query: String = (0..3000).map(|i| format!("k{i}=0&")).collect();
    let answer = client.post_bytes(&format!("/v1/quantize?{query}"), NPY, JSON, "").await;
    assert_eq!(answer.status, 400);
}

//! Names of tensors: what is taken under a name is answered under it, and taken back.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::{Answer, Client, JSON, SAFETENSORS};

/// A safetensors file of tensors of two numbers.
fn file(names: &[String]) -> Vec<u8> {
    let described = |(i, name): (usize, &String)| {
        let offsets = [8 * i, 8 * i + 8];
        (name.clone(), json!({"dtype": "F32", "shape": [2], "data_offsets": offsets}))
    };
    let header: Map<String, Value> = names.iter().enumerate().map(described).collect();
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    for i in 0..names.len() {
        file.extend((i as f32).to_le_bytes());
        file.extend(1.0_f32.to_le_bytes());
    }
    file
}

fn document(names: &[String]) -> Vec<u8> {
    let tensors: Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({"data": [0.0, 1.0]}))).collect();
    json!({"tensors": tensors}).to_string().into_bytes()
}

/// Names in an answer of `dequantize`.
fn names_of(answer: &Answer, kind: &str) -> Vec<String> {
    let names = |object: &Value| {
        let names = object.as_object().unwrap().keys();
        names.filter(|name| *name != "__metadata__").cloned().collect::<Vec<_>>()
    };
    if kind == JSON {
        // The only tensor without a name is answered bare.
        let document = answer.json();
        return document.get("tensors").map_or_else(|| vec![String::new()], names);
    }
    let length = u64::from_le_bytes(*answer.body.first_chunk().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    names(&serde_json::from_slice(&answer.body[8..end]).unwrap())
}

/// Quantizes tensors of those names and restores what that answered, in one format; `None` where
/// they are refused, by every route alike.
async fn round_trip(client: &Client, kind: &str, names: &[String]) -> Option<Vec<String>> {
    let body = if kind == JSON { document(names) } else { file(names) };
    let answer = client.post_bytes("/v1/quantize", kind, kind, body.clone()).await;
    let taken = answer.status == 200;
    let other = client.post_bytes("/v1/inspect", kind, JSON, body).await;
    // It takes one tensor at a time.
    assert_eq!(other.status == 200, taken && names.len() == 1, "{names:?}");
    if !taken {
        assert!(answer.status.is_client_error());
        return None;
    }
    let answer = client.post_bytes("/v1/dequantize", kind, kind, answer.body).await;
    assert_eq!(answer.status, 200, "{names:?}: {}", String::from_utf8_lossy(&answer.body));
    Some(names_of(&answer, kind))
}

/// Whether tensors of these names are taken: the rule, written once more.
fn is_taken(names: &[String]) -> bool {
    let has_name = names.len() == 1 || names.iter().all(|name| !name.is_empty());
    has_name && names.iter().all(|name| name.len() <= 499 && !name.chars().any(char::is_control))
}

#[tokio::test]
async fn the_rule_is_one() {
    let client = Client::new();
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (longest, longer) = ("n".repeat(499), "n".repeat(500));
    for kind in [JSON, SAFETENSORS] {
        for names in [
            own(&["w", "w.codes", "w.scale", "w.zero_point", "w.codes.codes"]),
            own(&["codes", "scale", "zero_point"]),
            own(&["scheme", "report", "shape", "data", "tensors"]),
            own(&["a/b", "a~b", "a\"b", "a\\b", " ", "\u{e9}\u{1f600}"]),
            own(&[&longest, "w"]),
            own(&[&longer]),
            own(&[&"n".repeat(512)]),
            own(&["", "w"]),
            own(&["w\n"]),
            own(&["w", "\u{7f}"]),
        ] {
            let found = round_trip(&client, kind, &names).await;
            assert_eq!(found.is_some(), is_taken(&names), "{kind} {names:?}");
            assert!(found.is_none_or(|found| found == names), "{kind} {names:?}");
        }
    }
}

#[tokio::test]
async fn as_many_as_are_taken_are_taken_back() {
    let client = Client::new();
    let names: Vec<String> = (0..1500).map(|i| format!("layer.{i}.weight")).collect();
    for kind in [JSON, SAFETENSORS] {
        assert_eq!(round_trip(&client, kind, &names).await.as_deref(), Some(names.as_slice()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_taken_is_taken_back(
        names in prop::collection::btree_set(
            prop_oneof![
                "[a-c.]{0,4}(\\.codes|\\.scale|\\.zero_point)?",
                "\\PC{1,6}",
                ".{1,6}",
                "(codes|scale|zero_point)",
                "x{495,515}",
            ],
            1..6,
        ),
    ) {
        let names: Vec<String> = names.into_iter().filter(|name| name != "__metadata__").collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new();
            for kind in [JSON, SAFETENSORS] {
                let found = round_trip(&client, kind, &names).await;
                assert_eq!(found.is_some(), is_taken(&names), "{kind} {names:?}");
                if !matches!(names.as_slice(), [name] if name.is_empty()) {
                    assert!(found.is_none_or(|found| found == names), "{kind} {names:?}");
                }
            }
        });
    }
}

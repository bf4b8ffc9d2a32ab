//! Bodies that arrive in pieces of any size: the answer is that to the body in one piece.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};

use super::harness::{Answer, Client, JSON, RAW};

const ROWS: usize = 37;
const COLUMNS: usize = 129;

/// Numbers of all sizes, other ones for each seed.
fn floats(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..len).map(|_| (next() as f32 / 2e9 - 1.0) * (next() % 256) as f32).collect()
}

fn bytes(x: &[f32]) -> Bytes {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The body in frames of these lengths, over and over. Without a known length, as when it is chunked.
fn frames(mut body: Bytes, lengths: &'static [usize]) -> Body {
    let mut lengths = lengths.iter().cycle();
    let frames = std::iter::from_fn(move || {
        let len = body.len().min(*lengths.next()?);
        (!body.is_empty()).then(|| body.split_to(len))
    });
    Body::from_stream(stream::iter(frames).map(Ok::<_, Infallible>))
}

/// What does not depend on the time of the request.
fn facts(answer: &Answer) -> (u16, Vec<(String, String)>, &[u8]) {
    let own = |name: &str| name.starts_with("quantd-") || name.starts_with("content-");
    let headers = answer.headers.iter().filter(|(name, _)| own(name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    (answer.status.as_u16(), headers.collect(), &answer.body)
}

/// One byte at a time; parts of elements; parts of rows and of a block of the kernels; empty frames between.
const LENGTHS: [&[usize]; 5] =
    [&[1], &[3, 5, 2], &[4 * COLUMNS - 1, 4 * COLUMNS + 1], &[0, 7, 0, 4096], &[1 << 16]];

async fn same_in_pieces(client: &Client, path: &str, body: &Bytes) {
    let whole = client.post_bytes(path, RAW, RAW, body.clone()).await;
    for lengths in LENGTHS {
        let pieces = client.post_bytes(path, RAW, RAW, frames(body.clone(), lengths)).await;
        if whole.status == 200 {
            assert_eq!(facts(&pieces), facts(&whole), "{path} {lengths:?}");
        } else {
            let mut problems = [whole.json(), pieces.json()];
            problems.iter_mut().for_each(|problem| drop(problem["instance"].take()));
            assert_eq!(problems[0], problems[1], "{path} {lengths:?}");
        }
    }
}

#[tokio::test]
async fn answers_are_those_to_the_body_in_one_piece() {
    let client = Client::new();
    for range in ["min_max", "mse"] {
        for granularity in ["granularity=tensor", "axis=0", "axis=1", "group_size=32"] {
            let path = format!(
                "/v1/quantize?dtype=F32&shape={ROWS},{COLUMNS}&range={range}&{granularity}"
            );
            same_in_pieces(&client, &path, &bytes(&floats(ROWS * COLUMNS, 7))).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_finite_is_found_in_any_piece() {
    let client = Client::new();
    for at in [0, 1, COLUMNS - 1, COLUMNS, ROWS * COLUMNS / 2, ROWS * COLUMNS - 1] {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = floats(ROWS * COLUMNS, 11);
            x[at] = odd;
            for options in ["nan=refuse", "nan=zero", "nan=max&axis=0"] {
                let path = format!("/v1/quantize?dtype=F32&shape={ROWS},{COLUMNS}&{options}");
                same_in_pieces(&client, &path, &bytes(&x)).await;
                let refused = odd.is_nan() && options == "nan=refuse";
                let whole = client.post_bytes(&path, RAW, RAW, bytes(&x)).await;
                if refused {
                    let problem = whole.problem("non-finite", 422).to_string();
                    assert!(problem.contains(&format!("element {at} is NaN")), "{problem}");
                } else {
                    assert_eq!(whole.status, 200);
                }
            }
        }
    }
}

#[tokio::test]
async fn lengths_that_are_not_the_shapes_are_refused_in_pieces_too() {
    let client = Client::new();
    let path = format!("/v1/quantize?dtype=F32&shape={ROWS},{COLUMNS}");
    let whole = bytes(&floats(ROWS * COLUMNS + 1, 3));
    for len in [0, 3, 4 * ROWS * COLUMNS - 1, 4 * ROWS * COLUMNS + 1, 4 * ROWS * COLUMNS + 4] {
        same_in_pieces(&client, &path, &whole.slice(..len)).await;
        let answer = client.post_bytes(&path, RAW, RAW, whole.slice(..len)).await;
        answer.problem("malformed-body", 400);
    }
}

/// Large bodies and codes lie in memory that the request before gave back, whatever was in it.
#[tokio::test]
async fn nothing_of_a_large_request_is_seen_in_the_next() {
    let client = Client::new();
    let large = 5 * (1 << 20) / 4 + 3;
    let (x, y) = (bytes(&floats(4 * large, 5)), bytes(&floats(4 * large, 9)));
    // Codes of 5 MiB; restored to 20 MiB.
    let path = format!("/v1/quantize?dtype=F32&shape={}", 4 * large);
    let expect = client.post_bytes(&path, RAW, RAW, x.clone()).await;
    assert_eq!(expect.status, 200);
    for _ in 0..2 {
        assert_eq!(client.post_bytes(&path, RAW, RAW, y.clone()).await.status, 200);
        let again = client.post_bytes(&path, RAW, RAW, x.clone()).await;
        assert_eq!(facts(&again), facts(&expect));
        // The same, with a length that is known only at the end: the memory moves as it grows.
        let again = client.post_bytes(&path, RAW, RAW, frames(x.clone(), &[70_000])).await;
        assert_eq!(facts(&again), facts(&expect));
        // Of a body that is cut short nothing but what came counts.
        let cut = client.post_bytes(&path, RAW, RAW, y.slice(..y.len() - 4)).await;
        cut.problem("malformed-body", 400);
        let query = "dtype=I8&scale=0.5&zero_point=0&output_dtype=F32";
        let restore = format!("/v1/dequantize?{query}&shape={}", 4 * large);
        let restored = client.post_bytes(&restore, RAW, RAW, expect.body.clone()).await;
        let expect = expect.body.iter().map(|&code| f32::from(code.cast_signed()) / 2.0);
        let expect: Vec<f32> = expect.collect();
        assert!(restored.body == bytes(&expect), "restored from memory used before");
    }
}

#[tokio::test]
async fn json_in_pieces_is_the_same_text() {
    let client = Client::new();
    let text = r#"{"data": [[1.5, -2e3], [0.25, 7]], "scheme": "int8"}"#;
    let whole = client.post_bytes("/v1/quantize", JSON, JSON, text).await;
    assert_eq!(whole.status, 200);
    for lengths in LENGTHS {
        let body = frames(Bytes::from_static(text.as_bytes()), lengths);
        let pieces = client.post_bytes("/v1/quantize", JSON, JSON, body).await;
        assert_eq!(facts(&pieces), facts(&whole));
    }
}

//! How connections begin and end, and what is no request: on real sockets.

use std::time::Duration;

use quantd::config::Serve;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::sockets::{Running, answer, connect, rest, start};

const SMALL: &str =
    "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: 14\r\n\r\n{\"data\":[1,2]}";

async fn end(running: Running) {
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}

/// The problem document of an answer that ends its connection.
#[track_caller]
fn problem(text: &str, status: u16, kind: &str) -> Value {
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{text}");
    assert!(head.contains("\r\ndate: "), "{text}");
    let document: Value = serde_json::from_str(body).expect(text);
    assert_eq!(document["type"], format!("urn:quantd:error:{kind}"), "{text}");
    assert_eq!(document["status"], status);
    assert!(head.contains(document["instance"].as_str().unwrap()), "{text}");
    document
}

#[tokio::test]
async fn whoever_closes_the_sending_side_is_answered() {
    let running = start(|_| {});
    // Searches long enough for the first bytes of its answer to go ahead of it, at least in a debug build.
    let n = 1 << 16;
    let long = format!(
        "POST /v1/quantize?dtype=F32&shape={n}&range=mse&group_size=64 HTTP/1.1\r\nhost: a\r\n\
         content-type: application/octet-stream\r\n\
         content-length: {}\r\n\r\n{}",
        4 * n,
        "\u{1}\u{2}\u{3}=".repeat(n)
    );
    for text in
        ["GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", SMALL, &long, "GET /livez HTTP/1.0\r\n\r\n"]
    {
        for _ in 0..3 {
            let mut stream = connect(running.address, text).await;
            stream.shutdown().await.unwrap();
            let text = rest(&mut stream).await;
            assert!(text.starts_with("HTTP/1.") && text.get(8..13) == Some(" 200 "), "{text:.200}");
        }
    }
    // A body that will not come is none.
    let cut = SMALL.strip_suffix("2]}").unwrap();
    let mut stream = connect(running.address, cut).await;
    stream.shutdown().await.unwrap();
    problem(&rest(&mut stream).await, 400, "malformed-body");
    end(running).await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let running = start(|_| {});
    for lines in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
        "host:\r\n",
        "host: a:b\r\n",
        "host: u@a\r\n",
        "host: http://a\r\n",
        "host: [::1\r\n",
        "host: a, b/\r\n",
    ] {
        for line in
            ["GET /livez HTTP/1.1", "GET /v1/layers HTTP/1.1", "GET http://a/livez HTTP/1.1"]
        {
            let text = format!("{line}\r\n{lines}connection: close\r\n\r\n");
            let text = rest(&mut connect(running.address, &text).await).await;
            let document = problem(&text, 400, "malformed-request");
            assert_eq!(document["errors"][0]["header"], "host", "{lines}");
        }
    }
    for text in [
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: [::1]:8080\r\nconnection: close\r\n\r\n",
    ] {
        let text = rest(&mut connect(running.address, text).await).await;
        assert!(text.get(8..13) == Some(" 200 "), "{text}");
    }
    end(running).await;
}

#[tokio::test]
async fn a_body_is_framed_in_one_known_way() {
    let running = start(|_| {});
    let chunks = "e\r\n{\"data\":[1,2]}\r\n0\r\n\r\n";
    for (lines, status, kind) in [
        ("transfer-encoding: gzip, chunked", 501, "not-implemented"),
        ("transfer-encoding: identity, chunked", 501, "not-implemented"),
        ("transfer-encoding: chunked, chunked", 501, "not-implemented"),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", 400, "malformed-request"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400, "malformed-request"),
        ("transfer-encoding: gzip", 400, "malformed-request"),
        ("transfer-encoding: identity", 400, "malformed-request"),
        ("transfer-encoding: chunked, gzip", 400, "malformed-request"),
        ("transfer-encoding:", 400, "malformed-request"),
        ("content-length: 14, 14", 400, "malformed-request"),
        ("content-length: 14\r\ncontent-length: 15", 400, "malformed-request"),
        ("content-length: +14", 400, "malformed-request"),
        ("content-length: 0x0e", 400, "malformed-request"),
        ("content-length: -1", 400, "malformed-request"),
        ("content-length:", 400, "malformed-request"),
        ("content-length: 99999999999999999999", 400, "malformed-request"),
    ] {
        let text = format!("POST /v1/quantize HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{chunks}");
        let mut stream = connect(running.address, &text).await;
        stream.shutdown().await.unwrap();
        problem(&rest(&mut stream).await, status, kind);
    }
    // Chunks win over a length, and what follows is no request (RFC 9112, 6.1).
    for lines in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: Chunked\r\nContent-Length: 3",
    ] {
        let text =
            format!("POST /v1/quantize HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{chunks}{SMALL}");
        let text = rest(&mut connect(running.address, &text).await).await;
        assert!(
            text.starts_with("HTTP/1.1 200 ") && text.matches("HTTP/1.1").count() == 1,
            "{text}"
        );
    }
    end(running).await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_document_too() {
    let running = start(|_| {});
    let query =
        |bytes: usize| format!("GET /livez?a={} HTTP/1.1\r\nhost: a\r\n\r\n", "b".repeat(bytes));
    let fields = |fields: String| format!("GET /livez HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let many: String = (0..200).map(|i| format!("x-{i}: {i}\r\n")).collect();
    for (text, status, kind) in [
        (query(66_000), 414, "uri-too-long"),
        (query(100_000), 414, "uri-too-long"),
        (query(1 << 20), 414, "uri-too-long"),
        (fields(many), 431, "head-too-large"),
        (fields(format!("x: {}\r\n", "y".repeat(1 << 20))), 431, "head-too-large"),
        ("GET /livez HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET /li vez HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400, "malformed-request"),
        (fields("x : y\r\n".to_owned()), 400, "malformed-request"),
        (fields("x: \0\r\n".to_owned()), 400, "malformed-request"),
        ("\u{16}\u{3}\u{1} hello".to_owned(), 400, "malformed-request"),
    ] {
        // Also behind a request that was one.
        for before in ["", SMALL] {
            let mut stream = connect(running.address, before).await;
            if !before.is_empty() {
                answer(&mut stream).await;
            }
            stream.write_all(text.as_bytes()).await.unwrap();
            problem(&rest(&mut stream).await, status, kind);
        }
    }
    // The longest that fits.
    let mut stream = connect(running.address, &query(65_000)).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    end(running).await;
}

/// Many clients send all of a body before they read: the answer must not be lost by then.
#[tokio::test]
async fn a_refused_upload_is_taken_to_its_end() {
    let running = start(|config: &mut Serve| config.max_body_bytes = 1 << 20);
    let bytes = 24 << 20;
    let chunk = vec![b'x'; 1 << 20];
    for (line, framing, status) in [
        ("POST /v1/quantize HTTP/1.1", "length", "413"),
        ("POST /v1/quantize HTTP/1.1", "chunked", "413"),
        ("POST /nope HTTP/1.1", "length", "404"),
        ("PUT /v1/quantize HTTP/1.1", "chunked", "405"),
        ("POST /v1/quantize HTTP/1.1\r\norigin: http://evil.example", "length", "403"),
        ("POST /v1/quantize HTTP/1.1\r\nhost: b", "length", "400"),
        ("POST /v1/quantize HTTP/1.1\r\nbad header", "length", "400"),
    ] {
        let is_chunked = framing == "chunked";
        let framing = if is_chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {bytes}")
        };
        let head = format!("{line}\r\nhost: a\r\n{framing}\r\n\r\n");
        let mut stream = connect(running.address, &head).await;
        for _ in 0..bytes >> 20 {
            if is_chunked {
                stream.write_all(b"100000\r\n").await.unwrap();
            }
            stream.write_all(&chunk).await.unwrap();
            if is_chunked {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        let text = answer(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {text}");
        assert!(text.contains("connection: close"), "{line}: {text}");
    }
    end(running).await;
}

#[tokio::test]
async fn idle_connections_make_room_for_others() {
    let running = start(|config: &mut Serve| config.max_connections = 4);
    let mut busy = connect(running.address, SMALL.strip_suffix("2]}").unwrap()).await;
    let mut idle: Vec<TcpStream> = Vec::new();
    for i in 0..16 {
        // Some have been answered, some have sent nothing, some a part of a head.
        let mut stream = connect(running.address, ["", "GET /livez HT", SMALL][i % 3]).await;
        if i % 3 == 2 {
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
        idle.push(stream);
        let mut probe = connect(running.address, "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer(&mut probe).await.starts_with("HTTP/1.1 200"), "beside {i}");
    }
    // The first of them is gone, and the one at work is not.
    assert_eq!(rest(&mut idle[0]).await, "");
    busy.write_all(b"2]}").await.unwrap();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
    drop(idle);
    end(running).await;
}

#[tokio::test]
async fn a_server_that_is_leaving_says_so_and_goes_on() {
    let running = start(|config: &mut Serve| config.drain_delay = Duration::from_secs(3));
    running.stop.send(()).unwrap();
    let ready = "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n";
    loop {
        let text = answer(&mut connect(running.address, ready).await).await;
        if text.starts_with("HTTP/1.1 503") {
            assert!(text.contains("\"live\":true,\"ready\":false"), "{text}");
            break;
        }
    }
    let text = answer(&mut connect(running.address, SMALL).await).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    running.served.await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

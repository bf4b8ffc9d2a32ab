//! What only a real socket shows: timeouts, overload, the stop.

use std::net::SocketAddr;
use std::time::Duration;

use quantd::Quantd;
use quantd::config::Serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::harness::RAW;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn start(change: impl FnOnce(&mut Serve)) -> Running {
    let mut config = Serve::for_tests();
    change(&mut config);
    let server = Quantd::new(&config).unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    Running { address, stop, served }
}

pub(crate) async fn connect(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server closes.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    drop(stream.read_to_end(&mut text).await);
    String::from_utf8_lossy(&text).into_owned()
}

/// One answer's head and body, on a connection that stays open.
pub(crate) async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if read == 0 || length.is_some_and(|length| body >= length.parse().unwrap()) {
            return text;
        }
    }
}

#[tokio::test]
async fn slow_heads_are_cut_and_slow_bodies_answered() {
    let running = start(|config| {
        config.header_timeout_ms = 300;
        config.body_timeout_ms = 300;
    });
    let mut head = connect(running.address, "GET /livez HTT").await;
    let text = "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"data\"";
    let mut body = connect(running.address, text).await;
    let (head, body) = tokio::join!(rest(&mut head), rest(&mut body));
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(body.contains("urn:quantd:error:timeout"), "{body}");
}

#[tokio::test]
async fn a_stop_lets_running_requests_end() {
    let running = start(|_| {});
    let text = "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: 16\r\n\r\n{\"data\":";
    let mut request = connect(running.address, text).await;
    // Another answer on the same server: the first request has arrived by then.
    let mut other = connect(running.address, "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer(&mut other).await.starts_with("HTTP/1.1 200"));
    running.stop.send(()).unwrap();
    // From now on no new connections; the server says so by refusing one.
    while let Ok(mut late) = TcpStream::connect(running.address).await {
        drop(late.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await);
        let text = rest(&mut late).await;
        assert!(text.is_empty() || text.contains("HTTP/1.1"), "{text}");
    }
    request.write_all(b" [1, 2]}").await.unwrap();
    let text = answer(&mut request).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    running.served.await.unwrap().unwrap();
}

/// What may never come holds nothing.
#[tokio::test]
async fn heads_and_first_bytes_of_bodies_hold_next_to_nothing() {
    let running = start(|config| {
        config.max_inflight_bytes = 64 << 20;
        config.max_queue = 0;
    });
    let mut idle = Vec::new();
    for start in ["", "{", "{\"data\":[1,2"] {
        for length in [4 << 10, 1 << 20, 12_000_000] {
            for _ in 0..20 {
                let head = format!(
                    "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{start}"
                );
                idle.push(connect(running.address, &head).await);
            }
        }
    }
    for (length, status) in [(14, "HTTP/1.1 200"), (2_000_000, "HTTP/1.1 200")] {
        let request = format!(
            "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{{\"data\":[1,2]{}}}",
            " ".repeat(length - 14)
        );
        let mut other = connect(running.address, &request).await;
        assert!(answer(&mut other).await.starts_with(status));
    }
}

#[tokio::test]
async fn a_full_server_refuses_and_recovers() {
    let running = start(|config| {
        config.max_inflight_bytes = 64 << 20;
        config.max_queue = 0;
    });
    // 24 MiB of JSON may need four times as much room as there is left beside it.
    let head = format!(
        "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: 12000000\r\n\r\n{{\"data\":[{}",
        " ".repeat(32 << 10)
    );
    let head = head.as_str();
    let mut first = connect(running.address, head).await;
    let mut refused = String::new();
    while !refused.starts_with("HTTP/1.1 503") {
        // The first may not have been admitted yet: then this one is, and leaves again.
        let mut second = connect(running.address, head).await;
        let mut status = [0; 12];
        match tokio::time::timeout(Duration::from_millis(200), second.read_exact(&mut status)).await
        {
            Ok(_) => {
                refused = String::from_utf8_lossy(&status).into_owned() + &rest(&mut second).await
            }
            Err(_) => drop(second),
        }
    }
    assert!(refused.contains("urn:quantd:error:overloaded"), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    // Health and small requests still answer.
    let small =
        "POST /v1/quantize HTTP/1.1\r\nhost: a\r\ncontent-length: 14\r\n\r\n{\"data\":[1,2]}";
    let mut other = connect(running.address, small).await;
    assert!(answer(&mut other).await.starts_with("HTTP/1.1 200"));
    first.shutdown().await.unwrap();
    drop(rest(&mut first).await);
    let mut third = connect(running.address, head).await;
    third.shutdown().await.unwrap();
    let text = rest(&mut third).await;
    assert!(!text.starts_with("HTTP/1.1 503"), "{text}");
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn bodies_in_odd_pieces_cut_short_or_too_long() {
    let running = start(|_| {});
    let head = |length: &str| {
        format!(
            "POST /v1/quantize?dtype=F32&shape=6&axis=0 HTTP/1.1\r\nhost: a\r\naccept: {RAW}\r\n\
             content-type: {RAW}\r\n{length}\r\n\r\n"
        )
    };
    let body: Vec<u8> = (0..6_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let codes = |text: String| {
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let mut whole = connect(running.address, &head("content-length: 24")).await;
    whole.write_all(&body).await.unwrap();
    let expect = codes(answer(&mut whole).await);
    // One byte at a time, each in a segment of its own.
    let mut slow = connect(running.address, &head("content-length: 24")).await;
    slow.set_nodelay(true).unwrap();
    for byte in &body {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(codes(answer(&mut slow).await), expect);
    // Chunks that split elements.
    let mut chunked = connect(running.address, &head("transfer-encoding: chunked")).await;
    for chunk in body.chunks(5) {
        let len = format!("{:x}\r\n", chunk.len());
        chunked.write_all(&[len.as_bytes(), chunk, b"\r\n"].concat()).await.unwrap();
    }
    chunked.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(codes(answer(&mut chunked).await), expect);
    // What follows the announced length is no part of the body.
    let mut long = connect(running.address, &head("content-length: 24")).await;
    long.write_all(&[&body[..], b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await.unwrap();
    assert_eq!(codes(answer(&mut long).await).get(..expect.len()), Some(&expect[..]));
    for length in ["content-length: 24", "transfer-encoding: chunked"] {
        let mut short = connect(running.address, &head(length)).await;
        short.write_all(&body[..4]).await.unwrap();
        short.shutdown().await.unwrap();
        let text = rest(&mut short).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
    }
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}

/// What is refused by its head, or has a body that nobody asked for, leaves a connection that can be
/// used again, or says that it cannot.
#[tokio::test]
async fn connections_survive_bodies_that_are_not_read() {
    let running = start(|_| {});
    for (head, status) in [
        ("POST /v1/quantize HTTP/1.1\r\naccept: text/html", "406"),
        ("POST /v1/quantize HTTP/1.1\r\ncontent-type: text/html", "415"),
        ("POST /v1/layers/none/forward HTTP/1.1", "404"),
        ("POST /v2/models/none/infer HTTP/1.1", "404"),
        ("POST /nope HTTP/1.1", "404"),
        ("PUT /v1/quantize HTTP/1.1", "405"),
        ("GET /livez HTTP/1.1", "200"),
    ] {
        let lengths = ["content-length: 13", "transfer-encoding: chunked"];
        for (length, body) in
            lengths.into_iter().zip(["{\"data\": [1]}", "d\r\n{\"data\": [1]}\r\n0\r\n\r\n"])
        {
            let head = format!("{head}\r\nhost: a\r\n{length}\r\n\r\n");
            let mut stream = connect(running.address, &head).await;
            stream.write_all(body.as_bytes()).await.unwrap();
            let text = answer(&mut stream).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {text}");
            assert!(!text.contains("connection: close"), "{head}: {text}");
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let text = answer(&mut stream).await;
            assert!(text.starts_with("HTTP/1.1 200"), "{head}: {text}");
        }
    }
    // Bytes that do not come, too many of them, and those that wait for leave.
    for length in [
        "content-length: 13",
        "transfer-encoding: chunked",
        "content-length: 200000000",
        "content-length: 13\r\nexpect: 100-continue",
    ] {
        let head = format!("POST /nope HTTP/1.1\r\nhost: a\r\n{length}\r\n\r\n");
        let text = rest(&mut connect(running.address, &head).await).await;
        assert!(text.starts_with("HTTP/1.1 404"), "{length}: {text}");
        assert!(text.contains("connection: close"), "{length}: {text}");
    }
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}

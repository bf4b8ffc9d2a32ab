//! Whole requests against a bare axum server that takes the same body and
//! gives an answer of the same length, and their memory.
//!
//! Both servers listen on loopback. The bare one drops the frames of a body and
//! answers an empty 200, or answers bytes that it holds; the times of both are
//! added up. Requests take turns, and medians are compared. Memory is the
//! high-water mark of a quantd process of its own.

#![expect(clippy::print_stdout, reason = "the figures")]

#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::routing::{get, post};
use http_body_util::BodyExt;

use server::Server;

const ROUNDS: usize = 31;
const MIB: usize = 1 << 20;

/// Resident memory in bytes: now, and at its highest.
fn memory(server: &Server) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id()))
        .expect("Linux tells");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.expect("a number of KiB") * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn start() -> Server {
    Server::quantd("error", &[""; 0])
}

/// Reads a body and forgets it at `/`; gives that many bytes at `/{length}`.
fn start_bare() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let sink = async |mut body: Body| while let Some(Ok(_)) = body.frame().await {};
            let bytes = Bytes::from(vec![1; 64 * MIB]);
            let source = async move |Path(length): Path<usize>| bytes.slice(..length);
            let router = axum::Router::new().route("/", post(sink)).route("/{length}", get(source));
            let service = hyper_util::service::TowerToHyperService::new(router);
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service.clone()),
                );
            }
        });
    });
    address
}

/// Sends a body, reads the whole answer; seconds and bytes of the answer.
fn request(address: SocketAddr, head: &str, body: &[u8]) -> (f64, usize) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    let length = body.len();
    let head =
        format!("{head}host: bench\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the head is taken");
    stream.write_all(body).expect("the body is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{text}");
    (begun.elapsed().as_secs_f64(), answer.len())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn compare(name: &str, server: &Server, bare: SocketAddr, head: &str, body: &[u8]) {
    let (_, length) = request(server.address, head, body);
    let (mut own, mut up, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(request(server.address, head, body).0);
        up.push(request(bare, "POST / HTTP/1.1\r\n", body).0);
        down.push(request(bare, &format!("GET /{length} HTTP/1.1\r\n"), &[]).0);
    }
    let [own, up, down] = [own, up, down].map(median);
    let mib = |bytes: usize| bytes as f64 / MIB as f64;
    println!(
        "| {name} | {:.2} MiB | {:.2} MiB | {:.1} ms | {:.0} MiB/s | {:.1} + {:.1} ms | {:.2} |",
        mib(body.len()),
        mib(length),
        own * 1e3,
        mib(body.len()) / own,
        up * 1e3,
        down * 1e3,
        own / (up + down),
    );
}

fn main() {
    let elements = 16 * MIB;
    let floats: Vec<u8> = (0..elements)
        .flat_map(|i| (((i * 7919) % 65_521) as f32 / 32_768.0 - 1.0).to_le_bytes())
        .collect();
    let small = &floats[..64 * 1024];
    let text: Vec<String> = floats[..8 * MIB]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).to_string())
        .collect();
    let json = format!("{{\"data\":[{}],\"scheme\":\"int8\"}}", text.join(",")).into_bytes();
    let raw = |query: &str, accept: &str| {
        format!(
            "POST /v1/quantize?dtype=F32&{query} HTTP/1.1\r\n\
             content-type: application/octet-stream\r\naccept: {accept}\r\n"
        )
    };
    let bytes = "application/octet-stream";
    let (server, bare) = (start(), start_bare());
    println!(
        "Against a bare axum server that takes the body and then gives the answer; medians of {ROUNDS}.\n\n\
         | | in | out | quantd | rate | bare | ratio |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let whole = format!("shape={elements}");
    compare("f32 to int8, bytes", &server, bare, &raw(&whole, bytes), &floats);
    let rows = "shape=4096,4096&axis=0";
    compare("f32 to int8 by row, bytes", &server, bare, &raw(rows, bytes), &floats);
    compare("f32 to int8, JSON out", &server, bare, &raw(&whole, "application/json"), &floats);
    compare("16 Ki f32 to int8, bytes", &server, bare, &raw("shape=16384", bytes), small);
    let head = "POST /v1/quantize HTTP/1.1\r\ncontent-type: application/json\r\n";
    compare("JSON to JSON", &server, bare, head, &json);
    drop(server);

    println!(
        "\nHighest memory of one request of N bytes; the bound is 1.35 N + 32 MiB.\n\n\
         | N | highest | idle before | bound |\n| ---: | ---: | ---: | ---: |"
    );
    for mib in [16, 64] {
        let body = &floats[..mib * MIB];
        let server = start();
        request(server.address, &raw("shape=16384", bytes), small);
        let (idle, _) = memory(&server);
        request(server.address, &raw(&format!("shape={}", body.len() / 4), bytes), body);
        let (_, highest) = memory(&server);
        println!(
            "| {mib} MiB | {:.1} MiB | {:.1} MiB | {:.1} MiB |",
            highest as f64 / MIB as f64,
            idle as f64 / MIB as f64,
            1.35 * mib as f64 + 32.0,
        );
    }
}

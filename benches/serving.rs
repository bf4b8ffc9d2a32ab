//! Many clients, each with one row at a time, of one hosted 768 x 3072 layer:
//! with requests run together, each alone, and a bare axum echo of the same
//! body sizes.
//!
//! Every server has a process of its own and takes turns with the others; the
//! clients are 64 connections on one thread, with as little to do as they can.

#![expect(clippy::print_stdout, reason = "the figures")]

#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use server::Server;

const INPUTS: usize = 768;
const OUTPUTS: usize = 3072;
const CLIENTS: usize = 64;
const ROUNDS: usize = 5;
const SECONDS: f64 = 1.5;
const ECHO: &str = "serve-echo";

/// A server with the layer.
fn hosting(flags: &[&str]) -> Server {
    let server = Server::quantd("warn", flags);
    let weight: Vec<u8> = (0..INPUTS * OUTPUTS)
        .flat_map(|i| (((i * 7919) % 65_521) as f32 / 32_768.0 - 1.0).to_le_bytes())
        .collect();
    let path = format!(
        "/v1/layers/ffn?dtype=F32&shape={OUTPUTS},{INPUTS}&scheme=int8_per_channel&keep_float=false"
    );
    let head = format!("PUT {path} HTTP/1.1\r\ncontent-type: application/octet-stream\r\n");
    call(server.address, &request(&head, &weight));
    server
}

fn start_echo(answer: usize) -> Server {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([ECHO, &answer.to_string()]);
    Server::start(command)
}

/// Takes a body, gives as many bytes as it was told; never returns.
fn serve_echo(answer: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let echo = async |State(answer): State<Bytes>, body: Bytes| {
            assert!(!body.is_empty());
            answer
        };
        let router = axum::Router::new()
            .route("/{*path}", post(echo))
            .with_state(Bytes::from(vec![7; answer]));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("echo listening on http://{}", listener.local_addr().expect("its address"));
        let service = hyper_util::service::TowerToHyperService::new(router);
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let io = hyper_util::rt::TokioIo::new(stream);
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(io, service.clone()));
        }
    });
}

fn request(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{head}host: bench\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The length of the head of an answer, and of its body, once both are known.
fn lengths(answer: &[u8]) -> Option<(usize, usize)> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 20"), "{text}");
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some((head + 4, body.and_then(|body| body.parse().ok()).expect("a length")))
}

/// One request; the body of its answer.
fn call(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(request).expect("it is taken");
    let (mut answer, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        let read = stream.read(&mut buffer).expect("an answer");
        answer.extend_from_slice(&buffer[..read]);
        match lengths(&answer) {
            Some((head, body)) if answer.len() >= head + body => return answer.split_off(head),
            _ => assert!(read > 0, "{}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// Requests a second, and latencies in seconds, the lowest first.
fn load(address: SocketAddr, request: &[u8], clients: usize) -> (f64, Vec<f64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let begun = Instant::now();
        let (warm, end) =
            (begun + Duration::from_secs_f64(0.3), begun + Duration::from_secs_f64(0.3 + SECONDS));
        let tasks: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(client(address, request.to_vec(), warm, end)))
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("a client"));
        }
        times.sort_by(f64::total_cmp);
        (times.len() as f64 / SECONDS, times)
    })
}

async fn client(address: SocketAddr, request: Vec<u8>, warm: Instant, end: Instant) -> Vec<f64> {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (mut times, mut buffer) = (Vec::new(), vec![0; 65_536]);
    let mut expected = None;
    loop {
        let started = Instant::now();
        stream.write_all(&request).await.expect("it is taken");
        let mut filled = 0;
        while expected.is_none_or(|expected| filled < expected) {
            let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            filled += read;
            // Heads are of one length but for the figures in some of their lines.
            expected = lengths(&buffer[..filled]).map(|(head, body)| head + body);
        }
        expected = None;
        let ended = Instant::now();
        if ended > end {
            return times;
        }
        if started > warm {
            times.push((ended - started).as_secs_f64());
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A name, a server, what it is sent, and by how many.
type Case<'a> = (&'static str, SocketAddr, &'a Vec<u8>, usize);

/// Puts each case under load in turns; the medians of the rates.
fn measure(cases: &[Case<'_>]) -> Vec<f64> {
    let mut found = vec![(Vec::new(), Vec::new(), Vec::new()); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, address, request, clients), (rates, halves, lasts)) in cases.iter().zip(&mut found)
        {
            let (rate, times) = load(*address, request, *clients);
            rates.push(rate);
            halves.push(times[times.len() / 2]);
            lasts.push(times[times.len() * 99 / 100]);
        }
    }
    let rates: Vec<f64> = found.iter().map(|(rates, ..)| median(rates.clone())).collect();
    println!("| | requests/s | p50 | p99 | p99 / p50 |\n| --- | ---: | ---: | ---: | ---: |");
    for ((name, ..), ((_, halves, lasts), rate)) in cases.iter().zip(found.into_iter().zip(&rates))
    {
        let (half, last) = (median(halves), median(lasts));
        println!(
            "| {name} | {rate:.0} | {:.2} ms | {:.2} ms | {:.1} |",
            half * 1e3,
            last * 1e3,
            last / half
        );
    }
    rates
}

/// A row as a request of `/v2`, and of `/v1`.
fn requests() -> (Vec<u8>, Vec<u8>) {
    let row: Vec<u8> =
        (0..INPUTS).flat_map(|i| ((i % 97) as f32 / 48.0 - 1.0).to_le_bytes()).collect();
    let header = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"shape\":[1,{INPUTS}],\"datatype\":\"FP32\",\
         \"parameters\":{{\"binary_data_size\":{}}}}}],\"parameters\":{{\"binary_data_output\":true}}}}",
        row.len()
    );
    let v2 = request(
        &format!(
            "POST /v2/models/ffn/infer HTTP/1.1\r\nInference-Header-Content-Length: {}\r\n",
            header.len()
        ),
        &[header.as_bytes(), &row].concat(),
    );
    let v1 = request(
        &format!(
            "POST /v1/layers/ffn/forward?dtype=F32&shape=1,{INPUTS} HTTP/1.1\r\n\
             content-type: application/octet-stream\r\naccept: application/octet-stream\r\n"
        ),
        &row,
    );
    (v2, v1)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == ECHO) {
        return serve_echo(arguments[2].parse().expect("bytes"));
    }
    let flags: Vec<&str> =
        arguments[1..].iter().map(String::as_str).filter(|flag| *flag != "--bench").collect();
    let (v2, v1) = requests();
    let (together, alone) = (hosting(&flags), hosting(&["--batch-rows", "1"]));
    let answer = call(together.address, &v2);
    assert!(answer == call(alone.address, &v2), "other bytes together than alone");
    let echo = start_echo(answer.len());
    println!(
        "{CLIENTS} clients, one row each of a {INPUTS} x {OUTPUTS} layer: {} bytes in, {} out; medians of {ROUNDS} rounds.\n",
        v2.len(),
        answer.len()
    );
    let cases = [
        ("`/v2`, run together", together.address, &v2, CLIENTS),
        ("`/v2`, each alone", alone.address, &v2, CLIENTS),
        ("`/v1`, run together", together.address, &v1, CLIENTS),
        ("`/v1`, each alone", alone.address, &v1, CLIENTS),
        ("bare axum echo of the same sizes", echo.address, &v2, CLIENTS),
        ("`/v2`, one client", together.address, &v2, 1),
        ("bare axum echo, one client", echo.address, &v2, 1),
    ];
    let rates = measure(&cases);
    println!(
        "\n`/v2`: together {:.2} x alone, {:.2} x the echo; `/v1`: {:.2} x and {:.2} x.",
        rates[0] / rates[1],
        rates[0] / rates[4],
        rates[2] / rates[3],
        rates[2] / rates[4]
    );
}

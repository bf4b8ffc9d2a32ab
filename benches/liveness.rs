//! How long `/livez` and a quantize of three elements take while all compute
//! threads are busy, beside an idle server: `cargo bench --bench liveness`; what
//! follows `--` are flags of the server.
//!
//! Several clients keep the server at ranges of 64 MiB that are searched for,
//! and at new layers of 64 MiB; then many send it 8 MiB each at the same time.
//! All do so on the processors that the server and the one who asks have as
//! well. To end well, the 99th percentile of the small quantize is below 100 ms
//! beside the former.

#![expect(clippy::print_stdout, reason = "the figures")]
#![expect(clippy::disallowed_methods, reason = "a client that pauses, on a thread of its own")]

#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use server::Server;

const CALLS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(10);
/// Rows and columns of 64 MiB in F32.
const SIDE: usize = 4096;
/// Clients that send at the same time, and rows of [`SIDE`] columns in 8 MiB.
const SENDERS: usize = 200;
const SENT_ROWS: usize = 512;
/// Method, path and query of what keeps the server busy.
const HEAVY: [(&str, &str); 5] = [
    ("POST", "/v1/quantize?range=cross_entropy&signed=false&symmetric=false"),
    ("POST", "/v1/quantize?range=mse&granularity=channel&axis=0"),
    ("POST", "/v1/quantize?range=entropy_ort"),
    ("POST", "/v1/quantize?range=mse"),
    ("PUT", "/v1/layers/heavy?scheme=int4_g128"),
];

/// Sends a request and reads its answer; gives the status.
fn call(stream: &mut TcpStream, head: &str, body: &[u8]) -> u16 {
    let head = format!("{head} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n", body.len());
    let head = format!("{head}content-type: application/octet-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a head is taken");
    stream.write_all(body).expect("a body is taken");
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let (text, mut left) = loop {
        let read = stream.read(&mut buffer).expect("an answer");
        assert!(read > 0, "the connection was closed");
        answer.extend_from_slice(&buffer[..read]);
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
            break (text, end + 4 + length - answer.len());
        }
    };
    while left > 0 {
        let read = stream.read(&mut buffer).expect("a body");
        assert!(read > 0, "the connection was closed");
        left -= read;
    }
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// Sends one kind of request until `stop`, and counts the answers.
fn keep_busy(
    address: SocketAddr,
    (method, path): (&str, &str),
    (body, stop): (&[u8], &AtomicBool),
    (done, refused): (&AtomicUsize, &AtomicUsize),
) {
    let sign = if path.contains('?') { '&' } else { '?' };
    let rows = body.len() / (4 * SIDE);
    let head = format!("{method} {path}{sign}dtype=F32&shape={rows},{SIDE}");
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let status = call(&mut stream, &head, body);
        // Done, stopped by its deadline, or refused for lack of room.
        assert!(matches!(status, 200 | 201 | 503 | 504), "{head}: {status}");
        let count = if status == 503 { refused } else { done };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is asked: head and body.
const SMALL: [(&str, &[u8]); 2] =
    [("GET /livez", &[]), ("POST /v1/quantize?dtype=F32&shape=3", &[0; 12])];

/// Asks a thousand times each and prints what the answers took.
fn ask(address: SocketAddr, when: &str) {
    for (head, body) in SMALL {
        ask_for(address, when, (head, body));
    }
}

fn ask_for(address: SocketAddr, when: &str, (head, body): (&str, &[u8])) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut times: Vec<f64> = (0..CALLS)
        .map(|_| {
            std::thread::sleep(PAUSE);
            let started = Instant::now();
            assert_eq!(call(&mut stream, head, body), 200, "it lives");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let [half, last, most] = [times[CALLS / 2], times[CALLS * 99 / 100], times[CALLS - 1]];
    println!("| {head}, {when} | {half:.2} ms | {last:.2} ms | {most:.2} ms |");
}

/// Asks while many clients send bodies of 8 MiB, again and again.
fn ask_beside_senders(address: SocketAddr, body: &[u8]) {
    let (stop, done, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            let counts = (&done, &refused);
            let sent = (&body[..4 * SIDE * SENT_ROWS], &stop);
            scope.spawn(move || keep_busy(address, ("POST", "/v1/quantize"), sent, counts));
        }
        std::thread::sleep(Duration::from_millis(500));
        ask(address, "200 uploads");
        stop.store(true, Ordering::Relaxed);
    });
    let [done, refused] = [done, refused].map(AtomicUsize::into_inner);
    println!("\nMeanwhile {done} requests of 8 MiB, and {refused} refused for lack of room.");
}

fn main() {
    let flags: Vec<String> = std::env::args().skip(1).filter(|flag| flag != "--bench").collect();
    let server = Server::quantd("error", &flags);
    let body: Vec<u8> = (0..SIDE * SIDE)
        .flat_map(|i| (((i * 7919) % 65_521) as f32 / 32_768.0 - 1.0).to_le_bytes())
        .collect();
    println!("{CALLS} calls each.\n\n| | p50 | p99 | at most |\n| --- | ---: | ---: | ---: |");
    ask(server.address, "idle");
    let (stop, done, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for heavy in HEAVY {
            let (body, stop, done, refused) = (&body, &stop, &done, &refused);
            let address = server.address;
            scope.spawn(move || keep_busy(address, heavy, (body, stop), (done, refused)));
        }
        std::thread::sleep(Duration::from_millis(500));
        ask(server.address, "busy");
        stop.store(true, Ordering::Relaxed);
    });
    let [done, refused] = [done, refused].map(AtomicUsize::into_inner);
    println!("\nMeanwhile {done} requests of 64 MiB, and {refused} refused for lack of room.\n");
    ask_beside_senders(server.address, &body);
}

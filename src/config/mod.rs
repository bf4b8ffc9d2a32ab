//! Every flag and environment variable, their defaults and bounds.
//!
//! The only place that looks at the environment; everything else is handed
//! the small settings it needs.

mod environment;
mod memory;
mod values;
mod verbs;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};
use tracing::level_filters::LevelFilter;

use crate::service::batch::Batching;
use crate::service::calibrators;
use crate::service::compute::Settings;
use crate::service::layers::{self, Eviction};
use crate::telemetry::LogFormat;
use quantd_codec::Limits;
use quantd_kernels::Isa;

pub use environment::{links, parse, unknown_variable};
use values::DAY_MS;
pub use verbs::{Convert, FileFormat, Input, Look, Sample};

/// Quantization of neural-network tensors as a service.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`.
    #[command(flatten)]
    pub serve: Serve,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API (the default).
    Serve(Box<Serve>),
    /// Print the `OpenAPI` document.
    Openapi,
    /// Ask a running server whether it is alive; exit 0 if so.
    Healthcheck(Healthcheck),
    /// Quantize a file without a server.
    Quantize(Convert),
    /// Restore real numbers from what `quantize` wrote.
    Dequantize(Convert),
    /// Compare schemes on a tensor, the best first.
    Compare(Look),
    /// Look at a tensor: extremes, moments, percentiles.
    Inspect(Look),
    /// Write a tensor to try things on.
    Sample(Sample),
}

/// Address of a server.
#[derive(Args, Debug, Clone)]
pub struct Healthcheck {
    /// Address of the server.
    #[arg(long, env = "QUANTD_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port of the server.
    #[arg(long, env = "QUANTD_PORT", default_value_t = 8080)]
    pub port: u16,
}

/// Options of `quantd serve`.
#[derive(Args, Clone)]
pub struct Serve {
    /// Address to listen on.
    #[arg(long, env = "QUANTD_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, env = "QUANTD_PORT", default_value_t = 8080)]
    pub port: u16,
    /// Key that clients must send as `Authorization: Bearer` or `api-key`; none by default.
    #[arg(long, env = "QUANTD_API_KEY", hide_env_values = true,
        value_parser = values::ApiKey)]
    pub api_key: Option<String>,
    /// Origins whose pages may call, such as `https://app.example.com`, or `*`; none by default.
    #[arg(long, env = "QUANTD_CORS_ORIGIN", value_delimiter = ',', value_parser = values::origin)]
    pub cors_origin: Vec<String>,
    /// Names of hosts that browsers may call the server by, such as `quantd.example.com` or `*.example.com`, beside
    /// addresses, localhost and private names; `*` for all. With a key all may be called unless names are given.
    #[arg(long, env = "QUANTD_ALLOWED_HOSTS", value_delimiter = ',', value_parser = values::host_name)]
    pub allowed_hosts: Vec<String>,
    /// Bytes of one request body, also once decompressed.
    #[arg(long, env = "QUANTD_MAX_BODY_BYTES", default_value_t = 256 << 20,
        value_parser = value_parser!(u64).range(1024..=1 << 40))]
    pub max_body_bytes: u64,
    /// Bytes of bodies, tensors and answers held at once; 0 takes 60 % of the memory there is.
    #[arg(long, env = "QUANTD_MAX_INFLIGHT_BYTES", default_value_t = 0,
        value_parser = values::budget)]
    pub max_inflight_bytes: u64,
    /// Tensors of one request.
    #[arg(long, env = "QUANTD_MAX_TENSORS", default_value_t = 4096, value_parser = values::some())]
    pub max_tensors: usize,
    /// Elements of one tensor.
    #[arg(long, env = "QUANTD_MAX_ELEMENTS", default_value_t = 1 << 28, value_parser = values::some())]
    pub max_elements: usize,
    /// Calibrators kept at once; with 0 there are none.
    #[arg(long, env = "QUANTD_MAX_CALIBRATORS", default_value_t = 1024)]
    pub max_calibrators: usize,
    /// Bytes of what all calibrators have learnt.
    #[arg(long, env = "QUANTD_MAX_CALIBRATOR_BYTES", default_value_t = 256 << 20,
        value_parser = values::calibrator_bytes)]
    pub max_calibrator_bytes: u64,
    /// Requests that may wait for memory or a thread; with 0 none does.
    #[arg(long, env = "QUANTD_MAX_QUEUE", default_value_t = 64)]
    pub max_queue: usize,
    /// Longest such wait, in milliseconds.
    #[arg(long, env = "QUANTD_MAX_QUEUE_WAIT_MS", default_value_t = 2000,
        value_parser = value_parser!(u64).range(0..=DAY_MS))]
    pub max_queue_wait_ms: u64,
    /// Compute threads; 0 takes one a core.
    #[arg(long, env = "QUANTD_THREADS", default_value_t = 0,
        value_parser = value_parser!(u64).range(0..=1024))]
    pub threads: u64,
    /// Longest time that the work of a request may take, in milliseconds; 0 for any. What by an estimate
    /// cannot end within it is refused.
    #[arg(long, env = "QUANTD_MAX_COMPUTE_MS", default_value_t = 60_000,
        value_parser = value_parser!(u64).range(0..=86_400_000))]
    pub max_compute_ms: u64,
    /// Instruction set of the kernels: auto, or one that the machine has. Results are the same with all.
    #[arg(long, env = "QUANTD_ISA", default_value = "auto", value_parser = values::isa())]
    pub isa: Isa,
    /// Bytes of the layers that are kept in memory; 0 takes 20 % of the memory there is.
    #[arg(long, env = "QUANTD_MAX_LAYER_BYTES", default_value_t = 0,
        value_parser = values::layer_bytes)]
    pub max_layer_bytes: u64,
    /// What happens when they are not enough: the new layer is refused, or the one not used for longest makes room.
    #[arg(long, env = "QUANTD_LAYER_EVICTION", value_enum, default_value_t = Eviction::Refuse)]
    pub layer_eviction: Eviction,
    /// Directory that layers are saved to, and read from at the start; none by default.
    #[arg(long, env = "QUANTD_LAYER_DIR")]
    pub layer_dir: Option<PathBuf>,
    /// Rows of requests to one layer that are run together; 1 runs each alone.
    #[arg(long, env = "QUANTD_BATCH_ROWS", default_value_t = 64,
        value_parser = value_parser!(u64).range(0..=4096))]
    pub batch_rows: u64,
    /// Longest time that such a request waits for others while many come, in microseconds.
    #[arg(long, env = "QUANTD_BATCH_WAIT_US", default_value_t = 200,
        value_parser = value_parser!(u64).range(0..=1_000_000))]
    pub batch_wait_us: u64,
    /// Time for the head of a request, in milliseconds.
    #[arg(long, env = "QUANTD_HEADER_TIMEOUT_MS", default_value_t = 10_000,
        value_parser = value_parser!(u64).range(1..=DAY_MS))]
    pub header_timeout_ms: u64,
    /// Time for a body, in milliseconds, to which a second is added for each MiB.
    #[arg(long, env = "QUANTD_BODY_TIMEOUT_MS", default_value_t = 30_000,
        value_parser = value_parser!(u64).range(1..=DAY_MS))]
    pub body_timeout_ms: u64,
    /// Longest time in which a client may take nothing of an answer, in milliseconds.
    #[arg(long, env = "QUANTD_WRITE_TIMEOUT_MS", default_value_t = 30_000,
        value_parser = value_parser!(u64).range(1..=DAY_MS))]
    pub write_timeout_ms: u64,
    /// Connections at once.
    #[arg(long, env = "QUANTD_MAX_CONNECTIONS", default_value_t = 2048,
        value_parser = values::connections())]
    pub max_connections: usize,
    /// Time after SIGTERM in which readiness is red and requests are still taken, in seconds.
    #[arg(long, env = "QUANTD_DRAIN_DELAY", default_value = "0", value_parser = values::delay)]
    pub drain_delay: Duration,
    /// Time for running requests when the server stops, in seconds.
    #[arg(long, env = "QUANTD_DRAIN_SECONDS", default_value_t = 30,
        value_parser = value_parser!(u64).range(0..=DAY_MS / 1000))]
    pub drain_seconds: u64,
    /// How log lines look.
    #[arg(long, env = "QUANTD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least level that is logged: off, error, warn, info, debug, trace.
    #[arg(long, env = "QUANTD_LOG_LEVEL", default_value_t = LevelFilter::INFO)]
    pub log_level: LevelFilter,
}

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Serve")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Serve {
    /// The defaults, on a free port, whatever the environment says.
    #[must_use]
    pub fn for_tests() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            api_key: None,
            cors_origin: Vec::new(),
            allowed_hosts: Vec::new(),
            max_body_bytes: 64 << 20,
            max_inflight_bytes: 512 << 20,
            max_tensors: 4096,
            max_elements: 1 << 28,
            max_calibrators: 64,
            max_calibrator_bytes: 64 << 20,
            max_queue: 64,
            max_queue_wait_ms: 2000,
            max_compute_ms: 60_000,
            threads: 2,
            isa: Isa::best(),
            max_layer_bytes: 64 << 20,
            layer_eviction: Eviction::Refuse,
            layer_dir: None,
            batch_rows: 64,
            batch_wait_us: 200,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            max_connections: 2048,
            drain_delay: Duration::ZERO,
            drain_seconds: 5,
            log_format: LogFormat::Text,
            log_level: LevelFilter::OFF,
        }
    }

    /// Bounds on documents.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_bytes: usize::try_from(self.max_body_bytes).unwrap_or(usize::MAX),
            max_tensors: self.max_tensors,
            max_elements: self.max_elements,
            ..Limits::default()
        }
    }

    /// Bounds on calibrators.
    #[must_use]
    pub fn calibrators(&self) -> calibrators::Settings {
        calibrators::Settings {
            max_calibrators: self.max_calibrators,
            max_bytes: usize::try_from(self.max_calibrator_bytes).unwrap_or(usize::MAX),
        }
    }

    /// How requests to one layer are run together.
    #[must_use]
    pub fn batching(&self) -> Batching {
        Batching {
            rows: usize::try_from(self.batch_rows).unwrap_or(1),
            wait: Duration::from_micros(self.batch_wait_us),
        }
    }

    /// Bounds on layers, and where they are saved.
    #[must_use]
    pub fn layers(&self) -> layers::Settings {
        let max_bytes = match self.max_layer_bytes {
            0 => memory::available() / 10 * 2,
            bytes => bytes,
        };
        layers::Settings {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            eviction: self.layer_eviction,
            directory: self.layer_dir.clone(),
        }
    }

    /// Bounds of the compute pool.
    #[must_use]
    pub fn compute(&self) -> Settings {
        let max_inflight = match self.max_inflight_bytes {
            0 => (memory::available() / 10 * 6).max(values::LEAST_BUDGET),
            bytes => bytes,
        };
        Settings {
            isa: self.isa,
            threads: threads(self.threads),
            max_inflight_bytes: usize::try_from(max_inflight).unwrap_or(usize::MAX),
            max_queue: self.max_queue,
            max_queue_wait: Duration::from_millis(self.max_queue_wait_ms),
            max_compute: Some(self.max_compute_ms)
                .filter(|allowed| *allowed > 0)
                .map(Duration::from_millis),
        }
    }
}

/// The number asked for, or one a core for 0.
#[must_use]
pub fn threads(asked: u64) -> usize {
    match usize::try_from(asked).unwrap_or(1) {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    }
}

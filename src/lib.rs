//! quantd: quantization of neural-network tensors as a service.
//!
//! Start at [`http`] for the surface, at [`service`] for the use cases, at [`quantd_core`] for the
//! numbers. Dependencies run one way:
//! `http -> service -> api -> {quantd-codec, quantd-core} -> quantd-kernels`.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod http;
pub mod service;
pub mod telemetry;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::Serve;
use http::{Access, App, Server, Timeouts};
use service::Service;
use service::compute::Compute;
use service::layers::Layers;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no more threads.
    #[error("cannot start the threads: {0}")]
    Threads(#[source] io::Error),
    /// The directory of layers is not one, or not ours.
    #[error("cannot keep layers in {}: {error}", path.display())]
    LayerDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The address is taken, or no address of this machine.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// A server that is bound and wired but does not serve yet.
#[derive(Debug)]
pub struct Quantd {
    server: Server,
    app: App,
    router: axum::Router,
    compute: Compute,
}

/// Bounds of connections.
fn timeouts(config: &Serve) -> Timeouts {
    Timeouts {
        header: Duration::from_millis(config.header_timeout_ms),
        write: Duration::from_millis(config.write_timeout_ms),
        drain_delay: config.drain_delay,
        drain: Duration::from_secs(config.drain_seconds),
        max_connections: config.max_connections,
    }
}

/// Whose requests are taken.
fn access(config: &Serve) -> Access {
    Access {
        origins: config.cors_origin.clone(),
        hosts: config.allowed_hosts.clone(),
        has_key: config.api_key.is_some(),
        is_local: config.host.is_loopback(),
    }
}

impl Quantd {
    /// Binds the address and starts the compute threads.
    ///
    /// # Errors
    /// [`StartError`] when the threads, the directory of layers or the address cannot be had.
    pub fn new(config: &Serve) -> Result<Self, StartError> {
        telemetry::init_metrics();
        let compute = Compute::new(config.compute())
            .map_err(|error| StartError::Threads(io::Error::other(error)))?;
        let layers =
            Layers::open(config.layers(), compute.clone()).map_err(|error| {
                match &config.layer_dir {
                    Some(path) => StartError::LayerDir { path: path.clone(), error },
                    None => StartError::Threads(error),
                }
            })?;
        let service = Service::new(
            compute.clone(),
            config.limits(),
            config.calibrators(),
            layers,
            config.batching(),
        );
        let body_timeout = Duration::from_millis(config.body_timeout_ms);
        let app = App::new(service, body_timeout, config.api_key.as_deref());
        let address = SocketAddr::new(config.host, config.port);
        let server = Server::bind(address, timeouts(config))
            .map_err(|error| StartError::Listen { address, error })?;
        let router = http::router(app.clone(), &access(config));
        Ok(Self { server, app, router, compute })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// Everything the server answers, without a socket.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// The pools that all work runs on.
    #[must_use]
    pub const fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Serves until `stop` resolves and running requests have ended.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let settings = self.compute.settings();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            isa = settings.isa.name(),
            threads = settings.threads,
            max_inflight_bytes = settings.max_inflight_bytes,
            address = self.server.address().ok().map(tracing::field::display),
            "serving"
        );
        tokio::select! {
            served = self.server.serve(self.app, self.router, stop) => served,
            never = self.compute.tend() => never,
            never = telemetry::tend() => never,
        }
    }
}

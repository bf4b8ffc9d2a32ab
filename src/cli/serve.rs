//! `quantd serve`: starts the server, says where it is, and stops it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use indicatif::BinaryBytes;

use crate::config::{self, Serve};
use crate::{Quantd, StartError, telemetry};

use super::Failure;

/// Serves until a signal says otherwise.
pub(super) fn run(options: &Serve) -> Result<(), Failure> {
    if let Some(name) = config::unknown_variable() {
        return Err(Failure::usage(format!("no option is set by {name} (see --help)")));
    }
    telemetry::init_logs(options.log_format, options.log_level);
    let result = serve(options);
    telemetry::flush_logs();
    result
}

fn serve(options: &Serve) -> Result<(), Failure> {
    for variable in config::links() {
        tracing::warn!(
            variable,
            "not taken for an option: Kubernetes made it of a service (enableServiceLinks: false ends that)"
        );
    }
    // Connections are file descriptors, of which many systems grant 1024 until asked for more.
    drop(rlimit::increase_nofile_limit(options.max_connections as u64 + 256));
    let server = Quantd::new(options).map_err(|error| match error {
        StartError::Threads(_) => Failure::new(error.to_string()),
        StartError::LayerDir { .. } => Failure::usage(format!("{error} (see --layer-dir)")),
        StartError::Listen { .. } => Failure::usage(error.to_string()),
    })?;
    let address = server.address().map_err(|error| Failure::new(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    if !options.host.is_loopback() && options.api_key.is_none() {
        tracing::warn!("reachable from other machines and no --api-key is set: anyone may call");
    }
    telemetry::announce(&banner(options, address));
    runtime
        .block_on(server.serve(stop_signal()))
        .map_err(|error| Failure::new(format!("stopped: {error}")))
}

/// What a person wants to know of a server that has started; programs read the first line.
fn banner(options: &Serve, address: SocketAddr) -> String {
    let (compute, layers) = (options.compute(), options.layers());
    let bytes = |bytes: usize| BinaryBytes(bytes as u64);
    format!(
        "quantd listening on http://{address}\n\
         \x20 page      http://{}/docs\n\
         \x20 version   {}, {} kernels, {} compute thread{}\n\
         \x20 memory    {} for requests, {} for layers\n\
         \x20 requests  {} of body, {} connections, {} waiting\n",
        SocketAddr::new(reachable(address.ip()), address.port()),
        env!("CARGO_PKG_VERSION"),
        options.isa.name(),
        compute.threads,
        if compute.threads == 1 { "" } else { "s" },
        bytes(compute.max_inflight_bytes),
        bytes(layers.max_bytes),
        BinaryBytes(options.max_body_bytes),
        options.max_connections,
        compute.max_queue,
    )
}

/// Where this machine finds a server that listens there.
pub(super) fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host @ (IpAddr::V4(_) | IpAddr::V6(_)) => host,
    }
}

/// Resolves at SIGTERM or SIGINT; the second one ends the process at once.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        #[expect(clippy::exit, reason = "the second signal asks for exactly that")]
        std::process::exit(130);
    });
}

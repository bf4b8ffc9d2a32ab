//! The verbs of the command line.

mod healthcheck;
mod quantize;

use std::process::ExitCode;

use clap::Parser;

use crate::Quantd;
use crate::config::{self, Cli, Command, Serve};
use crate::telemetry;

/// Carries out what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => carry_out(cli),
        // `--help` and `--version` are errors to the parser.
        Err(error) if !error.use_stderr() => {
            error.print().map_err(|error| Failure::new(format!("cannot write: {error}")))
        }
        Err(error) => Err(Failure::usage(one_line(&error.render().to_string()))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            complain(&text);
            ExitCode::from(code)
        }
    }
}

/// The first paragraph of the parser's message.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let lines: Vec<&str> =
        message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    format!("{} (see --help)", lines.join(" "))
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(options)) => serve(&options),
        Some(Command::Openapi) => print(crate::http::document()),
        Some(Command::Healthcheck(target)) => healthcheck::run(&target),
        Some(Command::Quantize(options)) => quantize::run(&options),
    }
}

/// A verb that did not succeed: its exit code and one line.
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The work failed.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// The options are wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }
}

#[expect(clippy::print_stderr, reason = "the command line talks to people there")]
fn complain(text: &str) {
    eprintln!("quantd: {text}");
}

fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("cannot write: {error}")))
}

fn serve(options: &Serve) -> Result<(), Failure> {
    if let Some(name) = config::unknown_variable() {
        return Err(Failure::usage(format!("no option is set by {name} (see --help)")));
    }
    telemetry::init_logs(options.log_format, options.log_level);
    // Connections are file descriptors, of which many systems grant 1024 until asked for more.
    drop(rlimit::increase_nofile_limit(options.max_connections as u64 + 256));
    let server = Quantd::new(options).map_err(|error| {
        Failure::usage(format!("cannot listen on {}:{}: {error}", options.host, options.port))
    })?;
    let address = server.address().map_err(|error| Failure::new(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    if !options.host.is_loopback() && options.api_key.is_none() {
        tracing::warn!("reachable from other machines and no --api-key is set: anyone may call");
    }
    print(&format!("quantd listening on http://{address}\n"))?;
    runtime
        .block_on(server.serve(stop_signal()))
        .map_err(|error| Failure::new(format!("stopped: {error}")))
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

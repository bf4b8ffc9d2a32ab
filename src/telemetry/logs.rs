//! Everything that this program says on its standard streams.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::sink::{self, Sink};

/// Longest wait for what was said last to be written when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Standard error; None where it cannot be had.
fn errors() -> Option<&'static Sink> {
    static ERRORS: OnceLock<Option<Sink>> = OnceLock::new();
    let start = || Sink::start("quantd-log", sink::copy(io::stderr()).ok()?).ok();
    ERRORS.get_or_init(start).as_ref()
}

/// Sends logs of `level` and above to standard error, and what a panic says as
/// well. Does nothing when a subscriber is installed already.
pub fn init_logs(format: LogFormat, level: LevelFilter) {
    let Some(errors) = errors() else { return };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| errors.clone());
    drop(match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    });
    // The standard library's own hook waits for whoever reads standard error.
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        thread = std::thread::current().name(),
        location = panic.location().map(tracing::field::display),
        backtrace,
        "panicked: {}",
        panic.payload_as_str().unwrap_or("without a text")
    );
}

/// Says one line on standard error, after all that was logged; whether anybody reads it or not.
pub fn complain(line: &str) {
    match errors() {
        Some(errors) => errors.send(format!("{line}\n").as_bytes()),
        // Too many threads for one more: this is what there is to say.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
    flush_logs();
}

/// Says some lines on standard output, whether anybody reads them or not.
pub fn announce(lines: &str) {
    let start = || Sink::start("quantd-say", sink::copy(io::stdout())?);
    if let Ok(output) = start() {
        output.send(lines.as_bytes());
    }
}

/// Waits a little for what was logged to be written.
pub fn flush_logs() {
    if let Some(errors) = errors() {
        errors.flush(LAST_WORDS);
    }
}

/// Log lines that were lost so far.
pub(super) fn lost_lines() -> u64 {
    errors().map_or(0, Sink::lost)
}

//! The verbs of the command line.

mod files;
mod healthcheck;
mod report;
mod serve;
mod tensors;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{self, Cli, Command};
use crate::telemetry;

/// Carries out what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let result = match config::parse() {
        Ok(cli) => carry_out(cli),
        // `--help` and `--version` are errors to the parser.
        Err(error) if !error.use_stderr() => to_stdout(error.print()),
        Err(error) => Err(Failure::usage(one_line(&error.render().to_string()))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            telemetry::complain(&format!("quantd: {text}"));
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
        None => serve::run(&cli.serve),
        Some(Command::Serve(options)) => serve::run(&options),
        Some(Command::Openapi) => print(crate::http::document()),
        Some(Command::Healthcheck(target)) => healthcheck::run(&target),
        Some(Command::Quantize(options)) => tensors::quantize(&options),
        Some(Command::Dequantize(options)) => tensors::dequantize(&options),
        Some(Command::Compare(options)) => tensors::compare(&options),
        Some(Command::Inspect(options)) => tensors::inspect(&options),
        Some(Command::Sample(options)) => tensors::sample(&options),
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

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    to_stdout(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What became of writing there: a reader that has seen enough, such as `head`, is no failure.
fn to_stdout(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

//! Parses the command line and hands it on.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    quantd::cli::run(quantd::config::Cli::parse())
}

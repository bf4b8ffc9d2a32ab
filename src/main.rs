//! Hands the command line on.

use std::process::ExitCode;

fn main() -> ExitCode {
    quantd::cli::run()
}

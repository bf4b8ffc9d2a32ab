//! Hands the command line on.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Answers are made on one thread and dropped on another, in pieces of some KiB: glibc's allocator spends a
/// sixth of the time of small requests on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quantd::cli::run()
}

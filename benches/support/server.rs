//! A server in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A server process, stopped when dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts what says on its first line where it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        Self { process, address: address.expect("an address") }
    }

    /// Starts quantd at a free port.
    pub(crate) fn quantd(log_level: &str, flags: &[impl AsRef<std::ffi::OsStr>]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quantd"));
        command.args(["serve", "--port", "0", "--log-level", log_level]).args(flags);
        Self::start(command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

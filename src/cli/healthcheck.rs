//! `quantd healthcheck`: for images without curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Healthcheck;

use super::Failure;
use super::serve::reachable;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/livez`.
pub(super) fn run(target: &Healthcheck) -> Result<(), Failure> {
    let status = ask(SocketAddr::new(reachable(target.host), target.port))
        .map_err(|error| Failure::new(format!("no answer: {error}")))?;
    if status.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(Failure::new("not alive")) }
}

fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = Vec::new();
    stream.take(12).read_to_end(&mut status)?;
    Ok(status)
}

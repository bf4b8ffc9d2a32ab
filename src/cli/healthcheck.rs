//! `quantd healthcheck`: for images without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Healthcheck;

use super::Failure;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/livez`.
pub(super) fn run(target: &Healthcheck) -> Result<(), Failure> {
    // A server that listens on all addresses is asked on this machine's own.
    let host = match target.host {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host @ (IpAddr::V4(_) | IpAddr::V6(_)) => host,
    };
    let status = ask(SocketAddr::new(host, target.port))
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

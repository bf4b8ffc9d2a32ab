//! The listening server: timeouts, connection cap, graceful stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use socket2::{Domain, Socket, Type};

use super::App;
use super::connection::Acceptor;

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// Most bytes of a connection that are read at once; a head must fit in. With more, a task that receives
/// holds up those behind it for longer.
const MAX_BUFFER: usize = 128 << 10;

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of a request, from the first byte or from the end of the last request.
    pub header: Duration,
    /// In which a client must take something of an answer.
    pub write: Duration,
    /// In which a server that is told to stop says that it is not ready, and takes requests as before.
    pub drain_delay: Duration,
    /// For running requests once the server stops.
    pub drain: Duration,
    /// Connections at once.
    pub max_connections: usize,
}

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    timeouts: Timeouts,
}

impl Server {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr, timeouts: Timeouts) -> io::Result<Self> {
        // Not `TcpListener::bind`: its queue holds 128 connections, and a client
        // that finds it full waits a second before it tries again.
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { listener: socket.into(), timeouts })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves, then lets running requests end.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        app: App,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let handle = Handle::new();
        let Timeouts { drain, drain_delay, .. } = self.timeouts;
        tokio::spawn({
            let handle = handle.clone();
            async move {
                stop.await;
                app.leave();
                if !drain_delay.is_zero() {
                    tracing::info!("stopping: not ready, taking requests for {drain_delay:?} more");
                    tokio::time::sleep(drain_delay).await;
                }
                tracing::info!("stopping: no new work, waiting for {drain:?} at most");
                app.drain();
                handle.graceful_shutdown(Some(drain));
            }
        });
        let acceptor = Acceptor::new(self.timeouts.max_connections, self.timeouts.write);
        let mut server = axum_server::from_tcp(self.listener)?
            .handle(handle)
            .http1_only()
            .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "not accepted"))
            .acceptor(acceptor);
        // hyper's own header timeout does nothing unless it is given a timer. Whether a client that has closed
        // its sending side has left, the connection finds out.
        server
            .http_builder()
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.timeouts.header)
            .half_close(true)
            .max_buf_size(MAX_BUFFER)
            .max_headers(128);
        server.serve(router.into_make_service()).await
    }
}

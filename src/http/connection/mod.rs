//! Connections: how many, how long one may stall, and how one ends.

mod roster;
mod tracked;
mod watch;

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_io_timeout::TimeoutStream;

use super::bare;
use roster::{Member, Phase, Roster};
use tracked::Tracked;
use watch::Watch;

pub(super) use roster::Link;

/// Longest time that what a client sends after its answer is read for nothing, and the longest pause in it.
/// Many clients read nothing before they have sent all.
const LINGER: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes that are read for nothing at once, and how often before other connections have their turn.
const DROPPED: usize = 64 << 10;
const TURN: usize = 2;

/// Accepts connections up to a number and gives up on clients that do not read.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    roster: Arc<Roster>,
    write_timeout: Duration,
}

impl Acceptor {
    pub(super) fn new(max_connections: usize, write_timeout: Duration) -> Self {
        Self { roster: Arc::new(Roster::new(max_connections)), write_timeout }
    }
}

impl<S> Accept<TcpStream, S> for Acceptor {
    type Stream = Connection;
    type Service = Tracked<S>;
    type Future = Ready<io::Result<(Connection, Tracked<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Some(member) = self.roster.join() else {
            return ready(Err(io::Error::other("too many connections")));
        };
        if let Err(error) = stream.set_nodelay(true) {
            return ready(Err(error));
        }
        let mut stream = TimeoutStream::new(stream);
        // hyper has no write timeout of its own: without this one, a client
        // that stops reading would hold its answer for ever.
        stream.set_write_timeout(Some(self.write_timeout));
        let tracked = Tracked { inner: service, link: Arc::clone(member.link()) };
        let connection = Connection {
            stream: Box::pin(stream),
            member,
            watch: Watch::default(),
            has_line: false,
            own: None,
            lingering: None,
        };
        ready(Ok((connection, tracked)))
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    member: Member,
    watch: Watch,
    /// Whether the first line of a request has come.
    has_line: bool,
    /// What is left of an answer to what is no request.
    own: Option<Bytes>,
    lingering: Option<Lingering>,
}

/// The end of a connection whose client may still be sending.
#[derive(Debug)]
struct Lingering {
    end: Instant,
    pause: Pin<Box<Sleep>>,
    dropped: Box<[u8]>,
}

impl Lingering {
    fn begin() -> Self {
        let dropped = vec![0; DROPPED].into_boxed_slice();
        Self { end: Instant::now() + LINGER, pause: Box::pin(sleep(PAUSE)), dropped }
    }

    /// Reads until the client ends, pauses, or has had its time.
    fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            if stream.poll_read_ready(cx).is_pending() {
                return self.pause.as_mut().poll(cx);
            }
            match stream.try_read(&mut self.dropped) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready(());
            }
            self.pause.as_mut().reset((now + PAUSE).min(self.end));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Connection {
    /// What is to be done before bytes of hyper that begin with `head` and are `total` are written: some
    /// are sent already, or others take their place. Gives how many count as written, 0 for none.
    ///
    /// What hyper writes while no request is handled answers what is none, with an empty body.
    fn poll_before(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        total: usize,
    ) -> Poll<io::Result<usize>> {
        if self.own.is_none() && self.member.link().phase() == Phase::Idle {
            self.own = bare::instead_of(head, self.has_line);
        }
        let Some(own) = &mut self.own else {
            return Poll::Ready(self.watch.take_ahead(head));
        };
        while own.has_remaining() {
            let written = ready!(self.stream.as_mut().poll_write(cx, own))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            own.advance(written);
        }
        self.member.link().linger();
        Poll::Ready(Ok(total))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut read = self.stream.as_mut().poll_read(cx, buf);
        let link = self.member.link();
        if read.is_pending() {
            link.park(cx.waker());
            if link.is_dismissed() && link.phase() == Phase::Idle {
                // As if the client had closed.
                read = Poll::Ready(Ok(()));
            }
        } else if !self.has_line && link.phase() == Phase::Idle {
            self.has_line = buf.filled().get(before..).is_some_and(|new| new.contains(&b'\n'));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_before(cx, buf, buf.len()))? {
            0 => self.stream.as_mut().poll_write(cx, buf),
            done => Poll::Ready(Ok(done)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let head = bufs.first().map_or(&[][..], |buf| buf);
        let total = bufs.iter().map(|buf| buf.len()).sum();
        match ready!(self.poll_before(cx, head, total))? {
            0 => self.stream.as_mut().poll_write_vectored(cx, bufs),
            done => Poll::Ready(Ok(done)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper comes here whenever it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.as_mut().poll_flush(cx))?;
        let this = &mut *self;
        match this.member.link().phase() {
            Phase::Settling => {
                (this.watch, this.has_line) = (Watch::default(), false);
                this.member.rest();
                if this.member.link().is_dismissed() {
                    cx.waker().wake_by_ref();
                }
            }
            Phase::Working => this.watch.poll(this.stream.get_ref(), cx)?,
            Phase::Idle | Phase::Answering => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(self.stream.as_mut().poll_shutdown(cx))?;
            if !self.member.link().lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let lingering = this.lingering.get_or_insert_with(Lingering::begin);
        lingering.poll(this.stream.get_ref(), cx).map(Ok)
    }
}

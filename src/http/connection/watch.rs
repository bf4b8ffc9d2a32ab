//! Whether a client that has closed its sending side is still there.
//!
//! A client that wants its answer may close that side after a request (RFC 9112, 9.6), and one that has left
//! looks the same: the system of either sends the same segment, and only data sent to it tells them apart,
//! which the system of a client that has left refuses. Every answer begins with the same bytes, so these are
//! what is sent ahead of it, one at a time and ever more rarely.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How every answer begins, whatever the version.
const PREFIX: &[u8] = b"HTTP/1.";
/// Between looks.
const TICK: Duration = Duration::from_millis(5);

/// What was found out about the client of one request.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Bytes of the answer that are sent already.
    ahead: usize,
    ticks: u32,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Looks for an end of what the client sends and, once it has come, whether the client takes anything.
    /// Only while all that was written before is sent, and nothing of the answer.
    ///
    /// # Errors
    /// The client has left.
    pub(super) fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> io::Result<()> {
        let mut byte = [0];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => {}
            Poll::Ready(Err(error)) => return Err(error),
            // More of the body, or the next request: such a client has closed nothing.
            Poll::Ready(Ok(_)) | Poll::Pending => return Ok(()),
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(TICK)));
        while timer.as_mut().poll(cx).is_ready() {
            self.ticks = self.ticks.saturating_add(1);
            // After 4, 16, 64, .. ticks: most answers are there before and go out in one piece, and the
            // last byte goes out after 82 seconds.
            let power = self.ticks.trailing_zeros();
            let is_due = self.ticks.is_power_of_two() && power >= 2 && power.is_multiple_of(2);
            if let Some(next) = PREFIX.get(self.ahead).filter(|_| is_due) {
                match stream.try_write(&[*next]) {
                    Ok(sent) => self.ahead += sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            timer.as_mut().reset(Instant::now() + TICK);
        }
        Ok(())
    }

    /// How much of the head of an answer that begins with `head` need not be written any more.
    pub(super) fn take_ahead(&mut self, head: &[u8]) -> io::Result<usize> {
        let ahead = std::mem::take(&mut self.ahead).min(head.len());
        if head.get(..ahead) != PREFIX.get(..ahead) {
            return Err(io::Error::other("an answer began in an unknown way"));
        }
        Ok(ahead)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Watches until that many bytes are sent ahead, or the client is known to have left.
    async fn until(watch: &mut Watch, stream: &TcpStream, ahead: usize) -> io::Result<()> {
        poll_fn(|cx| match watch.poll(stream, cx) {
            Ok(()) if watch.ahead < ahead => Poll::Pending,
            result => Poll::Ready(result),
        })
        .await
    }

    #[tokio::test]
    async fn whoever_closes_one_side_is_sent_the_answer_in_parts() {
        let (mut client, stream) = pair().await;
        let mut watch = Watch::default();
        client.shutdown().await.unwrap();
        until(&mut watch, &stream, 2).await.unwrap();
        let answer = b"HTTP/1.1 200 OK";
        assert!(watch.take_ahead(b"HELLO").is_err());
        watch.ahead = 2;
        let ahead = watch.take_ahead(answer).unwrap();
        assert_eq!((ahead, watch.take_ahead(answer).unwrap()), (2, 0));
        stream.try_write(&answer[ahead..]).unwrap();
        drop(stream);
        let mut text = Vec::new();
        client.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, answer);
    }

    #[tokio::test]
    async fn whoever_closes_both_has_left() {
        let (client, stream) = pair().await;
        drop(client);
        assert!(until(&mut Watch::default(), &stream, usize::MAX).await.is_err());
    }
}

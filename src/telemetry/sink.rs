//! Output that never holds up who writes it.
//!
//! Whoever reads a log may go away, take nothing, or be a disk that is full. A
//! line is copied into a bounded buffer, a thread of its own writes the buffer
//! out, and lines that there is no room for, or that cannot be written, are
//! counted instead. Not `tracing-appender`: it counts no line that could not be
//! written, and where its thread hangs it prints, which hangs as well.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of lines that may wait to be written.
const ROOM: usize = 1 << 20;
/// Until a descriptor that takes nothing at the moment is tried again.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    written: Condvar,
}

/// Lines on their way out. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

impl Shared {
    /// What it protects is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Starts the thread that writes. The descriptor is a copy of its own: the standard
    /// library's handle is locked while it is written to, and the thread may hang there.
    pub(super) fn start(name: &str, mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let sink = Self(Arc::clone(&shared));
        thread::Builder::new().name(name.to_owned()).spawn(move || write_all(&shared, &mut out))?;
        Ok(sink)
    }

    /// Takes one or more whole lines, or counts them as lost.
    pub(super) fn send(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if state.waiting.len() + lines.len() > ROOM {
            state.lost += count(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        if !state.is_writing {
            self.0.arrived.notify_one();
        }
    }

    /// Waits until all is written, for so long at most.
    pub(super) fn flush(&self, at_most: Duration) {
        let unwritten = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.0.written.wait_timeout_while(self.0.lock(), at_most, unwritten));
    }

    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

/// For the log, which writes whole lines.
impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Writes whatever comes, for as long as the process lives.
fn write_all(shared: &Shared, out: &mut impl Write) {
    let mut taken = Vec::new();
    loop {
        let idle = |state: &mut State| state.waiting.is_empty();
        let state = shared.arrived.wait_while(shared.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, &mut taken);
        state.is_writing = true;
        drop(state);
        let lost = count(write(out, &taken));
        taken.clear();
        let mut state = shared.lock();
        state.is_writing = false;
        state.lost += lost;
        shared.written.notify_all();
    }
}

/// Gives what could not be written.
fn write<'a>(out: &mut impl Write, mut rest: &'a [u8]) -> &'a [u8] {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A descriptor that its other holders made non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(AGAIN),
            Err(_) => break,
        }
    }
    rest
}

/// A copy of a standard stream's descriptor.
pub(super) fn copy(stream: impl std::os::fd::AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Says when it is written to, and takes nothing until it is told to.
    struct Stuck(SyncSender<Vec<u8>>, Receiver<io::Result<usize>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            self.1.recv().unwrap_or(Ok(0))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck() -> (Sink, Receiver<Vec<u8>>, SyncSender<io::Result<usize>>) {
        let ((seen, look), (go, wait)) = (sync_channel(0), sync_channel(8));
        (Sink::start("test", Stuck(seen, wait)).unwrap(), look, go)
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_nobody_waits() {
        let (sink, look, go) = stuck();
        sink.send(b"first\n");
        assert_eq!(look.recv().unwrap(), b"first\n");
        // The writer hangs; a MiB still has room.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..1024 {
            sink.send(&line);
        }
        assert_eq!(sink.lost(), 0);
        sink.send(b"one\ntwo\n");
        sink.flush(Duration::from_millis(1));
        assert_eq!(sink.lost(), 2);
        // Once the reader reads, all that waited comes, and new lines have room.
        go.send(Ok(6)).unwrap();
        assert_eq!(look.recv().unwrap().len(), 1 << 20);
        sink.send(b"last\n");
        go.send(Ok(1 << 20)).unwrap();
        assert_eq!(look.recv().unwrap(), b"last\n");
        go.send(Ok(5)).unwrap();
        sink.flush(LONG);
        assert_eq!(sink.lost(), 2);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_tried() {
        let (sink, look, go) = stuck();
        sink.send(b"a\nb\nc\n");
        assert_eq!(look.recv().unwrap(), b"a\nb\nc\n");
        go.send(Ok(2)).unwrap();
        assert_eq!(look.recv().unwrap(), b"b\nc\n");
        go.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        sink.flush(LONG);
        assert_eq!(sink.lost(), 2);
        sink.send(b"d\n");
        for again in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
            assert_eq!(look.recv().unwrap(), b"d\n");
            go.send(Err(again.into())).unwrap();
        }
        assert_eq!(look.recv().unwrap(), b"d\n");
        go.send(Ok(2)).unwrap();
        sink.flush(LONG);
        assert_eq!(sink.lost(), 2);
    }
}

//! Where work runs: long work and short work on threads of their own.
//!
//! A thread of a pool that has parts of one long job left takes up no other
//! work, so that whatever came beside it would wait for its end. So there are
//! two pools of as many threads. What is known to be short runs in one of
//! them, everything else in the other, and the system shares the processors
//! out between them: work of some milliseconds is done next, however long the
//! work of others takes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use quantd_kernels::{BufferPool, Isa, WorkSlots};

/// How long work is, which decides in which of the pools it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Work that ends within `SHORT` seconds of one thread, by its estimate.
    Short,
    /// All other work.
    Long,
}

/// Time of one thread that short work may take, in seconds. Estimates are low, and up to
/// as many requests as there are slots run at once: what waits behind them is to have its answer
/// within a tenth of a second.
pub(super) const SHORT: f64 = 0.002;

impl Length {
    /// Bytes of a body up to which work is begun among the short: should it be long, the body is decoded
    /// twice, and that must take no time that counts.
    const SMALL: usize = 256 << 10;

    /// Where work with a body of so many bytes is begun.
    pub(super) const fn of_body(bytes: usize) -> Self {
        if bytes <= Self::SMALL { Self::Short } else { Self::Long }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "compute",
        }
    }
}

/// Threads, and as many slots. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    threads: Arc<rayon::ThreadPool>,
    slots: Arc<Semaphore>,
}

/// The right to keep one thread of a pool busy; given back when dropped.
pub(super) struct Slot {
    _held: OwnedSemaphorePermit,
}

impl Pool {
    /// Starts the threads, which use that instruction set and whose large buffers come from `buffers`.
    pub(super) fn new(
        length: Length,
        (threads, isa): (usize, Isa),
        buffers: &BufferPool,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let (buffers, slots) = (buffers.clone(), WorkSlots::new());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |i| format!("quantd-{}-{i}", length.name()))
            .start_handler(move |_| {
                buffers.enter();
                slots.enter();
                isa.prepare_thread();
            })
            .build()?;
        Ok(Self { threads: Arc::new(pool), slots: Arc::new(Semaphore::new(threads)) })
    }

    /// Runs `work` here and waits for it.
    pub(super) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// A slot, if one is free and nobody waits for it.
    pub(super) fn try_slot(&self) -> Option<Slot> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(|held| Slot { _held: held })
    }

    /// Waits for a slot.
    pub(super) async fn slot(&self) -> Option<Slot> {
        Arc::clone(&self.slots).acquire_owned().await.ok().map(|held| Slot { _held: held })
    }

    /// Runs work that holds a slot.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.threads.spawn(work);
    }
}

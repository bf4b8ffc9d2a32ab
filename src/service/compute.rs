//! The pool that all tensor work runs on.
//!
//! Work that was admitted ([`super::admission`]) waits for one of as many slots
//! as there are threads. That wait is bounded in number and in time like the
//! one for bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::api::error::{Error, Kind};
use crate::quant::Cancel;
use crate::telemetry;
use crate::tensor::stock;

use super::admission::{Admission, Permit, Queue, Waiting, overloaded};

/// Memory that was given back is kept for the next request for this long, and for at most twice as long.
const IDLE: Duration = Duration::from_secs(1);

/// Bounds of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that compute.
    pub threads: usize,
    /// Bytes of bodies, tensors and answers held at once.
    pub max_inflight_bytes: usize,
    /// Requests that wait for bytes or for a thread.
    pub max_queue: usize,
    /// Longest such wait.
    pub max_queue_wait: Duration,
}

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compute {
    pool: Arc<rayon::ThreadPool>,
    slots: Arc<Semaphore>,
    admission: Admission,
    queue: Queue,
    settings: Settings,
}

/// The right to keep one thread of the pool busy; given back when dropped.
pub(super) struct Slot {
    _held: OwnedSemaphorePermit,
}

/// Sets the flag when the future that waits for the work is dropped, as it is
/// when the client disconnects.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Compute {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(settings: Settings) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads)
            .thread_name(|i| format!("quantd-compute-{i}"))
            .build()?;
        let queue = Queue::new(settings.max_queue, settings.max_queue_wait);
        Ok(Self {
            pool: Arc::new(pool),
            slots: Arc::new(Semaphore::new(settings.threads)),
            admission: Admission::new(settings.max_inflight_bytes, queue.clone()),
            queue,
            settings,
        })
    }

    /// Runs `work` on the pool and waits for it, without a permit: for the start
    /// of the server, when nothing else runs.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The bounds.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Bytes in use.
    #[must_use]
    pub fn inflight_bytes(&self) -> usize {
        self.admission.inflight_bytes()
    }

    /// Gives memory back that no request has used for a while; never ends.
    pub async fn tend(&self) -> ! {
        let mut interval = tokio::time::interval(IDLE);
        loop {
            interval.tick().await;
            self.admission.leave_room();
            stock::release_idle();
        }
    }

    /// A slot, if one is free and nobody waits for it.
    pub(super) fn try_slot(&self) -> Option<Slot> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(|held| Slot { _held: held })
    }

    /// Waits for a slot.
    pub(super) async fn slot(&self) -> Result<Slot, Error> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        let slot = tokio::time::timeout(self.settings.max_queue_wait, slot).await;
        slot.ok()
            .and_then(Result::ok)
            .map(|held| Slot { _held: held })
            .ok_or_else(|| overloaded("deadline"))
    }

    /// Runs work that holds a slot.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.pool.spawn(work);
    }

    /// Counts a waiting request, unless there are too many.
    pub(super) fn wait(&self) -> Result<Waiting, Error> {
        self.queue.wait()
    }

    /// Waits for the right to hold `bytes`.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when it could never be had, [`Kind::Overloaded`]
    /// when too many wait already or it takes too long.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, Error> {
        self.admission.admit(bytes).await
    }

    /// Waits for the right to hold `bytes` in all.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub async fn raise(&self, permit: &mut Permit, bytes: usize) -> Result<(), Error> {
        self.admission.raise(permit, bytes).await
    }

    /// Refuses what could never be admitted.
    ///
    /// # Errors
    /// [`Kind::TooLarge`].
    pub fn check(&self, bytes: usize) -> Result<(), Error> {
        self.admission.check(bytes)
    }

    /// Runs `work` on the pool and gives its result and the permit back. The
    /// work is told to stop when the returned future is dropped; a panic in it
    /// becomes an error of this request only.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when no thread is free in time, [`Kind::Internal`]
    /// when the work panics, and the errors of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        mut permit: Permit,
        work: impl FnOnce(&Cancel, &mut Permit) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Permit), Error> {
        let queued = Instant::now();
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                let _waiting = self.queue.wait()?;
                let slot = Arc::clone(&self.slots).acquire_owned();
                // The body may have taken longer to arrive than the wait for its bytes was allowed.
                let deadline = Instant::now() + self.settings.max_queue_wait;
                let slot = tokio::time::timeout_at(deadline.max(permit.deadline), slot).await;
                slot.map_err(|_| overloaded("deadline"))?
                    .map_err(|_| Error::new(Kind::Draining, "the server is stopping"))?
            }
        };
        telemetry::queue_wait(queued.elapsed());
        let cancel = Cancel::default();
        let guard = CancelOnDrop(cancel.clone());
        let (send, receive) = oneshot::channel();
        self.pool.spawn(move || {
            let _slot = slot;
            let result = catch_unwind(AssertUnwindSafe(|| work(&cancel, &mut permit)));
            if cancel.is_cancelled() {
                telemetry::cancelled();
            }
            let result = result.unwrap_or_else(|_| {
                Err(Error::new(Kind::Internal, "the request met a defect of the server"))
            });
            // Nobody listens any more when the client has gone; the permit goes with the result.
            drop(send.send(result.map(|value| (value, permit))));
        });
        let result = receive.await;
        drop(guard);
        result.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the work was lost")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(max_queue: usize) -> Compute {
        Compute::new(Settings {
            threads: 1,
            max_inflight_bytes: 16 << 20,
            max_queue,
            max_queue_wait: Duration::from_millis(20),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_panic_stays_in_its_request() {
        let compute = compute(4);
        let permit = compute.admit(1).await.unwrap();
        let result = compute.run::<()>(permit, |_, _| panic!("a test")).await;
        assert_eq!(result.unwrap_err().kind, Kind::Internal);
        assert_eq!(compute.inflight_bytes(), 0);
        let permit = compute.admit(1).await.unwrap();
        assert_eq!(compute.run(permit, |_, _| Ok(7)).await.unwrap().0, 7);
    }

    #[tokio::test]
    async fn dropping_the_future_cancels_the_work() {
        let compute = compute(4);
        let permit = compute.admit(1).await.unwrap();
        let (started, wait_started) = oneshot::channel();
        let (stopped, wait_stopped) = oneshot::channel();
        let pool = compute.clone();
        let task = tokio::spawn(async move {
            let work = |cancel: &Cancel, _: &mut Permit| {
                started.send(()).unwrap();
                while !cancel.is_cancelled() {
                    std::thread::yield_now();
                }
                stopped.send(()).unwrap();
                Ok(())
            };
            pool.run(permit, work).await
        });
        wait_started.await.unwrap();
        task.abort();
        wait_stopped.await.unwrap();
        // The slot is free again for the next request.
        let permit = compute.admit(1).await.unwrap();
        assert!(compute.run(permit, |_, _| Ok(())).await.is_ok());
    }
}

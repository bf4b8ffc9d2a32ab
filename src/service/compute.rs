//! Admission by bytes and the pool that all tensor work runs on.
//!
//! Memory is what runs out first when tensors arrive, so a request asks for
//! its bytes before its body is read and keeps them, as a [`Permit`], until
//! its answer is written. Work that holds a permit waits for one of as many
//! slots as there are threads. Both waits are bounded in number and in time;
//! what does not fit is refused at once, so that a queue never hides overload.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::api::error::{Error, Kind};
use crate::codec::{CodecError, Reason};
use crate::quant::Cancel;
use crate::telemetry;
use crate::tensor::stock;

/// Semaphores count in KiB: tokio's hold 32 bits.
const UNIT: usize = 1024;
/// Requests up to this size may use the share that larger ones may not.
const SMALL: usize = 4 << 20;
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
    bytes: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    settings: Settings,
}

/// The right to hold so many bytes; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    bytes: Arc<Semaphore>,
    large_bytes: Arc<Semaphore>,
    /// Units that a large request may hold.
    most: u32,
    held: Option<OwnedSemaphorePermit>,
    held_large: Option<OwnedSemaphorePermit>,
    deadline: Instant,
}

/// Counts one waiting request for as long as it lives.
pub(super) struct Waiting(Arc<AtomicUsize>);

/// The right to keep one thread of the pool busy; given back when dropped.
pub(super) struct Slot {
    _held: OwnedSemaphorePermit,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        telemetry::queue_depth(-1.0);
    }
}

/// Sets the flag when the future that waits for the work is dropped, as it is
/// when the client disconnects.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

const NEVER: &str = "the request needs more memory than the server may use";
const SMALLER: &str =
    "send smaller tensors, choose a coarser granularity, or raise --max-inflight-bytes";

fn overloaded(reason: &'static str) -> Error {
    telemetry::rejected(reason);
    Error::new(Kind::Overloaded, "the server has no room for the request at the moment")
        .cure("try again after the time that Retry-After gives")
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

/// What is kept for later requests and what requests hold are together no more than all may hold.
fn leave_room(bytes: &Semaphore) {
    stock::allow(|| bytes.available_permits() * UNIT);
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
        let total = units(settings.max_inflight_bytes) as usize;
        telemetry::inflight_limit(settings.max_inflight_bytes);
        Ok(Self {
            pool: Arc::new(pool),
            slots: Arc::new(Semaphore::new(settings.threads)),
            bytes: Arc::new(Semaphore::new(total)),
            // An eighth stays free for small requests while large ones queue.
            large: Arc::new(Semaphore::new(total - total / 8)),
            waiting: Arc::new(AtomicUsize::new(0)),
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
        let total = units(self.settings.max_inflight_bytes) as usize;
        total.saturating_sub(self.bytes.available_permits()) * UNIT
    }

    /// Gives memory back that no request has used for a while; never ends.
    pub async fn tend(&self) -> ! {
        let mut interval = tokio::time::interval(IDLE);
        loop {
            interval.tick().await;
            leave_room(&self.bytes);
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
        let waiting = Waiting(Arc::clone(&self.waiting));
        telemetry::queue_depth(1.0);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.settings.max_queue {
            return Err(overloaded("queue_full"));
        }
        Ok(waiting)
    }

    /// Waits for the right to hold `bytes`.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when it could never be had, [`Kind::Overloaded`]
    /// when too many wait already or it takes too long.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, Error> {
        let is_large = bytes > SMALL;
        let total = units(self.settings.max_inflight_bytes) as usize;
        let bound = if is_large { total - total / 8 } else { total };
        if units(bytes) as usize > bound {
            return Err(Error::new(Kind::TooLarge, NEVER).cure(SMALLER));
        }
        let deadline = Instant::now() + self.settings.max_queue_wait;
        let mut permit = Permit {
            bytes: Arc::clone(&self.bytes),
            large_bytes: Arc::clone(&self.large),
            most: u32::try_from(total - total / 8).unwrap_or(u32::MAX),
            held: None,
            held_large: None,
            deadline,
        };
        if permit.try_hold(bytes).is_ok() {
            return Ok(permit);
        }
        let _waiting = self.wait()?;
        let acquire = async {
            if is_large {
                permit.held_large =
                    Arc::clone(&self.large).acquire_many_owned(units(bytes)).await.ok();
            }
            permit.held = Arc::clone(&self.bytes).acquire_many_owned(units(bytes)).await.ok();
            leave_room(&self.bytes);
            permit
        };
        tokio::time::timeout_at(deadline, acquire).await.map_err(|_| overloaded("bytes"))
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
                let _waiting = self.wait()?;
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

impl Permit {
    fn held_units(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX))
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_units() as usize * UNIT
    }

    /// Holds `bytes` in all, or as many as before when there are not enough.
    fn try_hold(&mut self, bytes: usize) -> Result<(), ()> {
        let more = units(bytes).saturating_sub(self.held_units());
        let held = Arc::clone(&self.bytes).try_acquire_many_owned(more).map_err(drop)?;
        if bytes > SMALL {
            let own = self.held_large.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = units(bytes).saturating_sub(u32::try_from(own).unwrap_or(u32::MAX));
            let large = Arc::clone(&self.large_bytes).try_acquire_many_owned(more).map_err(drop)?;
            join(&mut self.held_large, large);
        }
        join(&mut self.held, held);
        leave_room(&self.bytes);
        Ok(())
    }

    /// Asks for `bytes` in all. Never waits: whoever waits while holding bytes
    /// could wait for another who does the same.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when there are not enough.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if units(bytes) <= self.held_units() {
            return Ok(());
        }
        self.try_hold(bytes).map_err(|()| overloaded("bytes"))
    }

    /// Asks for `bytes` more than are held, in the terms of a codec.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] when they could never be had, [`Reason::NoRoom`]
    /// when there are not enough at the moment.
    pub fn grow_by(&mut self, bytes: usize) -> Result<(), CodecError> {
        if units(self.held_bytes().saturating_add(bytes)) > self.most {
            return Err(CodecError::too_large(NEVER).cure(SMALLER));
        }
        self.try_hold(self.held_bytes().saturating_add(bytes)).map_err(|()| {
            let Error { detail, cure, .. } = overloaded("bytes");
            CodecError::new(Reason::NoRoom, detail).cure(cure)
        })
    }

    /// Holds what `other` held as well.
    pub(super) fn merge(&mut self, mut other: Self) {
        let own = [&mut self.held, &mut self.held_large];
        for (own, other) in own.into_iter().zip([other.held.take(), other.held_large.take()]) {
            if let Some(other) = other {
                join(own, other);
            }
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        for held in [&mut self.held, &mut self.held_large].into_iter().flatten() {
            let excess = held.num_permits().saturating_sub(units(bytes) as usize);
            drop(held.split(excess));
        }
    }
}

fn join(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
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
    async fn bytes_are_held_and_given_back() {
        let compute = compute(4);
        let mut permit = compute.admit(10 << 20).await.unwrap();
        assert_eq!(compute.inflight_bytes(), 10 << 20);
        // Large requests may not take the last eighth, small ones may.
        assert_eq!(compute.admit(5 << 20).await.unwrap_err().kind, Kind::Overloaded);
        let small = compute.admit(4 << 20).await.unwrap();
        assert!(permit.grow(15 << 20).is_err());
        permit.shrink(1 << 20);
        assert_eq!(compute.inflight_bytes(), 5 << 20);
        assert!(permit.grow(9 << 20).is_ok());
        drop((permit, small));
        assert_eq!(compute.inflight_bytes(), 0);
        assert_eq!(compute.admit(15 << 20).await.unwrap_err().kind, Kind::TooLarge);
        assert_eq!(compute.admit(17 << 20).await.unwrap_err().kind, Kind::TooLarge);
    }

    #[tokio::test]
    async fn a_permit_takes_over_what_another_holds() {
        let compute = compute(4);
        let mut permit = compute.admit(5 << 20).await.unwrap();
        permit.merge(compute.admit(1 << 20).await.unwrap());
        permit.merge(compute.admit(6 << 20).await.unwrap());
        assert_eq!(permit.held_bytes(), 12 << 20);
        assert_eq!(compute.inflight_bytes(), 12 << 20);
        // Of what large requests may hold, 11 MiB of 14 are taken.
        assert!(compute.admit(4 << 20).await.is_ok());
        permit.shrink(2 << 20);
        assert_eq!(compute.inflight_bytes(), 2 << 20);
        drop(permit);
        assert_eq!(compute.inflight_bytes(), 0);
        assert!(compute.admit(14 << 20).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_is_an_answer() {
        let compute = compute(0);
        let _held = compute.admit(14 << 20).await.unwrap();
        let error = compute.admit(3 << 20).await.unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded);
        assert_eq!(compute.waiting.load(Ordering::Relaxed), 0);
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

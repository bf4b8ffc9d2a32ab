//! Admission by bytes.
//!
//! Memory is what runs out first when tensors arrive, so a request asks for
//! its bytes before its body is read and keeps them, as a [`Permit`], until
//! its answer is written. The wait is bounded in number and in time; what does
//! not fit is refused at once, so that a queue never hides overload.
//!
//! Nothing is held for what may never come: a body is admitted when its first
//! bytes are here, for as much as a small one needs, and as a whole when it turns
//! out to be longer. Not step by step: uploads that wait for one another, each
//! with half of its bytes, would all fail. Who waits for the whole holds next to
//! nothing, and who holds the whole waits for no bytes any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::error::{Error, Kind};
use crate::telemetry;
use quantd_codec::{CodecError, Reason};
use quantd_kernels::{Buffer, BufferPool};

/// Semaphores count in KiB: tokio's hold 32 bits.
const UNIT: usize = 1024;
/// Requests up to this size may use the share that larger ones may not. Those that were admitted for their first
/// bytes are smaller.
const SMALL: usize = 256 << 10;

const NEVER: &str = "the request needs more memory than the server may use";
const SMALLER: &str =
    "send smaller tensors, choose a coarser granularity, or raise --max-inflight-bytes";

pub(crate) fn overloaded(reason: &'static str) -> Error {
    telemetry::rejected(reason);
    Error::new(Kind::Overloaded, "the server has no room for the request at the moment")
        .cure("try again after the time that Retry-After gives")
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

/// What is kept for later requests and what requests hold are together no more than all may hold.
fn leave_room(buffers: &BufferPool, bytes: &Semaphore) {
    buffers.set_limit(|| bytes.available_permits() * UNIT);
}

/// Requests that wait, for bytes or for a thread: not too many, and none for too long. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    waiting: Arc<AtomicUsize>,
    most: usize,
    /// Longest wait.
    pub(in crate::service) patience: Duration,
}

/// Counts one waiting request for as long as it lives.
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        telemetry::queue_depth(-1.0);
    }
}

impl Queue {
    /// Of at most `most` requests, each for no longer than `patience`.
    pub(in crate::service) fn new(most: usize, patience: Duration) -> Self {
        Self { waiting: Arc::default(), most, patience }
    }

    /// Counts a waiting request, unless there are too many.
    pub(in crate::service) fn wait(&self) -> Result<Waiting, Error> {
        let waiting = Waiting(Arc::clone(&self.waiting));
        telemetry::queue_depth(1.0);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            return Err(overloaded("queue_full"));
        }
        Ok(waiting)
    }
}

/// The bytes that requests may hold. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    bytes: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// All units there are.
    total: usize,
    queue: Queue,
    /// What is kept beside what requests hold.
    buffers: BufferPool,
}

/// The right to hold so many bytes; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    bytes: Arc<Semaphore>,
    large_bytes: Arc<Semaphore>,
    buffers: BufferPool,
    /// Units that a large request may hold.
    most: u32,
    held: Option<OwnedSemaphorePermit>,
    held_large: Option<OwnedSemaphorePermit>,
    /// When the wait for its bytes would have ended.
    pub(in crate::service) deadline: Instant,
}

impl Admission {
    /// Of `bytes` in all, those that are kept in `buffers` among them.
    pub(in crate::service) fn new(bytes: usize, queue: Queue, buffers: BufferPool) -> Self {
        let total = units(bytes) as usize;
        telemetry::inflight_limit(bytes);
        Self {
            bytes: Arc::new(Semaphore::new(total)),
            // An eighth stays free for small requests while large ones queue.
            large: Arc::new(Semaphore::new(total - total / 8)),
            total,
            queue,
            buffers,
        }
    }

    /// Bytes in use.
    pub(in crate::service) fn inflight_bytes(&self) -> usize {
        self.total.saturating_sub(self.bytes.available_permits()) * UNIT
    }

    /// Gives back what is kept for later requests and was not asked for since the last call.
    pub(in crate::service) fn release_idle(&self) {
        leave_room(&self.buffers, &self.bytes);
        self.buffers.release_idle();
    }

    /// Refuses what could never be held.
    ///
    /// # Errors
    /// [`Kind::TooLarge`].
    pub(in crate::service) fn check(&self, bytes: usize) -> Result<(), Error> {
        let bound = if bytes > SMALL { self.most() } else { self.total };
        if units(bytes) as usize > bound {
            return Err(Error::new(Kind::TooLarge, NEVER).cure(SMALLER));
        }
        Ok(())
    }

    /// Units that large requests may hold.
    const fn most(&self) -> usize {
        self.total - self.total / 8
    }

    /// Waits for the right to hold `bytes`.
    ///
    /// # Errors
    /// As [`raise`](Self::raise).
    pub(in crate::service) async fn admit(&self, bytes: usize) -> Result<Permit, Error> {
        let mut permit = Permit {
            bytes: Arc::clone(&self.bytes),
            large_bytes: Arc::clone(&self.large),
            buffers: self.buffers.clone(),
            most: u32::try_from(self.most()).unwrap_or(u32::MAX),
            held: None,
            held_large: None,
            deadline: Instant::now(),
        };
        self.raise(&mut permit, bytes).await?;
        Ok(permit)
    }

    /// Waits for the right to hold `bytes` in all.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when it could never be had, [`Kind::Overloaded`]
    /// when too many wait already or it takes too long.
    pub(in crate::service) async fn raise(
        &self,
        permit: &mut Permit,
        bytes: usize,
    ) -> Result<(), Error> {
        self.check(bytes)?;
        permit.deadline = Instant::now() + self.queue.patience;
        if permit.try_hold(bytes).is_ok() {
            return Ok(());
        }
        let _waiting = self.queue.wait()?;
        let [large, more] = permit.missing(bytes);
        let acquire = async {
            let large = Arc::clone(&self.large).acquire_many_owned(large).await.ok();
            (large, Arc::clone(&self.bytes).acquire_many_owned(more).await.ok())
        };
        let acquired = tokio::time::timeout_at(permit.deadline, acquire).await;
        let (large, more) = acquired.map_err(|_| overloaded("bytes"))?;
        if let Some(large) = large {
            join(&mut permit.held_large, large);
        }
        if let Some(more) = more {
            join(&mut permit.held, more);
        }
        leave_room(&self.buffers, &self.bytes);
        Ok(())
    }
}

impl Permit {
    /// An empty buffer for `capacity` of the bytes that are held.
    #[must_use]
    pub fn buffer(&self, capacity: usize) -> Buffer {
        Buffer::with_capacity_in(capacity, &self.buffers)
    }

    fn held_units(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX))
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_units() as usize * UNIT
    }

    /// Units of those for large requests, and of all, that are missing to hold `bytes`.
    fn missing(&self, bytes: usize) -> [u32; 2] {
        let own = self.held_large.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        let large = if bytes > SMALL { units(bytes).saturating_sub(own) } else { 0 };
        [large, units(bytes).saturating_sub(self.held_units())]
    }

    /// Holds `bytes` in all, or as many as before when there are not enough.
    fn try_hold(&mut self, bytes: usize) -> Result<(), ()> {
        let [large, more] = self.missing(bytes);
        let more = Arc::clone(&self.bytes).try_acquire_many_owned(more).map_err(drop)?;
        let large = Arc::clone(&self.large_bytes).try_acquire_many_owned(large).map_err(drop)?;
        join(&mut self.held_large, large);
        join(&mut self.held, more);
        leave_room(&self.buffers, &self.bytes);
        Ok(())
    }

    /// Asks for `bytes` more than are held, in the terms of a codec. Never waits: whoever waits while holding bytes
    /// could wait for another who does the same.
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
    pub(in crate::service) fn merge(&mut self, mut other: Self) {
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

    fn admission(max_queue: usize) -> Admission {
        Admission::new(
            16 << 20,
            Queue::new(max_queue, Duration::from_millis(20)),
            BufferPool::default(),
        )
    }

    #[tokio::test]
    async fn bytes_are_held_and_given_back() {
        let admission = admission(4);
        let mut permit = admission.admit(10 << 20).await.unwrap();
        assert_eq!(admission.inflight_bytes(), 10 << 20);
        // Large requests may not take the last eighth, small ones may.
        assert_eq!(admission.admit(5 << 20).await.unwrap_err().kind, Kind::Overloaded);
        let large = admission.admit(4 << 20).await.unwrap();
        assert_eq!(admission.admit(SMALL + 1).await.unwrap_err().kind, Kind::Overloaded);
        let small = admission.admit(SMALL).await.unwrap();
        assert_eq!(permit.grow_by(1 << 20).unwrap_err().reason, Reason::NoRoom);
        assert_eq!(permit.grow_by(5 << 20).unwrap_err().reason, Reason::TooLarge);
        permit.shrink(1 << 20);
        assert_eq!(admission.inflight_bytes(), (5 << 20) + SMALL);
        assert!(permit.grow_by(8 << 20).is_ok());
        drop((permit, large, small));
        assert_eq!(admission.inflight_bytes(), 0);
        assert_eq!(admission.admit(15 << 20).await.unwrap_err().kind, Kind::TooLarge);
        assert_eq!(admission.admit(17 << 20).await.unwrap_err().kind, Kind::TooLarge);
    }

    #[tokio::test]
    async fn a_permit_takes_over_what_another_holds() {
        let admission = admission(4);
        let mut permit = admission.admit(5 << 20).await.unwrap();
        permit.merge(admission.admit(1 << 20).await.unwrap());
        permit.merge(admission.admit(6 << 20).await.unwrap());
        assert_eq!(permit.held_bytes(), 12 << 20);
        assert_eq!(admission.inflight_bytes(), 12 << 20);
        // Of what large requests may hold, 12 MiB of 14 are taken.
        assert!(admission.admit(3 << 20).await.is_err());
        assert!(admission.admit(2 << 20).await.is_ok());
        permit.shrink(2 << 20);
        assert_eq!(admission.inflight_bytes(), 2 << 20);
        drop(permit);
        assert_eq!(admission.inflight_bytes(), 0);
        assert!(admission.admit(14 << 20).await.is_ok());
    }

    #[tokio::test]
    async fn a_permit_is_raised_once_there_is_room() {
        let admission =
            Admission::new(16 << 20, Queue::new(4, Duration::from_secs(60)), BufferPool::default());
        let mut first = admission.admit(1 << 10).await.unwrap();
        let other = admission.admit(8 << 20).await.unwrap();
        let raised = admission.raise(&mut first, 10 << 20);
        let (raised, ()) = tokio::join!(raised, async { drop(other) });
        assert_eq!(raised.map_err(|error| error.kind), Ok(()));
        assert_eq!(first.held_bytes(), 10 << 20);
        assert_eq!(admission.raise(&mut first, 15 << 20).await.unwrap_err().kind, Kind::TooLarge);
        assert_eq!(admission.inflight_bytes(), 10 << 20);
        drop(first);
        // Nothing is lost of those for large requests either.
        assert!(admission.admit(14 << 20).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_is_an_answer() {
        let admission = admission(0);
        let _held = admission.admit(14 << 20).await.unwrap();
        let error = admission.admit(3 << 20).await.unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded);
        assert_eq!(admission.queue.waiting.load(Ordering::Relaxed), 0);
    }
}

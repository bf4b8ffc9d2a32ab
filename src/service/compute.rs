//! The pools that all tensor work runs on.
//!
//! Work that was admitted ([`super::admission`]) waits for one of as many slots
//! as its pool (`pools`) has threads. That wait is bounded in number and
//! in time like the one for bytes, and so is the time that the work may take: it
//! is told to stop when that is over, or when nobody waits for it any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::api::effort::Effort;
use crate::api::error::{Error, Kind};
use crate::telemetry;
use quantd_core::Task;
use quantd_kernels::heap;
use quantd_kernels::{BufferPool, Isa};

use super::admission::{Admission, Permit, Queue, Waiting, overloaded};
use super::pools::{Pool, SHORT, Slot};

pub use super::pools::Length;

/// Memory that was given back is kept for the next request for this long, and for at most twice as long.
const IDLE: Duration = Duration::from_secs(1);
/// What is too small to be counted there is kept for less: long enough for the next of many small requests.
const HEAP_IDLE: Duration = Duration::from_millis(20);

/// Bounds of the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads of each pool.
    pub threads: usize,
    /// Bytes of bodies, tensors and answers held at once.
    pub max_inflight_bytes: usize,
    /// Requests that wait for bytes or for a thread.
    pub max_queue: usize,
    /// Longest such wait.
    pub max_queue_wait: Duration,
    /// Longest time that work may take.
    pub max_compute: Option<Duration>,
}

/// The pools. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compute {
    short: Pool,
    long: Pool,
    admission: Admission,
    queue: Queue,
    settings: Settings,
}

/// Work with all that it holds, for whoever takes it first: a thread, to do it, or
/// who waits for it, to let it go.
#[derive(Clone)]
struct Job(Arc<Mutex<Option<Work>>>);

type Work = Box<dyn FnOnce() + Send>;

impl Job {
    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Ends the work when the future that waits for it is dropped, as it is when the
/// client disconnects.
struct CancelOnDrop(Task, Job);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
        if self.1.take().is_some() {
            telemetry::cancelled();
        }
    }
}

/// The error of a request that the server failed on.
pub(super) fn defect() -> Error {
    Error::new(Kind::Internal, "the server failed on the request")
}

/// Does work; a panic in it is an error of its request only.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What the work holds goes with it: nobody sees it half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(defect()))
}

impl Compute {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(settings: Settings) -> Result<Self, rayon::ThreadPoolBuildError> {
        heap::give_back_after(HEAP_IDLE);
        let queue = Queue::new(settings.max_queue, settings.max_queue_wait);
        let (buffers, threads) = (BufferPool::default(), (settings.threads, settings.isa));
        Ok(Self {
            short: Pool::new(Length::Short, threads, &buffers)?,
            long: Pool::new(Length::Long, threads, &buffers)?,
            admission: Admission::new(settings.max_inflight_bytes, queue.clone(), buffers),
            queue,
            settings,
        })
    }

    /// Runs `work` on the threads of long work and waits for it, without a permit: for the start
    /// of the server, when nothing else runs.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.long.install(work)
    }

    /// The bounds.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A computation with its instruction set.
    #[must_use]
    pub fn task(&self) -> Task {
        Task::new(self.settings.isa)
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
            self.admission.release_idle();
        }
    }

    const fn pool(&self, length: Length) -> &Pool {
        match length {
            Length::Short => &self.short,
            Length::Long => &self.long,
        }
    }

    /// What work may cost in a pool.
    pub(super) fn effort(&self, length: Length) -> Effort {
        let allowed = self.settings.max_compute.map(|most| most.as_secs_f64());
        let effort = Effort::within(allowed, self.settings.threads);
        if length == Length::Short { effort.short(SHORT) } else { effort }
    }

    /// A slot, if one is free and nobody waits for it.
    pub(super) fn try_slot(&self, length: Length) -> Option<Slot> {
        self.pool(length).try_slot()
    }

    /// Waits for a slot.
    pub(super) async fn slot(&self, length: Length) -> Result<Slot, Error> {
        let slot = self.pool(length).slot();
        let slot = tokio::time::timeout(self.settings.max_queue_wait, slot).await;
        slot.ok().flatten().ok_or_else(|| overloaded("deadline"))
    }

    /// Runs work that holds a slot of that pool.
    pub(super) fn spawn(&self, length: Length, work: impl FnOnce() + Send + 'static) {
        self.pool(length).spawn(work);
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

    /// Runs `work` in a pool and gives its result and the permit back. The work is told to stop when
    /// the returned future is dropped, and when its time is over; what it makes nevertheless counts. A
    /// panic in it becomes an error of this request only.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when no thread is free in time, [`Kind::OutOfTime`] when the work did not
    /// end in time, [`Kind::Internal`] when it panics, and the errors of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        length: Length,
        mut permit: Permit,
        work: impl FnOnce(&Task, &mut Permit) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Permit), Error> {
        let queued = Instant::now();
        // The body may have taken longer to arrive than the wait for its bytes was allowed.
        let patience = permit.deadline.max(queued + self.settings.max_queue_wait);
        let slot = match self.try_slot(length) {
            Some(slot) => slot,
            None => {
                let _waiting = self.queue.wait()?;
                let slot = timeout_at(patience, self.pool(length).slot()).await;
                slot.map_err(|_| overloaded("deadline"))?
                    .ok_or_else(|| Error::new(Kind::Draining, "the server is stopping"))?
            }
        };
        let task = self.task();
        let (send, receive) = oneshot::channel();
        let own = task.clone();
        let job = move || {
            let _slot = slot;
            telemetry::queue_wait(queued.elapsed());
            let result = caught(|| work(&own, &mut permit));
            // Nobody listens any more when the client has gone; the permit goes with the result.
            if send.send(result.map(|value| (value, permit))).is_err() {
                telemetry::cancelled();
            }
        };
        let job = Job(Arc::new(Mutex::new(Some(Box::new(job)))));
        let _guard = CancelOnDrop(task.clone(), job.clone());
        let own_job = job.clone();
        self.spawn(length, move || {
            if let Some(job) = own_job.take() {
                job();
            }
        });
        self.wait_for(receive, patience, (&task, &job)).await
    }

    /// Waits for the result of work that has a slot. Work that has not begun when `patience` ends is
    /// not begun any more: threads that are busy with parts of other work do not look for new work.
    async fn wait_for<T>(
        &self,
        mut receive: oneshot::Receiver<Result<T, Error>>,
        patience: Instant,
        (task, job): (&Task, &Job),
    ) -> Result<T, Error> {
        let allowed = self.settings.max_compute;
        let end = allowed.map(|allowed| (Instant::now() + allowed, Moment::End));
        let mut moments: Vec<_> = end.into_iter().chain([(patience, Moment::Patience)]).collect();
        moments.sort_by_key(|(at, _)| *at);
        let mut received = None;
        for (at, moment) in moments {
            received = timeout_at(at, &mut receive).await.ok();
            match moment {
                _ if received.is_some() => break,
                Moment::Patience if job.take().is_some() => return Err(overloaded("deadline")),
                Moment::Patience => {}
                Moment::End => task.cancel(),
            }
        }
        let received = match received {
            Some(received) => received,
            None => receive.await,
        };
        let result =
            received.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the work was lost")));
        match allowed.filter(|_| task.is_cancelled()) {
            // Work that was stopped may find all kinds of fault with what it has made by then.
            Some(allowed) => result.map_err(|error| {
                if error.kind == Kind::TooMuchWork { error } else { out_of_time(allowed) }
            }),
            None => result,
        }
    }
}

/// When to look after work that was not done by then.
enum Moment {
    /// It should have begun.
    Patience,
    /// It has to stop.
    End,
}

fn out_of_time(allowed: Duration) -> Error {
    telemetry::out_of_time();
    let detail = format!("the work did not end within {} s and was stopped", allowed.as_secs_f64());
    Error::new(Kind::OutOfTime, detail).cure(
        "choose a coarser granularity or another range method, send less, or raise --max-compute-ms",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
        isa: Isa::best(),
        threads: 1,
        max_inflight_bytes: 16 << 20,
        max_queue: 4,
        max_queue_wait: Duration::from_secs(60),
        max_compute: None,
    });

    fn compute(max_queue: usize) -> Compute {
        Compute::new(Settings { max_queue, ..*SETTINGS }).unwrap()
    }

    #[tokio::test]
    async fn a_panic_stays_in_its_request() {
        let compute = compute(4);
        let permit = compute.admit(1).await.unwrap();
        let result = compute.run::<()>(Length::Long, permit, |_, _| panic!("a test")).await;
        assert_eq!(result.unwrap_err().kind, Kind::Internal);
        assert_eq!(compute.inflight_bytes(), 0);
        let permit = compute.admit(1).await.unwrap();
        assert_eq!(compute.run(Length::Long, permit, |_, _| Ok(7)).await.unwrap().0, 7);
    }

    #[tokio::test]
    async fn dropping_the_future_cancels_the_work() {
        let compute = compute(4);
        let permit = compute.admit(1).await.unwrap();
        let (started, wait_started) = oneshot::channel();
        let (stopped, wait_stopped) = oneshot::channel();
        let pool = compute.clone();
        let task = tokio::spawn(async move {
            let work = |task: &Task, _: &mut Permit| {
                started.send(()).unwrap();
                while !task.is_cancelled() {
                    std::thread::yield_now();
                }
                stopped.send(()).unwrap();
                Ok(())
            };
            pool.run(Length::Long, permit, work).await
        });
        wait_started.await.unwrap();
        task.abort();
        wait_stopped.await.unwrap();
        // The slot is free again for the next request.
        let permit = compute.admit(1).await.unwrap();
        assert!(compute.run(Length::Long, permit, |_, _| Ok(())).await.is_ok());
    }

    /// Work that goes on until it is told to stop.
    fn endless(task: &Task, _: &mut Permit) -> Result<(), Error> {
        while !task.is_cancelled() {
            std::thread::yield_now();
        }
        Err(Error::new(Kind::Internal, "cancelled"))
    }

    #[tokio::test]
    async fn work_that_takes_too_long_is_stopped() {
        let settings = Settings { max_compute: Some(Duration::from_millis(30)), ..*SETTINGS };
        let compute = Compute::new(settings).unwrap();
        for length in [Length::Short, Length::Long] {
            let permit = compute.admit(1).await.unwrap();
            let error = compute.run(length, permit, endless).await.unwrap_err();
            assert_eq!(error.kind, Kind::OutOfTime);
            assert!(error.detail.contains("0.03 s"), "{}", error.detail);
            assert_eq!(compute.inflight_bytes(), 0);
            // What was made nevertheless counts.
            let permit = compute.admit(1).await.unwrap();
            let made = compute.run(length, permit, |task, permit| {
                endless(task, permit).unwrap_err();
                Ok(7)
            });
            assert_eq!(made.await.unwrap().0, 7);
        }
    }

    /// A slot is no thread: the only one may be busy with parts of other work.
    #[tokio::test]
    async fn the_wait_for_a_thread_is_bounded() {
        let patience = Duration::from_millis(20);
        let compute = Compute::new(Settings { max_queue_wait: patience, ..*SETTINGS }).unwrap();
        let (release, released) = oneshot::channel::<()>();
        compute.spawn(Length::Long, move || assert!(released.blocking_recv().is_err()));
        let permit = compute.admit(1).await.unwrap();
        let refused = compute.run(Length::Long, permit, |_, _| Ok(())).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Overloaded);
        // Short work has threads of its own.
        let mut permit = compute.admit(1).await.unwrap();
        permit.deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(compute.run(Length::Short, permit, |_, _| Ok(7)).await.unwrap().0, 7);
        // What was refused holds nothing, though no thread has come to it yet.
        assert_eq!(compute.inflight_bytes(), 0);
        let permit = compute.admit(1).await.unwrap();
        let refused = compute.run(Length::Long, permit, |_, _| Ok(())).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Overloaded);
        drop(release);
    }
}

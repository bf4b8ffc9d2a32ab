//! Fork and join of work that takes microseconds.
//!
//! A product may take 50 microseconds, but a sleeping thread of a rayon pool takes 20 to join in.
//! So the threads of a pool that has [`WorkSlots`] stay awake for a moment when they have helped
//! once, and watch a slot where the next job is put with one store.

mod slots;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use slots::Slots;

/// What jobs and their threads are made of, in one place so that the same slots run under a
/// model checker as well (`tests/fork_join.rs`).
mod sync {
    pub(super) use std::hint::spin_loop;
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicPtr, AtomicUsize};

    /// Looks at a slot before its watcher goes back to sleep: some 50 microseconds.
    pub(super) const LOOKS: usize = 2000;
    /// Looks between two at the other work of the pool.
    pub(super) const LOOKS_BETWEEN: usize = 200;
    /// More helpers than this are not worth their waking for jobs of microseconds.
    pub(super) const MAX_HELPERS: usize = 64;

    /// Begins work on another thread of the pool.
    pub(super) fn spawn(work: impl FnOnce() + Send + 'static) {
        rayon::spawn(work);
    }

    /// Does other work of the pool, if there is any.
    pub(super) fn did_other_work() -> bool {
        rayon::yield_now() == Some(rayon::Yield::Executed)
    }
}

thread_local! {
    static ENTERED: RefCell<Option<WorkSlots>> = const { RefCell::new(None) };
}

/// The slots of one pool of threads, through which they help one another. Cheap to clone.
///
/// ```
/// let slots = quantd_kernels::WorkSlots::new();
/// let pool = rayon::ThreadPoolBuilder::new().start_handler(move |_| slots.enter()).build();
/// # pool.unwrap();
/// ```
#[derive(Clone)]
pub struct WorkSlots(Arc<Slots>);

impl fmt::Debug for WorkSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkSlots")
    }
}

impl Default for WorkSlots {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkSlots {
    /// Slots that nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Slots::new()))
    }

    /// From now on this thread, one of the pool, offers its jobs here. The threads of a pool whose work is
    /// short must not help with what takes long in another, so each pool has slots of its own.
    pub fn enter(&self) {
        ENTERED.set(Some(self.clone()));
    }
}

/// Runs `run` on the calling thread, one of a rayon pool, and on up to `helpers` others of it at once, and returns
/// when all of them have returned. Helpers that do not come before the caller is done are not waited for, so that
/// `run` must share its work out by itself. In a pool without [`WorkSlots`] rayon wakes the helpers.
///
/// # Panics
/// When `run` panics on any thread.
pub fn fork_join(helpers: usize, run: &(dyn Fn() + Sync)) {
    if let Some(entered) = ENTERED.with_borrow(Option::clone) {
        return entered.0.run(helpers, run);
    }
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| run()));
        run();
    });
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::slots::{FREE, Slot, WATCHED, still_watched};
    use super::*;

    fn pool(threads: usize, slots: Option<WorkSlots>) -> rayon::ThreadPool {
        let enter = move |_| slots.iter().for_each(WorkSlots::enter);
        rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(enter).build().unwrap()
    }

    #[test]
    fn every_part_is_done_once() {
        let slots = WorkSlots::new();
        let pools = [
            pool(1, Some(WorkSlots::new())),
            pool(2, Some(slots.clone())),
            pool(5, Some(slots)),
            pool(3, None),
        ];
        std::thread::scope(|scope| {
            for pool in &pools {
                scope.spawn(|| {
                    for round in 0..2000 {
                        let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
                        let run = || {
                            loop {
                                let i = next.fetch_add(1, Ordering::Relaxed);
                                if i >= round % 50 {
                                    return;
                                }
                                sum.fetch_add(i, Ordering::Relaxed);
                            }
                        };
                        pool.install(|| fork_join(round % 7, &run));
                        let parts = round % 50;
                        assert_eq!(sum.into_inner(), parts * parts.saturating_sub(1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for slots in [Some(WorkSlots::new()), None] {
            let pool = pool(2, slots);
            for _ in 0..100 {
                let run = || pool.install(|| fork_join(1, &|| panic!("a test")));
                let result = catch_unwind(AssertUnwindSafe(run));
                assert!(result.is_err());
            }
            let ran = AtomicUsize::new(0);
            let run = || {
                ran.fetch_add(1, Ordering::Relaxed);
            };
            pool.install(|| fork_join(1, &run));
            assert!((1..=2).contains(&ran.into_inner()));
        }
    }

    #[test]
    fn nobody_waits_for_who_does_other_work() {
        let slot = &Slot::new(WATCHED);
        pool(1, None).in_place_scope(|scope| {
            scope.spawn(move |scope| {
                scope.spawn(|_| assert_eq!(slot.load(Ordering::Relaxed), FREE));
                assert!(!still_watched(slot));
                assert_eq!(slot.load(Ordering::Relaxed), FREE);
                // Nothing else to do: the watch goes on.
                slot.store(WATCHED, Ordering::Relaxed);
                assert!(still_watched(slot));
                assert_eq!(slot.load(Ordering::Relaxed), WATCHED);
            });
        });
    }
}

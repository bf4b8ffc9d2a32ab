//! Every order in which the threads of `fork_join` can take their steps, by a model checker: the file of the slots
//! as it stands, on loom's atomics and threads in place of the system's.

#[path = "../src/fork_join/slots.rs"]
mod slots;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use slots::Slots;

/// Stands for `fork_join::sync`: few slots and short watches, since every step is tried at every point.
mod sync {
    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::Mutex;
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicUsize};

    pub(super) const LOOKS: usize = 2;
    pub(super) const LOOKS_BETWEEN: usize = 2;
    pub(super) const MAX_HELPERS: usize = 1;

    pub(super) fn spawn(work: impl FnOnce() + Send + 'static) {
        drop(loom::thread::spawn(work));
    }

    pub(super) fn did_other_work() -> bool {
        loom::thread::yield_now();
        false
    }
}

/// A number that is no atomic: loom objects where two threads use it without an order between them.
struct Plain(UnsafeCell<usize>);

#[expect(unsafe_code, reason = "what the slots are to prove is that this is sound")]
// SAFETY: loom checks each access.
unsafe impl Sync for Plain {}

#[expect(unsafe_code, reason = "as above")]
impl Plain {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn count(&self) {
        // SAFETY: loom checks that nobody else is there.
        self.0.with_mut(|count| unsafe { *count += 1 });
    }

    fn get(&self) -> usize {
        // SAFETY: loom checks that nobody writes.
        self.0.with(|count| unsafe { *count })
    }
}

/// Jobs, one after the other, of two parts each, that are taken by whoever comes first.
fn offer(slots: &Arc<Slots>, jobs: usize) {
    for _ in 0..jobs {
        let next = AtomicUsize::new(0);
        let parts = [Plain::new(), Plain::new()];
        slots.run(1, &|| {
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                part.count();
            }
        });
        // Whoever helped has written before this thread reads.
        assert_eq!(parts.each_ref().map(Plain::get), [1, 1]);
    }
}

fn check(model: fn()) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

#[test]
fn a_job_is_over_before_its_memory_goes() {
    check(|| offer(&Arc::new(Slots::new()), 2));
}

#[test]
fn two_who_offer_share_a_helper() {
    check(|| {
        let slots = Arc::new(Slots::new());
        let other = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || offer(&slots, 1))
        };
        offer(&slots, 1);
        other.join().unwrap();
    });
}

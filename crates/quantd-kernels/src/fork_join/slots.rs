//! Slots where jobs are offered to threads that watch them.
//!
//! A watcher still belongs to the pool: it looks for other work of the pool
//! meanwhile, which ends its watch, and soon it goes back to sleep there.
//!
//! A slot is `FREE`, or `WATCHED`, or holds a job on offer, or is `BUSY`. The
//! helper takes a job by changing the slot to `BUSY`; the one who offered it takes it
//! back by changing the slot to `WATCHED`. Only one of the two succeeds, and the job is
//! alive until one of them has.
#![expect(unsafe_code, reason = "a job is shared with threads that outlive it")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::sync::{
    AtomicPtr, AtomicUsize, LOOKS, LOOKS_BETWEEN, MAX_HELPERS, Mutex, did_other_work, spawn,
    spin_loop,
};

/// What helpers run, and how many have.
pub(super) struct Job<'a> {
    run: &'a (dyn Fn() + Sync),
    done: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

pub(super) type Slot = AtomicPtr<Job<'static>>;

pub(super) const FREE: *mut Job<'static> = ptr::null_mut();
pub(super) const WATCHED: *mut Job<'static> = ptr::without_provenance_mut(1);
const BUSY: *mut Job<'static> = ptr::without_provenance_mut(2);

/// One slot for each helper that there may be.
pub(super) struct Slots([Slot; MAX_HELPERS]);

impl Slots {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Slot::new(FREE)))
    }

    /// Runs `run` here and on up to `helpers` threads.
    pub(super) fn run(self: &Arc<Self>, helpers: usize, run: &(dyn Fn() + Sync)) {
        let job = Job { run, done: AtomicUsize::new(0), panic: Mutex::new(None) };
        let mut offer = Offer { job: &job, slots: self, offered: [0; MAX_HELPERS], count: 0 };
        offer.make(helpers.min(MAX_HELPERS));
        let result = catch_unwind(AssertUnwindSafe(run));
        // From here on no helper knows the job.
        drop(offer);
        let panic = job.panic.into_inner().unwrap_or_default();
        if let Some(panic) = result.err().or(panic) {
            resume_unwind(panic);
        }
    }

    /// Does the job in a slot and those that come soon after it.
    fn watch(&self, slot: usize) {
        let slot = &self.0[slot];
        // Whoever comes too late for the first job was not needed.
        let mut looks = LOOKS;
        loop {
            let found = slot.load(Ordering::Relaxed);
            if found != WATCHED && put(slot, found, BUSY) {
                // SAFETY: the job was on offer until now, and whoever offers it
                // waits until `done` says that it was done here.
                unsafe { help(found, slot) };
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                if looks.is_multiple_of(LOOKS_BETWEEN) && !still_watched(slot) {
                    return;
                }
                spin_loop();
            } else if put(slot, WATCHED, FREE) {
                return;
            }
        }
    }
}

/// A job on offer in some slots.
struct Offer<'a> {
    job: &'a Job<'a>,
    slots: &'a Arc<Slots>,
    offered: [usize; MAX_HELPERS],
    count: usize,
}

impl Offer<'_> {
    /// The job as slots hold it.
    fn pointer(&self) -> *mut Job<'static> {
        ptr::from_ref(self.job).cast_mut().cast()
    }

    fn make(&mut self, helpers: usize) {
        // First to those who are awake.
        for wanted in [WATCHED, FREE] {
            for (i, slot) in self.slots.0.iter().enumerate() {
                if self.count == helpers {
                    return;
                }
                if slot.load(Ordering::Relaxed) == wanted && put(slot, wanted, self.pointer()) {
                    self.offered[self.count] = i;
                    self.count += 1;
                    if wanted == FREE {
                        let slots = Arc::clone(self.slots);
                        spawn(move || slots.watch(i));
                    }
                }
            }
        }
    }
}

impl Drop for Offer<'_> {
    /// Takes back what nobody took, and waits for the others.
    fn drop(&mut self) {
        let offered = &self.offered[..self.count];
        let taken =
            offered.iter().filter(|&&i| !put(&self.slots.0[i], self.pointer(), WATCHED)).count();
        while self.job.done.load(Ordering::Acquire) < taken {
            spin_loop();
        }
    }
}

/// Changes what is in a slot, if it is what was expected.
fn put(slot: &Slot, expected: *mut Job<'static>, new: *mut Job<'static>) -> bool {
    slot.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Looks for other work of the pool, and does it; says whether the watch goes on.
///
/// Other work takes as long as it takes, and may itself be what offers jobs: nobody
/// is to wait for this thread then.
pub(super) fn still_watched(slot: &Slot) -> bool {
    if !put(slot, WATCHED, FREE) {
        // A job has come.
        return true;
    }
    // Where it has been offered meanwhile, another watch was begun.
    !did_other_work() && put(slot, FREE, WATCHED)
}

/// Does a job that was taken from the slot.
///
/// # Safety
/// The job is alive until `done` is counted up.
unsafe fn help(job: *mut Job<'static>, slot: &Slot) {
    // SAFETY: the job is alive, as `done` is counted up below only.
    let job = unsafe { &*job };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job.run)) {
        *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
    // Before the job is over, so that the next one can be offered at once.
    slot.store(WATCHED, Ordering::Release);
    job.done.fetch_add(1, Ordering::Release);
}

//! Threads that help for some microseconds.
//!
//! A product may take 50 microseconds, but a sleeping thread of the rayon pool
//! takes 20 to join in. So whoever has helped once stays awake for a moment and
//! watches a mailbox of its own, where the next job is put with one store. It
//! still belongs to the pool: it looks for other work of the pool meanwhile, which
//! ends its watch, and soon it goes back to sleep there.
//!
//! A mailbox is `FREE`, or `WAITING` (somebody watches it), or holds a
//! job on offer, or is `BUSY`. The helper takes a job by changing it to `BUSY`; the one
//! who offered it takes it back by changing it to `WAITING`. Only one of
//! the two succeeds, and the job is alive until one of them has.
#![expect(unsafe_code, reason = "a job is shared with threads that outlive it")]

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// What helpers run, and how many have.
struct Job<'a> {
    run: &'a (dyn Fn() + Sync),
    done: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

type Mailbox = AtomicPtr<Job<'static>>;

const FREE: *mut Job<'static> = ptr::null_mut();
const WAITING: *mut Job<'static> = ptr::without_provenance_mut(1);
const BUSY: *mut Job<'static> = ptr::without_provenance_mut(2);

/// More helpers than this are not worth their waking for jobs of microseconds.
const MAX_HELPERS: usize = 64;
type Mailboxes = [Mailbox; MAX_HELPERS];
/// Pools whose threads do not help one another.
const CREWS: usize = 2;
static MAILBOXES: [Mailboxes; CREWS] =
    [const { [const { Mailbox::new(FREE) }; MAX_HELPERS] }; CREWS];

thread_local! {
    static CREW: Cell<usize> = const { Cell::new(0) };
}

/// Puts this thread into one of two crews; without, it is in the first. A pool whose threads are to be
/// back soon must not help with what takes long in another one.
pub fn join(crew: usize) {
    CREW.set(crew % CREWS);
}

fn mailboxes() -> &'static Mailboxes {
    &MAILBOXES[CREW.get()]
}

/// Looks at a mailbox before its watcher goes back to sleep: some 50 microseconds.
const PATIENCE: usize = 2000;
/// Looks between two at the other work of the pool.
const GLANCE: usize = 200;

/// Runs `run` on the calling thread and on up to `helpers` others of the rayon
/// pool at once, and returns when all of them have returned. Helpers that do
/// not come before the caller is done are not waited for, so that `run` must
/// share its work out by itself.
///
/// # Panics
/// When `run` panics on any thread.
pub(super) fn together(helpers: usize, run: &(dyn Fn() + Sync)) {
    let job = Job { run, done: AtomicUsize::new(0), panic: Mutex::new(None) };
    let mut offer = Offer { job: &job, mailboxes: mailboxes(), boxes: [0; MAX_HELPERS], count: 0 };
    offer.make(helpers.min(MAX_HELPERS));
    let result = catch_unwind(AssertUnwindSafe(run));
    // From here on no helper knows the job.
    drop(offer);
    let panic = job.panic.into_inner().unwrap_or_default();
    if let Some(panic) = result.err().or(panic) {
        resume_unwind(panic);
    }
}

/// A job on offer in some mailboxes.
struct Offer<'a> {
    job: &'a Job<'a>,
    mailboxes: &'static Mailboxes,
    boxes: [usize; MAX_HELPERS],
    count: usize,
}

impl Offer<'_> {
    /// The job as mailboxes hold it.
    fn pointer(&self) -> *mut Job<'static> {
        ptr::from_ref(self.job).cast_mut().cast()
    }

    fn make(&mut self, helpers: usize) {
        // First to those who are awake.
        for wanted in [WAITING, FREE] {
            for (i, mailbox) in self.mailboxes.iter().enumerate() {
                if self.count == helpers {
                    return;
                }
                if mailbox.load(Ordering::Relaxed) == wanted && put(mailbox, wanted, self.pointer())
                {
                    self.boxes[self.count] = i;
                    self.count += 1;
                    if wanted == FREE {
                        rayon::spawn(move || watch(mailbox));
                    }
                }
            }
        }
    }
}

impl Drop for Offer<'_> {
    /// Takes back what nobody took, and waits for the others.
    fn drop(&mut self) {
        let boxes = &self.boxes[..self.count];
        let taken =
            boxes.iter().filter(|&&i| !put(&self.mailboxes[i], self.pointer(), WAITING)).count();
        while self.job.done.load(Ordering::Acquire) < taken {
            spin_loop();
        }
    }
}

/// Changes what is in a mailbox, if it is what was expected.
fn put(mailbox: &Mailbox, expected: *mut Job<'static>, new: *mut Job<'static>) -> bool {
    mailbox.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Does the job in the mailbox and those that come soon after it.
fn watch(mailbox: &Mailbox) {
    // Whoever comes too late for the first job was not needed.
    let mut looks = PATIENCE;
    loop {
        let found = mailbox.load(Ordering::Relaxed);
        if found != WAITING && put(mailbox, found, BUSY) {
            // SAFETY: the job was on offer until now, and whoever offers it
            // waits until `done` says that it was done here.
            unsafe { work(found, mailbox) };
            looks = 0;
        } else if looks < PATIENCE {
            looks += 1;
            if looks.is_multiple_of(GLANCE) && !glance(mailbox) {
                return;
            }
            spin_loop();
        } else if put(mailbox, WAITING, FREE) {
            return;
        }
    }
}

/// Looks for other work of the pool, and does it; says whether the watch goes on.
///
/// Other work takes as long as it takes, and may itself be what offers jobs: nobody
/// is to wait for this thread then.
fn glance(mailbox: &Mailbox) -> bool {
    if !put(mailbox, WAITING, FREE) {
        // A job has come.
        return true;
    }
    // Where it has been offered meanwhile, another watch was begun.
    rayon::yield_now() != Some(rayon::Yield::Executed) && put(mailbox, FREE, WAITING)
}

/// Does a job that was taken from the mailbox.
///
/// # Safety
/// The job is alive until `done` is counted up.
unsafe fn work(job: *mut Job<'static>, mailbox: &Mailbox) {
    // SAFETY: the caller's.
    let job = unsafe { &*job };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job.run)) {
        *job.panic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(panic);
    }
    // Before the job is over, so that the next one can be offered at once.
    mailbox.store(WAITING, Ordering::Release);
    job.done.fetch_add(1, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_part_is_done_once() {
        let pools = [pool(1), pool(2), pool(5)];
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
                        pool.install(|| together(round % 7, &run));
                        let parts = round % 50;
                        assert_eq!(sum.into_inner(), parts * parts.saturating_sub(1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_who_does_other_work() {
        let at_work = Mailbox::new(WAITING);
        pool(1).in_place_scope(|scope| {
            scope.spawn(|scope| {
                scope.spawn(|_| assert_eq!(at_work.load(Ordering::Relaxed), FREE));
                assert!(!glance(&at_work));
                assert_eq!(at_work.load(Ordering::Relaxed), FREE);
                // Nothing else to do: the watch goes on.
                at_work.store(WAITING, Ordering::Relaxed);
                assert!(glance(&at_work));
                assert_eq!(at_work.load(Ordering::Relaxed), WAITING);
            });
        });
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let pool = pool(2);
        for _ in 0..100 {
            let run = || pool.install(|| together(1, &|| panic!("a test")));
            let result = catch_unwind(AssertUnwindSafe(run));
            assert!(result.is_err());
        }
        let ran = AtomicUsize::new(0);
        let run = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        pool.install(|| together(1, &run));
        assert!((1..=2).contains(&ran.into_inner()));
    }
}

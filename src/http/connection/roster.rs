//! Who is connected, and what each connection is at.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Waiting for a request, or for the rest of its head.
    Idle,
    /// A request is handled, and nothing of its answer is written.
    Working,
    /// The answer is handed over, piece by piece.
    Answering,
    /// All of it is handed over, and some may still have to be written.
    Settling,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Idle, Self::Working, Self::Answering, Self::Settling];
}

/// One connection, as its socket, its requests and the roster see it.
#[derive(Debug)]
pub(in crate::http) struct Link {
    phase: AtomicU8,
    /// Since when it waits for a request, in microseconds of the roster's clock.
    idle_since: AtomicU64,
    dismissed: AtomicBool,
    lingers: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    fn new(idle_since: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            idle_since: AtomicU64::new(idle_since),
            dismissed: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            reader: Mutex::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let number = usize::from(self.phase.load(Ordering::Acquire));
        Phase::ALL.get(number).copied().unwrap_or(Phase::Working)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The client may still be sending when the connection ends: what comes is then read for a while.
    pub(in crate::http) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    /// Whether the connection is to end as soon as it is idle.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Notes whom to wake when the connection is dismissed.
    pub(super) fn park(&self, waker: &Waker) {
        let mut reader = locked(&self.reader);
        if !reader.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *reader = Some(waker.clone());
        }
    }

    fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        if let Some(reader) = locked(&self.reader).take() {
            reader.wake();
        }
    }
}

/// All connections, of which there is a most.
#[derive(Debug)]
pub(super) struct Roster {
    max: usize,
    started: Instant,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    next: u64,
    by_number: HashMap<u64, Arc<Link>>,
}

impl Links {
    /// Sends the connection away that has waited longest for a request; `false` when none does.
    fn dismiss_idle(&mut self) -> bool {
        let idle = self.by_number.iter().filter(|(_, link)| link.phase() == Phase::Idle);
        let longest = idle.min_by_key(|(_, link)| link.idle_since.load(Ordering::Relaxed));
        let Some(number) = longest.map(|(number, _)| *number) else { return false };
        if let Some(link) = self.by_number.remove(&number) {
            link.dismiss();
        }
        true
    }
}

impl Roster {
    pub(super) fn new(max: usize) -> Self {
        Self { max, started: Instant::now(), links: Mutex::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes a connection in. With as many as there may be, one that waits for a request makes room;
    /// `None` when all are at work.
    pub(super) fn join(self: &Arc<Self>) -> Option<Member> {
        let mut links = locked(&self.links);
        if links.by_number.len() >= self.max && !links.dismiss_idle() {
            return None;
        }
        let (number, link) = (links.next, Arc::new(Link::new(self.now())));
        links.next = links.next.wrapping_add(1);
        links.by_number.insert(number, Arc::clone(&link));
        Some(Member { roster: Arc::clone(self), number, link })
    }
}

/// A connection's place among the others; given back when dropped.
#[derive(Debug)]
pub(super) struct Member {
    roster: Arc<Roster>,
    number: u64,
    link: Arc<Link>,
}

impl Member {
    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The connection waits for a request from now on.
    pub(super) fn rest(&self) {
        self.link.idle_since.store(self.roster.now(), Ordering::Relaxed);
        self.link.enter(Phase::Idle);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        locked(&self.roster.links).by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_makes_room() {
        let roster = Arc::new(Roster::new(3));
        let [busy, first, second] = [(); 3].map(|()| roster.join().unwrap());
        busy.link().enter(Phase::Working);
        first.link().enter(Phase::Working);
        first.link.idle_since.store(7, Ordering::Relaxed);
        first.link().enter(Phase::Idle);
        second.link.idle_since.store(5, Ordering::Relaxed);
        let third = roster.join().unwrap();
        assert!(second.link().is_dismissed() && !first.link().is_dismissed());
        third.link().enter(Phase::Answering);
        let fourth = roster.join().unwrap();
        assert!(first.link().is_dismissed() && !busy.link().is_dismissed());
        fourth.link().enter(Phase::Settling);
        // None of those at work is sent away.
        assert!(roster.join().is_none());
        assert!(![&busy, &third, &fourth].iter().any(|member| member.link().is_dismissed()));
        drop(busy);
        assert!(roster.join().is_some());
    }
}

//! Large memory that was given back, kept for a moment for whoever asks next.
//!
//! The system fills every page with zeros before it gives it away. For a body of 64 MiB that takes as much time
//! as receiving it, and the next request would find memory that the last one has just paid for.
//!
//! What is kept belongs to no request, so it must not come on top of what requests hold: nothing is kept until
//! [`allow`] says how much may be, and whoever counts bytes says it again whenever more of them are held. What
//! was not asked for between two calls of [`release_idle`] goes back to the system.
//!
//! Kept memory holds the bytes of the request that had it. Only a [`Buffer`](super::Buffer) takes it, which
//! shows no byte that was not written since.

use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Memory serves whoever asks for less than this much less: what is over must be lost among what a request
/// holds beside its tensors.
const SLACK: usize = 64 << 10;

#[derive(Debug)]
struct Stock {
    /// The longest unused first.
    kept: Vec<Kept>,
    /// How much may be kept; none until somebody says it.
    room: Option<usize>,
}

#[derive(Debug)]
struct Kept {
    pages: MmapMut,
    idle: bool,
}

static STOCK: Mutex<Stock> = Mutex::new(Stock { kept: Vec::new(), room: None });

fn stock() -> MutexGuard<'static, Stock> {
    STOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stock {
    fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.pages.len()).sum()
    }

    fn take(&mut self, len: usize) -> Option<MmapMut> {
        let fits = |kept: &Kept| (len..len + SLACK).contains(&kept.pages.len());
        let found = self.kept.iter().rposition(fits)?;
        Some(self.kept.remove(found).pages)
    }

    /// Gives `pages` back where there is no room.
    fn keep(&mut self, pages: MmapMut) -> Option<MmapMut> {
        if self.bytes().saturating_add(pages.len()) > self.room.unwrap_or(0) {
            return Some(pages);
        }
        self.kept.push(Kept { pages, idle: false });
        None
    }

    /// What there is no more room for.
    fn allow(&mut self, room: usize) -> Vec<Kept> {
        self.room = Some(room);
        self.release(self.bytes().saturating_sub(room))
    }

    /// At least that many bytes, or all.
    fn release(&mut self, bytes: usize) -> Vec<Kept> {
        let mut left = bytes;
        let first = self.kept.iter().take_while(|kept| {
            let goes = left > 0;
            left = left.saturating_sub(kept.pages.len());
            goes
        });
        let first = first.count();
        self.kept.drain(..first).collect()
    }

    /// What nobody asked for since the last call.
    fn idle(&mut self) -> Vec<Kept> {
        let idle = self.kept.extract_if(.., |kept| std::mem::replace(&mut kept.idle, true));
        idle.collect()
    }
}

/// Whether somebody counts what is kept.
pub(super) fn is_counted() -> bool {
    stock().room.is_some()
}

/// Memory of at least `len` bytes, with whatever was left in it.
pub(super) fn take(len: usize) -> Option<MmapMut> {
    stock().take(len)
}

/// Keeps `pages` if there is room for them.
pub(super) fn keep(pages: MmapMut) {
    // The system takes its time to take pages back: not while others wait for the lock.
    let refused = stock().keep(pages);
    drop(refused);
}

/// From now on, at most `room` bytes are kept. It is asked with the stock locked, so that of two calls at once
/// the later one knows what the earlier one knew.
pub fn allow(room: impl FnOnce() -> usize) {
    let mut stock = stock();
    let too_many = stock.allow(room());
    drop(stock);
    drop(too_many);
}

/// Gives back what is kept in place of `len` bytes that the system is about to be asked for, so that memory in
/// use and kept is never more than was in use at some time.
pub(super) fn make_way(len: usize) {
    let released = stock().release(len);
    drop(released);
}

/// Gives back what was kept and not asked for since the last call.
pub fn release_idle() {
    let idle = stock().idle();
    drop(idle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock_of(room: usize, lens: &[usize]) -> Stock {
        let mut stock = Stock { kept: Vec::new(), room: Some(room) };
        for &len in lens {
            assert!(stock.keep(pages(len)).is_none());
        }
        stock
    }

    fn pages(len: usize) -> MmapMut {
        MmapMut::map_anon(len).unwrap()
    }

    #[test]
    fn what_fits_is_found_and_nothing_larger_than_need_be() {
        let mut take = {
            let mut stock = stock_of(10 * SLACK, &[1000, 999 + SLACK, 1000 + SLACK]);
            move |len| stock.take(len).map(|pages| pages.len())
        };
        assert_eq!(take(1001 + SLACK), None);
        // The last one that was kept and fits: its bytes may still be in the cache.
        assert_eq!(take(1000), Some(999 + SLACK));
        assert_eq!(take(1000), Some(1000));
        assert_eq!(take(1000), None);
        assert_eq!(take(1001), Some(1000 + SLACK));
        assert_eq!(take(1001), None);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut stock = stock_of(1000, &[400, 600]);
        assert_eq!(stock.keep(pages(1)).map(|x| x.len()), Some(1));
        let lens = |kept: Vec<Kept>| kept.iter().map(|kept| kept.pages.len()).collect::<Vec<_>>();
        assert_eq!(lens(stock.allow(1000)), [0; 0]);
        assert_eq!(lens(stock.allow(999)), [400]);
        assert!(stock.keep(pages(300)).is_none());
        assert_eq!(lens(stock.release(600)), [600]);
        assert!(stock.keep(pages(500)).is_none());
        assert_eq!(lens(stock.release(301)), [300, 500]);
        assert!(stock.keep(pages(500)).is_none());
        assert_eq!(lens(stock.allow(0)), [500]);
        assert_eq!(stock.keep(pages(1)).map(|x| x.len()), Some(1));
    }

    #[test]
    fn what_nobody_asks_for_is_given_back() {
        let mut stock = stock_of(1000, &[100, 200]);
        assert_eq!(stock.idle().len(), 0);
        let used = stock.take(200).unwrap();
        assert!(stock.keep(used).is_none());
        assert_eq!(stock.idle().len(), 1);
        assert_eq!(stock.bytes(), 200);
        assert_eq!(stock.idle().len(), 1);
        assert_eq!(stock.bytes(), 0);
    }
}

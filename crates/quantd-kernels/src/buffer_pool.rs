//! Large memory that was given back, kept for a moment for whoever asks next.
//!
//! The system fills every page with zeros before it gives it away. For a body of 64 MiB that takes as much time
//! as receiving it, and the next request would find memory that the last one has just paid for.
//!
//! What is kept belongs to no request, so it must not come on top of what requests hold: whoever counts bytes
//! says how much may be kept, again whenever more of them are held. What was not asked for between two calls of
//! [`release_idle`](BufferPool::release_idle) goes back to the system.
//!
//! Kept memory holds the bytes of the request that had it. Only a [`Buffer`](super::Buffer) takes it, which
//! shows no byte that was not written since.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Memory serves whoever asks for less than this much less: what is over must be lost among what a request
/// holds beside its tensors.
const SLACK: usize = 64 << 10;

#[derive(Debug, Default)]
struct Kept {
    /// The longest unused first.
    blocks: Vec<Block>,
    /// Bytes that may be kept.
    limit: usize,
}

#[derive(Debug)]
struct Block {
    pages: MmapMut,
    idle: bool,
}

thread_local! {
    static ENTERED: RefCell<Option<BufferPool>> = const { RefCell::new(None) };
}

/// The pool that the calling thread has entered.
pub(super) fn entered() -> Option<BufferPool> {
    ENTERED.with_borrow(Option::clone)
}

/// Memory for the buffers of one server, as far as the threads that make them have entered it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Arc<Mutex<Kept>>);

impl BufferPool {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the large buffers that this thread makes come from here, and go back here.
    pub fn enter(&self) {
        ENTERED.set(Some(self.clone()));
    }

    /// From now on, at most `limit` bytes are kept; none before it is said. It is asked with the pool locked, so that
    /// of two calls at once the later one knows what the earlier one knew.
    pub fn set_limit(&self, limit: impl FnOnce() -> usize) {
        let mut kept = self.kept();
        let too_many = kept.set_limit(limit());
        drop(kept);
        drop(too_many);
    }

    /// Gives back what was kept and not asked for since the last call.
    pub fn release_idle(&self) {
        let idle = self.kept().idle();
        drop(idle);
    }

    /// Memory of at least `len` bytes, with whatever was left in it.
    pub(super) fn take(&self, len: usize) -> Option<MmapMut> {
        self.kept().take(len)
    }

    /// Keeps `pages` if there is room for them.
    pub(super) fn release(&self, pages: MmapMut) {
        // The system takes its time to take pages back: not while others wait for the lock.
        let refused = self.kept().keep(pages);
        drop(refused);
    }

    /// Gives back what is kept and smaller in place of `len` bytes that the system is about to be asked for: what a
    /// buffer that grows leaves behind would otherwise come on top of it. What is larger stays for who asks again.
    pub(super) fn evict_smaller(&self, len: usize) {
        let evicted = self.kept().evict(len, |block| block < len);
        drop(evicted);
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.pages.len()).sum()
    }

    fn take(&mut self, len: usize) -> Option<MmapMut> {
        let fits = |block: &Block| (len..len + SLACK).contains(&block.pages.len());
        let found = self.blocks.iter().rposition(fits)?;
        Some(self.blocks.remove(found).pages)
    }

    /// Gives `pages` back where there is no room.
    fn keep(&mut self, pages: MmapMut) -> Option<MmapMut> {
        if self.bytes().saturating_add(pages.len()) > self.limit {
            return Some(pages);
        }
        self.blocks.push(Block { pages, idle: false });
        None
    }

    /// What there is beyond the limit.
    fn set_limit(&mut self, limit: usize) -> Vec<Block> {
        self.limit = limit;
        self.evict(self.bytes().saturating_sub(limit), |_| true)
    }

    /// At least that many bytes, or all, of blocks whose size `may` go.
    fn evict(&mut self, bytes: usize, may: impl Fn(usize) -> bool) -> Vec<Block> {
        let mut left = bytes;
        let goes = |block: &mut Block| {
            let goes = left > 0 && may(block.pages.len());
            left = left.saturating_sub(if goes { block.pages.len() } else { 0 });
            goes
        };
        self.blocks.extract_if(.., goes).collect()
    }

    /// What nobody asked for since the last call.
    fn idle(&mut self) -> Vec<Block> {
        let idle = self.blocks.extract_if(.., |block| std::mem::replace(&mut block.idle, true));
        idle.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_of(limit: usize, lens: &[usize]) -> Kept {
        let mut kept = Kept { blocks: Vec::new(), limit };
        for &len in lens {
            assert!(kept.keep(pages(len)).is_none());
        }
        kept
    }

    fn lens(blocks: &[Block]) -> Vec<usize> {
        blocks.iter().map(|block| block.pages.len()).collect()
    }

    fn pages(len: usize) -> MmapMut {
        MmapMut::map_anon(len).unwrap()
    }

    #[test]
    fn what_fits_is_found_and_nothing_larger_than_need_be() {
        let mut take = {
            let mut kept = kept_of(10 * SLACK, &[1000, 999 + SLACK, 1000 + SLACK]);
            move |len| kept.take(len).map(|pages| pages.len())
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
        let mut kept = kept_of(1000, &[400, 600]);
        assert_eq!(kept.keep(pages(1)).map(|x| x.len()), Some(1));
        assert_eq!(lens(&kept.set_limit(1000)), [0; 0]);
        assert_eq!(lens(&kept.set_limit(999)), [400]);
        assert!(kept.keep(pages(300)).is_none());
        assert_eq!(lens(&kept.evict(600, |_| true)), [600]);
        assert!(kept.keep(pages(500)).is_none());
        assert_eq!(lens(&kept.evict(301, |_| true)), [300, 500]);
        assert!(kept.keep(pages(500)).is_none());
        assert_eq!(lens(&kept.set_limit(0)), [500]);
        assert_eq!(kept.keep(pages(1)).map(|x| x.len()), Some(1));
    }

    #[test]
    fn a_smaller_block_goes_for_a_larger_one_and_never_the_other_way() {
        let mut kept = kept_of(2000, &[500, 100, 200, 300]);
        assert_eq!(lens(&kept.evict(400, |block| block < 400)), [100, 200, 300]);
        assert_eq!(lens(&kept.evict(400, |block| block < 400)), [0_usize; 0]);
        assert_eq!(kept.bytes(), 500);
    }

    #[test]
    fn what_nobody_asks_for_is_given_back() {
        let mut kept = kept_of(1000, &[100, 200]);
        assert_eq!(kept.idle().len(), 0);
        let used = kept.take(200).unwrap();
        assert!(kept.keep(used).is_none());
        assert_eq!(kept.idle().len(), 1);
        assert_eq!(kept.bytes(), 200);
        assert_eq!(kept.idle().len(), 1);
        assert_eq!(kept.bytes(), 0);
    }
}

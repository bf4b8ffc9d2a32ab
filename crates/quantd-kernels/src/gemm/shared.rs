//! A result that threads share, and how they share its tasks.
#![expect(unsafe_code, reason = "threads write to disjoint tiles of one result")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::cache::{LINE, prefetch};
use super::super::fork_join;

/// Multiplications below which a second thread costs more than it brings
/// (about 2 microseconds of one).
pub(super) const SHARED: usize = 1 << 19;

/// A result that several threads write to, each its own tiles.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: it can only be written to, and every task that `share` runs, each on
// one thread, has cells of its own.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T: Copy> Shared<'a, T> {
    /// Shares a result of so many rows and columns.
    pub(super) fn new(out: &'a mut [T], rows: usize, columns: usize) -> Self {
        assert!(out.len() == rows * columns, "the result has the shape of the product");
        Self { start: out.as_mut_ptr(), rows, columns, life: PhantomData }
    }

    /// Fetches cells into the cache while their sums are made: a store to
    /// memory that is not there would make the next tile wait.
    #[inline(always)]
    pub(super) fn prefetch(&self, row: usize, column: usize, len: usize) {
        let start = self.start.wrapping_add(row * self.columns + column).cast::<u8>();
        for line in 0..(len * size_of::<T>()).div_ceil(LINE) {
            prefetch::<false>(start.wrapping_add(line * LINE));
        }
    }

    /// Cells side by side.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "no cell is given out twice: see `Sync`")]
    pub(super) fn row(&self, row: usize, column: usize, len: usize) -> &mut [T] {
        assert!(row < self.rows && column + len <= self.columns, "the cells exist");
        let start = self.start.wrapping_add(row * self.columns + column);
        // SAFETY: the assertion holds, and no other task has these cells.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// Runs `work` for every task, with a scratch space for each thread. The
/// calling thread works from the first moment on; whoever of the pool is awake
/// joins in and takes what is left in ever smaller portions, so that nobody
/// waits for a sleeping thread.
pub(super) fn share<S: Default>(
    tasks: usize,
    threads: usize,
    work: &(impl Fn(usize, &mut S) + Sync),
) {
    if threads <= 1 || tasks <= 1 {
        let mut scratch = S::default();
        (0..tasks).for_each(|task| work(task, &mut scratch));
        return;
    }
    let next = AtomicUsize::new(0);
    let take = |done: usize| {
        let left = tasks - done;
        (left > 0).then(|| done + left.div_ceil(2 * threads))
    };
    let run = || {
        let mut scratch = S::default();
        while let Ok(first) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            let end = take(first).unwrap_or(first);
            (first..end).for_each(|task| work(task, &mut scratch));
        }
    };
    fork_join(threads.min(tasks) - 1, &run);
}

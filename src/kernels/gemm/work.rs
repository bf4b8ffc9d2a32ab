//! Which thread makes which tiles.
#![expect(unsafe_code, reason = "threads write to disjoint tiles of one result")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::output::{AsReals, AsSums, Base, Finish, FinishTile, Output, Place};
use super::tile::{Rows, STEP, Sums, Tile};
use super::{PackedA, PackedB};

/// Bytes of the left operand that a thread goes through again and again, panel
/// by panel: about half of a second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Multiplications below which a second thread costs more than it brings
/// (about 2 microseconds of one).
const SHARED: usize = 1 << 19;

/// Makes the product.
pub(super) fn run(a: &PackedA<'_>, b: &PackedB, output: Output<'_>, stop: &AtomicBool) {
    let work = Work { a, b, stop };
    match output {
        Output::I32(out) => work.run(out, &AsSums),
        Output::F32 { out, bias, relu } => work.run(out, &AsReals { bias, relu }),
        Output::U8(out, requantize) => work.run(out, &requantize),
        Output::I8(out, requantize) => work.run(out, &requantize),
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    a: &'a PackedA<'a>,
    b: &'a PackedB,
    stop: &'a AtomicBool,
}

impl Work<'_> {
    fn run<T: Send, F: Finish<T>>(self, out: &mut [T], finish: &F) {
        let Self { a, b, stop } = self;
        let (m, n) = (a.rows(), b.columns());
        assert!(out.len() == m * n, "the result has the shape of the product");
        if out.is_empty() {
            return;
        }
        let tile = Tile::of(b.isa());
        let panels = n.div_ceil(tile.columns);
        let threads = if m * n * b.depth() < SHARED { 1 } else { rayon::current_num_threads() };
        let block = block(m, tile, panels, b.depth(), threads);
        let out = Shared { start: out.as_mut_ptr(), rows: m, columns: n, life: PhantomData };
        share(panels * m.div_ceil(block), threads, &|task| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let (first, panel) = (task / panels * block, task % panels);
            let column = panel * tile.columns;
            let place = Place {
                row: first,
                rows: block.min(m - first),
                column,
                columns: tile.columns.min(n - column),
            };
            // SAFETY: each task is run once, and no two of them share a place.
            unsafe { self.block(tile, place, b.panel(panel), finish, &out) };
        });
    }

    /// Multiplies a block of rows by one panel.
    ///
    /// # Safety
    /// Nobody else writes to `place` of `out` meanwhile.
    unsafe fn block<T, F: Finish<T>>(
        self,
        tile: Tile,
        place: Place,
        panel: &[u8],
        finish: &F,
        out: &Shared<'_, T>,
    ) {
        let Self { a, b, .. } = self;
        let base = Base::new(a, b, place);
        let mut sums = Sums::new();
        // As even as can be: 16 rows in tiles of 6 are 6, 5 and 5 rather than 6, 6 and 4.
        let tiles = place.rows.div_ceil(tile.rows);
        let mut row = place.row;
        for i in 0..tiles {
            let rows = place.rows / tiles + usize::from(i < place.rows % tiles);
            let operand = Rows { bytes: a.bytes_from(row), stride: a.stride(), count: rows };
            Tile::multiply(b.isa(), operand, panel, &mut sums);
            let place = Place { row, rows, ..place };
            // SAFETY: the caller's, for a part of its place.
            let mut out = |i| unsafe { out.row(row + i, place.column, place.columns) };
            b.isa().run(FinishTile {
                a,
                b,
                base: &base,
                place,
                width: tile.columns,
                sums: &mut sums,
                finish,
                out: &mut out,
            });
            row += rows;
        }
    }
}

/// Rows of a block: few enough to stay in the cache, many enough to make use
/// of a panel, and so many blocks that every thread has several tasks.
fn block(m: usize, tile: Tile, panels: usize, depth: usize, threads: usize) -> usize {
    let stride = tile.lanes.steps(depth).max(1) * STEP;
    let cached = (BLOCK_BYTES / stride).max(4 * tile.rows);
    let wanted = (4 * threads).div_ceil(panels).min(m.div_ceil(tile.rows)).max(1);
    let even = m.div_ceil(m.div_ceil(cached).max(if threads > 1 { wanted } else { 1 }));
    even.next_multiple_of(tile.rows)
}

/// A result that several threads write to, each its own tiles.
struct Shared<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: it only gives out disjoint parts, by the contract of `row`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// `len` elements of a row from column `first` on.
    ///
    /// # Safety
    /// No two of these that are alive at once overlap.
    unsafe fn row(&self, row: usize, first: usize, len: usize) -> &'a mut [T] {
        assert!(row < self.rows && first + len <= self.columns, "the tile is in the result");
        // SAFETY: the allocation has `rows * columns` elements, and the assertion holds.
        let start = unsafe { self.start.add(row * self.columns + first) };
        // SAFETY: as above, and the caller sees to it that nothing overlaps.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// Runs `work` for every task. The calling thread works from the first
/// moment on; whoever of the pool is awake joins in and takes what is left in
/// ever smaller portions, so that nobody waits for a sleeping thread.
fn share(tasks: usize, threads: usize, work: &(impl Fn(usize) + Sync)) {
    if threads <= 1 || tasks <= 1 {
        (0..tasks).for_each(work);
        return;
    }
    let next = AtomicUsize::new(0);
    let take = |done: usize| {
        let left = tasks - done;
        (left > 0).then(|| done + left.div_ceil(2 * threads))
    };
    let run = || {
        while let Ok(first) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            let end = take(first).unwrap_or(first);
            (first..end).for_each(work);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads.min(tasks) {
            scope.spawn(|_| run());
        }
        run();
    });
}

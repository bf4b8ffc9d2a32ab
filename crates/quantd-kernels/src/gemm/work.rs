//! Which thread makes which tiles.
#![expect(unsafe_code, reason = "threads write to disjoint tiles of one result")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytemuck::Pod;

use super::super::cache::{LINE, prefetch};
use super::super::crew;
use super::finish::{
    AsFloatOnnx, AsFloatOrt, AsGemmlowp, AsReals, AsSingleRound, AsSums, Finish, FinishTile,
};
use super::output::{Columns, Extra, Output, Terms};
use super::requantize::{Mode, Requantize};
use super::tile::{Panel, Rows, STEP, Sums, Tile};
use super::{PackedA, PackedB};

/// Bytes of the left operand that a thread goes through again and again, panel
/// by panel: about half of a second-level cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Multiplications below which a second thread costs more than it brings
/// (about 2 microseconds of one).
pub(super) const SHARED: usize = 1 << 19;

/// Makes the product.
pub(super) fn run(a: &PackedA<'_>, b: &PackedB, output: Output<'_>, stop: &AtomicBool) {
    match output {
        Output::I32(out) => Work::new(a, b, stop, Extra::default()).run(out, &AsSums),
        Output::F32 { out, bias, relu } => {
            let least = if relu { 0.0 } else { f32::NEG_INFINITY };
            let extra = Extra { bias: bias.unwrap_or_default(), ..Extra::default() };
            Work::new(a, b, stop, extra).run(out, &AsReals { least });
        }
        Output::U8(out, to) => Work::new(a, b, stop, to.extra()).requantize(out, &to),
        Output::I8(out, to) => {
            // The bytes are the same.
            Work::new(a, b, stop, to.extra()).requantize(bytemuck::cast_slice_mut(out), &to);
        }
    }
}

struct Work<'a> {
    a: &'a PackedA<'a>,
    b: &'a PackedB,
    stop: &'a AtomicBool,
    extra: Extra<'a>,
    terms: Terms,
}

/// What a thread needs for a tile.
#[derive(Default)]
struct Scratch<'a> {
    sums: Sums,
    columns: Columns<'a>,
}

impl<'a> Work<'a> {
    fn new(a: &'a PackedA<'a>, b: &'a PackedB, stop: &'a AtomicBool, extra: Extra<'a>) -> Self {
        Self { a, b, stop, extra, terms: Terms::new(a, b, extra) }
    }

    fn requantize(&self, out: &mut [u8], to: &Requantize<'_>) {
        match to.mode {
            Mode::FloatOrt(scale_c) => self.run(out, &AsFloatOrt::new(scale_c, to)),
            Mode::FloatOnnx(scale_c) => self.run(out, &AsFloatOnnx::new(scale_c, to)),
            Mode::Gemmlowp(_) => self.run(out, &AsGemmlowp::new(to)),
            Mode::SingleRound(_) => self.run(out, &AsSingleRound::new(to)),
        }
    }

    fn run<T: Pod + Send, F: Finish<T>>(&self, out: &mut [T], finish: &F) {
        let Self { a, b, stop, .. } = self;
        let (m, n) = (a.rows(), b.columns());
        assert!(out.len() == m * n, "the result has the shape of the product");
        if out.is_empty() {
            return;
        }
        let tile = Tile::of(b.isa());
        let panels = n.div_ceil(tile.columns);
        let threads = if m * n * b.depth() < SHARED { 1 } else { rayon::current_num_threads() };
        let block = block(m, tile, panels, b.depth(), threads);
        let out = Shared::new(out, m, n);
        share(panels * m.div_ceil(block), threads, &|task, scratch: &mut Scratch<'_>| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let first = task / panels * block;
            self.block(first..m.min(first + block), task % panels, finish, (scratch, &out));
        });
    }

    /// Multiplies a block of rows by one panel; the next one is fetched meanwhile.
    fn block<'b, T: Pod, F: Finish<T>>(
        &'b self,
        rows: Range<usize>,
        panel: usize,
        finish: &F,
        (scratch, out): (&mut Scratch<'b>, &Shared<'_, T>),
    ) {
        let Self { a, b, extra, terms, .. } = self;
        let tile = Tile::of(b.isa());
        let Scratch { sums, columns } = scratch;
        columns.set((a, b), panel, (finish, *extra));
        let next = b.panel(if columns.range.end == b.columns() { 0 } else { panel + 1 });
        let panel = b.panel(panel);
        let mut finisher =
            FinishTile { terms, columns, rows: 0..0, width: tile.columns, sums, finish, out };
        // As even as can be: 16 rows in tiles of 6 are 6, 5 and 5 rather than 6, 6 and 4.
        let tiles = rows.len().div_ceil(tile.rows);
        let mut row = rows.start;
        for i in 0..tiles {
            let count = rows.len() / tiles + usize::from(i < rows.len() % tiles);
            let operand = Rows { bytes: a.bytes_from(row), stride: a.stride(), count };
            let ahead = next.get(i * tile.ahead(panel)..).unwrap_or(panel);
            finisher.rows = row..row + count;
            Tile::multiply(b.isa(), operand, Panel { bytes: panel, ahead }, &mut finisher);
            row += count;
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

    /// Cells from one row to the next.
    #[cfg(target_arch = "x86_64")]
    pub(super) const fn stride(&self) -> usize {
        self.columns
    }

    /// Cells side by side, and those under them in further rows.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn rows(&self, rows: Range<usize>, column: usize, len: usize) -> *mut T {
        assert!(rows.end <= self.rows && column + len <= self.columns, "the cells exist");
        self.start.wrapping_add(rows.start * self.columns + column)
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
    crew::together(threads.min(tasks) - 1, &run);
}

//! Which thread makes which tiles.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Pod;

use super::epilogue::{
    AsFloatOnnx, AsFloatOrt, AsGemmlowp, AsReals, AsSingleRound, AsSums, Epilogue, TileOutput,
};
use super::microkernel;
use super::output::Output;
use super::requantize::{Mode, Requantize};
use super::shared::{SHARED, Shared, share};
use super::terms::{Columns, Extra, Terms};
use super::tile::{Panel, Rows, STEP, Sums, Tile};
use super::{PackedLhs, PackedRhs, tiled};

/// Bytes of the left operand that a thread goes through again and again, panel
/// by panel: about half of a second-level cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Makes the product.
pub(super) fn run(a: &PackedLhs<'_>, b: &PackedRhs, output: Output<'_>, stop: &AtomicBool) {
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

/// A product.
pub(super) struct Work<'a> {
    pub(super) a: &'a PackedLhs<'a>,
    pub(super) b: &'a PackedRhs,
    pub(super) stop: &'a AtomicBool,
    pub(super) extra: Extra<'a>,
    pub(super) terms: Terms,
}

/// What a thread needs for a tile.
#[derive(Default)]
struct Scratch<'a> {
    sums: Sums,
    columns: Columns<'a>,
}

impl<'a> Work<'a> {
    fn new(a: &'a PackedLhs<'a>, b: &'a PackedRhs, stop: &'a AtomicBool, extra: Extra<'a>) -> Self {
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

    fn run<T: Pod + Send, F: Epilogue<T>>(&self, out: &mut [T], finish: &F) {
        let Self { a, b, stop, .. } = self;
        let (m, n) = (a.rows(), b.columns());
        assert!(out.len() == m * n, "the result has the shape of the product");
        if out.is_empty() {
            return;
        }
        let tile = Tile::of(b.isa());
        let panels = n.div_ceil(tile.columns);
        let threads = if m * n * b.depth() < SHARED { 1 } else { rayon::current_num_threads() };
        let out = Shared::new(out, m, n);
        if let Some(unit) = b.isa().unit().filter(|_| m > tile.rows && b.depth() > 0) {
            return tiled::run(self, unit, &out, finish, threads);
        }
        let block = block(m, tile, panels, b.depth(), threads);
        share(panels * m.div_ceil(block), threads, &|task, scratch: &mut Scratch<'_>| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let first = task / panels * block;
            self.block(first..m.min(first + block), task % panels, finish, (scratch, &out));
        });
    }

    /// Multiplies a block of rows by one panel; the next one is fetched meanwhile.
    fn block<'b, T: Pod, F: Epilogue<T>>(
        &'b self,
        rows: Range<usize>,
        panel: usize,
        finish: &F,
        (scratch, out): (&mut Scratch<'b>, &Shared<'_, T>),
    ) {
        let Self { a, b, extra, terms, .. } = self;
        let tile = Tile::of(b.isa());
        let Scratch { sums, columns } = scratch;
        columns.set((a, b), panel, *extra, F::SCALED.then(|| finish.divisor()));
        let next = b.panel(if columns.range.end == b.columns() { 0 } else { panel + 1 });
        let panel = b.panel(panel);
        let mut epilogue =
            TileOutput { terms, columns, rows: 0..0, width: tile.columns, sums, finish, out };
        // As even as can be: 16 rows in tiles of 6 are 6, 5 and 5 rather than 6, 6 and 4.
        let tiles = rows.len().div_ceil(tile.rows);
        let mut row = rows.start;
        for i in 0..tiles {
            let count = rows.len() / tiles + usize::from(i < rows.len() % tiles);
            let operand = Rows { bytes: a.bytes_from(row), stride: a.stride(), count };
            let ahead = next.get(i * tile.ahead(panel)..).unwrap_or(panel);
            epilogue.rows = row..row + count;
            microkernel::multiply(b.isa(), &operand, &Panel { bytes: panel, ahead }, &mut epilogue);
            row += count;
        }
    }
}

/// Rows of a block: few enough to stay in the cache, many enough to make use
/// of a panel, and so many blocks that every thread has several tasks.
fn block(m: usize, tile: Tile, panels: usize, depth: usize, threads: usize) -> usize {
    let stride = tile.depth(depth).max(STEP);
    let cached = (BLOCK_BYTES / stride).max(4 * tile.rows);
    let wanted = (4 * threads).div_ceil(panels).min(m.div_ceil(tile.rows)).max(1);
    let even = m.div_ceil(m.div_ceil(cached).max(if threads > 1 { wanted } else { 1 }));
    even.next_multiple_of(tile.rows)
}

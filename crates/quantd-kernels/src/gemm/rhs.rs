//! The right operand, packed once and used many times.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::Buffer;

use super::super::Isa;
use super::Codes;
use super::tile::{Lanes, MAX_COLUMNS, STEP, Tile};

/// Codes of the right operand and what they mean.
#[derive(Clone, Copy, Debug)]
pub struct Rhs<'a> {
    /// `[k, n]`, row-major.
    pub codes: Codes<'a>,
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Zero points within the range of the codes, one or one a column.
    pub zero_points: &'a [i32],
    /// Scales, one or one a column.
    pub scales: &'a [f32],
}

/// Columns of the right operand in panels, as the tiles of one instruction set
/// read them: panel by panel, then step by step, then column by column, `STEP`
/// bytes each, that is as many consecutive `k` as the instruction sums at once.
/// K and the last panel are filled up with zeros.
#[derive(Debug)]
pub struct PackedRhs {
    isa: Isa,
    k: usize,
    n: usize,
    panels: Buffer,
    /// Sum of the shifted codes of each column; this and what follows is
    /// filled up to the last column of the last panel.
    sums: Vec<i32>,
    /// Shifted zero point of each column; empty when all are 0.
    zero_points: Vec<i32>,
    scales: Vec<f32>,
}

impl PackedRhs {
    /// Packs for that instruction set, on the rayon pool it is called in; once `stop` is set it
    /// ends early, with a useless result.
    ///
    /// # Panics
    /// When the lengths do not fit one another.
    #[must_use]
    pub fn new(isa: Isa, right: Rhs<'_>, stop: &AtomicBool) -> Self {
        let Rhs { codes, k, n, zero_points, scales } = right;
        assert!(codes.len() == k * n, "codes have the shape of the operand");
        let tile = Tile::of(isa);
        let width = tile.columns * tile.depth(k);
        let filled = n.next_multiple_of(tile.columns);
        let mut panels = Buffer::zeroed(filled / tile.columns * width);
        let mut sums = vec![0_i32; n];
        if width > 0 {
            let panels = panels.bytes_mut().par_chunks_exact_mut(width);
            let sums = sums.par_chunks_mut(tile.columns);
            panels.zip(sums).enumerate().for_each(|(panel, (bytes, sums))| {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                pack(codes, tile, bytes, Columns { k, n, first: panel * tile.columns, sums });
            });
        }
        sums.resize(filled, 0);
        let shift = match (codes, tile.lanes) {
            (Codes::U8(_), Lanes::UnsignedBySigned | Lanes::SignedBySigned) => 128,
            (Codes::I8(_), _) | (Codes::U8(_), Lanes::Words) => 0,
        };
        let zero = |&zero: &i32| zero - shift;
        let zero_points = if zero_points.iter().all(|z| zero(z) == 0) {
            Vec::new()
        } else {
            expand(zero_points, n, filled).iter().map(zero).collect()
        };
        Self { isa, k, n, panels, sums, zero_points, scales: expand(scales, n, filled) }
    }

    /// The instruction set it was packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// K.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.k
    }

    /// N.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.n
    }

    /// Bytes of the panels.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels.bytes().len()
    }

    /// Whether some column has a zero point, so that sums of the rows of the left operand are needed.
    #[must_use]
    pub const fn has_zero_points(&self) -> bool {
        !self.zero_points.is_empty()
    }

    pub(super) fn panel(&self, panel: usize) -> &[u8] {
        let tile = Tile::of(self.isa);
        let width = tile.columns * tile.depth(self.k);
        &self.panels.bytes()[panel * width..(panel + 1) * width]
    }

    /// Columns of a panel.
    pub(super) fn columns_of(&self, panel: usize) -> Range<usize> {
        let columns = self.filled(panel);
        columns.start..columns.end.min(self.n)
    }

    /// Columns of a panel and what fills up the last.
    const fn filled(&self, panel: usize) -> Range<usize> {
        let width = Tile::of(self.isa).columns;
        panel * width..(panel + 1) * width
    }

    pub(super) fn sums(&self, panel: usize) -> &[i32] {
        &self.sums[self.filled(panel)]
    }

    pub(super) fn zero_points(&self, panel: usize) -> &[i32] {
        let columns = self.filled(panel);
        if self.zero_points.is_empty() {
            &[0; MAX_COLUMNS][..columns.len()]
        } else {
            &self.zero_points[columns]
        }
    }

    pub(super) fn scales_of(&self, panel: usize) -> &[f32] {
        &self.scales[self.filled(panel)]
    }

    /// Scales, one a column.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }
}

/// One value a column, filled up.
fn expand<T: Copy + Default>(values: &[T], n: usize, filled: usize) -> Vec<T> {
    let mut expanded = match values {
        &[one] => vec![one; n],
        all => {
            assert!(all.len() == n, "one value or one a column");
            all.to_vec()
        }
    };
    expanded.resize(filled, T::default());
    expanded
}

/// The columns of one panel.
struct Columns<'a> {
    k: usize,
    n: usize,
    first: usize,
    sums: &'a mut [i32],
}

fn pack(codes: Codes<'_>, tile: Tile, bytes: &mut [u8], columns: Columns<'_>) {
    match (codes, tile.lanes) {
        (Codes::I8(codes), Lanes::UnsignedBySigned | Lanes::SignedBySigned) => {
            pack_bytes(codes, tile, bytes, columns, |code| code);
        }
        (Codes::U8(codes), Lanes::UnsignedBySigned | Lanes::SignedBySigned) => {
            pack_bytes(codes, tile, bytes, columns, |code| (code ^ 0x80).cast_signed());
        }
        (Codes::I8(codes), Lanes::Words) => pack_words(codes, tile, bytes, columns, i16::from),
        (Codes::U8(codes), Lanes::Words) => pack_words(codes, tile, bytes, columns, i16::from),
    }
}

fn pack_bytes<T: Copy>(
    codes: &[T],
    tile: Tile,
    bytes: &mut [u8],
    columns: Columns<'_>,
    code_of: impl Fn(T) -> i8,
) {
    let Columns { k, n, first, sums } = columns;
    for (step, bytes) in bytes.chunks_exact_mut(tile.columns * STEP).enumerate() {
        for (part, k) in (step * STEP..k.min((step + 1) * STEP)).enumerate() {
            let row = &codes[k * n + first..][..sums.len()];
            for ((group, &code), sum) in bytes.chunks_exact_mut(STEP).zip(row).zip(&mut *sums) {
                let code = code_of(code);
                group[part] = code.cast_unsigned();
                *sum += i32::from(code);
            }
        }
    }
}

fn pack_words<T: Copy>(
    codes: &[T],
    tile: Tile,
    bytes: &mut [u8],
    columns: Columns<'_>,
    word_of: impl Fn(T) -> i16,
) {
    let Columns { k, n, first, sums } = columns;
    for (step, bytes) in bytes.chunks_exact_mut(tile.columns * STEP).enumerate() {
        for (part, k) in (step * 2..k.min((step + 1) * 2)).enumerate() {
            let row = &codes[k * n + first..][..sums.len()];
            for ((group, &code), sum) in bytes.chunks_exact_mut(STEP).zip(row).zip(&mut *sums) {
                let word = word_of(code);
                group[2 * part..2 * part + 2].copy_from_slice(&word.to_le_bytes());
                *sum += i32::from(word);
            }
        }
    }
}

//! Products with weights of at most 4 bits whose scales are shared by groups
//! along K: `C[m, n] = sum over groups g, in their order, of
//! f32(sum over k in g of (A[m, k] - za) (B[k, n] - zb[g, n])) * (sa * sb[g, n])`.
//!
//! With one row a product takes as long as its weights take to be read, so
//! that weights of half the size are worth their unpacking. Two codes share a
//! byte, as unsigned numbers: the low halves are those of four consecutive
//! `k`, the high ones those of the next four, so that a mask, and a shift and a
//! mask, give two registers that a dot product takes as they are. Sums of a
//! group are integers and exact (at most 255 * 15 each); each float operation
//! rounds to nearest in a fixed order, so that the result is the same everywhere.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::Buffer;

use super::super::Isa;
use super::microkernel::multiply_int4 as multiply;
use super::shared::{SHARED, Shared, share};
use super::tile::int4::{MAX_ROWS, PAIR, Panel, Rows, Totals};
use super::tile::{Lanes, STEP, Tile};
use super::{Codes, Lhs, PackedLhs};

/// The right operand: codes of at most 4 bits.
#[derive(Clone, Copy, Debug)]
pub struct GroupedRhs<'a> {
    /// `[k, n]`, row-major, one a byte, within -8..7 or 0..15.
    pub codes: Codes<'a>,
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Rows that share a scale, at least 1; the last group may be short.
    pub group: usize,
    /// Zero points within the range of the codes, one or `[groups, n]`.
    pub zero_points: &'a [i32],
    /// Scales, one or `[groups, n]`.
    pub scales: &'a [f32],
}

/// Such an operand in panels, as the tiles of one instruction set read them.
#[derive(Debug)]
pub struct PackedInt4 {
    isa: Isa,
    k: usize,
    n: usize,
    group: usize,
    panels: Buffer,
}

impl PackedInt4 {
    /// Packs for that instruction set, on the rayon pool it is called in; once `stop` is set it
    /// ends early, with a useless result.
    ///
    /// # Panics
    /// When the lengths do not fit one another.
    #[must_use]
    pub fn new(isa: Isa, right: GroupedRhs<'_>, stop: &AtomicBool) -> Self {
        let GroupedRhs { codes, k, n, group, zero_points, scales } = right;
        let mut packed = Self { isa, k, n, group, panels: Buffer::default() };
        let (columns, groups) = (packed.width(), packed.groups());
        assert!(codes.len() == k * n, "codes have the shape of the operand");
        let fits = |len: usize| len == 1 || len == groups * n;
        assert!(fits(zero_points.len()) && fits(scales.len()), "one, or one a group and column");
        let (blocks, bytes) = (n.div_ceil(columns) * groups, packed.group_bytes());
        let mut panels = Buffer::zeroed(blocks * bytes);
        if blocks > 0 {
            panels.bytes_mut().par_chunks_exact_mut(bytes).enumerate().for_each(|(i, block)| {
                if !stop.load(Ordering::Relaxed) {
                    packed.pack(right, i / groups, i % groups, block);
                }
            });
        }
        packed.panels = panels;
        packed
    }

    /// Fills the block of a group of a panel.
    fn pack(&self, right: GroupedRhs<'_>, panel: usize, g: usize, block: &mut [u8]) {
        let GroupedRhs { codes, k, n, group, zero_points, scales } = right;
        let width = self.width();
        let columns = panel * width..n.min((panel + 1) * width);
        let (halves, rest) = block.split_at_mut(self.pairs() * STEP * width);
        let (zeros, floats) = rest.split_at_mut(width);
        for (i, k) in (g * group..k.min((g + 1) * group)).enumerate() {
            let cells = halves[i / PAIR * width * STEP..].iter_mut().skip(i % STEP).step_by(STEP);
            let shift = if i % PAIR < STEP { 0 } else { 4 };
            let row = k * n + columns.start..k * n + columns.end;
            // Codes with a sign are shifted by 8, and their zero points with them.
            match codes {
                Codes::U8(codes) => {
                    cells.zip(&codes[row]).for_each(|(cell, code)| *cell |= (code & 15) << shift);
                }
                Codes::I8(codes) => cells.zip(&codes[row]).for_each(|(cell, code)| {
                    *cell |= (code.wrapping_add(8).cast_unsigned() & 15) << shift;
                }),
            }
        }
        let one = |len: usize, i: usize| if len == 1 { 0 } else { i };
        let shift = if matches!(codes, Codes::I8(_)) { 8 } else { 0 };
        for (j, column) in columns.enumerate() {
            let own = g * n + column;
            let zero = zero_points[one(zero_points.len(), own)] + shift;
            zeros[j] = u8::try_from(zero & 15).unwrap_or(0);
            let scale = scales[one(scales.len(), own)];
            floats[4 * j..4 * j + 4].copy_from_slice(&scale.to_le_bytes());
        }
    }

    /// The instruction set it was packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of the panels.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels.bytes().len()
    }

    const fn width(&self) -> usize {
        Tile::of(self.isa.registers()).columns
    }

    const fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// Pairs of steps of a group.
    fn pairs(&self) -> usize {
        self.group.min(self.k).div_ceil(PAIR)
    }

    fn group_bytes(&self) -> usize {
        Panel::group_bytes(self.width(), self.pairs())
    }

    fn panel(&self, panel: usize) -> Panel<'_> {
        let bytes = self.groups() * self.group_bytes();
        Panel {
            bytes: &self.panels.bytes()[panel * bytes..(panel + 1) * bytes],
            columns: self.width(),
            pairs: self.pairs(),
            groups: self.groups(),
        }
    }
}

/// Rows of the left operand, group by group.
struct GroupedRows {
    codes: Vec<i8>,
    stride: usize,
    sums: Vec<i32>,
    zero_points: Vec<i32>,
    scales: Vec<f32>,
}

impl GroupedRows {
    fn new(left: Lhs<'_>, b: &PackedInt4) -> Self {
        let tile = Tile { lanes: Lanes::SignedBySigned, ..Tile::of(b.isa.registers()) };
        let packed = PackedLhs::for_tile(b.isa, tile, left);
        let (m, groups, bytes) = (packed.rows(), b.groups(), b.pairs() * PAIR);
        let each = |row: usize, len: usize| if len == 1 { 0 } else { row };
        let zero_points = packed.zero_points();
        let mut rows = Self {
            codes: vec![0; m * groups * bytes],
            stride: groups * bytes,
            sums: Vec::with_capacity(m * groups),
            zero_points: (0..m).map(|row| zero_points[each(row, zero_points.len())]).collect(),
            scales: (0..m).map(|row| packed.scales()[each(row, packed.scales().len())]).collect(),
        };
        if b.k > 0 {
            for (i, codes) in rows.codes.chunks_exact_mut(bytes).enumerate() {
                let (row, g) = (i / groups, i % groups);
                let own = g * b.group..b.k.min((g + 1) * b.group);
                let own: &[i8] = bytemuck::cast_slice(&packed.row(row)[own]);
                codes[..own.len()].copy_from_slice(own);
                let zero = rows.zero_points[row];
                rows.sums.push(own.iter().map(|&code| i32::from(code) - zero).sum());
            }
        }
        rows
    }

    fn from(&self, row: usize, groups: usize) -> Rows<'_> {
        Rows {
            codes: &self.codes[row * self.stride..],
            stride: self.stride,
            sums: &self.sums[row * groups..],
            zero_points: &self.zero_points[row..],
            scales: &self.scales[row..],
        }
    }
}

/// Multiplies A (`[m, k]`) by packed groups (`[k, n]`) into `m * n` elements,
/// adds `bias`, one a column, and applies a `ReLU` if so asked. On the rayon pool
/// it is called in where there is enough to do; ends early, with a useless
/// result, once `stop` is set.
///
/// # Panics
/// When the lengths do not fit one another.
pub fn multiply_int4(
    left: Lhs<'_>,
    b: &PackedInt4,
    out: &mut [f32],
    (bias, relu): (Option<&[f32]>, bool),
    stop: &AtomicBool,
) {
    let (m, n, width) = (left.m, b.n, b.width());
    assert!(out.len() == m * n && left.k == b.k, "the operands and the result fit");
    if out.is_empty() {
        return;
    }
    let rows = &GroupedRows::new(left, b);
    let out = Shared::new(out, m, n);
    let threads = if m * n * b.k < SHARED { 1 } else { rayon::current_num_threads() };
    let panels = n.div_ceil(width);
    let tiles = m.div_ceil(MAX_ROWS);
    // Tile by tile within a panel, which stays in the cache.
    share(panels, threads, &|panel, totals: &mut Totals| {
        for tile in 0..tiles {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let row = tile * MAX_ROWS;
            let count = MAX_ROWS.min(m - row);
            multiply(b.isa, rows.from(row, b.groups()), count, b.panel(panel), totals);
            let columns = panel * width..n.min((panel + 1) * width);
            for (i, totals) in totals.0.iter().take(count).enumerate() {
                let cells = out.row(row + i, columns.start, columns.len());
                for (j, (cell, total)) in cells.iter_mut().zip(totals).enumerate() {
                    let bias = bias.map_or(0.0, |bias| bias[columns.start + j]);
                    let x = total + bias;
                    *cell = if relu && x < 0.0 { 0.0 } else { x };
                }
            }
        }
    });
}

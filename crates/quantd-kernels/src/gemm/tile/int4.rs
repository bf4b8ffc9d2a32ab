//! Tiles of products with 4-bit codes in groups: the loop of `vector.rs`, with
//! a float total beside the integer sums of the group at hand.
//!
//! A pair of steps takes one byte of two codes for each column and `k`, which
//! unpacks to two registers. Up to three rows share it: sums and totals of three
//! rows are 24 of 32 registers (12 of 16 with AVX2). One row has sums of its own for
//! either half, so that no addition waits for the one before.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use super::vector::Vector;
use super::{MAX_COLUMNS, STEP};

/// Rows of a tile at most.
pub(in super::super) const MAX_ROWS: usize = 3;
/// Codes of a column, and bytes of a row, that a pair of steps takes.
pub(in super::super) const PAIR: usize = 2 * STEP;

/// Rows of signed codes, group by group, each filled up to whole pairs with zeros.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rows<'a> {
    /// The first row and those after it.
    pub(in super::super) codes: &'a [i8],
    /// Bytes of a row.
    pub(in super::super) stride: usize,
    /// Sums of the codes less their zero point: of each group, row by row.
    pub(in super::super) sums: &'a [i32],
    /// Zero points, one a row.
    pub(in super::super) zero_points: &'a [i32],
    /// Scales, one a row.
    pub(in super::super) scales: &'a [f32],
}

/// Columns, group by group: the pairs, then a zero point a column in one
/// byte, then a scale a column in four.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Panel<'a> {
    pub(in super::super) bytes: &'a [u8],
    pub(in super::super) columns: usize,
    /// Pairs of a group.
    pub(in super::super) pairs: usize,
    pub(in super::super) groups: usize,
}

impl Panel<'_> {
    /// Bytes of a group.
    pub(in super::super) const fn group_bytes(columns: usize, pairs: usize) -> usize {
        columns * (pairs * STEP + 1 + size_of::<f32>())
    }
}

/// Totals of a tile, row by row.
#[derive(Debug)]
pub(in super::super) struct Totals(pub(in super::super) [[f32; MAX_COLUMNS]; MAX_ROWS]);

impl Default for Totals {
    fn default() -> Self {
        Self([[0.0; MAX_COLUMNS]; MAX_ROWS])
    }
}

/// What 4-bit codes need of an instruction set.
pub(super) trait Nibbles: Vector {
    /// A register of f32 lanes.
    type Floats: Copy;

    /// The low and the high halves of all bytes, as unsigned bytes.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn split(codes: Self::Register) -> [Self::Register; 2];
    /// Adds the products of four unsigned codes of at most 4 bits by four
    /// signed ones of a row, lane by lane, modulo 2^32.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn short_step(
        sums: Self::Register,
        codes: Self::Register,
        row: Self::Register,
    ) -> Self::Register;
    /// `sums - factor * terms`, modulo 2^32, the terms being unsigned bytes.
    ///
    /// # Safety
    /// The machine has the instruction set, and `LANES` bytes can be read from `terms`.
    unsafe fn less_bytes(sums: Self::Register, factor: i32, terms: *const u8) -> Self::Register;
    /// `sums - factor * terms`, modulo 2^32.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn less(sums: Self::Register, factor: i32, terms: Self::Register) -> Self::Register;
    /// All 0.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn no_floats() -> Self::Floats;
    /// `total + f32(sums) * (scale * scales)`.
    ///
    /// # Safety
    /// The machine has the instruction set, and `LANES` f32 can be read from `scales`, aligned
    /// or not.
    unsafe fn add_scaled(
        total: Self::Floats,
        sums: Self::Register,
        scale: f32,
        scales: *const u8,
    ) -> Self::Floats;
    /// # Safety
    /// The machine has the instruction set, and `LANES` f32 can be written to `to`.
    unsafe fn store_floats(to: *mut f32, floats: Self::Floats);
}

/// The definition.
pub(in super::super) fn scalar(
    rows: Rows<'_>,
    count: usize,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    let Panel { bytes, columns, pairs, groups } = panel;
    let codes = pairs * STEP * columns;
    for (r, totals) in totals.0.iter_mut().take(count).enumerate() {
        totals.fill(0.0);
        for (g, group) in bytes.chunks_exact(Panel::group_bytes(columns, pairs)).enumerate() {
            let row = &rows.codes[r * rows.stride + g * pairs * PAIR..][..pairs * PAIR];
            for (j, total) in totals.iter_mut().take(columns).enumerate() {
                let mut sum = 0_i32;
                for (i, a) in row.iter().enumerate() {
                    let byte = group[(i / PAIR * columns + j) * STEP + i % STEP];
                    let code = if i % PAIR < STEP { byte & 15 } else { byte >> 4 };
                    sum += (i32::from(*a) - rows.zero_points[r]) * i32::from(code);
                }
                sum -= i32::from(group[codes + j]) * rows.sums[r * groups + g];
                let scale = codes + columns + size_of::<f32>() * j;
                let scale = group[scale..].first_chunk().map_or(0.0, |&x| f32::from_le_bytes(x));
                *total += sum as f32 * (rows.scales[r] * scale);
            }
        }
    }
}

/// Multiplies on the registers of `V`, `W` of them across the panel.
///
/// # Safety
/// The machine has the instruction set of `V`; the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply_with<V: Nibbles, const W: usize>(
    rows: Rows<'_>,
    count: usize,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    let shifted = rows.zero_points[..count].iter().any(|&zero| zero != 0);
    // SAFETY: the caller has the instructions of `V`; `tile` itself asserts all lengths.
    unsafe {
        match (count, shifted) {
            (1, false) => tile::<V, W, 1, false>(rows, panel, totals),
            (2, false) => tile::<V, W, 2, false>(rows, panel, totals),
            (_, false) => tile::<V, W, 3, false>(rows, panel, totals),
            (1, true) => tile::<V, W, 1, true>(rows, panel, totals),
            (2, true) => tile::<V, W, 2, true>(rows, panel, totals),
            (_, true) => tile::<V, W, 3, true>(rows, panel, totals),
        }
    }
}

/// # Safety
/// The machine has the instruction set of `V`; the caller is compiled for it.
#[inline(always)]
unsafe fn tile<V: Nibbles, const W: usize, const R: usize, const SHIFTED: bool>(
    rows: Rows<'_>,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    let Panel { bytes, columns, pairs, groups } = panel;
    let group_bytes = Panel::group_bytes(columns, pairs);
    assert!(columns == W * V::LANES && columns <= MAX_COLUMNS, "the panel is of this width");
    assert!(bytes.len() >= groups * group_bytes, "the panel has all groups");
    assert!(rows.codes.len() >= (R - 1) * rows.stride + groups * pairs * PAIR, "so have the rows");
    // SAFETY: the caller has the instructions of `V`, and the assertions cover all addresses.
    unsafe {
        let ones = V::spread([1_u8; STEP].as_ptr());
        let mut floats = [[V::no_floats(); W]; R];
        for g in 0..groups {
            let from = bytes.as_ptr().add(g * group_bytes);
            let row = rows.codes.as_ptr().cast::<u8>().add(g * pairs * PAIR);
            let mut sums = [[[V::zero(); 2]; W]; R];
            let mut of_codes = [V::zero(); W];
            for p in 0..pairs {
                for w in 0..W {
                    let codes = V::load(from.add((p * W + w) * V::LANES * STEP));
                    let halves = V::split(codes);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (half, codes) in halves.iter().enumerate() {
                            let at = r * rows.stride + p * PAIR + half * STEP;
                            let row = V::spread(row.add(at));
                            // One row: two sums, that no addition waits for the one before.
                            let sum = &mut sums[w][if R == 1 { half } else { 0 }];
                            *sum = V::short_step(*sum, *codes, row);
                        }
                    }
                    if SHIFTED {
                        for codes in halves {
                            of_codes[w] = V::short_step(of_codes[w], codes, ones);
                        }
                    }
                }
            }
            let zeros = from.add(pairs * STEP * columns);
            let scales = zeros.add(columns);
            for w in 0..W {
                for r in 0..R {
                    let sum = V::add(sums[r][w][0], sums[r][w][1]);
                    let own = rows.sums[r * groups + g];
                    let mut sum = V::less_bytes(sum, own, zeros.add(w * V::LANES));
                    if SHIFTED {
                        sum = V::less(sum, rows.zero_points[r], of_codes[w]);
                    }
                    let scales = scales.add(w * V::LANES * size_of::<f32>());
                    floats[r][w] = V::add_scaled(floats[r][w], sum, rows.scales[r], scales);
                }
            }
        }
        for (totals, floats) in totals.0.iter_mut().zip(floats) {
            for (w, floats) in floats.into_iter().enumerate() {
                V::store_floats(totals[w * V::LANES..].as_mut_ptr(), floats);
            }
        }
    }
}

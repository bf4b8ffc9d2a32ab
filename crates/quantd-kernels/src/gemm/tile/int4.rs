//! Tiles of products with 4-bit codes in groups: the loop of `vector.rs`, with
//! a float total beside the integer sums of the group at hand.
//!
//! A pair of steps takes one byte of two codes for each column and `k`, which
//! unpacks to two registers. Up to three rows share it: sums and totals of three
//! rows are 24 of 32 registers (12 of 16 with AVX2). One row has sums of its own for
//! either half, so that no addition waits for the one before.
#![expect(
    unsafe_code,
    reason = "operands are read by pointer, within bounds that are asserted before the loop"
)]

use super::vector::{across, part, spread};
use super::{MAX_COLUMNS, STEP};
use crate::simd::{Dot, Simd};

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

/// Multiplies `count` rows, at most [`MAX_ROWS`], by a panel of [`across`] registers of columns.
#[inline(always)]
pub(in super::super) fn multiply<D: Dot>(
    dot: D,
    rows: Rows<'_>,
    count: usize,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    if across(D::Simd::REGISTERS) == 4 {
        multiply_across::<D, 4>(dot, rows, count, panel, totals);
    } else {
        multiply_across::<D, 2>(dot, rows, count, panel, totals);
    }
}

#[inline(always)]
fn multiply_across<D: Dot, const W: usize>(
    dot: D,
    rows: Rows<'_>,
    count: usize,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    let shifted = rows.zero_points[..count].iter().any(|&zero| zero != 0);
    match (count, shifted) {
        (1, false) => tile::<D, W, 1, false>(dot, rows, panel, totals),
        (2, false) => tile::<D, W, 2, false>(dot, rows, panel, totals),
        (_, false) => tile::<D, W, 3, false>(dot, rows, panel, totals),
        (1, true) => tile::<D, W, 1, true>(dot, rows, panel, totals),
        (2, true) => tile::<D, W, 2, true>(dot, rows, panel, totals),
        (_, true) => tile::<D, W, 3, true>(dot, rows, panel, totals),
    }
}

#[inline(always)]
fn tile<D: Dot, const W: usize, const R: usize, const SHIFTED: bool>(
    dot: D,
    rows: Rows<'_>,
    panel: Panel<'_>,
    totals: &mut Totals,
) {
    let (simd, lanes) = (dot.simd(), D::Simd::LANES);
    let Panel { bytes, columns, pairs, groups } = panel;
    let group_bytes = Panel::group_bytes(columns, pairs);
    assert!(columns == W * lanes && columns <= MAX_COLUMNS, "the panel is of this width");
    assert!(bytes.len() >= groups * group_bytes, "the panel has all groups");
    assert!(rows.codes.len() >= (R - 1) * rows.stride + groups * pairs * PAIR, "so have the rows");
    let codes: &[u8] = bytemuck::cast_slice(rows.codes);
    let ones = simd.splat_i32(0x0101_0101);
    let mut floats = [[simd.splat(0.0); W]; R];
    for (g, group) in bytes.chunks_exact(group_bytes).take(groups).enumerate() {
        let mut sums = [[[simd.splat_i32(0); 2]; W]; R];
        let mut of_codes = [simd.splat_i32(0); W];
        for p in 0..pairs {
            for w in 0..W {
                // SAFETY: a group has `pairs` pairs of `columns` columns.
                let own = unsafe { part(group, (p * W + w) * lanes * STEP, lanes * STEP) };
                let halves = simd.nibbles(simd.load_bytes(own));
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (half, codes_of) in halves.iter().enumerate() {
                        let at = r * rows.stride + (g * pairs + p) * PAIR + half * STEP;
                        // SAFETY: the rows have all groups (asserted).
                        let row = spread(simd, unsafe { part(codes, at, STEP) });
                        // One row: two sums, that no addition waits for the one before.
                        let sum = &mut sums[w][if R == 1 { half } else { 0 }];
                        *sum = dot.dot_nibbles(*sum, *codes_of, row);
                    }
                }
                if SHIFTED {
                    for codes in halves {
                        of_codes[w] = dot.dot_nibbles(of_codes[w], codes, ones);
                    }
                }
            }
        }
        let (zeros, scales) = group[pairs * STEP * columns..].split_at(columns);
        for w in 0..W {
            let zeros = simd.load_codes::<false>(&zeros[w * lanes..]);
            let scales = simd.as_f32(simd.load_bytes(&scales[w * lanes * size_of::<f32>()..]));
            for r in 0..R {
                let sum = simd.add_i32(sums[r][w][0], sums[r][w][1]);
                let own = simd.splat_i32(rows.sums[r * groups + g]);
                let mut sum = simd.sub_i32(sum, simd.mul_i32(zeros, own));
                if SHIFTED {
                    let zero_point = simd.splat_i32(rows.zero_points[r]);
                    sum = simd.sub_i32(sum, simd.mul_i32(of_codes[w], zero_point));
                }
                let scale = simd.mul(simd.splat(rows.scales[r]), scales);
                floats[r][w] = simd.add(floats[r][w], simd.mul(simd.to_f32(sum), scale));
            }
        }
    }
    for (totals, floats) in totals.0.iter_mut().zip(floats) {
        for (w, floats) in floats.into_iter().enumerate() {
            simd.store(&mut totals[w * lanes..], floats);
        }
    }
}

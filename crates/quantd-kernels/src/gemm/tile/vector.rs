//! The one loop of all tiles, over the registers of an instruction set.
//!
//! A step takes [`STEP`] bytes of each row, spread over a register, and the
//! same bytes of `W` registers of columns, and adds their products to `R * W`
//! registers of sums. These stay in registers over the whole of K: their
//! number is the largest that leaves room for the operands of a step (24 of 32 registers, which leaves 4 for
//! columns, 1 or 2 for a row and a product; 12 of 16), since
//! each register of columns that is loaded is used `R` times and each row `W`
//! times, and only 10 loads then serve 24 multiplications (`R` 6, `W` 4).
//!
//! With few rows there are fewer independent sums than the multipliers need
//! to be busy all the time, so that the loop is unrolled `U` times with sums of
//! its own for each part. They are integers: it makes no difference to the total.
#![expect(
    unsafe_code,
    reason = "operands are read by pointer, within bounds that are asserted before the loop"
)]

use super::{Panel, Rows, STEP};
use crate::cache::{LINE, prefetch};
use crate::simd::{Dot, Simd};

/// Rows of a tile at most.
pub(super) const ROWS: usize = 6;

/// Registers of columns across a panel, of so many registers.
pub(super) const fn across(registers: usize) -> usize {
    if registers >= 32 { 4 } else { 2 }
}

/// Where the sums of a tile begin, and what becomes of them. It has columns for `W` registers.
pub(in super::super) trait TileEpilogue {
    /// What the products of each row are added to.
    fn begin<S: Simd, const W: usize, const R: usize>(&self, simd: S) -> [[S::I32; W]; R];
    /// Fetches the cells of a row of the tile, which will be written soon.
    fn prefetch<S: Simd, const W: usize>(&self, row: usize);
    /// Makes cells of the sums.
    fn end<S: Simd, const W: usize, const R: usize>(&mut self, simd: S, sums: [[S::I32; W]; R]);
}

/// Multiplies up to six rows by a panel of [`across`] registers of columns.
#[inline(always)]
pub(in super::super) fn multiply<D: Dot>(
    dot: D,
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue,
) {
    if across(D::Simd::REGISTERS) == 4 {
        multiply_across::<D, 4>(dot, rows, panel, epilogue);
    } else {
        multiply_across::<D, 2>(dot, rows, panel, epilogue);
    }
}

#[inline(always)]
fn multiply_across<D: Dot, const W: usize>(
    dot: D,
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue,
) {
    match rows.count {
        0 => {}
        1 => tile::<D, W, 1, 4>(dot, rows, panel, epilogue),
        2 => tile::<D, W, 2, 2>(dot, rows, panel, epilogue),
        3 => tile::<D, W, 3, 1>(dot, rows, panel, epilogue),
        4 => tile::<D, W, 4, 1>(dot, rows, panel, epilogue),
        5 => tile::<D, W, 5, 1>(dot, rows, panel, epilogue),
        6 => tile::<D, W, 6, 1>(dot, rows, panel, epilogue),
        _ => unreachable!("tiles have six rows at most"),
    }
}

/// Multiplies up to three rows by a panel of two registers of columns.
#[inline(always)]
pub(in super::super) fn multiply_narrow<D: Dot>(
    dot: D,
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue,
) {
    match rows.count {
        0 => {}
        1 => tile::<D, 2, 1, 8>(dot, rows, panel, epilogue),
        2 => tile::<D, 2, 2, 4>(dot, rows, panel, epilogue),
        3 => tile::<D, 2, 3, 4>(dot, rows, panel, epilogue),
        _ => unreachable!("narrow tiles have three rows at most"),
    }
}

#[inline(always)]
fn tile<D: Dot, const W: usize, const R: usize, const U: usize>(
    dot: D,
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue,
) {
    let simd = dot.simd();
    let steps = panel.bytes.len() / (W * D::Simd::LANES * STEP);
    assert!((R - 1) * rows.stride + steps * STEP <= rows.bytes.len(), "the rows are as long as K");
    let mut totals = [[[simd.splat_i32(0); W]; R]; U];
    totals[0] = epilogue.begin(simd);
    let mut at = 0;
    // The cells are fetched bit by bit: all at once they would be in the way of the operands.
    for row in 0..rows.count {
        epilogue.prefetch::<D::Simd, W>(row);
        let end = steps.min((row + 1) * (steps / R + 1));
        while at + U <= end {
            for (u, totals) in totals.iter_mut().enumerate() {
                // SAFETY: the panel has `steps` steps by the division above, the rows by the assertion.
                unsafe { step::<D, W, R>(dot, totals, rows, panel, at + u) };
            }
            at += U;
        }
    }
    while at < steps {
        // SAFETY: as above.
        unsafe { step::<D, W, R>(dot, &mut totals[0], rows, panel, at) };
        at += 1;
    }
    let mut sums = totals[0];
    for other in &totals[1..] {
        for (sums, other) in sums.iter_mut().zip(other) {
            for (sum, other) in sums.iter_mut().zip(other) {
                *sum = simd.add_i32(*sum, *other);
            }
        }
    }
    epilogue.end(simd, sums);
}

/// # Safety
/// The panel has `(at + 1) * W * LANES * STEP` bytes, the rows have `(R - 1) * stride + (at + 1) * STEP`.
#[inline(always)]
unsafe fn step<D: Dot, const W: usize, const R: usize>(
    dot: D,
    totals: &mut [[<D::Simd as Simd>::I32; W]; R],
    rows: Rows<'_>,
    panel: Panel<'_>,
    at: usize,
) {
    let (simd, width) = (dot.simd(), D::Simd::LANES * STEP);
    let mut columns = [simd.splat_i32(0); W];
    for (w, column) in columns.iter_mut().enumerate() {
        // SAFETY: the panel has the bytes, says the caller.
        let bytes = unsafe { part(panel.bytes, (at * W + w) * width, width) };
        *column = simd.load_bytes(bytes);
    }
    prefetch::<true>(panel.ahead.as_ptr().wrapping_add(at * LINE));
    for (r, totals) in totals.iter_mut().enumerate() {
        // SAFETY: the rows have the bytes, says the caller.
        let bytes = unsafe { part(rows.bytes, r * rows.stride + at * STEP, STEP) };
        let row = spread(simd, bytes);
        for (total, column) in totals.iter_mut().zip(columns) {
            *total = dot.dot(*total, row, column);
        }
    }
}

/// The same four bytes in every lane.
#[inline(always)]
pub(super) fn spread<S: Simd>(simd: S, bytes: &[u8]) -> S::I32 {
    simd.splat_i32(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// `len` bytes from `at` on.
///
/// # Safety
/// There are as many.
#[inline(always)]
pub(super) unsafe fn part(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    // SAFETY: within `bytes`, says the caller.
    unsafe { bytes.get_unchecked(at..at + len) }
}

//! The one loop of all tiles, over the registers of an instruction set.
//!
//! A step takes [`STEP`] bytes of each row, spread over a register, and the
//! same bytes of `W` registers of columns, and adds their products to `R * W`
//! registers of sums. These stay in registers over the whole of K: their
//! number is the largest that leaves room for the operands of a step, since
//! each register of columns that is loaded is used `R` times and each row `W`
//! times, and only 10 loads then serve 24 multiplications (`R` 6, `W` 4).
//!
//! With few rows there are fewer independent sums than the multipliers need
//! to be busy all the time, so that the loop is unrolled `U` times with sums of
//! its own for each part. They are integers: it makes no difference to the total.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use super::{Panel, Rows, STEP};
use crate::cache::{LINE, prefetch};

/// Registers of 32-bit lanes and what is done with them.
pub(in super::super) trait Vector {
    /// A register.
    type Register: Copy;
    /// Lanes of a register.
    const LANES: usize;

    /// # Safety
    /// The machine has the instruction set.
    unsafe fn zero() -> Self::Register;
    /// The same four bytes in every lane.
    ///
    /// # Safety
    /// The machine has the instruction set, and `STEP` bytes can be read from `from`.
    unsafe fn spread(from: *const u8) -> Self::Register;
    /// # Safety
    /// The machine has the instruction set, and `STEP * LANES` bytes can be read from `from`.
    unsafe fn load(from: *const u8) -> Self::Register;
    /// # Safety
    /// The machine has the instruction set, and `LANES` i32 can be written to `to`.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn store(to: *mut i32, register: Self::Register);
    /// Lane by lane.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn add(a: Self::Register, b: Self::Register) -> Self::Register;
    /// Adds the products of one step, lane by lane, modulo 2^32.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn step(
        sums: Self::Register,
        row: Self::Register,
        column: Self::Register,
    ) -> Self::Register;
}

/// Where the sums of a tile begin, and what becomes of them.
pub(in super::super) trait TileEpilogue<V: Vector> {
    /// What the products of each row are added to.
    ///
    /// # Safety
    /// The machine has the instruction set of `V`; the caller is compiled for it.
    /// What the epilogue holds for columns has `W * V::LANES` values of each kind.
    unsafe fn begin<const W: usize, const R: usize>(&self) -> [[V::Register; W]; R];
    /// Fetches the cells of a row of the tile, which will be written soon.
    fn expect<const W: usize>(&self, row: usize);
    /// Makes cells of the sums.
    ///
    /// # Safety
    /// As [`begin`](Self::begin).
    unsafe fn end<const W: usize, const R: usize>(&mut self, sums: [[V::Register; W]; R]);
}

/// Multiplies up to six rows by a panel of `W` registers of columns.
///
/// # Safety
/// The machine has the instruction set of `V`; the caller is compiled for it.
/// What `epilogue` holds for columns has `W * V::LANES` values of each kind.
#[inline(always)]
pub(super) unsafe fn multiply<V: Vector, const W: usize>(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<V>,
) {
    // SAFETY: the caller has the instructions of `V`, and `epilogue` has columns for `W` registers.
    unsafe {
        match rows.count {
            0 => {}
            1 => tile::<V, W, 1, 4>(rows, panel, epilogue),
            2 => tile::<V, W, 2, 2>(rows, panel, epilogue),
            3 => tile::<V, W, 3, 1>(rows, panel, epilogue),
            4 => tile::<V, W, 4, 1>(rows, panel, epilogue),
            5 => tile::<V, W, 5, 1>(rows, panel, epilogue),
            6 => tile::<V, W, 6, 1>(rows, panel, epilogue),
            _ => unreachable!("tiles have six rows at most"),
        }
    }
}

/// Multiplies up to three rows by a panel of two registers of columns.
///
/// # Safety
/// As [`multiply`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn multiply_narrow<V: Vector>(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<V>,
) {
    // SAFETY: the caller has the instructions of `V`, and `epilogue` has columns for two registers.
    unsafe {
        match rows.count {
            0 => {}
            1 => tile::<V, 2, 1, 8>(rows, panel, epilogue),
            2 => tile::<V, 2, 2, 4>(rows, panel, epilogue),
            3 => tile::<V, 2, 3, 4>(rows, panel, epilogue),
            _ => unreachable!("narrow tiles have three rows at most"),
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn tile<V: Vector, const W: usize, const R: usize, const U: usize>(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<V>,
) {
    let width = W * V::LANES * STEP;
    let steps = panel.bytes.len() / width;
    assert!((R - 1) * rows.stride + steps * STEP <= rows.bytes.len(), "the rows are as long as K");
    // SAFETY: the caller has the instructions of `V` and columns for `W` registers; the
    // panel has `steps` steps by the division above, the rows by the assertion, and `at < steps`.
    unsafe {
        let mut totals = [[[V::zero(); W]; R]; U];
        totals[0] = epilogue.begin();
        let mut at = 0;
        // The cells are fetched bit by bit: all at once they would be in the way of the operands.
        for row in 0..rows.count {
            epilogue.expect::<W>(row);
            let end = steps.min((row + 1) * (steps / R + 1));
            while at + U <= end {
                for (u, totals) in totals.iter_mut().enumerate() {
                    step::<V, W, R>(totals, rows, panel, at + u);
                }
                at += U;
            }
        }
        while at < steps {
            step::<V, W, R>(&mut totals[0], rows, panel, at);
            at += 1;
        }
        let mut sums = totals[0];
        for other in &totals[1..] {
            for (sums, other) in sums.iter_mut().zip(other) {
                for (sum, other) in sums.iter_mut().zip(other) {
                    *sum = V::add(*sum, *other);
                }
            }
        }
        epilogue.end(sums);
    }
}

/// # Safety
/// The machine has the instruction set of `V`; the caller is compiled for it. The panel has
/// `(at + 1) * W * V::LANES * STEP` bytes, the rows have `(R - 1) * stride + (at + 1) * STEP`.
#[inline(always)]
unsafe fn step<V: Vector, const W: usize, const R: usize>(
    totals: &mut [[V::Register; W]; R],
    rows: Rows<'_>,
    panel: Panel<'_>,
    at: usize,
) {
    // SAFETY: the caller has the instructions of `V`, and panel and rows have step `at`.
    unsafe {
        let from = panel.bytes.as_ptr().add(at * W * V::LANES * STEP);
        let mut columns = [V::zero(); W];
        for (w, column) in columns.iter_mut().enumerate() {
            *column = V::load(from.add(w * V::LANES * STEP));
        }
        prefetch::<true>(panel.ahead.as_ptr().wrapping_add(at * LINE));
        for (r, totals) in totals.iter_mut().enumerate() {
            let row = V::spread(rows.bytes.as_ptr().add(r * rows.stride + at * STEP));
            for (total, column) in totals.iter_mut().zip(columns) {
                *total = V::step(*total, row, column);
            }
        }
    }
}

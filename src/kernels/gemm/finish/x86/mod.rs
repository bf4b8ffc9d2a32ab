//! Cells by the register, on AVX2 and AVX-512.
//!
//! A tile of 6 rows takes some thousand cycles of multiplications, and its few
//! hundred cells must not take a tenth of that. [`finish`] is the one loop: a
//! register of sums is loaded, corrected, turned into cells by its
//! [`Finish`] and stored. What is left of a row that fills no register, in
//! the last panel, is done one by one.
//!
//! Fixed-point multipliers need products of 32 by 32 bits; `vpmuldq` makes them of
//! the even lanes, in 64 bits, so that even and odd lanes go separate ways and
//! are blended at the end. The high half of gemmlowp, `(p + nudge) / 2^31` with a
//! nudge that depends on the sign and a division that truncates, is
//! `(p + 2^30) >> 31` for either sign, and fits 32 bits: `|p| <= 2^31 (2^31 - 1)`.
#![expect(unsafe_code, reason = "instructions that the caller knows to be there")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use super::super::output::{Columns, RowTerms};
use super::{Finish, FinishTile, finish_row};

pub(super) mod avx2;
pub(super) mod avx512;

/// Registers of 32-bit lanes and what is done with them, lane by lane.
///
/// # Safety
/// Of every function: the machine has the instruction set; what is loaded can
/// be read, what is stored can be written.
pub(in super::super) trait Vector {
    /// Lanes of integers.
    type Ints: Copy;
    /// Lanes of real numbers.
    type Floats: Copy;
    /// Lanes of a register.
    const LANES: usize;

    unsafe fn load_ints(from: *const i32) -> Self::Ints;
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    unsafe fn store_ints(to: *mut i32, cells: Self::Ints);
    unsafe fn store_floats(to: *mut f32, cells: Self::Floats);
    /// The low byte of each lane.
    unsafe fn store_bytes(to: *mut u8, cells: Self::Ints);
    unsafe fn all(of: i32) -> Self::Ints;
    unsafe fn all_floats(of: f32) -> Self::Floats;

    /// Modulo 2^32.
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The low half of the product.
    unsafe fn mul(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// At least `end`.
    unsafe fn least(a: Self::Ints, end: Self::Ints) -> Self::Ints;
    /// At most `end`.
    unsafe fn most(a: Self::Ints, end: Self::Ints) -> Self::Ints;

    /// The nearest real numbers.
    unsafe fn floats(a: Self::Ints) -> Self::Floats;
    unsafe fn add_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn div_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a > b ? a : b`.
    unsafe fn larger(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a < b ? a : b`.
    unsafe fn smaller(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The nearest integers, ties to even.
    unsafe fn round_even(a: Self::Floats) -> Self::Ints;

    /// `sum * factor + zero` in f64, within the ends (the lower one for NaN), and
    /// rounded, ties to even.
    unsafe fn affine(
        sums: Self::Ints,
        factors: Self::Floats,
        zero: f64,
        ends: [f64; 2],
    ) -> Self::Ints;
    /// As [`Multiplier::twice`](super::super::Multiplier).
    unsafe fn twice(sums: Self::Ints, mantissas: Self::Ints, exponents: Self::Ints) -> Self::Ints;
    /// As [`Multiplier::once`](super::super::Multiplier), within the ends.
    unsafe fn once(
        sums: Self::Ints,
        mantissas: Self::Ints,
        exponents: Self::Ints,
        ends: [i64; 2],
    ) -> Self::Ints;
}

/// Corrects the sums of a tile for zero points and writes the result.
///
/// # Safety
/// The machine has the instruction set of `V`; the caller is compiled for it.
#[inline(always)]
unsafe fn finish<V: Vector, T: Copy, F: Finish<T>>(tile: FinishTile<'_, '_, T, F>) {
    let FinishTile { terms, columns, rows, width, sums, finish, out } = tile;
    let len = columns.range.len();
    let whole = len - len % V::LANES;
    for (row, sums) in rows.zip(sums.0.chunks_exact(width)) {
        let own = terms.row(row);
        if columns.needs_factors::<T, F>(own) {
            // SAFETY: the caller's.
            unsafe { scale::<V>(columns, own, finish.divisor()) };
        }
        let columns: &Columns<'_> = columns;
        let cells = out.row(row, columns.range.start, len);
        let sums = &sums[..len];
        assert!(columns.sums.len() == len && columns.zero_points.len() == len, "one a column");
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: the caller's; `at + LANES <= whole <= len`, and there are
            // so many sums, cells, and of everything that belongs to columns.
            unsafe {
                let base = V::load_ints(columns.base.as_ptr().add(at));
                let mut total = V::add(V::load_ints(sums.as_ptr().add(at)), base);
                if own.of_column_sums != 0 {
                    let others = V::load_ints(columns.sums.as_ptr().add(at));
                    total = V::add(total, V::mul(others, V::all(own.of_column_sums)));
                }
                if own.of_zero_points != 0 {
                    let others = V::load_ints(columns.zero_points.as_ptr().add(at));
                    total = V::add(total, V::mul(others, V::all(own.of_zero_points)));
                }
                finish.cells::<V>(total, columns, at, cells.as_mut_ptr().add(at));
            }
        }
        finish_row(&sums[whole..], own, columns, whole, finish, &mut cells[whole..]);
    }
}

/// Makes the factors for a row, by the register: a load of what two smaller
/// stores wrote would wait until they are in the cache.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn scale<V: Vector>(columns: &mut Columns<'_>, row: RowTerms, divisor: Option<f32>) {
    let whole = columns.scales.len() - columns.scales.len() % V::LANES;
    for at in (0..whole).step_by(V::LANES) {
        let to = columns.factors[at..at + V::LANES].as_mut_ptr();
        // SAFETY: the caller's; `at + LANES <= whole`, and the range above exists.
        unsafe {
            let scales = V::load_floats(columns.scales.as_ptr().add(at));
            let both = V::mul_floats(V::all_floats(row.scale), scales);
            let factors = match divisor {
                Some(divisor) => V::div_floats(both, V::all_floats(divisor)),
                None => both,
            };
            V::store_floats(to, factors);
        }
    }
    columns.scale_from(whole, row, divisor);
}

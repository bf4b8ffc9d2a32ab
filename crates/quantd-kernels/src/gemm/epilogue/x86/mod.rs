//! Cells by the register, on AVX2 and AVX-512.
//!
//! A tile of 6 rows takes some thousand cycles of multiplications, and nothing
//! may stand between the last one and the first of the next tile: a processor
//! looks ahead by some 300 operations, and stores of many registers, one
//! in two cycles, hold up what comes after them. So sums begin with what zero
//! points and bias make of them, in place of zeros, and become cells where
//! they are, in their registers, with as few operations as the form of the cells needs. (Sums
//! that go through memory to be finished cost 4 % at a depth of 768.) In the last panel,
//! what fills it up is computed like the rest, and cells take the way of a spare tile.
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

use bytemuck::Pod;

use super::super::tile::vector::{self, TileEpilogue};
use super::{Epilogue, TileOutput};

pub(super) mod avx2;
pub(super) mod avx512;

/// Registers of 32-bit lanes and what is done with them, lane by lane.
///
/// # Safety
/// Of every function: the machine has the instruction set. Of those with a pointer: `LANES`
/// values (`W * LANES` to load all) can be read from `from` or written to `to`, aligned or not.
pub(in super::super) trait Vector {
    /// Lanes of integers.
    type Ints: Copy;
    /// Lanes of real numbers.
    type Floats: Copy;
    /// Lanes of a register.
    const LANES: usize;

    unsafe fn load_ints(from: *const i32) -> Self::Ints;
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    /// Registers that lie one after the other.
    #[inline(always)]
    unsafe fn load_all<const W: usize>(from: *const i32) -> [Self::Ints; W] {
        // SAFETY: the caller has the instruction set, and `from` has `W * LANES` readable numbers.
        std::array::from_fn(|w| unsafe { Self::load_ints(from.add(w * Self::LANES)) })
    }
    /// Registers that lie one after the other.
    #[inline(always)]
    unsafe fn load_all_floats<const W: usize>(from: *const f32) -> [Self::Floats; W] {
        // SAFETY: the caller has the instruction set, and `from` has `W * LANES` readable numbers.
        std::array::from_fn(|w| unsafe { Self::load_floats(from.add(w * Self::LANES)) })
    }
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

impl<V, T: Pod, F: Epilogue<T>> TileEpilogue<V> for TileOutput<'_, T, F>
where
    V: vector::Vector + Vector<Ints = <V as vector::Vector>::Register>,
{
    #[inline(always)]
    unsafe fn begin<const W: usize, const R: usize>(&self) -> [[V::Ints; W]; R] {
        let Self { columns, terms, rows, .. } = self;
        assert!(columns.has(W * <V as Vector>::LANES), "columns are filled up to the panel");
        let own = |r: usize| terms.row(rows.start + r);
        let [shifted, each] = terms.of_column_sums;
        // SAFETY: the caller has the instructions of `V`, and what is read of `columns` has
        // `W * LANES` values: `addends`, `sums` and `zero_points`.
        unsafe {
            let mut first = [[V::all(0); W]];
            if terms.addends {
                first = [V::load_all(columns.addends.as_ptr())];
            }
            if shifted && !each {
                add_products::<V, W, 1>(&mut first, |r| own(r).of_column_sums, columns.sums);
            }
            let mut sums = [first[0]; R];
            if shifted && each {
                add_products::<V, W, R>(&mut sums, |r| own(r).of_column_sums, columns.sums);
            }
            if terms.of_zero_points {
                add_products::<V, W, R>(&mut sums, |r| own(r).of_zero_points, columns.zero_points);
            }
            sums
        }
    }

    #[inline(always)]
    fn expect<const W: usize>(&self, row: usize) {
        self.out.prefetch(
            self.rows.start + row,
            self.columns.range.start,
            W * <V as Vector>::LANES,
        );
    }

    #[inline(always)]
    unsafe fn end<const W: usize, const R: usize>(&mut self, sums: [[V::Ints; W]; R]) {
        let Self { terms, columns, rows, width, sums: spare, finish, out } = self;
        let (start, len) = (columns.range.start, columns.range.len());
        let spare: &mut [T] = bytemuck::cast_slice_mut(&mut spare.0);
        let lanes = W * <V as Vector>::LANES;
        assert!(rows.len() == R && *width == lanes && R * lanes <= spare.len(), "the tile fits");
        assert!(columns.has(lanes), "columns are filled up to the panel");
        let (cells, stride) = if len == *width {
            (out.rows(rows.clone(), start, len), out.stride())
        } else {
            (spare.as_mut_ptr(), *width)
        };
        let scaled = F::SCALED && !columns.one_scale;
        // SAFETY: the caller has the instructions of `V`, and `columns` has `W * LANES` values
        // of each kind; `cells` is `R` rows of as many, `stride` apart (asserted), no other task's.
        unsafe {
            for (r, sums) in sums.into_iter().enumerate() {
                let factors = if scaled {
                    let own = V::all_floats(terms.row(rows.start + r).scale);
                    V::load_all_floats::<W>(columns.scales.as_ptr()).map(|scale| {
                        let factor = V::mul_floats(own, scale);
                        finish
                            .divisor()
                            .map_or(factor, |divisor| V::div_floats(factor, V::all_floats(divisor)))
                    })
                } else {
                    V::load_all_floats(columns.factors.as_ptr())
                };
                for w in 0..W {
                    let at = w * <V as Vector>::LANES;
                    let cells = cells.add(r * stride + at);
                    finish.cells::<V>(sums[w], factors[w], columns, at, cells);
                }
            }
        }
        if len < *width {
            for (row, spare) in rows.clone().zip(spare.chunks_exact(*width)) {
                out.row(row, start, len).copy_from_slice(&spare[..len]);
            }
        }
    }
}

/// Makes cells of sums in memory: those of the rows of `output`, `stride` apart.
///
/// # Safety
/// The machine has the instruction set of `V`, which the caller is compiled for, and `output` has
/// columns for `W` registers.
#[inline(always)]
unsafe fn finish_rows<V, const W: usize, T: Pod, F: Epilogue<T>>(
    output: &mut TileOutput<'_, T, F>,
    sums: &[i32],
    stride: usize,
) where
    V: vector::Vector + Vector<Ints = <V as vector::Vector>::Register>,
{
    for (i, row) in output.rows.clone().enumerate() {
        let sums = &sums[i * stride..][..W * <V as Vector>::LANES];
        output.rows = row..row + 1;
        // SAFETY: the caller has the instructions of `V` and columns for `W` registers; so many sums are there.
        unsafe {
            let mut totals = TileEpilogue::<V>::begin::<W, 1>(output);
            let sums = <V as Vector>::load_all::<W>(sums.as_ptr());
            for (total, sum) in totals[0].iter_mut().zip(sums) {
                *total = <V as Vector>::add(*total, sum);
            }
            TileEpilogue::<V>::end::<W, 1>(output, totals);
        }
    }
}

/// Adds `factor(r) * others` to each row.
///
/// # Safety
/// The machine has the instruction set of `V`, which the caller is compiled
/// for, and `others` has at least `W * V::LANES` values.
#[inline(always)]
unsafe fn add_products<V: Vector, const W: usize, const R: usize>(
    sums: &mut [[V::Ints; W]; R],
    factor: impl Fn(usize) -> i32,
    others: &[i32],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has the instructions of `V`, and `others` has `W * V::LANES` values.
        unsafe {
            let factor = V::all(factor(r));
            for (sum, other) in sums.iter_mut().zip(V::load_all::<W>(others.as_ptr())) {
                *sum = V::add(*sum, V::mul(other, factor));
            }
        }
    }
}

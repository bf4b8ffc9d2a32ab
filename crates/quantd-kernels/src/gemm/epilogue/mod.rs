//! From the sums of a tile to its cells.
//!
//! A [`Epilogue`] says what becomes of one corrected sum; that is the definition,
//! and what runs where there is nothing better. On x86-64 it also says the same
//! for a register of sums ([`x86`]).
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "one contract, that the machine has the instruction set, covers all operations"
    )
)]

use std::ops::Range;

use bytemuck::Pod;

use super::super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::super::isa::Level;
use super::shared::Shared;
use super::terms::{Column, Columns, Divisor, RowTerms, Terms};
use super::tile::Sums;
#[cfg(not(target_arch = "x86_64"))]
use super::tile::vector::{TileEpilogue, Vector};

mod codes;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use codes::{AsFloatOnnx, AsFloatOrt, AsGemmlowp, AsSingleRound};

/// What is made of a sum.
pub(super) trait Epilogue<T>: Sync {
    /// Whether cells depend on the scales.
    const SCALED: bool;

    /// What the product of the scales is divided by, if by anything.
    #[inline(always)]
    fn divisor(&self) -> Divisor {
        None
    }

    /// The cell of a corrected sum.
    fn cell(&self, sum: i32, column: Column) -> T;

    /// The cells of a register of corrected sums, whose columns begin at `at`.
    ///
    /// # Safety
    /// The machine has the instruction set of `V`, `at + V::LANES` is at most
    /// `MAX_COLUMNS`, and `to` has room for `V::LANES` cells, aligned or not.
    #[cfg(target_arch = "x86_64")]
    unsafe fn cells<V: x86::Vector>(
        &self,
        sums: V::Ints,
        factors: V::Floats,
        columns: &Columns<'_>,
        at: usize,
        to: *mut T,
    );
}

/// The sums as they are.
pub(super) struct AsSums;

impl Epilogue<i32> for AsSums {
    const SCALED: bool = false;

    #[inline(always)]
    fn cell(&self, sum: i32, _: Column) -> i32 {
        sum
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: x86::Vector>(
        &self,
        sums: V::Ints,
        _: V::Floats,
        _: &Columns<'_>,
        _: usize,
        to: *mut i32,
    ) {
        // SAFETY: the caller has the instructions of `V`, and `to` has room for `V::LANES` sums.
        unsafe { V::store_ints(to, sums) };
    }
}

/// Real numbers.
pub(super) struct AsReals {
    /// Least result: 0, or minus infinity.
    pub(super) least: f32,
}

impl Epilogue<f32> for AsReals {
    const SCALED: bool = true;

    #[inline(always)]
    fn cell(&self, sum: i32, column: Column) -> f32 {
        let x = sum as f32 * column.factor + column.bias;
        // NaN, which overflowing scales can make, stays visible.
        if x < self.least { self.least } else { x }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: x86::Vector>(
        &self,
        sums: V::Ints,
        factors: V::Floats,
        columns: &Columns<'_>,
        at: usize,
        to: *mut f32,
    ) {
        // SAFETY: the caller has the instructions of `V`, `bias` (of `MAX_COLUMNS`) has
        // `V::LANES` values from `at` on, and `to` has room for as many cells.
        unsafe {
            let bias = V::load_floats(columns.bias.as_ptr().add(at));
            let x = V::add_floats(V::mul_floats(V::floats(sums), factors), bias);
            // The second one where either is NaN.
            V::store_floats(to, V::larger(V::all_floats(self.least), x));
        }
    }
}

/// Corrects the sums of a tile for zero points and writes the result.
pub(super) struct TileOutput<'a, T, F> {
    pub(super) terms: &'a Terms,
    pub(super) columns: &'a Columns<'a>,
    /// The rows of the tile in the result.
    pub(super) rows: Range<usize>,
    /// Columns of a panel.
    pub(super) width: usize,
    /// Where the sums are that are not finished in their registers.
    pub(super) sums: &'a mut Sums,
    pub(super) finish: &'a F,
    pub(super) out: &'a Shared<'a, T>,
}

impl<T: Pod, F: Epilogue<T>> TileOutput<'_, T, F> {
    /// Finishes the sums that are in memory, one after the other.
    #[inline(always)]
    pub(super) fn run(&mut self) {
        let len = self.columns.range.len();
        for (row, sums) in self.rows.clone().zip(self.sums.0.chunks_exact(self.width)) {
            let cells = self.out.row(row, self.columns.range.start, len);
            finish_row(&sums[..len], self.terms.row(row), self.columns, self.finish, cells);
        }
    }
}

/// Makes cells of sums in memory: those of the rows of `output`, `stride` apart.
pub(super) fn finish_rows<T: Pod, F: Epilogue<T>>(
    isa: Isa,
    output: &mut TileOutput<'_, T, F>,
    sums: &[i32],
    stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512Vnni {
        // SAFETY: such an `Isa` exists only where its features were detected.
        return unsafe { x86::avx512::finish_rows(output, sums, stride) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    for (row, sums) in output.rows.clone().zip(sums.chunks(stride)) {
        output.sums.0[..output.width].copy_from_slice(&sums[..output.width]);
        output.rows = row..row + 1;
        output.run();
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "registers are asked for through a trait of unsafe methods")]
impl<V: Vector, T: Pod, F: Epilogue<T>> TileEpilogue<V> for TileOutput<'_, T, F> {
    #[inline(always)]
    unsafe fn begin<const W: usize, const R: usize>(&self) -> [[V::Register; W]; R] {
        // SAFETY: the caller has the instructions of `V`; only registers are used.
        unsafe { [[V::zero(); W]; R] }
    }

    #[inline(always)]
    fn expect<const W: usize>(&self, row: usize) {
        self.out.prefetch(self.rows.start + row, self.columns.range.start, W * V::LANES);
    }

    #[inline(always)]
    unsafe fn end<const W: usize, const R: usize>(&mut self, sums: [[V::Register; W]; R]) {
        for (to, row) in self.sums.0.chunks_exact_mut(W * V::LANES).zip(sums) {
            for (to, sums) in to.chunks_exact_mut(V::LANES).zip(row) {
                // SAFETY: the caller has the instructions of `V`, and chunks are `V::LANES` long.
                unsafe { V::store(to.as_mut_ptr(), sums) };
            }
        }
        self.run();
    }
}

/// Finishes the cells of a row, one after the other.
#[inline(always)]
fn finish_row<T, F: Epilogue<T>>(
    sums: &[i32],
    own: RowTerms,
    columns: &Columns<'_>,
    finish: &F,
    cells: &mut [T],
) {
    let mut factors = columns.factors;
    if F::SCALED && !columns.one_scale {
        columns.scale(own.scale, finish.divisor(), &mut factors);
    }
    // Slices of one length and nothing else, so that the loop becomes one of vectors.
    let sums = sums.iter().zip(&columns.addends);
    let others = columns.sums.iter().zip(columns.zero_points);
    let reals = factors.iter().zip(&columns.bias);
    let multipliers = columns.mantissas.iter().zip(&columns.exponents);
    let columns = others.zip(reals.zip(multipliers));
    let cells = cells.iter_mut().zip(sums);
    for ((cell, (sum, addend)), ((of_sum, of_zero), ((&factor, &bias), (&mantissa, &exponent)))) in
        cells.zip(columns)
    {
        let of_sums = own.of_column_sums.wrapping_mul(*of_sum);
        let of_zeros = own.of_zero_points.wrapping_mul(*of_zero);
        let sum = sum.wrapping_add(*addend).wrapping_add(of_sums).wrapping_add(of_zeros);
        *cell = finish.cell(sum, Column { factor, bias, mantissa, exponent });
    }
}

//! From the sums of a tile to its cells, while they are in the cache.
//!
//! A [`Finish`] says what becomes of one corrected sum; that is the definition,
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

use super::super::Isa;
use super::super::isa::{Level, Op};
use super::output::{Column, Columns, RowTerms, Terms};
use super::tile::Sums;
use super::work::Shared;

mod codes;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use codes::{AsFloatOnnx, AsFloatOrt, AsGemmlowp, AsSingleRound};

/// What is made of a sum.
pub(super) trait Finish<T>: Sync {
    /// Whether cells depend on the scales.
    const SCALED: bool;

    /// What the product of the scales is divided by, if by anything.
    #[inline(always)]
    fn divisor(&self) -> Option<f32> {
        None
    }

    /// The cell of a corrected sum.
    fn cell(&self, sum: i32, column: Column) -> T;

    /// The cells of a register of corrected sums, whose columns begin at `at`.
    ///
    /// # Safety
    /// The machine has the instruction set of `V`, the columns from `at` on
    /// fill a register, and as many cells can be written.
    #[cfg(target_arch = "x86_64")]
    unsafe fn cells<V: x86::Vector>(
        &self,
        sums: V::Ints,
        columns: &Columns<'_>,
        at: usize,
        to: *mut T,
    );
}

/// The sums as they are.
pub(super) struct AsSums;

impl Finish<i32> for AsSums {
    const SCALED: bool = false;

    #[inline(always)]
    fn cell(&self, sum: i32, _: Column) -> i32 {
        sum
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: x86::Vector>(&self, sums: V::Ints, _: &Columns<'_>, _: usize, to: *mut i32) {
        // SAFETY: the caller's.
        unsafe { V::store_ints(to, sums) };
    }
}

/// Real numbers.
pub(super) struct AsReals {
    /// Least result: 0, or minus infinity.
    pub(super) least: f32,
}

impl Finish<f32> for AsReals {
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
        columns: &Columns<'_>,
        at: usize,
        to: *mut f32,
    ) {
        // SAFETY: the caller's; columns have a factor and a bias each.
        unsafe {
            let factors = V::load_floats(columns.factors[at..].as_ptr());
            let bias = V::load_floats(columns.bias[at..].as_ptr());
            let x = V::add_floats(V::mul_floats(V::floats(sums), factors), bias);
            // The second one where either is NaN.
            V::store_floats(to, V::larger(V::all_floats(self.least), x));
        }
    }
}

/// Corrects the sums of a tile for zero points and writes the result.
pub(super) struct FinishTile<'a, 'b, T, F> {
    pub(super) terms: &'a Terms,
    pub(super) columns: &'a mut Columns<'b>,
    /// The rows of the tile in the result.
    pub(super) rows: Range<usize>,
    /// Columns of a panel.
    pub(super) width: usize,
    pub(super) sums: &'a Sums,
    pub(super) finish: &'a F,
    pub(super) out: &'a Shared<'a, T>,
}

impl<T: Copy, F: Finish<T>> FinishTile<'_, '_, T, F> {
    /// On an instruction set.
    pub(super) fn run_on(self, isa: Isa) {
        match isa.level() {
            Level::Scalar => isa.run(self),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                // SAFETY: such an `Isa` exists only where its features were detected.
                unsafe { x86::avx2::finish(self) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni => {
                // SAFETY: such an `Isa` exists only where its features were detected.
                unsafe { x86::avx512::finish(self) }
            }
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => isa.run(self),
        }
    }
}

impl<T: Copy, F: Finish<T>> Op for FinishTile<'_, '_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { terms, columns, rows, width, sums, finish, out } = self;
        let len = columns.range.len();
        for (row, sums) in rows.zip(sums.0.chunks_exact(width)) {
            let own = terms.row(row);
            columns.scale(own, finish);
            let cells = out.row(row, columns.range.start, len);
            finish_row(&sums[..len], own, columns, 0, finish, cells);
        }
    }
}

/// Finishes the cells of a row, whose columns begin at `first`, one after the other.
#[inline(always)]
fn finish_row<T, F: Finish<T>>(
    sums: &[i32],
    own: RowTerms,
    columns: &Columns<'_>,
    first: usize,
    finish: &F,
    cells: &mut [T],
) {
    let part = first..first + sums.len();
    // Slices of one length and nothing else, so that the loop becomes one of vectors.
    let sums = sums.iter().zip(&columns.base[part.clone()]);
    let others = columns.sums[part.clone()].iter().zip(&columns.zero_points[part.clone()]);
    let reals = columns.factors[part.clone()].iter().zip(&columns.bias[part.clone()]);
    let multipliers = columns.mantissas[part.clone()].iter().zip(&columns.exponents[part]);
    let columns = others.zip(reals.zip(multipliers));
    let cells = cells.iter_mut().zip(sums);
    for ((cell, (sum, base)), ((of_sum, of_zero), ((&factor, &bias), (&mantissa, &exponent)))) in
        cells.zip(columns)
    {
        let of_sums = own.of_column_sums.wrapping_mul(*of_sum);
        let of_zeros = own.of_zero_points.wrapping_mul(*of_zero);
        let sum = sum.wrapping_add(*base).wrapping_add(of_sums).wrapping_add(of_zeros);
        *cell = finish.cell(sum, Column { factor, bias, mantissa, exponent });
    }
}

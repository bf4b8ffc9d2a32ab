//! From the sums of a tile to its cells.
//!
//! A [`Epilogue`] says what becomes of one corrected sum; that is the definition,
//! and what runs where there is nothing better. It says the same for a register of sums.
//!
//! A tile of 6 rows takes some thousand cycles of multiplications, and nothing
//! may stand between the last one and the first of the next tile: a processor
//! looks ahead by some 300 operations, and stores of many registers, one
//! in two cycles, hold up what comes after them. So sums begin with what zero
//! points and bias make of them, in place of zeros, and become cells where
//! they are, in their registers, with as few operations as the form of the cells needs. (Sums
//! that go through memory to be finished cost 4 % at a depth of 768.) In the last panel,
//! what fills it up is computed like the rest, and cells take the way of a spare tile.

use std::ops::Range;

use bytemuck::Pod;

use super::super::isa::Isa;
use super::super::simd::{Simd, VectorOp};
use super::shared::Shared;
use super::terms::{Column, Columns, Divisor, RowTerms, Terms};
use super::tile::Sums;
use super::tile::vector::TileEpilogue;

mod codes;
#[cfg(test)]
mod tests;

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
    fn cells<S: Simd>(
        &self,
        simd: S,
        sums_and_factors: (S::I32, S::F32),
        columns: &Columns<'_>,
        at: usize,
        to: &mut [T],
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

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, _): (S::I32, S::F32),
        _: &Columns<'_>,
        _: usize,
        to: &mut [i32],
    ) {
        simd.store_i32(to, sums);
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

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, factors): (S::I32, S::F32),
        columns: &Columns<'_>,
        at: usize,
        to: &mut [f32],
    ) {
        let x = simd.mul(simd.to_f32(sums), factors);
        let x = simd.add(x, simd.load(&columns.bias[at..]));
        // The second one where either is NaN.
        simd.store(to, simd.max(simd.splat(self.least), x));
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

impl<T: Pod, F: Epilogue<T>> TileEpilogue for TileOutput<'_, T, F> {
    #[inline(always)]
    fn begin<S: Simd, const W: usize, const R: usize>(&self, simd: S) -> [[S::I32; W]; R] {
        let Self { columns, terms, rows, .. } = self;
        let [shifted, each] = terms.of_column_sums;
        let none = simd.splat_i32(0);
        let mut first = [[none; W]];
        if terms.addends {
            first = [load_across(simd, &columns.addends)];
        }
        let own = rows.start;
        if shifted && !each {
            let factors = [terms.row(own).of_column_sums];
            add_products(simd, &mut first, factors, columns.sums);
        }
        let mut sums = [first[0]; R];
        if shifted && each {
            let factors = std::array::from_fn(|r| terms.row(own + r).of_column_sums);
            add_products(simd, &mut sums, factors, columns.sums);
        }
        if terms.of_zero_points {
            let factors = std::array::from_fn(|r| terms.row(own + r).of_zero_points);
            add_products(simd, &mut sums, factors, columns.zero_points);
        }
        sums
    }

    #[inline(always)]
    fn prefetch<S: Simd, const W: usize>(&self, row: usize) {
        self.out.prefetch(self.rows.start + row, self.columns.range.start, W * S::LANES);
    }

    #[inline(always)]
    fn end<S: Simd, const W: usize, const R: usize>(&mut self, simd: S, sums: [[S::I32; W]; R]) {
        let Self { terms, columns, rows, width, sums: spare, finish, out } = self;
        let (start, len) = (columns.range.start, columns.range.len());
        let lanes = W * S::LANES;
        assert!(rows.len() == R && *width == lanes, "the tile fits");
        let scaled = F::SCALED && !columns.one_scale;
        for (r, sums) in sums.into_iter().enumerate() {
            let row = rows.start + r;
            let mut factors = load_across_f32::<S, W>(simd, &columns.factors);
            if scaled {
                factors =
                    scale_across(simd, terms.row(row).scale, columns.scales, finish.divisor());
            }
            let cells = if len == lanes {
                &mut out.row(row, start, len)[..lanes]
            } else {
                &mut bytemuck::cast_slice_mut(&mut spare.0)[..lanes]
            };
            for w in 0..W {
                let at = w * S::LANES;
                finish.cells(simd, (sums[w], factors[w]), columns, at, &mut cells[at..]);
            }
            if len < lanes {
                out.row(row, start, len).copy_from_slice(&cells[..len]);
            }
        }
    }
}

/// Registers that lie one after the other.
#[inline(always)]
fn load_across<S: Simd, const W: usize>(simd: S, from: &[i32]) -> [S::I32; W] {
    let from = &from[..W * S::LANES];
    let mut all = [simd.splat_i32(0); W];
    for (w, own) in all.iter_mut().enumerate() {
        *own = simd.load_i32(&from[w * S::LANES..]);
    }
    all
}

/// Registers that lie one after the other.
#[inline(always)]
fn load_across_f32<S: Simd, const W: usize>(simd: S, from: &[f32]) -> [S::F32; W] {
    let from = &from[..W * S::LANES];
    let mut all = [simd.splat(0.0); W];
    for (w, own) in all.iter_mut().enumerate() {
        *own = simd.load(&from[w * S::LANES..]);
    }
    all
}

/// The factors of a row: both scales, divided by `divisor`.
#[inline(always)]
fn scale_across<S: Simd, const W: usize>(
    simd: S,
    scale: f32,
    scales: &[f32],
    divisor: Divisor,
) -> [S::F32; W] {
    let mut factors = load_across_f32::<S, W>(simd, scales);
    for factor in &mut factors {
        *factor = simd.mul(simd.splat(scale), *factor);
        if let Some(divisor) = divisor {
            *factor = simd.div(*factor, simd.splat(divisor));
        }
    }
    factors
}

/// Adds a factor times `others` to each row.
#[inline(always)]
fn add_products<S: Simd, const W: usize, const R: usize>(
    simd: S,
    sums: &mut [[S::I32; W]; R],
    factors: [i32; R],
    others: &[i32],
) {
    let others = load_across::<S, W>(simd, others);
    for (sums, factor) in sums.iter_mut().zip(factors) {
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = simd.add_i32(*sum, simd.mul_i32(other, simd.splat_i32(factor)));
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
    if isa.vectorize(FinishRows { output: &mut *output, sums, stride }).is_some() {
        return;
    }
    for (row, sums) in output.rows.clone().zip(sums.chunks(stride)) {
        output.sums.0[..output.width].copy_from_slice(&sums[..output.width]);
        output.rows = row..row + 1;
        output.run();
    }
}

struct FinishRows<'a, 'o, T, F> {
    output: &'a mut TileOutput<'o, T, F>,
    sums: &'a [i32],
    stride: usize,
}

impl<T: Pod, F: Epilogue<T>> VectorOp for FinishRows<'_, '_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Panels of the tile unit have 32 columns.
        match S::LANES {
            4 => self.across::<S, 8>(simd),
            8 => self.across::<S, 4>(simd),
            _ => self.across::<S, 2>(simd),
        }
    }
}

impl<T: Pod, F: Epilogue<T>> FinishRows<'_, '_, T, F> {
    #[inline(always)]
    fn across<S: Simd, const W: usize>(self, simd: S) {
        let Self { output, sums, stride } = self;
        for (i, row) in output.rows.clone().enumerate() {
            output.rows = row..row + 1;
            let mut totals = output.begin::<S, W, 1>(simd);
            let sums = load_across::<S, W>(simd, &sums[i * stride..]);
            for (total, sum) in totals[0].iter_mut().zip(sums) {
                *total = simd.add_i32(*total, sum);
            }
            output.end::<S, W, 1>(simd, totals);
        }
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

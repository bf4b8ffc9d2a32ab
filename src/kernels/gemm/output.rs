//! From sums of products to results, while they are in the cache.

use std::borrow::Cow;
use std::ops::Range;

use super::super::isa::Op;
use super::super::scalar::Code;
use super::requantize::{Multiplier, Requantize};
use super::tile::{MAX_COLUMNS, Sums};
use super::work::Shared;
use super::{PackedA, PackedB};

/// Where the product goes, and as what. All are `[m, n]`, row-major.
#[derive(Debug)]
pub enum Output<'a> {
    /// The sums themselves.
    I32(&'a mut [i32]),
    /// `f32(sum) * (scale_a * scale_b) + bias`, each operation rounded to
    /// nearest, ties to even; then the larger of that and 0 where so asked.
    F32 {
        /// The result.
        out: &'a mut [f32],
        /// One a column.
        bias: Option<&'a [f32]>,
        /// Whether there is a `ReLU`.
        relu: bool,
    },
    /// Codes 0 to 255.
    U8(&'a mut [u8], Requantize<'a>),
    /// Codes -128 to 127.
    I8(&'a mut [i8], Requantize<'a>),
}

/// What the cells of a panel need to be finished, column by column.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    pub(super) range: Range<usize>,
    /// What is added to every sum: `K za zb - za sum B` where all rows share a
    /// zero point, and the integer bias.
    base: [i32; MAX_COLUMNS],
    /// Sums of the columns of the right operand.
    sums: &'a [i32],
    zero_points: &'a [i32],
    scales: &'a [f32],
    bias: &'a [f32],
    multipliers: &'a [Multiplier],
}

/// One column of [`Columns`].
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) scale: f32,
    pub(super) bias: f32,
    pub(super) multiplier: Multiplier,
}

/// What an output adds to the columns; each is empty or has one a column.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra<'a> {
    pub(super) sums: &'a [i32],
    pub(super) bias: &'a [f32],
    pub(super) multipliers: Cow<'a, [Multiplier]>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(
        a: &PackedA<'_>,
        b: &'a PackedB,
        range: Range<usize>,
        extra: &'a Extra<'_>,
    ) -> Self {
        /// Those of the columns, or as many of `none`.
        fn cut<'a, T>(all: &'a [T], range: &Range<usize>, none: &'a [T]) -> &'a [T] {
            if all.is_empty() { &none[..range.len()] } else { &all[range.clone()] }
        }
        let sums = cut(b.sums(), &range, &[]);
        let zero_points = cut(b.zero_points(), &range, &[0; MAX_COLUMNS]);
        let mut base = [0; MAX_COLUMNS];
        if !extra.sums.is_empty() {
            base[..range.len()].copy_from_slice(&extra.sums[range.clone()]);
        }
        if let &[zero @ (..=-1 | 1..)] = a.zero_points() {
            let rest = depth(b).wrapping_mul(zero);
            for ((base, sum), other) in base.iter_mut().zip(sums).zip(zero_points) {
                let own = rest.wrapping_mul(*other).wrapping_sub(zero.wrapping_mul(*sum));
                *base = base.wrapping_add(own);
            }
        }
        Self {
            base,
            sums,
            zero_points,
            scales: cut(b.scales(), &range, &[]),
            bias: cut(extra.bias, &range, &[0.0; MAX_COLUMNS]),
            multipliers: cut(&extra.multipliers, &range, &[Multiplier::NONE; MAX_COLUMNS]),
            range,
        }
    }
}

/// K; larger ones are beyond what sums of 32 bits can hold.
fn depth(b: &PackedB) -> i32 {
    i32::try_from(b.depth()).unwrap_or(i32::MAX)
}

/// What the cells of a row share.
#[derive(Clone, Copy, Debug)]
struct RowTerms {
    /// Factor of the sums of the columns: `-za` where each row has its own.
    of_column_sums: i32,
    /// Factor of the zero points of the columns: `K za - sum A`.
    of_zero_points: i32,
    scale: f32,
}

impl RowTerms {
    fn new(a: &PackedA<'_>, b: &PackedB, row: usize) -> Self {
        let zero = if let [_] = a.zero_points() { 0 } else { a.zero_points()[row] };
        let of_zero_points = if b.has_zero_points() {
            depth(b).wrapping_mul(zero).wrapping_sub(a.sums()[row])
        } else {
            0
        };
        let scale = a.scales()[if a.scales().len() == 1 { 0 } else { row }];
        Self { of_column_sums: zero.wrapping_neg(), of_zero_points, scale }
    }

    /// Whether the base is all there is to correct.
    const fn is_plain(&self) -> bool {
        self.of_column_sums == 0 && self.of_zero_points == 0
    }
}

/// What the rows of a product need to be finished.
#[derive(Debug)]
pub(super) struct Terms {
    rows: Vec<RowTerms>,
    is_plain: bool,
}

impl Terms {
    pub(super) fn new(a: &PackedA<'_>, b: &PackedB) -> Self {
        let rows: Vec<_> = (0..a.rows()).map(|row| RowTerms::new(a, b, row)).collect();
        let is_plain = rows.iter().all(RowTerms::is_plain);
        Self { rows, is_plain }
    }
}

/// What is made of a sum.
pub(super) trait Finish<T>: Sync {
    /// The cell, from the corrected sum, the scale of its row, and its column.
    fn cell(&self, sum: i32, scale_a: f32, column: Column) -> T;
}

/// The sums as they are.
pub(super) struct AsSums;

impl Finish<i32> for AsSums {
    #[inline(always)]
    fn cell(&self, sum: i32, _: f32, _: Column) -> i32 {
        sum
    }
}

/// Real numbers.
pub(super) struct AsReals {
    /// Least result: 0, or minus infinity.
    pub(super) least: f32,
}

impl Finish<f32> for AsReals {
    #[inline(always)]
    fn cell(&self, sum: i32, scale_a: f32, column: Column) -> f32 {
        let x = sum as f32 * (scale_a * column.scale) + column.bias;
        // NaN, which overflowing scales can make, stays visible.
        if x < self.least { self.least } else { x }
    }
}

impl<C: Code> Finish<C> for Requantize<'_> {
    #[inline(always)]
    fn cell(&self, sum: i32, scale_a: f32, column: Column) -> C {
        self.code(sum, scale_a, column)
    }
}

/// Corrects the sums of a tile for zero points and writes the result.
pub(super) struct FinishTile<'a, T, F> {
    pub(super) terms: &'a Terms,
    pub(super) columns: &'a Columns<'a>,
    /// The rows of the tile in the result.
    pub(super) rows: Range<usize>,
    /// Columns of a panel.
    pub(super) width: usize,
    pub(super) sums: &'a mut Sums,
    pub(super) finish: &'a F,
    pub(super) out: &'a Shared<'a, T>,
}

impl<T: Copy, F: Finish<T>> Op for FinishTile<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { terms, columns, rows, width, sums, finish, out } = self;
        let len = columns.range.len();
        for (row, sums) in rows.zip(sums.0.chunks_exact_mut(width)) {
            let (own, sums) = (terms.rows[row], &mut sums[..len]);
            if !terms.is_plain {
                let others = columns.sums.iter().zip(columns.zero_points);
                for (sum, (column_sum, zero_point)) in sums.iter_mut().zip(others) {
                    let of_sums = own.of_column_sums.wrapping_mul(*column_sum);
                    let of_zeros = own.of_zero_points.wrapping_mul(*zero_point);
                    *sum = sum.wrapping_add(of_sums).wrapping_add(of_zeros);
                }
            }
            let cells = out.row(row, columns.range.start, len).iter_mut();
            // Slices of one length and nothing else, so that the loop becomes one of vectors.
            let sums = sums.iter().zip(&columns.base[..len]);
            let scales = columns.scales[..len].iter().zip(&columns.bias[..len]);
            let others = scales.zip(&columns.multipliers[..len]);
            for ((cell, (sum, base)), ((&scale, &bias), &multiplier)) in cells.zip(sums).zip(others)
            {
                let column = Column { scale, bias, multiplier };
                *cell = finish.cell(sum.wrapping_add(*base), own.scale, column);
            }
        }
    }
}

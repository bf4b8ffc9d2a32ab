//! What sums need of their rows and columns to become results.

use std::ops::Range;

use super::multiplier::Multiplier;
use super::tile::MAX_COLUMNS;
use super::{PackedLhs, PackedRhs};

/// What the product of the scales is divided by, if by anything.
pub(super) type Divisor = Option<f32>;

/// What the cells of a panel need to be finished, column by column; beyond the
/// last column of the result, anything.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    /// Those of the result.
    pub(super) range: Range<usize>,
    /// Sums of the columns of the right operand.
    pub(super) sums: &'a [i32],
    pub(super) zero_points: &'a [i32],
    pub(super) scales: &'a [f32],
    /// What is added to every sum.
    pub(super) addends: [i32; MAX_COLUMNS],
    /// Whether all rows have one scale, and the factors are made.
    pub(super) one_scale: bool,
    /// What sums are multiplied by: both scales, divided by the divisor of an output.
    pub(super) factors: [f32; MAX_COLUMNS],
    pub(super) bias: [f32; MAX_COLUMNS],
    /// Mantissas and exponents of the multipliers.
    pub(super) mantissas: [i32; MAX_COLUMNS],
    pub(super) exponents: [i32; MAX_COLUMNS],
}

impl Default for Columns<'_> {
    fn default() -> Self {
        Self {
            range: 0..0,
            sums: &[],
            zero_points: &[],
            scales: &[],
            addends: [0; MAX_COLUMNS],
            one_scale: false,
            factors: [0.0; MAX_COLUMNS],
            bias: [0.0; MAX_COLUMNS],
            mantissas: [0; MAX_COLUMNS],
            exponents: [0; MAX_COLUMNS],
        }
    }
}

/// One column of [`Columns`].
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) factor: f32,
    pub(super) bias: f32,
    pub(super) mantissa: i32,
    pub(super) exponent: i32,
}

/// What an output adds to the columns; each is empty or has one a column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extra<'a> {
    pub(super) sums: &'a [i32],
    pub(super) bias: &'a [f32],
    /// Or one for all.
    pub(super) multipliers: &'a [Multiplier],
}

impl<'a> Columns<'a> {
    /// Those of another panel. What an output does not have stays 0, and so do factors where its
    /// cells are not `scaled`.
    pub(super) fn set(
        &mut self,
        (a, b): (&PackedLhs<'_>, &'a PackedRhs),
        panel: usize,
        extra: Extra<'a>,
        scaled: Option<Divisor>,
    ) {
        let range = b.columns_of(panel);
        (self.sums, self.zero_points, self.scales) =
            (b.sums(panel), b.zero_points(panel), b.scales_of(panel));
        if !extra.sums.is_empty() {
            self.addends[..range.len()].copy_from_slice(&extra.sums[range.clone()]);
        }
        if !extra.bias.is_empty() {
            self.bias[..range.len()].copy_from_slice(&extra.bias[range.clone()]);
        }
        let parts = self.mantissas.iter_mut().zip(&mut self.exponents);
        match extra.multipliers {
            [] => {}
            &[one] => parts.for_each(|(mantissa, exponent)| (*mantissa, *exponent) = one.parts()),
            all => {
                for ((mantissa, exponent), own) in parts.zip(&all[range.clone()]) {
                    (*mantissa, *exponent) = own.parts();
                }
            }
        }
        self.one_scale = a.scales().len() == 1;
        if let Some(divisor) = scaled.filter(|_| self.one_scale) {
            let mut factors = [0.0; MAX_COLUMNS];
            self.scale(a.scales()[0], divisor, &mut factors);
            self.factors = factors;
        }
        self.range = range;
    }

    /// Makes the factors of rows with that scale.
    #[inline(always)]
    pub(super) fn scale(&self, scale_a: f32, divisor: Divisor, factors: &mut [f32]) {
        for (factor, &scale) in factors.iter_mut().zip(self.scales) {
            let both = scale_a * scale;
            *factor = if let Some(divisor) = divisor { both / divisor } else { both };
        }
    }
}

/// K; larger ones are beyond what sums of 32 bits can hold.
fn depth(b: &PackedRhs) -> i32 {
    i32::try_from(b.depth()).unwrap_or(i32::MAX)
}

/// What the cells of a row share.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTerms {
    /// Factor of the sums of the columns: `-za`.
    pub(super) of_column_sums: i32,
    /// Factor of the zero points of the columns: `K za - sum A`.
    pub(super) of_zero_points: i32,
    pub(super) scale: f32,
}

/// What the rows of a product need to be finished.
#[derive(Debug)]
pub(super) struct Terms {
    rows: Vec<RowTerms>,
    /// Whether rows have zero points, and other ones each.
    pub(super) of_column_sums: [bool; 2],
    /// Whether columns have zero points.
    pub(super) of_zero_points: bool,
    /// Whether something is added to all sums of a column.
    pub(super) addends: bool,
}

impl Terms {
    pub(super) fn new(a: &PackedLhs<'_>, b: &PackedRhs, extra: Extra<'_>) -> Self {
        let each = |row: usize, len: usize| if len == 1 { 0 } else { row };
        let row = |row: usize| {
            let zero = a.zero_points()[each(row, a.zero_points().len())];
            let sums = if b.has_zero_points() { a.sums()[row] } else { 0 };
            RowTerms {
                of_column_sums: zero.wrapping_neg(),
                of_zero_points: depth(b).wrapping_mul(zero).wrapping_sub(sums),
                scale: a.scales()[each(row, a.scales().len())],
            }
        };
        let zeros = a.zero_points();
        Self {
            rows: (0..a.rows()).map(row).collect(),
            of_column_sums: [zeros.iter().any(|&zero| zero != 0), zeros.len() > 1],
            of_zero_points: b.has_zero_points(),
            addends: !extra.sums.is_empty(),
        }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> RowTerms {
        self.rows[row]
    }
}

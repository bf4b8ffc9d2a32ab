//! What sums of products become, and what that takes of their rows and columns.

use std::ops::Range;

use super::finish::Finish;
use super::requantize::{Multiplier, Requantize};
use super::tile::MAX_COLUMNS;
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
    pub(super) base: [i32; MAX_COLUMNS],
    /// Sums of the columns of the right operand.
    pub(super) sums: &'a [i32],
    pub(super) zero_points: &'a [i32],
    pub(super) scales: &'a [f32],
    /// What sums are multiplied by in rows with the scale `scale_a`: both scales,
    /// divided by [`Finish::divisor`].
    pub(super) factors: [f32; MAX_COLUMNS],
    scale_a: Option<f32>,
    pub(super) bias: &'a [f32],
    /// Mantissas and exponents of the multipliers.
    pub(super) mantissas: [i32; MAX_COLUMNS],
    pub(super) exponents: [i32; MAX_COLUMNS],
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
    pub(super) fn new(
        a: &PackedA<'_>,
        b: &'a PackedB,
        range: Range<usize>,
        extra: Extra<'a>,
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
        let (mut mantissas, mut exponents) = ([0; MAX_COLUMNS], [0; MAX_COLUMNS]);
        let parts = mantissas.iter_mut().zip(&mut exponents);
        match extra.multipliers {
            [] => {}
            &[one] => parts.for_each(|(mantissa, exponent)| (*mantissa, *exponent) = one.parts()),
            all => {
                for ((mantissa, exponent), own) in parts.zip(&all[range.clone()]) {
                    (*mantissa, *exponent) = own.parts();
                }
            }
        }
        Self {
            base,
            sums,
            zero_points,
            scales: cut(b.scales(), &range, &[]),
            factors: [0.0; MAX_COLUMNS],
            scale_a: None,
            bias: cut(extra.bias, &range, &[0.0; MAX_COLUMNS]),
            mantissas,
            exponents,
            range,
        }
    }

    /// Makes the factors for a row, unless the one before had the same.
    #[inline(always)]
    pub(super) fn scale<T, F: Finish<T>>(&mut self, row: RowTerms, finish: &F) {
        if self.needs_factors::<T, F>(row) {
            self.scale_from(0, row, finish.divisor());
        }
    }

    /// Whether the factors are not those of that row; they are from now on.
    #[inline(always)]
    pub(super) fn needs_factors<T, F: Finish<T>>(&mut self, row: RowTerms) -> bool {
        let old = self.scale_a.replace(row.scale);
        F::SCALED && old.map(f32::to_bits) != Some(row.scale.to_bits())
    }

    /// Makes the factors from a column on.
    #[inline(always)]
    pub(super) fn scale_from(&mut self, first: usize, row: RowTerms, divisor: Option<f32>) {
        let factors = self.factors[first..].iter_mut().zip(&self.scales[first..]);
        for (factor, &scale) in factors {
            let both = row.scale * scale;
            *factor = if let Some(divisor) = divisor { both / divisor } else { both };
        }
    }
}

/// K; larger ones are beyond what sums of 32 bits can hold.
fn depth(b: &PackedB) -> i32 {
    i32::try_from(b.depth()).unwrap_or(i32::MAX)
}

/// What the cells of a row share.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTerms {
    /// Factor of the sums of the columns: `-za` where each row has its own.
    pub(super) of_column_sums: i32,
    /// Factor of the zero points of the columns: `K za - sum A`.
    pub(super) of_zero_points: i32,
    pub(super) scale: f32,
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
}

/// What the rows of a product need to be finished.
#[derive(Debug)]
pub(super) struct Terms(Vec<RowTerms>);

impl Terms {
    pub(super) fn new(a: &PackedA<'_>, b: &PackedB) -> Self {
        Self((0..a.rows()).map(|row| RowTerms::new(a, b, row)).collect())
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> RowTerms {
        self.0[row]
    }
}

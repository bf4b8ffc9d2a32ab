//! The candidates of a grid search.

use crate::params::{Numerics, Range};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::CodeRange;

/// Both ends of a range scaled by fractions k / `steps`, together for
/// symmetric codes and independently for asymmetric ones, the widest first. An
/// end at 0 has one candidate. They are numbered row by row: in a row the
/// upper end gets narrower, from row to row the lower one.
#[derive(Clone, Debug)]
pub(crate) struct Grid<T> {
    whole: Range<T>,
    /// What `k` goes up to at each end.
    steps: i32,
    rows: usize,
    columns: usize,
    symmetric: bool,
}

impl<T: Real> Grid<T> {
    pub(super) fn new(
        whole: Range<T>,
        numerics: &Numerics,
        symmetric: i32,
        asymmetric: i32,
    ) -> Self {
        if numerics.symmetric {
            let (max, steps) = (whole.abs_max(), symmetric);
            let columns = steps.unsigned_abs() as usize;
            let whole = Range { min: -max, max };
            return Self { whole, steps, rows: 1, columns, symmetric: true };
        }
        let count = |end: T| if end == T::ZERO { 1 } else { asymmetric.unsigned_abs() as usize };
        let (rows, columns) = (count(whole.min), count(whole.max));
        Self { whole, steps: asymmetric, rows, columns, symmetric: false }
    }

    /// Number of candidates.
    pub(super) const fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Different lower ends; one, where they go with the upper ones.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Candidates of one lower end.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    /// Whether both ends go together.
    pub(super) const fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// The upper end of the candidates of a column.
    #[inline(always)]
    pub(super) fn upper(&self, column: usize) -> T {
        self.scaled(self.whole.max, column)
    }

    /// The lower end of the candidates of a row, where it does not go with the upper one.
    pub(super) fn lower(&self, row: usize) -> T {
        self.scaled(self.whole.min, row)
    }

    /// A candidate, by its number.
    pub(super) fn get(&self, i: usize) -> Range<T> {
        let (row, column) = (i / self.columns, i % self.columns);
        let max = self.upper(column);
        let min = if self.symmetric { -max } else { self.lower(row) };
        Range { min, max }
    }

    /// An end as its `place`-th candidate has it.
    #[inline(always)]
    fn scaled(&self, end: T, place: usize) -> T {
        end * self.part(place)
    }

    /// All candidates in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<T>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// What part of the whole an end is at its place, and a range of symmetric codes.
    #[inline(always)]
    pub(super) fn part(&self, i: usize) -> T {
        let k = self.steps - i32::try_from(i).unwrap_or(0);
        T::from_i32(k) / T::from_i32(self.steps)
    }

    /// The scale of the widest candidate if those of all others are to it as their
    /// ranges are, to a few epsilons, and for symmetric codes are [`Numerics::symmetric_step`]. Not so
    /// where a profile's smallest scale takes the
    /// place of what a range asks for, nor among subnormal numbers: then the scale of
    /// the narrowest candidate is not the fraction of that of the widest which it should be.
    pub(super) fn scale(&self, numerics: &Numerics) -> Option<T> {
        let ends = [0, self.len() - 1].map(|i| self.get(i));
        let [widest, narrowest] = ends.map(|range| numerics.affine(range).scale);
        if self.symmetric
            && ends.map(|range| numerics.symmetric_step(range.max)) != [widest, narrowest]
        {
            return None;
        }
        let is_normal = narrowest.to_f64() > 4.0 * T::TINY.to_f64() && widest.is_finite();
        let ratio = narrowest.to_f64() * f64::from(self.steps) / widest.to_f64();
        (is_normal && (ratio - 1.0).abs() < 8.0 * T::EPSILON.to_f64()).then_some(widest)
    }

    /// Whether scales follow their ranges at all, to a hundredth, subnormal ones included.
    pub(super) fn is_in_proportion(&self, numerics: &Numerics) -> bool {
        let scale = |i: usize| numerics.affine(self.get(i)).scale.to_f64();
        let (widest, narrowest) = (scale(0), scale(self.len() - 1) * f64::from(self.steps));
        widest.is_finite() && (narrowest / widest - 1.0).abs() < 0.01
    }

    /// How far beyond the ends of a candidate its outermost codes may be
    /// restored, or short of them, in steps of its scale, if it is [usual](Self::scale):
    /// the zero point is rounded by half a step, and an odd number of steps of symmetric codes
    /// has one end half a step out and the other half a step in.
    pub(super) fn reach(numerics: &Numerics) -> f64 {
        let CodeRange { min, max } = numerics.code_range();
        let is_even = numerics.symmetric && max - numerics.middle() == numerics.middle() - min;
        Self::rounded(numerics) + if is_even { 0.0 } else { 0.5 }
    }

    /// The same of elements that are within its ends and not nearer to an outermost code.
    pub(super) fn inner_reach(numerics: &Numerics) -> f64 {
        Self::rounded(numerics) + 0.5
    }

    /// Eight epsilons of all steps: more than what products, quotients and sums in the type of the
    /// elements add.
    fn rounded(numerics: &Numerics) -> f64 {
        8.0 * T::EPSILON.to_f64() * f64::from(1_u32 << numerics.bits)
    }
}

//! The candidates of a grid search.

use crate::kernels::real::Real;
use crate::quant::params::{Numerics, Range};

/// Both ends of a range scaled by fractions k / `steps`, together for
/// symmetric codes and independently for asymmetric ones, the widest first. An
/// end at 0 has one candidate. They are numbered row by row: in a row the
/// upper end gets narrower, from row to row the lower one.
#[derive(Clone, Debug)]
pub(in crate::quant) struct Grid<T> {
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

    /// Different lower ends; one, where both ends go together.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Candidates of one lower end.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    /// A candidate, by its number.
    pub(super) fn get(&self, i: usize) -> Range<T> {
        let (row, column) = (i / self.columns, i % self.columns);
        let max = self.scaled(self.whole.max, column);
        let min = if self.symmetric { -max } else { self.scaled(self.whole.min, row) };
        Range { min, max }
    }

    /// An end as its `place`-th candidate has it.
    fn scaled(&self, end: T, place: usize) -> T {
        let k = self.steps - i32::try_from(place).unwrap_or(0);
        end * (T::from_i32(k) / T::from_i32(self.steps))
    }

    /// All candidates in their order.
    pub(in crate::quant) fn iter(&self) -> impl Iterator<Item = Range<T>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// How far beyond the ends of a candidate its outermost codes may be
    /// restored, or short of them, if that can be said of all candidates: the zero point is
    /// rounded by half a step of the scale, which is at most that of the widest
    /// range, and products, quotients and sums in the type of the elements add
    /// less than a tenth. Not so where a profile's smallest scale takes the
    /// place of what a range asks for: then the scale of the narrowest candidate is
    /// not the fraction of that of the widest which it should be.
    pub(super) fn reach(&self, numerics: &Numerics) -> Option<f64> {
        let scale = |i: usize| numerics.affine(self.get(i)).scale.to_f64();
        let (widest, narrowest) = (scale(0), scale(self.len() - 1) * f64::from(self.steps));
        let is_usual = widest.is_finite() && (narrowest / widest - 1.0).abs() < 0.01;
        is_usual.then_some(0.6 * widest)
    }
}

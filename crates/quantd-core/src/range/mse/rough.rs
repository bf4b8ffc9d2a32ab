//! Bounds of the error of candidates for short slices.
//!
//! Two things are cheaper than the quantizer and a sum in f64.
//!
//! 1. What lies beyond the outermost restored values loses its distance to
//!    them at least ([`Grid::reach`] says where these are). That grows as ends
//!    get narrower: once it is more than another candidate loses in all, so it
//!    is for all further ones.
//! 2. The distance to the nearest restored value, in steps of the scale and
//!    the type of the elements. It is off by less than [`inexact`]: where the
//!    quantizer takes the other of two neighbours, x is about in their middle and
//!    both are as far away; what is rounded is a few epsilons of the quotient,
//!    of the zero point and of the restored value. (Of a quotient far beyond
//!    the codes it is as little of the distance itself.) By Minkowski's inequality
//!    the root of the sum of squares over n elements is off by sqrt(n) times that.

use std::borrow::Cow;
use std::cmp::Ordering;

use rayon::prelude::*;

use super::super::BLOCK;
use super::super::abreast::{self, Marks, Search};
use super::super::grid::Grid;
use crate::Task;
use crate::params::Numerics;
use quantd_kernels::Isa;
use quantd_kernels::real::Real;
use quantd_kernels::rough::{Lanes, SIDE};

/// What sums lose relative to themselves, in f32: 64 additions in a lane, and
/// what is rounded of a distance and its square.
const SUMMED: f64 = 1e-5;

/// The candidates that may have the least error, the most promising first.
pub(super) fn survivors<T: Real>(
    values: &[T],
    grid: &Grid<T>,
    numerics: &Numerics,
    task: &Task,
) -> Vec<usize> {
    let finite = finite(values);
    let scale = grid.scale(numerics);
    let [below, above] = match scale {
        Some(scale) => clipped((task.isa(), &finite), grid, scale, numerics),
        None => [Marks::NONE; 2],
    };
    let slack = inexact::<T>(numerics) * (finite.len() as f64).sqrt();
    let (usual, limit) = (scale.is_some(), f64::INFINITY);
    let kept = Vec::with_capacity(SIDE);
    let isa = task.isa();
    let x = &*finite;
    let mut rough = Rough { isa, x, grid, numerics, usual, below, above, slack, limit, kept };
    abreast::walk(grid, &mut rough, task);
    rough.finish()
}

/// What is finite.
fn finite<T: Real>(values: &[T]) -> Cow<'_, [T]> {
    if values.iter().all(|x| x.is_finite()) {
        return Cow::Borrowed(values);
    }
    Cow::Owned(values.iter().copied().filter(|x| x.is_finite()).collect())
}

/// The sums over blocks; how they are rounded does not matter.
fn sums<T: Real>(x: &[T], of: impl Fn(&[T]) -> Lanes<f64> + Sync) -> Lanes<f64> {
    if x.len() <= BLOCK {
        return of(x);
    }
    let add = |a: Lanes<f64>, b: Lanes<f64>| std::array::from_fn(|i| a[i] + b[i]);
    x.par_chunks(BLOCK).map(&of).reduce(|| [0.0; SIDE], add)
}

/// What the elements beyond the lower ends of rows and beyond the upper ends of columns lose
/// at least, `scale` being that of the widest candidate. Ends that go together clip together.
fn clipped<T: Real>(
    (isa, x): (Isa, &[T]),
    grid: &Grid<T>,
    scale: T,
    numerics: &Numerics,
) -> [Marks; 2] {
    let unit = T::ONE / scale;
    let squared = scale.to_f64() * scale.to_f64() * (1.0 - SUMMED);
    let of = |ends: [&Lanes<T>; 2]| sums(x, |x| isa.excess(x, unit, ends)).map(|sum| sum * squared);
    let reach = Grid::<T>::reach(numerics);
    // Scales of symmetric codes get smaller as ends get narrower; of others that of the widest will do.
    let beyond = |column: usize| {
        if grid.is_symmetric() { reach * grid.part(column).to_f64() } else { reach }
    };
    let place = |end: T| end.to_f64() / scale.to_f64();
    let upper = |column| T::from_f64(place(grid.upper(column)) + beyond(column));
    let lower = |row| T::from_f64(place(grid.lower(row)) - reach);
    if grid.is_symmetric() {
        let of = |high: &Lanes<T>| of([&high.map(|end| -end), high]);
        return [Marks::NONE, Marks::new(grid.columns(), upper, of)];
    }
    let (low, high) = ([lower(0); SIDE], [upper(0); SIDE]);
    let rows = Marks::new(grid.rows(), lower, |low| of([low, &high]));
    [rows, Marks::new(grid.columns(), upper, |high| of([&low, high]))]
}

/// How far off a distance may be, in steps of the scale.
fn inexact<T: Real>(numerics: &Numerics) -> f64 {
    // The quotient, and the zero point.
    let steps = f64::from(2_u32 << numerics.bits);
    8.0 * T::EPSILON.to_f64() * (steps + 1.0)
}

/// A candidate that may be the best.
struct Kept {
    number: usize,
    /// Its squared error in steps of its scale; NaN if unknown.
    squares: f64,
    scale: f64,
}

impl Kept {
    fn error(&self) -> f64 {
        self.squares * self.scale * self.scale
    }
}

struct Rough<'a, T> {
    isa: Isa,
    x: &'a [T],
    grid: &'a Grid<T>,
    numerics: &'a Numerics,
    /// Whether scales are in proportion.
    usual: bool,
    below: Marks,
    above: Marks,
    /// What the root of a sum of squares is off at most.
    slack: f64,
    /// Some candidate loses no more.
    limit: f64,
    kept: Vec<Kept>,
}

impl<T: Real> Search for Rough<'_, T> {
    fn is_hopeless_row(&self, row: usize) -> bool {
        self.below.at(row) > self.limit
    }

    fn is_hopeless(&self, row: usize, column: usize) -> bool {
        self.below.at(row) + self.above.at(column) > self.limit
    }

    fn look(&mut self, candidates: &[usize]) {
        let parameters = abreast::parameters(self.grid, candidates, self.numerics, self.usual);
        let codes = self.numerics.code_range();
        let squares = sums(self.x, |x| self.isa.rough_squares(x, &parameters, codes));
        // Near the largest number an outermost code may be restored as infinity.
        let farthest = T::from_i32(2 << self.numerics.bits);
        let known = |squares: f64, scale: T| {
            if squares < f64::INFINITY && (scale * farthest).is_finite() {
                squares
            } else {
                f64::NAN
            }
        };
        let lanes = candidates.iter().zip(&squares).zip(&parameters.scales);
        let lanes = lanes.map(|((&number, &squares), &scale)| Kept {
            number,
            squares: known(squares, scale),
            scale: scale.to_f64(),
        });
        let least = lanes.clone().min_by(|a, b| a.error().total_cmp(&b.error()));
        if let Some(Kept { squares, scale, .. }) = least {
            let root = ((squares * (1.0 + SUMMED)).sqrt() + self.slack) * scale;
            // NaN is no limit.
            self.limit = self.limit.min(root * root);
        }
        let root = self.limit.sqrt();
        self.kept.extend(lanes.filter(|kept| may_be_best(kept, root, self.slack)));
    }
}

/// Whether the least that a candidate may lose is not more than the square of `root`.
fn may_be_best(kept: &Kept, root: f64, slack: f64) -> bool {
    let most = root / kept.scale + slack;
    // What is not a number is kept.
    (kept.squares * (1.0 - SUMMED)).partial_cmp(&(most * most)) != Some(Ordering::Greater)
}

impl<T: Real> Rough<'_, T> {
    fn finish(mut self) -> Vec<usize> {
        let root = self.limit.sqrt();
        self.kept.retain(|kept| may_be_best(kept, root, self.slack));
        self.kept.sort_by(|a, b| a.error().total_cmp(&b.error()).then(a.number.cmp(&b.number)));
        self.kept.into_iter().map(|kept| kept.number).collect()
    }
}

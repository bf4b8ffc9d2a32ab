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

use rayon::prelude::*;

use super::super::BLOCK;
use super::super::grid::Grid;
use super::bounds::{Bounds, sieve};
use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::kernels::scalar::Affine;
use crate::quant::Cancel;
use crate::quant::params::Numerics;

/// What sums lose relative to themselves, in f32: 64 additions in a lane, and
/// what is rounded of a distance and its square.
const SUMMED: f64 = 1e-5;

/// The candidates that may have the least error, the most promising first.
pub(super) fn survivors<T: Real>(
    values: &[T],
    grid: &Grid<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Vec<usize> {
    let finite = finite(values);
    let clips = Clips { x: &finite, reach: grid.reach(numerics) };
    let whole = grid.get(0);
    // Ends that go together clip together.
    let together = grid.rows() == 1;
    let mut bounds = Vec::new();
    let mut limit = f64::INFINITY;
    for row in 0..grid.rows() {
        let first = row * grid.columns();
        let below = if together { 0.0 } else { clips.least(grid.get(first).min, whole.max) };
        if below > limit {
            break;
        }
        for i in first..first + grid.columns() {
            let range = grid.get(i);
            let min = if together { range.min } else { whole.min };
            if below + clips.least(min, range.max) > limit || cancel.is_cancelled() {
                break;
            }
            let found = around(&finite, numerics.affine(range), numerics);
            limit = limit.min(found.most);
            bounds.push((i, found));
        }
    }
    sieve(bounds)
}

/// What is finite.
fn finite<T: Real>(values: &[T]) -> Cow<'_, [T]> {
    if values.iter().all(|x| x.is_finite()) {
        return Cow::Borrowed(values);
    }
    Cow::Owned(values.iter().copied().filter(|x| x.is_finite()).collect())
}

/// The sum over blocks; how it is rounded does not matter.
fn sum<T: Real>(x: &[T], of: impl Fn(&[T]) -> f64 + Sync) -> f64 {
    if x.len() <= BLOCK { of(x) } else { x.par_chunks(BLOCK).map(&of).sum() }
}

/// What ranges clip.
struct Clips<'a, T> {
    x: &'a [T],
    /// How far beyond its ends a range may reach, if that is known.
    reach: Option<f64>,
}

impl<T: Real> Clips<'_, T> {
    /// What the elements beyond these ends lose at least.
    fn least(&self, min: T, max: T) -> f64 {
        let Some(reach) = self.reach else { return 0.0 };
        let ends = [min.to_f64() - reach, max.to_f64() + reach];
        sum(self.x, |x| Isa::current().excess(x, ends)) * (1.0 - SUMMED)
    }
}

/// The bounds of one candidate.
fn around<T: Real>(x: &[T], affine: Affine<T>, numerics: &Numerics) -> Bounds {
    let codes = numerics.code_range();
    let squares = sum(x, |x| Isa::current().rough_squares(x, affine, codes));
    let slack = inexact::<T>(affine, numerics) * (x.len() as f64).sqrt();
    let scale = affine.scale.to_f64();
    let least = ((squares * (1.0 - SUMMED)).sqrt() - slack).max(0.0) * scale;
    let most = ((squares * (1.0 + SUMMED)).sqrt() + slack) * scale;
    // Near the largest number an outermost code may be restored as infinity.
    let ends = [codes.min, codes.max].map(|code| T::from_i32(code - affine.zero_point));
    if squares < f64::INFINITY && ends.iter().all(|&end| (end * affine.scale).is_finite()) {
        Bounds { least: least * least, most: most * most }
    } else {
        Bounds { least: 0.0, most: f64::INFINITY }
    }
}

/// How far off a distance may be, in steps of the scale.
fn inexact<T: Real>(affine: Affine<T>, numerics: &Numerics) -> f64 {
    let steps = f64::from(affine.zero_point.unsigned_abs()) + f64::from(1_u32 << numerics.bits);
    8.0 * T::EPSILON.to_f64() * (steps + 1.0)
}

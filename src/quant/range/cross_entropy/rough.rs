//! Bounds of the loss of candidates.
//!
//! Less the entropy of the targets t, which all candidates have in common, the
//! loss of a line is log sum t exp(d) - sum t d, d what an element is restored
//! as less itself. With m the mean sum t d and u = d - m it is
//! log(1 + sum t (exp u - 1 - u)), of which nothing cancels, so that it is known
//! to a small part of itself though it is a small part of the loss:
//!
//! 1. d is exact for elements of f32, and of f64 to an epsilon of itself. Codes
//!    are those of the quantizer.
//! 2. The sum is known to [`INEXACT`] of itself: exponentials to 1e-9, the
//!    difference of u from 0.25 on to 1e-7, sums to their number times 1e-16. t is off by 1e-9 of
//!    itself. That moves the mean by some m' with |m'| <= 1e-9 sum t |u|, and the
//!    result by m'^2 / 2 and m' times itself.
//! 3. The exhaustive search adds n numbers, twice, of which the magnitudes
//!    come to 1 and to the width of the range; then lines: [`Slack`].
//!
//! Where a single line is searched for both ends, what an upper end clips is looked at first:
//! joining elements never makes a divergence larger, so let there be two,
//! those above the end and the others. Nothing is restored as more than h, the
//! end and its reach ([`Grid::reach`]), and no other element as less than itself and
//! two such reaches. That bounds the share of those above, whatever the lower end.

use rayon::prelude::*;

use super::super::BLOCK;
use super::super::grid::Grid;
use super::super::mse::{Bounds, sieve};
use super::Lines;
use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::kernels::scalar::Affine;
use crate::quant::Cancel;
use crate::quant::params::Numerics;

/// What is lost of a loss less the entropy, relative to itself.
const INEXACT: f64 = 1e-6;
/// Wider ranges have exponentials without a number.
const WIDEST: f64 = 300.0;

/// The candidates that may have the least loss, in the order of their numbers;
/// none where that cannot be said.
pub(super) fn survivors<T: Real>(
    lines: Lines<'_, T>,
    grid: &Grid<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Option<Vec<usize>> {
    let whole = grid.get(0);
    let width = whole.max.to_f64() - whole.min.to_f64();
    let reach = grid.reach(numerics)?;
    let is_usual = width < WIDEST && reach < WIDEST;
    if !(is_usual && lines.values.iter().all(|x| x.is_finite())) {
        return None;
    }
    let rough = Rough { lines, targets: targets(lines, cancel), numerics, cancel };
    let slack = slack(lines, width);
    let clipped: Vec<f64> = if grid.rows() > 1 && lines.values.len() <= lines.line {
        (0..grid.columns()).map(|i| rough.clipped(grid.get(i).max.to_f64(), reach)).collect()
    } else {
        Vec::new()
    };
    let mut shift = vec![0.0; lines.line.min(lines.values.len())];
    let mut bounds = Vec::new();
    let mut limit = f64::INFINITY;
    for i in 0..grid.len() {
        if cancel.is_cancelled() {
            break;
        }
        if clipped.get(i % grid.columns()).is_some_and(|&least| least - slack > limit) {
            continue;
        }
        let loss = rough.loss(numerics.affine(grid.get(i)), &mut shift);
        let found =
            Bounds { least: loss * (1.0 - INEXACT) - slack, most: loss * (1.0 + INEXACT) + slack };
        limit = limit.min(found.most);
        bounds.push((i, found));
    }
    let mut left = sieve(bounds);
    left.sort_unstable();
    Some(left)
}

/// What a sum of the exhaustive search may be off: of each line n roundings
/// of magnitudes up to 1, the width and the logarithm of n, then as many as there are lines.
fn slack<T>(lines: Lines<'_, T>, width: f64) -> f64 {
    let count = lines.values.len().div_ceil(lines.line);
    let total: f64 = (0..count).map(|i| lines.weight(i)).sum();
    let roundings = (lines.line + count + 16) as f64;
    8.0 * roundings * f64::EPSILON * (width + 48.0) * total
}

/// The softmax of each line, roughly.
fn targets<T: Real>(lines: Lines<'_, T>, cancel: &Cancel) -> Vec<f64> {
    let Lines { values, line, .. } = lines;
    let mut targets = vec![0.0; values.len()];
    let fill = |(x, targets): (&[T], &mut [f64])| {
        if cancel.is_cancelled() {
            return;
        }
        let peak = x.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        Isa::current().exponentials(x, peak, targets);
        let total: f64 = targets.iter().sum();
        targets.iter_mut().for_each(|target| *target /= total);
    };
    if values.len() <= BLOCK {
        values.chunks(line).zip(targets.chunks_mut(line)).for_each(fill);
    } else {
        values.par_chunks(line).zip(targets.par_chunks_mut(line)).for_each(fill);
    }
    targets
}

struct Rough<'a, T> {
    lines: Lines<'a, T>,
    targets: Vec<f64>,
    numerics: &'a Numerics,
    cancel: &'a Cancel,
}

impl<T: Real> Rough<'_, T> {
    /// The loss of all lines, less the entropy of their targets. `shift` is room for a line.
    fn loss(&self, affine: Affine<T>, shift: &mut [f64]) -> f64 {
        let Lines { values, line, .. } = self.lines;
        let weighted = |shift: &mut [f64], (i, (x, targets)): (usize, (&[T], &[f64]))| {
            self.lines.weight(i) * self.loss_of_line(x, targets, affine, &mut shift[..x.len()])
        };
        if values.len() <= BLOCK {
            let lines = values.chunks(line).zip(self.targets.chunks(line)).enumerate();
            return lines.map(|part| weighted(shift, part)).sum();
        }
        let lines = values.par_chunks(line).zip(self.targets.par_chunks(line)).enumerate();
        lines.map_init(|| vec![0.0; line], |shift, part| weighted(shift, part)).sum()
    }

    fn loss_of_line(&self, x: &[T], targets: &[f64], affine: Affine<T>, shift: &mut [f64]) -> f64 {
        let isa = Isa::current();
        let how = (self.numerics.code_range(), self.numerics.rounding());
        let parts = x.chunks(BLOCK).zip(targets.chunks(BLOCK)).zip(shift.chunks_mut(BLOCK));
        let mean = super::sum_parts(parts, self.cancel, |sum, (part, shift)| {
            sum + isa.shifts(part, affine, how, shift)
        });
        let parts = targets.chunks(BLOCK).zip(shift.chunks(BLOCK));
        let curvature = super::sum_parts(parts, self.cancel, |sum, (targets, shift)| {
            sum + isa.curvature(targets, shift, mean)
        });
        libm::log1p(curvature)
    }

    /// What is lost at least where the upper end of a single line is `max`.
    fn clipped(&self, max: f64, reach: f64) -> f64 {
        let x = self.lines.values;
        let peak = x.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let above = x.iter().zip(&self.targets).filter(|(x, _)| x.to_f64() > max);
        let (count, share) =
            above.fold((0.0, 0.0), |(n, sum), (_, target)| (n + 1.0, sum + target));
        let rest: f64 = 1.0 - share;
        // The targets in units of that of the peak.
        let unit = self.targets.iter().copied().fold(0.0, f64::max);
        if count == 0.0 || rest < 1e-6 {
            return 0.0;
        }
        let odds = count * libm::exp(max + 3.0 * reach - peak) * unit / rest;
        let most = odds / (1.0 + odds);
        if most >= share {
            return 0.0;
        }
        let least = share * libm::log(share / most) + rest * libm::log(rest / (1.0 - most));
        least * (1.0 - INEXACT) - INEXACT * INEXACT
    }
}

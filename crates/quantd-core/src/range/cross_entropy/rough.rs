//! Bounds of the loss of candidates.
//!
//! Less the entropy of the targets t, which all candidates have in common, the
//! loss of a line is the divergence log sum t exp(d) - sum t d, d what an
//! element is restored as less itself. With u = d - d', d' that of the peak of the line, M = sum
//! t u and B = sum t (exp u - 1 - u) it is log(1 + M + B) - M. It is not much
//! less than B: M^2 is at most about 2 (1 - t') B, t' the target of the peak.
//!
//! 1. u is exact for elements of f32, and of f64 to an epsilon of d, and then rounded
//!    to f32. Codes are those of the quantizer.
//! 2. What belongs to B is known to 6e-6 of itself ([`Bends::slack`]): 4e-6 of exp u - 1 - u, the rest of
//!    t, u, products and sums of 16. By as much of sum t |u| M is off, a third of it.
//!    As (exp u - 1 - u) >= u^2 / (2 + |u|), which is convex, sum t |u| is at most B + sqrt(2 B);
//!    nor is it more than twice the width. The loss moves by 1 / (1 + M + B) of an error of B, and by
//!    (M + B) / (1 + M + B) of one of M.
//! 3. B is too small where some u is beyond the farthest, or t too small for f32: below
//!    2^-149 times exp 40 an element. The first leaves no upper bound; the other is nothing.
//! 4. The exhaustive search adds n numbers, twice, of which the magnitudes
//!    come to 1 and to the width of the range; then lines: [`slack`].
//!
//! Of a single line it is known before what ends clip. Joining elements never makes a divergence
//! larger, so let there be two, those above an upper end h, whose targets are p together, and the
//! others. Let r be the reach ([`Grid::reach`]) beyond ends, or i within them if that is more, and h' <=
//! h the upper end of a candidate. Nothing is
//! restored as more than h' + r, and x <= h not as less than min(x, h') - i >= x + h' - h - i.
//! So the odds of those above are at most their number times exp(h + r + i) over the sum of exp x of the
//! others: whatever the lower end, and for all narrower ranges too. Those below a lower end have such
//! odds at least. Let q be a share that is nearer to p than what they get: the divergence of
//! two shares is the integral of |p - x| / (x (1 - x)) from p to q, hence at least (p - q)^2 over
//! twice the most that x (1 - x) is.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::super::BLOCK;
use super::super::abreast::{self, Marks, Search};
use super::super::grid::Grid;
use super::Lines;
use crate::Task;
use crate::params::Numerics;
use quantd_kernels::Isa;
use quantd_kernels::real::Real;
use quantd_kernels::rough::{Bends, Candidates, Lanes, SIDE};

/// Wider ranges have exponentials without a number.
const WIDEST: f64 = 300.0;

/// The candidates that may have the least loss, in the order of their numbers;
/// none where that cannot be said.
pub(super) fn survivors<T: Real>(
    lines: Lines<'_, T>,
    grid: &Grid<T>,
    numerics: &Numerics,
    task: &Task,
) -> Option<Vec<usize>> {
    let whole = grid.get(0);
    let width = whole.max.to_f64() - whole.min.to_f64();
    let scale = grid.scale(numerics)?;
    let is_usual = width < WIDEST && scale.to_f64() < WIDEST;
    if !(is_usual && lines.values.iter().all(|x| x.is_finite())) {
        return None;
    }
    let targets = Targets::new(lines, task);
    let [below, above] = if lines.values.len() <= lines.line {
        targets.clipped(grid, scale.to_f64(), numerics)
    } else {
        [Marks::NONE; 2]
    };
    let (slack, limit) = (slack(lines, width), f64::INFINITY);
    let kept = Vec::with_capacity(SIDE);
    let mut rough = Rough { targets, grid, numerics, task, below, above, slack, limit, kept };
    abreast::walk(grid, &mut rough, task);
    let Rough { limit, kept, .. } = rough;
    let kept = kept.into_iter().filter(|(_, least)| may_be_best(*least, limit));
    Some(kept.map(|(i, _)| i).collect())
}

/// What is not a number is kept.
fn may_be_best(least: f64, limit: f64) -> bool {
    least.partial_cmp(&limit) != Some(Ordering::Greater)
}

/// What a sum of the exhaustive search may be off: of each line n roundings
/// of magnitudes up to 1, the width and the logarithm of n, then as many as there are lines.
fn slack<T>(lines: Lines<'_, T>, width: f64) -> f64 {
    let count = lines.values.len().div_ceil(lines.line);
    let total: f64 = (0..count).map(|i| lines.weight(i)).sum();
    let roundings = (lines.line + count + 16) as f64;
    8.0 * roundings * f64::EPSILON * (width + 48.0) * total
}

/// The softmax of lines, roughly.
struct Targets<'a, T> {
    isa: Isa,
    lines: Lines<'a, T>,
    targets: Vec<f32>,
    /// The largest element of each line.
    peaks: Vec<T>,
}

/// One of the lines.
#[derive(Clone, Copy)]
struct Line<'a, T> {
    x: &'a [T],
    targets: &'a [f32],
    peak: T,
    weight: f64,
}

impl<'a, T: Real> Targets<'a, T> {
    fn new(lines: Lines<'a, T>, task: &Task) -> Self {
        let Lines { values, line, .. } = lines;
        let mut targets = vec![0.0; values.len()];
        let fill = |(x, targets): (&[T], &mut [f32])| {
            if task.is_cancelled() {
                return T::ZERO;
            }
            let peak = x.iter().copied().fold(-T::INFINITY, |a, b| if b > a { b } else { a });
            let total = task.isa().exponentials(x, peak.to_f64(), targets);
            let factor = <f32 as Real>::from_f64(1.0 / total);
            targets.iter_mut().for_each(|target| *target *= factor);
            peak
        };
        let peaks = if values.len() <= BLOCK {
            values.chunks(line).zip(targets.chunks_mut(line)).map(fill).collect()
        } else {
            values.par_chunks(line).zip(targets.par_chunks_mut(line)).map(fill).collect()
        };
        Self { isa: task.isa(), lines, targets, peaks }
    }

    fn line(&self, i: usize) -> Line<'_, T> {
        let Lines { values, line, .. } = self.lines;
        let part = i * line..(i * line + line).min(values.len());
        let (x, targets) = (&values[part.clone()], &self.targets[part]);
        Line { x, targets, peak: self.peaks[i], weight: self.lines.weight(i) }
    }

    /// What is lost at least by what the lower ends of rows clip of a single line, and the
    /// upper ends of columns.
    fn clipped(&self, grid: &Grid<T>, scale: f64, numerics: &Numerics) -> [Marks; 2] {
        let reach = (Grid::<T>::reach(numerics) + Grid::<T>::inner_reach(numerics)) * scale;
        let Line { x, targets, peak, .. } = self.line(0);
        let beyond = |sign: T, ends: &Lanes<T>| {
            self.isa.beyond((x, targets), (sign, peak.to_f64(), reach), ends)
        };
        let below = |ends: &Lanes<T>| beyond(-T::ONE, ends);
        let above = |ends: &Lanes<T>| beyond(T::ONE, ends);
        // Small exponentials hardly ever count, and ends that go together need one look only.
        let rows = if grid.is_symmetric() {
            Marks::NONE
        } else {
            Marks::new(grid.rows(), |row| grid.lower(row), below)
        };
        [rows, Marks::new(grid.columns(), |column| grid.upper(column), above)]
    }
}

struct Rough<'a, T> {
    targets: Targets<'a, T>,
    grid: &'a Grid<T>,
    numerics: &'a Numerics,
    task: &'a Task,
    below: Marks,
    above: Marks,
    slack: f64,
    /// Some candidate loses no more.
    limit: f64,
    /// Candidates and what they lose at least.
    kept: Vec<(usize, f64)>,
}

impl<T: Real> Search for Rough<'_, T> {
    fn is_hopeless_row(&self, row: usize) -> bool {
        self.below.at(row) - self.slack > self.limit
    }

    fn is_hopeless(&self, _: usize, column: usize) -> bool {
        self.above.at(column) - self.slack > self.limit
    }

    fn look(&mut self, candidates: &[usize]) {
        let parameters = abreast::parameters(self.grid, candidates, self.numerics, true);
        let [least, most] = self.losses(&parameters);
        let known = &most[..candidates.len()];
        self.limit = known.iter().fold(self.limit, |limit, most| limit.min(most + self.slack));
        let (slack, limit) = (self.slack, self.limit);
        let found = candidates.iter().zip(least).map(|(&i, least)| (i, least - slack));
        self.kept.extend(found.filter(|(_, least)| may_be_best(*least, limit)));
    }
}

impl<T: Real> Rough<'_, T> {
    /// The least and the most that all lines lose.
    fn losses(&self, candidates: &Candidates<T>) -> [Lanes<f64>; 2] {
        let add = |a: [Lanes<f64>; 2], b: [Lanes<f64>; 2]| {
            [0, 1].map(|bound| std::array::from_fn(|i| a[bound][i] + b[bound][i]))
        };
        let loss = |i: usize| self.losses_of_line(self.targets.line(i), candidates);
        let lines = 0..self.targets.peaks.len();
        if self.targets.lines.values.len() <= BLOCK {
            return lines.map(loss).reduce(add).unwrap_or_default();
        }
        lines.into_par_iter().map(loss).reduce(Default::default, add)
    }

    fn losses_of_line(&self, line: Line<'_, T>, candidates: &Candidates<T>) -> [Lanes<f64>; 2] {
        let how = (self.numerics.code_range(), self.numerics.rounding());
        let mut sums = Bends::default();
        for part in line.x.chunks(BLOCK).zip(line.targets.chunks(BLOCK)) {
            if self.task.is_cancelled() {
                break;
            }
            self.targets.isa.bends(part, line.peak, candidates, how, &mut sums);
        }
        let [mut least, mut most] = self.targets.isa.divergences(&sums);
        for i in 0..SIDE {
            let above = sums.mean[i] + sums.bend[i];
            if !(above.abs() < Bends::NEAR && sums.largest[i] <= Bends::FARTHEST) {
                [least[i], most[i]] = far(sums.mean[i], sums.bend[i], sums.largest[i]);
            }
            (least[i], most[i]) = (line.weight * least[i], line.weight * most[i]);
        }
        [least, most]
    }
}

/// What log(1 + `mean` + `bend`) - `mean` is at least, and at most, where its logarithm is not that of
/// nearly 1, or some u is beyond the farthest.
fn far(mean: f64, bend: f64, largest: f32) -> [f64; 2] {
    let above = mean + bend;
    if !(above > -0.99 && above.is_finite()) {
        return [0.0, f64::INFINITY];
    }
    let (loss, slack) = (libm::log1p(above) - mean, Bends::slack(above, bend));
    [loss - slack, if largest <= Bends::FARTHEST { loss + slack } else { f64::INFINITY }]
}

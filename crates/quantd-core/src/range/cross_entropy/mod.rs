//! The range for which softmax of the result stays closest to softmax of the input.
//!
//! The loss is the mean over lines of -sum softmax(x) log softmax(x̂), in f64
//! with the maximum of each line taken out before the exponential. The grid is
//! alpha = amax k / 50 for symmetric codes and beta = min j / 16, alpha =
//! max k / 16 for asymmetric ones; the result is that of an exhaustive search,
//! where of equal losses the wider range wins. Elements that are not finite are
//! left out of their line. Most candidates are ruled out by [`rough`], which looks
//! at many side by side.

mod rough;

use rayon::prelude::*;

use super::BLOCK;
use super::grid::Grid;
use crate::Task;
use crate::params::{Numerics, Range};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{self, Params};

const SYMMETRIC: i32 = 50;
const ASYMMETRIC: i32 = 16;

pub(super) fn range<T: Real>(
    values: &[T],
    whole: Range<T>,
    line: usize,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    weighted(Lines { values, line, weights: &[] }, whole, numerics, task)
}

/// Lines of one length, side by side.
#[derive(Debug)]
pub(crate) struct Lines<'a, T> {
    /// Their elements.
    pub(crate) values: &'a [T],
    /// Elements of a line.
    pub(crate) line: usize,
    /// How often each line counts; empty where each counts once.
    pub(crate) weights: &'a [u64],
}

impl<T> Clone for Lines<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Lines<'_, T> {}

impl<T> Lines<'_, T> {
    /// How often line `i` counts.
    fn weight(&self, i: usize) -> f64 {
        self.weights.get(i).map_or(1.0, |&weight| weight as f64)
    }
}

/// The same over lines of which each may count several times.
pub(crate) fn weighted<T: Real>(
    lines: Lines<'_, T>,
    whole: Range<T>,
    numerics: &Numerics,
    task: &Task,
) -> Range<T> {
    let lines = Lines { line: lines.line.max(1), ..lines };
    let grid = Grid::new(whole, numerics, SYMMETRIC, ASYMMETRIC);
    let left = rough::survivors(lines, &grid, numerics, task);
    match left.as_deref() {
        Some(&[only]) => grid.get(only),
        Some(several) => least(lines, &grid, several, numerics, task).unwrap_or(whole),
        None => {
            let all: Vec<usize> = (0..grid.len()).collect();
            least(lines, &grid, &all, numerics, task).unwrap_or(whole)
        }
    }
}

/// The first of some candidates, which are in the order of their numbers, that has the least loss.
fn least<T: Real>(
    lines: Lines<'_, T>,
    grid: &Grid<T>,
    candidates: &[usize],
    numerics: &Numerics,
    task: &Task,
) -> Option<Range<T>> {
    let Lines { values, line, .. } = lines;
    let targets: Vec<f64> = values.par_chunks(line).flat_map_iter(|x| softmax(x, task)).collect();
    let (mut best, mut least) = (None, f64::INFINITY);
    for &i in candidates {
        let candidate = grid.get(i);
        let losses: Vec<f64> = values
            .par_chunks(line)
            .zip(targets.par_chunks(line))
            .map(|(x, target)| loss((x, target), candidate, numerics, task))
            .collect();
        if task.is_cancelled() {
            break;
        }
        let sum: f64 = losses.iter().enumerate().map(|(i, loss)| lines.weight(i) * loss).sum();
        if sum < least {
            (best, least) = (Some(candidate), sum);
        }
    }
    best
}

/// Adds up `term` of parts of a line one after the other; nothing once it is cancelled.
fn sum_parts<P>(parts: impl Iterator<Item = P>, task: &Task, add: impl Fn(f64, P) -> f64) -> f64 {
    let add = |sum, part| if task.is_cancelled() { sum } else { add(sum, part) };
    parts.fold(0.0, add)
}

fn softmax<T: Real>(x: &[T], task: &Task) -> Vec<f64> {
    let finite = |x: &&T| x.is_finite();
    let peak = x.iter().filter(finite).map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let total = sum_parts(x.chunks(BLOCK), task, |sum, x| {
        x.iter().filter(finite).fold(sum, |sum, x| sum + libm::exp(x.to_f64() - peak))
    });
    let target = |x: &T| if x.is_finite() { libm::exp(x.to_f64() - peak) / total } else { 0.0 };
    let mut targets = Vec::with_capacity(x.len());
    for x in x.chunks(BLOCK) {
        if task.is_cancelled() {
            targets.resize(targets.len() + x.len(), 0.0);
        } else {
            targets.extend(x.iter().map(target));
        }
    }
    targets
}

/// Cross-entropy of one line: log sum exp x̂ - sum target x̂.
fn loss<T: Real>(
    (x, target): (&[T], &[f64]),
    range: Range<T>,
    numerics: &Numerics,
    task: &Task,
) -> f64 {
    let params = Params::Same(numerics.affine(range));
    let mut codes = vec![0_i32; x.len().min(BLOCK)];
    let mut restored = vec![T::ZERO; x.len()];
    for (x, restored) in x.chunks(BLOCK).zip(restored.chunks_mut(BLOCK)) {
        if task.is_cancelled() {
            return 0.0;
        }
        let codes = &mut codes[..x.len()];
        scalar::quantize(x, params, numerics.code_range(), numerics.rounding(), codes);
        scalar::dequantize(codes, params, restored);
    }
    let parts = || x.chunks(BLOCK).zip(restored.chunks(BLOCK));
    let finite = |(x, restored): (&'_ [T], &'_ [T])| {
        let pairs = x.iter().zip(restored).filter(|(x, _)| x.is_finite());
        pairs.map(|(_, r)| r.to_f64()).collect::<Vec<f64>>()
    };
    let peak = parts().flat_map(finite).fold(f64::NEG_INFINITY, f64::max);
    if !peak.is_finite() {
        return 0.0;
    }
    let total = sum_parts(parts(), task, |sum, part| {
        finite(part).into_iter().fold(sum, |sum, r| sum + libm::exp(r - peak))
    });
    let hits = target.chunks(BLOCK).zip(restored.chunks(BLOCK));
    let hit = sum_parts(hits, task, |sum, (target, restored)| {
        let pairs = target.iter().zip(restored);
        let term = |(target, r): (&f64, &T)| {
            if *target > 0.0 { target * (r.to_f64() - peak) } else { 0.0 }
        };
        pairs.map(term).fold(sum, |sum, term| sum + term)
    });
    libm::log(total) - hit
}

#[cfg(test)]
mod tests;

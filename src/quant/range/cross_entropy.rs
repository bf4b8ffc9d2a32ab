//! The range for which softmax of the result stays closest to softmax of the input.
//!
//! The loss is the mean over lines of -sum softmax(x) log softmax(x̂), in f64
//! with the maximum of each line taken out before the exponential. The grid is
//! alpha = amax k / 50 for symmetric codes and beta = min j / 16, alpha =
//! max k / 16 for asymmetric ones, searched exhaustively; of equal losses the
//! wider range wins. Elements that are not finite are left out of their line.

use rayon::prelude::*;

use crate::kernels::real::Real;
use crate::kernels::scalar::{self, Params};
use crate::quant::Cancel;
use crate::quant::params::{Numerics, Range};

const SYMMETRIC: i32 = 50;
const ASYMMETRIC: i32 = 16;

pub(super) fn range<T: Real>(
    values: &[T],
    whole: Range<T>,
    line: usize,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    weighted(Lines { values, line, weights: &[] }, whole, numerics, cancel)
}

/// Lines of one length, side by side.
#[derive(Clone, Copy, Debug)]
pub(in crate::quant) struct Lines<'a, T> {
    /// Their elements.
    pub(in crate::quant) values: &'a [T],
    /// Elements of a line.
    pub(in crate::quant) line: usize,
    /// How often each line counts; empty where each counts once.
    pub(in crate::quant) weights: &'a [u64],
}

/// The same over lines of which each may count several times.
pub(in crate::quant) fn weighted<T: Real>(
    lines: Lines<'_, T>,
    whole: Range<T>,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    let Lines { values, line, weights } = lines;
    let line = line.max(1);
    let targets: Vec<f64> = values.par_chunks(line).flat_map_iter(softmax).collect();
    let (mut best, mut least) = (whole, f64::INFINITY);
    for candidate in super::grid(whole, numerics, SYMMETRIC, ASYMMETRIC) {
        if cancel.is_cancelled() {
            break;
        }
        let losses: Vec<f64> = values
            .par_chunks(line)
            .zip(targets.par_chunks(line))
            .map(|(x, target)| loss(x, target, candidate, numerics))
            .collect();
        let weight = |i: usize| weights.get(i).map_or(1.0, |&weight| weight as f64);
        let sum: f64 = losses.iter().enumerate().map(|(i, loss)| weight(i) * loss).sum();
        if sum < least {
            (best, least) = (candidate, sum);
        }
    }
    best
}

fn softmax<T: Real>(x: &[T]) -> Vec<f64> {
    let finite = || x.iter().filter(|x| x.is_finite()).map(|x| x.to_f64());
    let peak = finite().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = finite().map(|x| libm::exp(x - peak)).sum();
    x.iter()
        .map(|x| if x.is_finite() { libm::exp(x.to_f64() - peak) / total } else { 0.0 })
        .collect()
}

/// Cross-entropy of one line: log sum exp x̂ - sum target x̂.
fn loss<T: Real>(x: &[T], target: &[f64], range: Range<T>, numerics: &Numerics) -> f64 {
    let params = Params::Same(numerics.affine(range));
    let mut codes = vec![0_i32; x.len()];
    scalar::quantize(x, params, numerics.code_range(), numerics.rounding(), &mut codes);
    let mut restored = vec![T::ZERO; x.len()];
    scalar::dequantize(&codes, params, &mut restored);
    let pairs = || x.iter().zip(&restored).filter(|(x, _)| x.is_finite()).map(|(_, r)| r.to_f64());
    let peak = pairs().fold(f64::NEG_INFINITY, f64::max);
    if !peak.is_finite() {
        return 0.0;
    }
    let total: f64 = pairs().map(|r| libm::exp(r - peak)).sum();
    let hit: f64 = target
        .iter()
        .zip(&restored)
        .map(|(target, r)| if *target > 0.0 { target * (r.to_f64() - peak) } else { 0.0 })
        .sum();
    libm::log(total) - hit
}

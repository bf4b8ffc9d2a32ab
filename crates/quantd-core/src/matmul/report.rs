//! How far a product of codes is from that of the numbers they stand for.

use rayon::prelude::*;

use crate::tensor::{Reals, Tensor};

use super::super::QuantError;
use super::operand::Operand;
use super::run::{Work, reals_of};
use super::{Dims, Fault, Form};

/// Error of a product against the product of the real numbers, made in f64.
/// A figure is `None` where it is not a finite number.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Mean of the squared differences.
    pub mse: Option<f64>,
    /// Largest difference.
    pub max_abs_error: Option<f64>,
    /// 10 log10(sum of squares of the real product / sum of squared differences), dB.
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between the two.
    pub cosine: Option<f64>,
}

/// Sums over the cells of some rows.
#[derive(Clone, Copy, Default)]
struct Sums {
    signal: f64,
    result: f64,
    product: f64,
    error: f64,
    max_abs: f64,
}

/// Compares the result with the real product, with bias and `ReLU`.
pub(super) fn report(work: &Work<'_>, result: &Tensor) -> Result<Report, Fault> {
    let product = work.product;
    let (Some(a), Some(b)) = (real(&product.a), real(&product.b)) else {
        let error = QuantError::field("report", "needs both operands as real numbers");
        return Err(error.cure("leave report out").into());
    };
    /// Rows whose sums are held at a time.
    const BLOCK: usize = 1 << 14;
    let Dims { m, k, n, ref batch, .. } = *work.dims;
    let made = reals_of(result, work);
    let bias = bias(work);
    let row = |index: usize| {
        let (left, right) = batch.pair(index / m);
        let a = &a[(left * m + index % m) * k..][..k];
        let b = &b[right * k * n..][..k * n];
        let mut real = bias.clone();
        if work.task.is_cancelled() {
            return Sums::default();
        }
        multiply_row(a, b, product.transpose_b, &mut real);
        compare(&real, &made[index * n..][..n], product.relu)
    };
    let all = batch.len * m;
    let total = (0..all).step_by(BLOCK).fold(Sums::default(), |total, first| {
        let rows = first..all.min(first + BLOCK);
        let rows: Vec<Sums> = rows.into_par_iter().map(row).collect();
        total.plus(rows)
    });
    Ok(Report::new(total, made.len()))
}

impl Sums {
    /// With those of parts, in their order, whichever thread made them.
    fn plus(self, parts: Vec<Self>) -> Self {
        parts.into_iter().fold(self, |total, part| Self {
            signal: total.signal + part.signal,
            result: total.result + part.result,
            product: total.product + part.product,
            error: total.error + part.error,
            max_abs: total.max_abs.max(part.max_abs),
        })
    }
}

impl Report {
    /// Of the sums over so many cells.
    fn new(sums: Sums, cells: usize) -> Self {
        let finite = |x: f64| (cells > 0 && x.is_finite()).then_some(x);
        let norms = (sums.signal * sums.result).sqrt();
        let cosine = if norms > 0.0 {
            (sums.product / norms).clamp(-1.0, 1.0)
        } else {
            // At least one of them is zero: alike only if both are.
            f64::from(u8::from(sums.signal + sums.result <= 0.0))
        };
        Self {
            mse: finite(sums.error / cells as f64),
            max_abs_error: finite(sums.max_abs),
            sqnr_db: finite(10.0 * libm::log10(sums.signal / sums.error)),
            cosine: finite(cosine),
        }
    }

    /// How far `made` is from `real`, of the same length.
    pub(crate) fn between(real: &[f32], made: &[f32]) -> Self {
        /// Elements that a thread compares at a time.
        const PART: usize = 1 << 14;
        let wide = |part: &[f32]| part.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let parts = real.par_chunks(PART).zip(made.par_chunks(PART));
        let parts = parts.map(|(real, made)| compare(&wide(real), &wide(made), false));
        Self::new(Sums::default().plus(parts.collect()), made.len())
    }
}

fn real(operand: &Operand<'_>) -> Option<Vec<f64>> {
    let Operand::Real { tensor, .. } = operand else { return None };
    Some(match tensor.reals() {
        Reals::F32(reals) => reals.iter().map(|&x| f64::from(x)).collect(),
        Reals::F64(reals) => reals.into_owned(),
    })
}

/// The bias as the real product has it.
fn bias(work: &Work<'_>) -> Vec<f64> {
    let none = vec![0.0; work.dims.n];
    let Some(bias) = work.product.bias else { return none };
    let scale = |i: usize| -> f64 {
        let pick = |scales: &Option<Vec<f32>>| match scales.as_deref() {
            None => 1.0,
            Some(&[one]) => one,
            Some(all) => all[i],
        };
        let a = work.a.scales.as_ref().map_or(1.0, |scales| scales[0]);
        f64::from(a) * f64::from(pick(&work.b.scales))
    };
    match (work.product.form, bias.reals()) {
        (Form::Codes { .. }, _) => {
            let bias = bias.elements::<i32>();
            bias.iter().enumerate().map(|(i, &bias)| f64::from(bias) * scale(i)).collect()
        }
        (_, Reals::F32(bias)) => bias.iter().map(|&x| f64::from(x)).collect(),
        (_, Reals::F64(_)) => none,
    }
}

/// Adds one row of the product, in the order of k.
fn multiply_row(a: &[f64], b: &[f64], transposed: bool, out: &mut [f64]) {
    let n = out.len();
    for (k, a) in a.iter().enumerate() {
        if transposed {
            let depth = b.len() / n.max(1);
            out.iter_mut().enumerate().for_each(|(j, out)| *out += a * b[j * depth + k]);
        } else {
            out.iter_mut().zip(&b[k * n..]).for_each(|(out, b)| *out += a * b);
        }
    }
}

fn compare(real: &[f64], made: &[f64], relu: bool) -> Sums {
    let mut sums = Sums::default();
    for (&x, &y) in real.iter().zip(made) {
        let x = if relu { x.max(0.0) } else { x };
        let error = (x - y).abs();
        sums.signal += x * x;
        sums.result += y * y;
        sums.product += x * y;
        sums.error += error * error;
        sums.max_abs = sums.max_abs.max(error);
    }
    sums
}

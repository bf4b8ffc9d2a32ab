//! The layer in real numbers, to compare with.

use std::sync::Arc;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::tensor::{Buffer, DType, Tensor};
use quantd_kernels::real::Real;

use super::super::matmul::Report;
use super::super::partition::CHUNK;
use super::super::{ErrorKind, QuantError, Task};
use super::forward::reals;
use super::{Geometry, Layer};

/// Multiplications of a thread between two looks at whether to go on.
const UNWATCHED: usize = 1 << 28;
/// Rows up to which a product is one of vectors.
const FEW: usize = 4;

/// How far the results of integers are from those of real numbers.
pub type Comparison = Report;

impl Report {
    /// Compares a result, codes or real numbers, with the real one in F32.
    #[must_use]
    pub fn of(real: &Tensor, made: &Tensor, layer: &Layer) -> Self {
        Self::between(&reals(real), &restored(made, layer.output.affine()))
    }
}

/// Codes as the real numbers that they stand for.
fn restored(x: &Tensor, affine: Option<quantd_kernels::scalar::QuantParams<f32>>) -> Vec<f32> {
    let x = reals(x);
    match affine {
        None => x.into_owned(),
        Some(affine) => {
            let zero = f32::from_i32(affine.zero_point);
            x.iter().map(|code| (code - zero) * affine.scale).collect()
        }
    }
}

impl Layer {
    /// The same layer in single precision, with the weights that were kept.
    ///
    /// # Errors
    /// [`QuantError`] about `shape`, or `keep_float` where none were kept.
    pub fn float_forward(&self, x: &Tensor, task: &Task) -> Result<Tensor, QuantError> {
        let Some(weight) = &self.float else {
            return Err(QuantError::of(
                ErrorKind::NotKept,
                "keep_float",
                "the real weights were not kept",
            )
            .cure("create the layer with keep_float true"));
        };
        let shape = self.output_shape(x.shape().dims())?;
        let codes = if x.dtype().is_float() { None } else { self.input.fixed() };
        let x_dims = x.shape().dims();
        let x = restored(x, codes);
        let weight = weight.elements::<f32>();
        let mut out = Buffer::zeroed(4 * shape.len());
        let cells = out.elements_mut::<f32>();
        if !cells.is_empty() {
            match self.geometry {
                Geometry::Linear => multiply(&x, &weight, self.weight_dims[0], cells, task),
                Geometry::Conv(conv) => {
                    let plan = conv.plan(&self.weight_dims, x_dims)?;
                    let (n, k) = (plan.outputs(), plan.depth());
                    let product = &mut |group: usize, _, rows: &[f32], out: &mut [f32]| {
                        multiply(rows, &weight[group * n * k..][..n * k], n, out, task);
                    };
                    plan.run(&x, &|_| 0.0, cells, product, task);
                }
            }
            let pixels = if self.geometry == Geometry::Linear { 1 } else { self.pixels(&shape) };
            let n = self.weight_dims[0];
            let bias = self.bias.as_deref();
            cells.par_chunks_mut(pixels).enumerate().for_each(|(i, cells)| {
                let bias = bias.map_or(0.0, |bias| bias[i % n]);
                cells.iter_mut().for_each(|x| *x += bias);
            });
            cells.par_chunks_mut(CHUNK).for_each(|cells| self.activation.apply(task.isa(), cells));
        }
        Tensor::view(DType::F32, shape, Arc::new(out), 0)
            .ok_or_else(|| QuantError::field("shape", "the result is too large"))
    }

    fn pixels(&self, shape: &crate::tensor::Shape) -> usize {
        shape.dims().iter().skip(2).product()
    }
}

/// `x [m, k]` by `w [n, k]` transposed.
fn multiply(x: &[f32], weight: &[f32], n: usize, out: &mut [f32], task: &Task) {
    let k = weight.len() / n;
    let m = x.len() / k;
    if m <= FEW {
        let cells = out.par_chunks_mut(n).zip(x.par_chunks(k));
        cells.for_each(|(cells, x)| {
            let x = ArrayView1::from(x);
            let pairs = cells.par_iter_mut().zip(weight.par_chunks(k)).with_min_len(64);
            pairs.for_each(|(cell, weight)| *cell = x.dot(&ArrayView1::from(weight)));
        });
        return;
    }
    let views = (
        ArrayView2::from_shape((m, k), x),
        ArrayView2::from_shape((n, k), weight),
        ArrayViewMut2::from_shape((m, n), out),
    );
    let (Ok(x), Ok(weight), Ok(mut out)) = views else { return };
    let part = n.div_ceil(rayon::current_num_threads());
    let parts = out.axis_chunks_iter_mut(Axis(1), part).zip(weight.axis_chunks_iter(Axis(0), part));
    let parts: Vec<_> = parts.collect();
    let rows = (UNWATCHED / weight.nrows() / k).max(FEW);
    parts.into_par_iter().for_each(|(mut out, weight)| {
        let blocks = x.axis_chunks_iter(Axis(0), rows).zip(out.axis_chunks_iter_mut(Axis(0), rows));
        for (x, mut out) in blocks.take_while(|_| !task.is_cancelled()) {
            general_mat_mul(1.0, &x, &weight.t(), 0.0, &mut out);
        }
    });
}

//! Ranges of least KL divergence, as two tools compute them.
//!
//! [`ort`] is `HistogramCollector.get_entropy_threshold` of ONNX Runtime 1.32
//! with 128 quantized bins (its own default of 128 bins leaves one candidate
//! and is min-max under another name). [`tensorrt`] is `_compute_amax_entropy`
//! of NVIDIA Model-Optimizer 0.47 over the magnitudes from 0 to the largest,
//! and the same without its fault.
//!
//! Both try some thousand thresholds, each over up to 2048 bins, of which a
//! short slice occupies few. Neither looks at a threshold in full that it can
//! show to be worse than another one.

mod estimate;
pub(crate) mod ort;
pub(crate) mod tensorrt;

use quantd_kernels::real::Real;

pub(crate) const BINS: usize = 2048;
/// Quantized bins of ONNX Runtime; first candidate of TensorRT.
const QUANTIZED: usize = 128;

/// Elements that NumPy adds in eight interleaved sums.
const LEAF: usize = 128;

/// Where NumPy halves an array that is longer than a leaf.
const fn half(len: usize) -> usize {
    let half = len / 2;
    half - half % 8
}

/// The order in which NumPy adds a contiguous array: eight interleaved sums
/// for up to 128 elements, halves of a longer array one after the other.
fn pairwise_sum<T: Real>(x: &[T]) -> T {
    if x.len() < 8 {
        return x.iter().fold(T::ZERO, |sum, &x| sum + x);
    }
    if x.len() > LEAF {
        let (left, right) = x.split_at(half(x.len()));
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let blocks = x.chunks_exact(8);
    let rest = blocks.remainder();
    let mut lanes = [T::ZERO; 8];
    for (i, block) in blocks.enumerate() {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if i == 0 { x } else { *lane + x };
        }
    }
    rest.iter().fold(join(lanes), |sum, &x| sum + x)
}

fn join<T: Real>([a, b, c, d, e, f, g, h]: [T; 8]) -> T {
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// [`pairwise_sum`] of an array that is 0 but at some places, given in their
/// order, from place `first` on: what is 0 changes no sum.
fn sparse_sum(x: &[(usize, f64)], first: usize, len: usize) -> f64 {
    if x.is_empty() {
        return 0.0;
    }
    if len > LEAF {
        let half = half(len);
        let (left, right) = x.split_at(x.partition_point(|(place, _)| *place < first + half));
        return sparse_sum(left, first, half) + sparse_sum(right, first + half, len - half);
    }
    let whole = if len < 8 { 0 } else { len - len % 8 };
    let mut lanes = [0.0; 8];
    let mut values = x.iter().peekable();
    while let Some((place, x)) = values.next_if(|(place, _)| place - first < whole) {
        lanes[(place - first) % 8] += x;
    }
    values.fold(join(lanes), |sum, (_, x)| sum + x)
}

#[cfg(test)]
mod tests;

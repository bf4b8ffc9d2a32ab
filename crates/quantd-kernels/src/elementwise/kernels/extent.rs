//! Extents.
//!
//! Minimum and maximum with the new element first leave out NaN; a fused
//! multiply-add with 0 tells afterwards whether all elements were finite. Four
//! registers of each hide its latency.

use super::{AHEAD, Extent, Op, PARTS, Simd, VectorOp};
use crate::cache::prefetch;
use crate::scalar;

/// Gives the extent of each `size` elements to `join`.
pub(super) struct Extents<'a, J> {
    pub(super) x: &'a [f32],
    pub(super) size: usize,
    pub(super) join: J,
}

impl<J: FnMut(usize, Extent<f32>)> VectorOp for Extents<'_, J> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for (i, x) in self.x.chunks(self.size).enumerate() {
            (self.join)(i, extent(simd, x));
        }
    }
}

/// As [`scalar::extent`].
#[inline(always)]
fn extent<S: Simd>(simd: S, x: &[f32]) -> Extent<f32> {
    let zero = simd.splat(0.0);
    let mut min = [simd.splat(f32::INFINITY); 4];
    let mut max = [simd.splat(f32::NEG_INFINITY); 4];
    // What is not finite makes NaN of these.
    let mut not_finite = [zero; 4];
    let blocks = x.chunks_exact(S::BLOCK);
    let tail = blocks.remainder();
    for block in blocks {
        for i in PARTS {
            let x = simd.load(&block[S::LANES * i..]);
            min[i] = simd.min(x, min[i]);
            max[i] = simd.max(x, max[i]);
            not_finite[i] = simd.mul_add(x, zero, not_finite[i]);
        }
    }
    for part in tail.chunks(S::LANES) {
        // Groups of 32 are all tail.
        prefetch::<false>(part.as_ptr().wrapping_byte_add(AHEAD).cast());
        let x = simd.load_some(part);
        min[0] = simd.min(x, min[0]);
        max[0] = simd.max(x, max[0]);
        not_finite[0] = simd.mul_add(x, zero, not_finite[0]);
    }
    let [a, b, c, d] = not_finite;
    let sum = simd.add(simd.add(a, b), simd.add(c, d));
    if simd.any(simd.unordered(sum, sum)) {
        return simd.apart(ByScalar { x });
    }
    let min = simd.min(simd.min(min[0], min[1]), simd.min(min[2], min[3]));
    let max = simd.max(simd.max(max[0], max[1]), simd.max(max[2], max[3]));
    // Adding 0 drops the sign of a zero.
    let (min, max) = (simd.reduce_min(min) + 0.0, simd.reduce_max(max) + 0.0);
    Extent { min, max, nan: 0, inf: 0 }
}

struct ByScalar<'a> {
    x: &'a [f32],
}

impl Op for ByScalar<'_> {
    type Output = Extent<f32>;
    #[inline(always)]
    fn run(self) -> Extent<f32> {
        scalar::extent(self.x)
    }
}

//! Extents, as with AVX-512.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::{HALF, PARTS};
use crate::scalar::{self, Extent};

/// As [`scalar::extent`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn extent(x: &[f32]) -> Extent<f32> {
    let zero = _mm256_setzero_ps();
    let mut min = [_mm256_set1_ps(f32::INFINITY); 4];
    let mut max = [_mm256_set1_ps(f32::NEG_INFINITY); 4];
    let mut odd = [zero; 4];
    let (blocks, tail) = x.as_chunks::<HALF>();
    for block in blocks {
        for i in PARTS {
            // SAFETY: a block has 32 elements.
            let x = unsafe { _mm256_loadu_ps(block.as_ptr().wrapping_add(8 * i)) };
            min[i] = _mm256_min_ps(x, min[i]);
            max[i] = _mm256_max_ps(x, max[i]);
            odd[i] = _mm256_fmadd_ps(x, zero, odd[i]);
        }
    }
    let odd = _mm256_add_ps(_mm256_add_ps(odd[0], odd[1]), _mm256_add_ps(odd[2], odd[3]));
    if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(odd, odd)) != 0 {
        return extent_slowly(x);
    }
    let min = _mm256_min_ps(_mm256_min_ps(min[0], min[1]), _mm256_min_ps(min[2], min[3]));
    let max = _mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3]));
    let (mut ends, mut starts) = ([0.0; 8], [0.0; 8]);
    // SAFETY: the array has 8 elements.
    unsafe { _mm256_storeu_ps(starts.as_mut_ptr(), min) };
    // SAFETY: the array has 8 elements.
    unsafe { _mm256_storeu_ps(ends.as_mut_ptr(), max) };
    let mut extent = Extent::default();
    for (min, max) in starts.into_iter().zip(ends) {
        // Adding 0 drops the sign of a zero.
        extent = extent.join(Extent { min: min + 0.0, max: max + 0.0, nan: 0, inf: 0 });
    }
    tail.iter().for_each(|&x| extent.add(x));
    extent
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn extent_slowly(x: &[f32]) -> Extent<f32> {
    scalar::extent(x)
}

/// Gives the extent of each `size` elements to `join`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn extents(x: &[f32], size: usize, mut join: impl FnMut(usize, Extent<f32>)) {
    for (i, x) in x.chunks(size).enumerate() {
        join(i, extent(x));
    }
}

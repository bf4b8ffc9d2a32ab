//! Extents.
//!
//! `vminps` and `vmaxps` with the new element first leave out NaN; a fused
//! multiply-add with 0 tells afterwards whether all elements were finite. Four
//! registers of each hide its latency.
#![expect(unsafe_code, reason = "loads by pointer, within slices whose length was checked")]

use std::arch::x86_64::*;

use super::super::{AHEAD, BLOCK};
use super::PARTS;
use crate::scalar::{self, Extent};

/// As [`scalar::extent`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn extent(x: &[f32]) -> Extent<f32> {
    let zero = _mm512_setzero_ps();
    let mut min = [_mm512_set1_ps(f32::INFINITY); 4];
    let mut max = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
    let mut odd = [zero; 4];
    let (blocks, tail) = x.as_chunks::<BLOCK>();
    for block in blocks {
        for i in PARTS {
            // SAFETY: a block has 64 elements.
            let x = unsafe { _mm512_loadu_ps(block.as_ptr().wrapping_add(16 * i)) };
            min[i] = _mm512_min_ps(x, min[i]);
            max[i] = _mm512_max_ps(x, max[i]);
            odd[i] = _mm512_fmadd_ps(x, zero, odd[i]);
        }
    }
    for part in tail.chunks(16) {
        // Groups of 32 are all tail.
        _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_byte_add(AHEAD).cast());
        let mask = u16::MAX >> (16 - part.len());
        // SAFETY: only the elements of the part are read.
        let x = unsafe { _mm512_maskz_loadu_ps(mask, part.as_ptr()) };
        min[0] = _mm512_mask_min_ps(min[0], mask, x, min[0]);
        max[0] = _mm512_mask_max_ps(max[0], mask, x, max[0]);
        odd[0] = _mm512_fmadd_ps(x, zero, odd[0]);
    }
    let odd = _mm512_add_ps(_mm512_add_ps(odd[0], odd[1]), _mm512_add_ps(odd[2], odd[3]));
    if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(odd, odd) != 0 {
        return extent_slowly(x);
    }
    let min = _mm512_min_ps(_mm512_min_ps(min[0], min[1]), _mm512_min_ps(min[2], min[3]));
    let max = _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]));
    // Adding 0 drops the sign of a zero.
    let (min, max) = (_mm512_reduce_min_ps(min) + 0.0, _mm512_reduce_max_ps(max) + 0.0);
    Extent { min, max, nan: 0, inf: 0 }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn extent_slowly(x: &[f32]) -> Extent<f32> {
    scalar::extent(x)
}

/// Gives the extent of each `size` elements to `join`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn extents(x: &[f32], size: usize, mut join: impl FnMut(usize, Extent<f32>)) {
    for (i, x) in x.chunks(size).enumerate() {
        join(i, extent(x));
    }
}

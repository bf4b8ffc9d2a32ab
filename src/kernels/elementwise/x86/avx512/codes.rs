//! Elements on the way to their codes, and where codes are written.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::super::super::Stores;
use super::*;
use crate::kernels::scalar::CodeRange;

/// Constants of a call.
pub(super) struct Constants {
    /// What is added to the zero point: see the parent module.
    shift: __m512,
    /// What is subtracted from a whole `u`, beside the zero point, to give steps.
    pub(super) middle: __m512,
    /// Ends of the `u` that do not saturate.
    pub(super) low: __m512,
    pub(super) high: __m512,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn constants(work: &Bytes<'_>) -> Constants {
    let CodeRange { min, max } = work.how.range;
    let shift = work.shift();
    let [low, high] = [min + shift, max + shift];
    Constants {
        shift: _mm512_set1_ps(SHIFT + shift as f32),
        middle: _mm512_set1_ps((256 + shift) as f32),
        low: _mm512_set1_ps((256 + low) as f32),
        high: _mm512_set1_ps(((256 + high + 1) as f32).next_down()),
    }
}

/// 64 elements on the way to their codes.
pub(super) struct Grid {
    /// Codes and fractions.
    pub(super) u: [__m512; 4],
    pub(super) params: [Sixteen; 4],
    /// Whether some element is near a tie, or NaN.
    pub(super) is_near: bool,
}

/// Takes 64 elements from `at` on.
///
/// `USER` makes it another function for each of its callers, which the compiler
/// then inlines.
///
/// # Safety
/// `x` and, with `EACH`, the columns have at least `at + 64` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn grid<const FORM: u8, const COMMON: bool, const USER: u8>(
    work: &Bytes<'_>,
    cursor: &mut Cursor<'_, FORM, COMMON>,
    constants: &Constants,
    at: usize,
) -> Grid {
    prefetch(work.x.as_ptr().wrapping_add(at));
    // One after another, as the compiler keeps arrays that closures make in memory.
    // SAFETY: the columns have 16 elements for each of the vectors, says the caller.
    let first = unsafe { cursor.next() };
    // SAFETY: as above.
    let second = unsafe { cursor.next() };
    // SAFETY: as above.
    let third = unsafe { cursor.next() };
    // SAFETY: as above.
    let params = [first, second, third, unsafe { cursor.next() }];
    let u = PARTS.map(|i| {
        // SAFETY: 16 elements from `at + 16 i` on are within `x`, says the caller.
        let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at + 16 * i)) };
        let shift = _mm512_add_ps(params[i].zero_point, constants.shift);
        _mm512_fmadd_ps(x, params[i].reciprocal, shift)
    });
    let near = |u: __m512| _mm512_testn_epi32_mask(_mm512_castps_si512(u), _mm512_set1_epi32(NEAR));
    let near = near(u[0]) | near(u[1]) | near(u[2]) | near(u[3]);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(u[0], u[1])
        | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(u[2], u[3]);
    Grid { u, params, is_near: near | nan != 0 }
}

/// Writes 64 codes from `at` on, past the caches if `past`.
///
/// # Safety
/// There are as many, and if `past` the first of them begins a cache line.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(codes: &mut [u8], at: usize, bytes: __m512i, past: bool) {
    let to = codes.as_mut_ptr().wrapping_add(at).cast();
    if past {
        // SAFETY: within `codes` and aligned, says the caller.
        unsafe { _mm512_stream_si512(to, bytes) };
    } else {
        // SAFETY: within `codes`, says the caller.
        unsafe { _mm512_storeu_si512(to.cast(), bytes) };
    }
}

/// Whether what is written from there on may go past the caches, block by block.
pub(super) fn goes_past(work: &Bytes<'_>, codes: &[u8]) -> bool {
    work.how.stores == Stores::Past && codes.as_ptr().addr().is_multiple_of(BLOCK)
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize_slowly(work: &Bytes<'_>, codes: &mut [u8]) {
    work.quantize(codes);
}

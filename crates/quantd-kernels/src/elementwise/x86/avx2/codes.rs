//! Elements on the way to their codes, where sums are wanted, and where codes are written.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "codes fit a byte: the parent checked their range"
)]

use std::arch::x86_64::*;

use super::super::super::Stores;
use super::*;
use crate::scalar::CodeRange;

/// Constants of a call.
pub(super) struct Constants {
    /// What is added to the zero point: see the parent module.
    shift: __m256,
    /// What is subtracted from a whole `u`, beside the zero point, to give steps.
    pub(super) middle: __m256,
    /// Ends of the `u` that do not saturate.
    pub(super) low: __m256,
    pub(super) high: __m256,
    low_bytes: __m256i,
    high_bytes: __m256i,
    flip: __m256i,
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn constants(work: &Bytes<'_>) -> Constants {
    let CodeRange { min, max } = work.how.range;
    let shift = work.shift();
    let [low, high] = [min + shift, max + shift];
    Constants {
        shift: _mm256_set1_ps(SHIFT + shift as f32),
        middle: _mm256_set1_ps((256 + shift) as f32),
        low: _mm256_set1_ps((256 + low) as f32),
        high: _mm256_set1_ps(((256 + high + 1) as f32).next_down()),
        low_bytes: _mm256_set1_epi8(low as u8 as i8),
        high_bytes: _mm256_set1_epi8(high as u8 as i8),
        flip: _mm256_set1_epi8(shift as u8 as i8),
    }
}

/// 32 elements on the way to their codes.
pub(super) struct Grid {
    /// Codes and fractions.
    pub(super) u: [__m256; 4],
    pub(super) params: [Eight; 4],
    /// Whether some element is near a tie, or NaN.
    pub(super) is_near: bool,
}

/// Takes 32 elements from `at` on.
///
/// `USER` makes it another function for each of its callers, which the compiler
/// then inlines.
///
/// # Safety
/// `x` and, with `EACH`, the columns have at least `at + 32` elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn grid<const FORM: u8, const COMMON: bool, const USER: u8>(
    work: &Bytes<'_>,
    cursor: &mut Cursor<'_, FORM, COMMON>,
    constants: &Constants,
    at: usize,
) -> Grid {
    prefetch(work.x.as_ptr().wrapping_add(at));
    // One after another, as the compiler keeps arrays that closures make in memory.
    // SAFETY: the columns have 8 elements for each of the vectors, says the caller.
    let first = unsafe { cursor.next() };
    // SAFETY: as above.
    let second = unsafe { cursor.next() };
    // SAFETY: as above.
    let third = unsafe { cursor.next() };
    // SAFETY: as above.
    let params = [first, second, third, unsafe { cursor.next() }];
    let u = PARTS.map(|i| {
        // SAFETY: 8 elements from `at + 8 i` on are within `x`, says the caller.
        let x = unsafe { _mm256_loadu_ps(work.x.as_ptr().wrapping_add(at + 8 * i)) };
        let shift = _mm256_add_ps(params[i].zero_point, constants.shift);
        _mm256_fmadd_ps(x, params[i].reciprocal, shift)
    });
    let [a, b, c, d] = u.map(|u| {
        let fraction = _mm256_and_si256(_mm256_castps_si256(u), _mm256_set1_epi32(NEAR));
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(fraction, _mm256_setzero_si256()))
    });
    let near = _mm256_or_ps(_mm256_or_ps(a, b), _mm256_or_ps(c, d));
    let nan = _mm256_or_ps(
        _mm256_cmp_ps::<_CMP_UNORD_Q>(u[0], u[1]),
        _mm256_cmp_ps::<_CMP_UNORD_Q>(u[2], u[3]),
    );
    Grid { u, params, is_near: _mm256_movemask_ps(_mm256_or_ps(near, nan)) != 0 }
}

/// The codes of 32 elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn pack(u: [__m256; 4], constants: &Constants) -> __m256i {
    let [a, b, c, d] = u.map(|u| _mm256_srai_epi32::<15>(_mm256_castps_si256(u)));
    let exponent = _mm256_set1_epi16(0x8700_u16.cast_signed());
    let words = [_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d)];
    let [first, second] = words.map(|words| _mm256_subs_epu16(words, exponent));
    let bytes = _mm256_packus_epi16(first, second);
    // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = _mm256_permutevar8x32_epi32(bytes, order);
    let bytes = _mm256_max_epu8(bytes, constants.low_bytes);
    _mm256_xor_si256(_mm256_min_epu8(bytes, constants.high_bytes), constants.flip)
}

/// Writes 32 codes from `at` on, past the caches if `past`.
///
/// # Safety
/// There are as many, and if `past` the first of them is at a multiple of 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store(codes: &mut [u8], at: usize, bytes: __m256i, past: bool) {
    let to = codes.as_mut_ptr().wrapping_add(at).cast();
    if past {
        // SAFETY: within `codes` and aligned, says the caller.
        unsafe { _mm256_stream_si256(to, bytes) };
    } else {
        // SAFETY: within `codes`, says the caller.
        unsafe { _mm256_storeu_si256(to, bytes) };
    }
}

/// Whether what is written from there on may go past the caches, block by block.
pub(super) fn goes_past(work: &Bytes<'_>, codes: &[u8]) -> bool {
    work.how.stores == Stores::Streaming && codes.as_ptr().addr().is_multiple_of(BLOCK)
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize_slowly(work: &Bytes<'_>, codes: &mut [u8]) {
    work.quantize(codes);
}

//! Codes, alone or with the sums of a report.
//!
//! # Sums
//! Sixteen lanes of f64 are four registers a sum, and six sums are too many for
//! the sixteen registers there are. What the elements of a block are restored to
//! is therefore put aside, and its sums are made four lanes at a time, with the
//! six sums of those in registers. Products of two f32 are exact in f64, so that
//! a fused multiply-add rounds as a multiplication and an addition do.
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
use super::sums::{Restored, add};
use super::*;
use crate::kernels::scalar::CodeRange;
use crate::kernels::sums::LaneSums;

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
fn pack(u: [__m256; 4], constants: &Constants) -> __m256i {
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
    work.how.stores == Stores::Past && codes.as_ptr().addr().is_multiple_of(BLOCK)
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_slowly(work: &Bytes<'_>, codes: &mut [u8]) {
    work.quantize(codes);
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn measure_slowly(work: &Bytes<'_>, lanes: &mut LaneSums) {
    work.measure(lanes);
}

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn encode(work: &Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) {
    match (work.params, work.params.facts().is_common()) {
        (Params::Same(_), _) => encode_from::<SAME, true>(work, codes, lanes),
        (Params::Each(_), false) => encode_from::<EACH, false>(work, codes, lanes),
        (Params::Each(_), true) => encode_from::<EACH, true>(work, codes, lanes),
        (Params::Groups(_), false) => encode_from::<GROUPS, false>(work, codes, lanes),
        (Params::Groups(_), true) => encode_from::<GROUPS, true>(work, codes, lanes),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn encode_from<const FORM: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    codes: Option<&mut [u8]>,
    lanes: &mut LaneSums,
) {
    let constants = constants(work);
    let (stores, codes) = (codes.is_some(), codes.unwrap_or_default());
    let past = stores && goes_past(work, codes);
    let len = if stores { work.x.len().min(codes.len()) } else { work.x.len() };
    let whole = len - len % BLOCK;
    let mut restored = Restored { x: [0.0; BLOCK], saturated: [0; BLOCK] };
    if whole > 0 {
        let mut cursor = Cursor::<FORM, COMMON>::new(work.params);
        for at in (0..whole).step_by(BLOCK) {
            let (mut saturated, mut is_near) = (0, false);
            for first in [0, HALF] {
                let from = at + first;
                // SAFETY: the elements end within `x`; `Bytes` has seen to the columns.
                let grid = unsafe { grid::<FORM, COMMON, 1>(work, &mut cursor, &constants, from) };
                is_near |= grid.is_near;
                let limited =
                    grid.u.map(|u| _mm256_min_ps(_mm256_max_ps(u, constants.low), constants.high));
                if stores && !grid.is_near {
                    let bytes = pack(limited, &constants);
                    // SAFETY: they end within `codes`, whose alignment the caller checked.
                    unsafe { store(codes, from, bytes, past) };
                } else if stores {
                    quantize_slowly(&work.part(from, HALF), &mut codes[from..from + HALF]);
                }
                saturated |= put(&mut restored, first, &grid, limited, &constants);
            }
            let x = &work.x[at..at + BLOCK];
            if !is_near && saturated == 0 {
                add::<false>(x, &restored, lanes);
            } else if !is_near && x.iter().fold(0.0, |odd, x| odd + x * 0.0) == 0.0 {
                add::<true>(x, &restored, lanes);
            } else {
                measure_slowly(&work.part(at, BLOCK), lanes);
            }
        }
    }
    if past {
        _mm_sfence();
    }
    if whole < len {
        let part = work.part(whole, len - whole);
        if stores {
            quantize_slowly(&part, &mut codes[whole..len]);
        }
        measure_slowly(&part, lanes);
    }
}

/// Puts what half a block is restored to; says which codes are saturated.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn put(
    restored: &mut Restored,
    first: usize,
    grid: &Grid,
    limited: [__m256; 4],
    constants: &Constants,
) -> i32 {
    let mut saturated = 0;
    for i in PARTS {
        let changed = _mm256_cmp_ps::<_CMP_NEQ_UQ>(limited[i], grid.u[i]);
        saturated |= _mm256_movemask_ps(changed);
        let Eight { scale, zero_point, .. } = grid.params[i];
        // The fraction is cut off.
        let whole = _mm256_and_si256(_mm256_castps_si256(limited[i]), _mm256_set1_epi32(!0x7fff));
        let middle = _mm256_add_ps(zero_point, constants.middle);
        let back = _mm256_mul_ps(_mm256_sub_ps(_mm256_castsi256_ps(whole), middle), scale);
        let to = first + VECTOR * i;
        let (of_x, of_codes) = (&mut restored.x[to..to + 8], &mut restored.saturated[to..to + 8]);
        // SAFETY: the slice has 8 elements.
        unsafe { _mm256_storeu_ps(of_x.as_mut_ptr(), back) };
        // SAFETY: the slice has 8 elements.
        unsafe { _mm256_storeu_ps(of_codes.as_mut_ptr().cast(), changed) };
    }
    saturated
}

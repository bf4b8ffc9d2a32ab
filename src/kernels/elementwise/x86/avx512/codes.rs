//! Codes, alone or with the sums of a report.
//!
//! # Sums
//! Measuring sums in 16 lanes of f64, two registers a sum, so that an addition
//! has finished before the next one needs it. The products of two f32 are exact
//! in f64, and a fused multiply-add therefore rounds as a multiplication and an
//! addition do; the squared error, which is not exact, is multiplied first.
//! Blocks without saturated codes, the usual ones, do not look which are; a
//! block with an element that is not finite or near a tie is left to the loops
//! of `scalar`. Block and lanes are those of `sums`.
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
use super::sums::Sums;
use super::*;
use crate::kernels::scalar::CodeRange;
use crate::kernels::sums::LaneSums;

/// Constants of a call.
pub(super) struct Constants {
    /// What is added to the zero point: see the parent module.
    shift: __m512,
    /// What is subtracted from a whole `u`, beside the zero point, to give steps.
    pub(super) middle: __m512,
    /// Ends of the `u` that do not saturate.
    pub(super) low: __m512,
    pub(super) high: __m512,
    low_bytes: __m512i,
    high_bytes: __m512i,
    flip: __m512i,
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
        low_bytes: _mm512_set1_epi8(low as u8 as i8),
        high_bytes: _mm512_set1_epi8(high as u8 as i8),
        flip: _mm512_set1_epi8(shift as u8 as i8),
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

/// The codes of 64 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack(u: [__m512; 4], constants: &Constants) -> __m512i {
    let [a, b, c, d] = u.map(|u| _mm512_srai_epi32::<15>(_mm512_castps_si512(u)));
    let exponent = _mm512_set1_epi16(0x8700_u16.cast_signed());
    let words = [_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d)];
    let [first, second] = words.map(|words| _mm512_subs_epu16(words, exponent));
    let bytes = _mm512_packus_epi16(first, second);
    // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_permutexvar_epi32(order, bytes);
    let bytes = _mm512_max_epu8(bytes, constants.low_bytes);
    _mm512_xor_si512(_mm512_min_epu8(bytes, constants.high_bytes), constants.flip)
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
fn quantize_slowly(work: &Bytes<'_>, codes: &mut [u8]) {
    work.quantize(codes);
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn measure_slowly(work: &Bytes<'_>, lanes: &mut LaneSums) {
    work.measure(lanes);
}

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn encode(work: &Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) {
    match (work.params, work.params.facts().is_common()) {
        (Params::Same(_), _) => encode_from::<SAME, true>(work, codes, lanes),
        (Params::Each(_), false) => encode_from::<EACH, false>(work, codes, lanes),
        (Params::Each(_), true) => encode_from::<EACH, true>(work, codes, lanes),
        (Params::Groups(_), false) => encode_from::<GROUPS, false>(work, codes, lanes),
        (Params::Groups(_), true) => encode_from::<GROUPS, true>(work, codes, lanes),
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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
    if whole > 0 {
        let mut cursor = Cursor::<FORM, COMMON>::new(work.params);
        let mut sums = Sums::load(lanes);
        for at in (0..whole).step_by(BLOCK) {
            // SAFETY: the block ends within `x`; `Bytes` has seen to the columns.
            let grid = unsafe { grid::<FORM, COMMON, 1>(work, &mut cursor, &constants, at) };
            let limited =
                grid.u.map(|u| _mm512_min_ps(_mm512_max_ps(u, constants.low), constants.high));
            if stores && !grid.is_near {
                let bytes = pack(limited, &constants);
                // SAFETY: the block ends within `codes`, whose alignment the caller checked.
                unsafe { store(codes, at, bytes, past) };
            }
            if grid.is_near
                || !sums.add_block::<FORM, COMMON>(
                    &work.x[at..at + BLOCK],
                    &grid,
                    limited,
                    &constants,
                )
            {
                let part = work.part(at, BLOCK);
                if stores && grid.is_near {
                    quantize_slowly(&part, &mut codes[at..at + BLOCK]);
                }
                sums.store(lanes);
                measure_slowly(&part, lanes);
                sums.reload(lanes);
            }
        }
        sums.finish(lanes);
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

impl Sums {
    /// Adds a block, unless some of its elements are not finite: says whether it did.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add_block<const FORM: u8, const COMMON: bool>(
        &mut self,
        x: &[f32],
        grid: &Grid,
        limited: [__m512; 4],
        constants: &Constants,
    ) -> bool {
        let mut changed = _mm512_setzero_si512();
        for (limited, u) in limited.into_iter().zip(grid.u) {
            let (a, b) = (_mm512_castps_si512(limited), _mm512_castps_si512(u));
            // changed | (a ^ b)
            changed = _mm512_ternarylogic_epi32::<0xf6>(changed, a, b);
        }
        let is_saturated = _mm512_test_epi32_mask(changed, changed) != 0;
        if is_saturated && !is_finite(x) {
            return false;
        }
        for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
            let Sixteen { scale, zero_point, .. } = grid.params[i];
            // The fraction is cut off.
            let whole =
                _mm512_and_si512(_mm512_castps_si512(limited[i]), _mm512_set1_epi32(!0x7fff));
            let middle = _mm512_add_ps(zero_point, constants.middle);
            let steps = _mm512_sub_ps(_mm512_castsi512_ps(whole), middle);
            let restored = _mm512_mul_ps(steps, scale);
            // SAFETY: the chunk has 16 elements.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            if is_saturated {
                let saturated = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(limited[i], grid.u[i]);
                self.add::<true, FORM, COMMON>(x, restored, saturated);
            } else {
                self.add::<false, FORM, COMMON>(x, restored, 0);
            }
        }
        self.count += BLOCK as u64;
        true
    }
}

/// Whether 64 elements are all finite.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn is_finite(x: &[f32]) -> bool {
    let mut odd = _mm512_setzero_ps();
    for x in x.chunks_exact(16) {
        // SAFETY: the chunk has 16 elements.
        let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        odd = _mm512_fmadd_ps(x, _mm512_setzero_ps(), odd);
    }
    _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(odd, odd) == 0
}

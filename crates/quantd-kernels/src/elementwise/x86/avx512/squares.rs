//! The sum of squared errors, for searches that want nothing else.
//!
//! The error of an element whose code is not saturated is exact in f32, as
//! numbers within a factor of 2 of one another have exact differences
//! (Sterbenz): only blocks with saturated codes subtract in f64.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::*;
use crate::scalar::{CodeRange, QuantParams};
use crate::sums::LANES;

/// As [`scalar::squared_error`](crate::scalar::squared_error), in its sixteen lanes.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn squared_error(work: &Bytes<'_>) -> f64 {
    let Params::Same(affine) = work.params else { return f64::NAN };
    let constants = constants(work);
    let mut cursor = Cursor::<SAME, true>::new(work.params);
    let len = work.x.len();
    let whole = len - len % BLOCK;
    let mut lanes = [_mm512_setzero_pd(); LANES / 8];
    for at in (0..whole).step_by(BLOCK) {
        // SAFETY: the elements end within `x`.
        let Grid { u, params, is_near } = unsafe { grid(work, &mut cursor, &constants, at) };
        if is_near {
            lanes = add_slowly(&work.part(at, BLOCK), affine, lanes);
            continue;
        }
        let outside = PARTS.map(|i| {
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(u[i], constants.low)
                | _mm512_cmp_ps_mask::<_CMP_GT_OQ>(u[i], constants.high)
        });
        let is_saturated = outside[0] | outside[1] | outside[2] | outside[3] != 0;
        for i in PARTS {
            let limited = if is_saturated {
                _mm512_min_ps(_mm512_max_ps(u[i], constants.low), constants.high)
            } else {
                u[i]
            };
            // The fraction is cut off.
            let whole = _mm512_and_si512(_mm512_castps_si512(limited), _mm512_set1_epi32(!0x7fff));
            let middle = _mm512_add_ps(params[i].zero_point, constants.middle);
            let steps = _mm512_sub_ps(_mm512_castsi512_ps(whole), middle);
            let restored = _mm512_mul_ps(steps, params[i].scale);
            // SAFETY: 16 elements from `at + 16 i` on are within `x`.
            let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at + 16 * i)) };
            let errors = if is_saturated {
                let (x, restored) = (widen(x), widen(restored));
                [_mm512_sub_pd(x[0], restored[0]), _mm512_sub_pd(x[1], restored[1])]
            } else {
                widen(_mm512_sub_ps(x, restored))
            };
            for (half, error) in errors.into_iter().enumerate() {
                let lane = &mut lanes[(2 * i + half) % (LANES / 8)];
                *lane = _mm512_add_pd(*lane, _mm512_mul_pd(error, error));
            }
        }
    }
    let end = len - len % LANES;
    let lanes = add_slowly(&work.part(whole, end - whole), affine, lanes);
    spill(lanes).iter().sum::<f64>() + work.part(end, len - end).squared_error(affine)
}

/// Constants of a call.
struct Constants {
    /// What is added to the zero point: see the parent module.
    shift: __m512,
    /// What is subtracted from a whole `u`, beside the zero point, to give steps.
    middle: __m512,
    /// Ends of the `u` that do not saturate.
    low: __m512,
    high: __m512,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn constants(work: &Bytes<'_>) -> Constants {
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
struct Grid {
    /// Codes and fractions.
    u: [__m512; 4],
    params: [Sixteen; 4],
    /// Whether some element is near a tie, or NaN.
    is_near: bool,
}

/// Takes 64 elements from `at` on.
///
/// # Safety
/// `x` has at least `at + 64` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn grid(
    work: &Bytes<'_>,
    cursor: &mut Cursor<'_, SAME, true>,
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

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn widen(x: __m512) -> [__m512d; 2] {
    let high = _mm512_extractf32x8_ps::<1>(x);
    [_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(high)]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn spill(lanes: [__m512d; LANES / 8]) -> [f64; LANES] {
    let mut spilled = [0.0; LANES];
    for (lane, to) in lanes.into_iter().zip(spilled.as_chunks_mut::<8>().0) {
        // SAFETY: the chunk has 8 elements.
        unsafe { _mm512_storeu_pd(to.as_mut_ptr(), lane) };
    }
    spilled
}

/// Adds elements that are near a tie, not finite, or too few.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn add_slowly(
    work: &Bytes<'_>,
    affine: QuantParams<f32>,
    lanes: [__m512d; LANES / 8],
) -> [__m512d; LANES / 8] {
    let mut spilled = spill(lanes);
    work.add_squared_errors(affine, &mut spilled);
    let mut lanes = lanes;
    for (lane, from) in lanes.iter_mut().zip(spilled.as_chunks::<8>().0) {
        // SAFETY: the chunk has 8 elements.
        *lane = unsafe { _mm512_loadu_pd(from.as_ptr()) };
    }
    lanes
}

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

use super::codes::{Grid, constants, grid};
use super::*;
use crate::scalar::QuantParams;
use crate::sums::LANES;

/// As [`scalar::squared_error`](crate::scalar::squared_error), in its sixteen lanes.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn squared_error(work: &Bytes<'_>) -> f64 {
    let Params::Same(affine) = work.params else { return f64::NAN };
    let constants = constants(work);
    let mut cursor = Cursor::<SAME, true>::new(work.params);
    let len = work.x.len();
    let whole = len - len % HALF;
    let mut lanes = [_mm256_setzero_pd(); LANES / 4];
    for at in (0..whole).step_by(HALF) {
        // SAFETY: the elements end within `x`.
        let Grid { u, params, is_near } =
            unsafe { grid::<SAME, true, 2>(work, &mut cursor, &constants, at) };
        if is_near {
            lanes = add_slowly(&work.part(at, HALF), affine, lanes);
            continue;
        }
        let [a, b, c, d] = u.map(|u| {
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(u, constants.low);
            _mm256_or_ps(below, _mm256_cmp_ps::<_CMP_GT_OQ>(u, constants.high))
        });
        let outside = _mm256_or_ps(_mm256_or_ps(a, b), _mm256_or_ps(c, d));
        let is_saturated = _mm256_movemask_ps(outside) != 0;
        for i in PARTS {
            let limited = if is_saturated {
                _mm256_min_ps(_mm256_max_ps(u[i], constants.low), constants.high)
            } else {
                u[i]
            };
            // The fraction is cut off.
            let whole = _mm256_and_si256(_mm256_castps_si256(limited), _mm256_set1_epi32(!0x7fff));
            let middle = _mm256_add_ps(params[i].zero_point, constants.middle);
            let steps = _mm256_sub_ps(_mm256_castsi256_ps(whole), middle);
            let restored = _mm256_mul_ps(steps, params[i].scale);
            // SAFETY: 8 elements from `at + 8 i` on are within `x`.
            let x = unsafe { _mm256_loadu_ps(work.x.as_ptr().wrapping_add(at + 8 * i)) };
            let errors = if is_saturated {
                let (x, restored) = (widen(x), widen(restored));
                [_mm256_sub_pd(x[0], restored[0]), _mm256_sub_pd(x[1], restored[1])]
            } else {
                widen(_mm256_sub_ps(x, restored))
            };
            for (half, error) in errors.into_iter().enumerate() {
                let lane = &mut lanes[(2 * i + half) % (LANES / 4)];
                *lane = _mm256_add_pd(*lane, _mm256_mul_pd(error, error));
            }
        }
    }
    let end = len - len % LANES;
    let lanes = add_slowly(&work.part(whole, end - whole), affine, lanes);
    spill(lanes).iter().sum::<f64>() + work.part(end, len - end).squared_error(affine)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(x: __m256) -> [__m256d; 2] {
    let high = _mm256_extractf128_ps::<1>(x);
    [_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(high)]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn spill(lanes: [__m256d; LANES / 4]) -> [f64; LANES] {
    let mut spilled = [0.0; LANES];
    for (lane, to) in lanes.into_iter().zip(spilled.as_chunks_mut::<4>().0) {
        // SAFETY: the chunk has 4 elements.
        unsafe { _mm256_storeu_pd(to.as_mut_ptr(), lane) };
    }
    spilled
}

/// Adds elements that are near a tie, not finite, or too few.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_slowly(
    work: &Bytes<'_>,
    affine: QuantParams<f32>,
    lanes: [__m256d; LANES / 4],
) -> [__m256d; LANES / 4] {
    let mut spilled = spill(lanes);
    work.add_squared_errors(affine, &mut spilled);
    let mut lanes = lanes;
    for (lane, from) in lanes.iter_mut().zip(spilled.as_chunks::<4>().0) {
        // SAFETY: the chunk has 4 elements.
        *lane = unsafe { _mm256_loadu_pd(from.as_ptr()) };
    }
    lanes
}

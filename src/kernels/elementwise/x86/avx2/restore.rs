//! Codes to numbers.
//!
//! 8 codes are widened as they are loaded, and take a conversion, a subtraction
//! (exact: both are small integers) and a multiplication. Writing four bytes for
//! each that is read is what takes the time; stores past the caches save reading
//! what they overwrite.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::super::super::Stores;
use super::*;
use crate::kernels::scalar;

/// As [`scalar::dequantize`], from codes that are `SIGNED` or not.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn dequantize<const SIGNED: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    stores: Stores,
    x: &mut [f32],
) {
    let common = params.facts().is_common();
    match (params, common) {
        (Params::Same(_), _) => restore_to::<SIGNED, SAME, true>(codes, params, stores, x),
        (Params::Each(_), true) => restore_to::<SIGNED, EACH, true>(codes, params, stores, x),
        (Params::Each(_), false) => restore_to::<SIGNED, EACH, false>(codes, params, stores, x),
        (Params::Groups(_), true) => restore_to::<SIGNED, GROUPS, true>(codes, params, stores, x),
        (Params::Groups(_), false) => restore_to::<SIGNED, GROUPS, false>(codes, params, stores, x),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn restore_to<const SIGNED: bool, const FORM: u8, const COMMON: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    stores: Stores,
    x: &mut [f32],
) {
    let len = codes.len().min(x.len());
    let whole = len - len % VECTOR;
    if whole > 0 && stores == Stores::Past && x.as_ptr().addr().is_multiple_of(32) {
        restore::<SIGNED, FORM, COMMON, true>(&codes[..whole], params, &mut x[..whole]);
        _mm_sfence();
    } else if whole > 0 {
        restore::<SIGNED, FORM, COMMON, false>(&codes[..whole], params, &mut x[..whole]);
    }
    if whole < len {
        let params = params.part(whole, len - whole);
        let (codes, x) = (&codes[whole..len], &mut x[whole..len]);
        if SIGNED {
            scalar::dequantize(bytemuck::cast_slice::<_, i8>(codes), params, x);
        } else {
            scalar::dequantize(codes, params, x);
        }
    }
}

/// Restores whole vectors.
#[target_feature(enable = "avx2,fma,f16c")]
fn restore<const SIGNED: bool, const FORM: u8, const COMMON: bool, const PAST: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    x: &mut [f32],
) {
    let mut cursor = Cursor::<FORM, COMMON>::new(params);
    let (codes, _) = codes.as_chunks::<VECTOR>();
    let (x, _) = x.as_chunks_mut::<VECTOR>();
    for (codes, x) in codes.iter().zip(x) {
        // SAFETY: the columns have an element for each code: the parent checked that.
        let Eight { scale, zero_point, .. } = unsafe { cursor.next() };
        // SAFETY: the chunk has 8 codes.
        let codes = unsafe { _mm_loadl_epi64(codes.as_ptr().cast()) };
        let wide = if SIGNED { _mm256_cvtepi8_epi32(codes) } else { _mm256_cvtepu8_epi32(codes) };
        let steps = _mm256_sub_ps(_mm256_cvtepi32_ps(wide), zero_point);
        let restored = _mm256_mul_ps(steps, scale);
        if PAST {
            // SAFETY: the chunk has 8 elements, and the first one is at a multiple of 32 bytes.
            unsafe { _mm256_stream_ps(x.as_mut_ptr(), restored) };
        } else {
            // SAFETY: the chunk has 8 elements.
            unsafe { _mm256_storeu_ps(x.as_mut_ptr(), restored) };
        }
    }
}

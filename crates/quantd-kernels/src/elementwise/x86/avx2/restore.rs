//! Codes to numbers.
//!
//! 8 codes are widened as they are loaded, and take a conversion, a subtraction
//! (exact: both are small integers) and a multiplication. Writing four bytes for
//! each that is read is what takes the time; stores past the caches save reading
//! what they overwrite. Parameters of columns stay in registers while a tile of
//! four vectors is taken row by row.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::super::super::Stores;
use super::*;
use crate::scalar;

/// Bytes of a vector.
const ALIGN: usize = 4 * VECTOR;
/// Columns whose parameters stay in registers.
const TILE: usize = 4 * VECTOR;

/// As [`scalar::dequantize`], from codes that are `SIGNED` or not.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn dequantize<const SIGNED: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    stores: Stores,
    x: &mut [f32],
) {
    let past = stores == Stores::Streaming && x.as_ptr().addr().is_multiple_of(ALIGN);
    let whole = match (params, past) {
        (Params::Each(columns), past) => in_columns::<SIGNED>(codes, columns, past, x),
        (_, true) => in_slices::<SIGNED, true>(codes, params, x),
        (_, false) => in_slices::<SIGNED, false>(codes, params, x),
    };
    if past {
        _mm_sfence();
    }
    if whole < codes.len() {
        let params = params.part(whole, codes.len() - whole);
        let (codes, x) = (&codes[whole..], &mut x[whole..]);
        if SIGNED {
            scalar::dequantize(bytemuck::cast_slice::<_, i8>(codes), params, x);
        } else {
            scalar::dequantize(codes, params, x);
        }
    }
}

/// Restores whole vectors; says how many elements that are.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn in_slices<const SIGNED: bool, const PAST: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    x: &mut [f32],
) -> usize {
    match (params, params.facts().is_common()) {
        (Params::Groups(_), false) => restore::<SIGNED, GROUPS, false, PAST>(codes, params, x),
        (Params::Groups(_), true) => restore::<SIGNED, GROUPS, true, PAST>(codes, params, x),
        _ => restore::<SIGNED, SAME, true, PAST>(codes, params, x),
    }
}

/// Restores whole vectors; says how many elements that are.
#[target_feature(enable = "avx2,fma,f16c")]
fn restore<const SIGNED: bool, const FORM: u8, const COMMON: bool, const PAST: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    x: &mut [f32],
) -> usize {
    let mut cursor = Cursor::<FORM, COMMON>::new(params);
    let whole = codes.len() - codes.len() % VECTOR;
    for at in (0..whole).step_by(VECTOR) {
        // SAFETY: the groups have as many elements as there are codes: the parent checked that.
        let Eight { scale, zero_point, .. } = unsafe { cursor.next() };
        // SAFETY: the vector ends within `codes` and `x`, whose alignment the caller checked.
        unsafe { vector::<SIGNED>(codes, scale, zero_point, x, at, PAST) };
    }
    whole
}

/// Restores whole rows of columns, tile by tile, where a row has as many; says
/// how many elements that are.
#[target_feature(enable = "avx2,fma,f16c")]
fn in_columns<const SIGNED: bool>(
    codes: &[u8],
    columns: Columns<'_, f32>,
    past: bool,
    x: &mut [f32],
) -> usize {
    let row = columns.len().min(codes.len());
    if row < TILE {
        return 0;
    }
    let past = past && row.is_multiple_of(VECTOR);
    let rows = codes.len() / row;
    for first in (0..row).step_by(TILE) {
        // The last tile is a whole one too: elements of two tiles are written twice.
        let first = first.min(row - TILE);
        let params = PARTS.map(|i| {
            let at = first + VECTOR * i;
            // SAFETY: the columns have a vector from there on: the tile ends within them.
            let scale = unsafe { _mm256_loadu_ps(columns.scales.as_ptr().wrapping_add(at)) };
            let zero_points = columns.zero_points.as_ptr().wrapping_add(at).cast();
            // SAFETY: as above.
            (scale, _mm256_cvtepi32_ps(unsafe { _mm256_loadu_si256(zero_points) }))
        });
        for i in 0..rows {
            let at = i * row + first;
            for (k, (scale, zero_point)) in params.into_iter().enumerate() {
                let at = at + VECTOR * k;
                // SAFETY: the tile ends within the row, and where the first row is aligned,
                // all are.
                unsafe { vector::<SIGNED>(codes, scale, zero_point, x, at, past) };
            }
        }
    }
    rows * row
}

/// Restores a vector from `at` on.
///
/// # Safety
/// There are as many of `codes` and of `x`, and if they go past the caches the
/// first of them is aligned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn vector<const SIGNED: bool>(
    codes: &[u8],
    scale: __m256,
    zero_point: __m256,
    x: &mut [f32],
    at: usize,
    past: bool,
) {
    // SAFETY: the codes are within `codes`, says the caller.
    let codes = unsafe { _mm_loadl_epi64(codes.as_ptr().wrapping_add(at).cast()) };
    let wide = if SIGNED { _mm256_cvtepi8_epi32(codes) } else { _mm256_cvtepu8_epi32(codes) };
    let restored = _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(wide), zero_point), scale);
    let to = x.as_mut_ptr().wrapping_add(at);
    if past {
        // SAFETY: within `x` and aligned, says the caller.
        unsafe { _mm256_stream_ps(to, restored) };
    } else {
        // SAFETY: within `x`, says the caller.
        unsafe { _mm256_storeu_ps(to, restored) };
    }
}

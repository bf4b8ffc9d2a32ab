//! Codes to numbers.
//!
//! 16 codes are widened as they are loaded, and take a conversion, a subtraction
//! (exact: both are small integers) and a multiplication. Writing four bytes for
//! each that is read is what takes the time; stores past the caches save reading
//! what they overwrite. Parameters of columns stay in registers while a tile is taken
//! row by row: one of 16 vectors in a cache, as longer parts of a row are fetched better,
//! and one of four from memory, which more rows at a time serve better.
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
/// Vectors of a row in a wide tile: their parameters fill half of the registers.
const WIDE: usize = 16;

/// As [`scalar::dequantize`], from codes that are `SIGNED` or not.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn restore<const SIGNED: bool, const FORM: u8, const COMMON: bool, const PAST: bool>(
    codes: &[u8],
    params: Params<'_, f32>,
    x: &mut [f32],
) -> usize {
    let mut cursor = Cursor::<FORM, COMMON>::new(params);
    let whole = codes.len() - codes.len() % VECTOR;
    for at in (0..whole).step_by(VECTOR) {
        // SAFETY: the groups have as many elements as there are codes: the parent checked that.
        let Sixteen { scale, zero_point, .. } = unsafe { cursor.next() };
        // SAFETY: the vector ends within `codes` and `x`, whose alignment the caller checked.
        unsafe { vector::<SIGNED>(codes, scale, zero_point, x, at, PAST) };
    }
    whole
}

/// Restores whole rows of columns, tile by tile, where a row has as many; says
/// how many elements that are.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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
    let mut first = 0;
    if columns.facts.is_common() && !past {
        while first + WIDE * VECTOR <= row {
            tile::<SIGNED, true, WIDE>(codes, columns, false, x, first);
            first += WIDE * VECTOR;
        }
    }
    for first in (first..row).step_by(TILE) {
        // The last tile is a whole one too: elements of two tiles are written twice.
        tile::<SIGNED, false, 4>(codes, columns, past, x, first.min(row - TILE));
    }
    codes.len() - codes.len() % row
}

/// Restores `VECTORS` vectors of each whole row, from column `first` on, which are all
/// within the row. With `COMMON`, all columns have one zero point.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn tile<const SIGNED: bool, const COMMON: bool, const VECTORS: usize>(
    codes: &[u8],
    columns: Columns<'_, f32>,
    past: bool,
    x: &mut [f32],
    first: usize,
) {
    let row = columns.len().min(codes.len());
    assert!(first + VECTORS * VECTOR <= row, "a tile is within its rows");
    let common = _mm512_set1_ps(columns.facts.zero_points[0] as f32);
    let mut params = [(common, common); VECTORS];
    for (i, (scale, zero_point)) in params.iter_mut().enumerate() {
        let at = first + VECTOR * i;
        // SAFETY: the columns have a vector from there on: the tile ends within them.
        *scale = unsafe { _mm512_loadu_ps(columns.scales.as_ptr().wrapping_add(at)) };
        if !COMMON {
            let zero_points = columns.zero_points.as_ptr().wrapping_add(at).cast();
            // SAFETY: as above.
            *zero_point = _mm512_cvtepi32_ps(unsafe { _mm512_loadu_si512(zero_points) });
        }
    }
    for i in 0..codes.len() / row {
        for (k, &(scale, zero_point)) in params.iter().enumerate() {
            let at = i * row + first + VECTOR * k;
            // SAFETY: the tile ends within the row, and where the first row is aligned, all are.
            unsafe { vector::<SIGNED>(codes, scale, zero_point, x, at, past) };
        }
    }
}

/// Restores a vector from `at` on.
///
/// # Safety
/// There are as many of `codes` and of `x`, and if they go past the caches the
/// first of them is aligned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn vector<const SIGNED: bool>(
    codes: &[u8],
    scale: __m512,
    zero_point: __m512,
    x: &mut [f32],
    at: usize,
    past: bool,
) {
    // SAFETY: the codes are within `codes`, says the caller.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().wrapping_add(at).cast()) };
    let wide = if SIGNED { _mm512_cvtepi8_epi32(codes) } else { _mm512_cvtepu8_epi32(codes) };
    let restored = _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(wide), zero_point), scale);
    let to = x.as_mut_ptr().wrapping_add(at);
    if past {
        // SAFETY: within `x` and aligned, says the caller.
        unsafe { _mm512_stream_ps(to, restored) };
    } else {
        // SAFETY: within `x`, says the caller.
        unsafe { _mm512_storeu_ps(to, restored) };
    }
}

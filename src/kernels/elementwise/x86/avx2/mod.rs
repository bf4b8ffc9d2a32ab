//! AVX2 and FMA.
//!
//! As in [`avx512`](super::avx512) with vectors of 8 floats: a block of 64
//! elements is packed in two halves of four vectors, and absolute values and
//! comparisons stand where AVX-512 has `vrangeps` and masks.
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

use super::{AHEAD, BLOCK, Bytes, TIE};
use crate::kernels::scalar::{self, CodeRange, Extent, Params, Rounding};
use crate::kernels::sums::LaneSums;

use sums::{Restored, add};

mod sums;

/// The product is what is rounded.
const RECIPROCAL: u8 = 0;
/// The product stands for a quotient.
const DIVIDE: u8 = 1;
/// The same, and the zero point is added before rounding.
const ZERO_POINT_FIRST: u8 = 2;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
/// Elements that are packed at a time.
const HALF: usize = BLOCK / 2;
/// Vectors of these.
const PARTS: [usize; 4] = [0, 1, 2, 3];

/// Constants of a call.
struct Constants {
    /// 128 where codes are unsigned, else 0.
    shift: __m256,
    /// Smallest and largest code, shifted.
    low: __m256,
    high: __m256,
    low_bytes: __m256i,
    flip: __m256i,
    /// Those of all elements, where they share them.
    params: Eight,
}

/// Parameters of 8 elements; the zero point is shifted unless it is added
/// before rounding.
#[derive(Clone, Copy)]
struct Eight {
    scale: __m256,
    reciprocal: __m256,
    zero_point: __m256,
}

/// 8 elements on the way to their codes.
#[derive(Clone, Copy)]
struct Rounded {
    /// Shifted code before saturation.
    code: __m256,
    /// Magnitude of the distance from what was rounded.
    rest: __m256,
}

#[target_feature(enable = "avx2,fma")]
fn constants<const KIND: u8>(work: &Bytes<'_>) -> Constants {
    let CodeRange { min, max } = work.range;
    let shift = if min < 0 { 0 } else { 128 };
    let (scale, zero_point) = match work.params {
        Params::Same(affine) => (affine.scale, affine.zero_point),
        Params::Each(_) => (1.0, 0),
    };
    let zero_point = if KIND == ZERO_POINT_FIRST { zero_point } else { zero_point - shift };
    Constants {
        shift: _mm256_set1_ps(shift as f32),
        low: _mm256_set1_ps((min - shift) as f32),
        high: _mm256_set1_ps((max - shift) as f32),
        low_bytes: _mm256_set1_epi8((min - shift) as i8),
        flip: _mm256_set1_epi8(shift as u8 as i8),
        params: Eight {
            scale: _mm256_set1_ps(scale),
            reciprocal: _mm256_set1_ps(1.0 / scale),
            zero_point: _mm256_set1_ps(zero_point as f32),
        },
    }
}

/// # Safety
/// With `EACH`, the columns have at least `at + 8` elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn params<const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    constants: &Constants,
    at: usize,
) -> Eight {
    if EACH && let Params::Each(columns) = work.params {
        // SAFETY: 8 elements from `at` on are within the columns, says the caller.
        let scale = unsafe { _mm256_loadu_ps(columns.scales.as_ptr().wrapping_add(at)) };
        let reciprocal = columns.reciprocals.as_ptr().wrapping_add(at);
        // SAFETY: as above.
        let reciprocal = unsafe { _mm256_loadu_ps(reciprocal) };
        let zero_point = columns.zero_points.as_ptr().wrapping_add(at);
        // SAFETY: as above.
        let zero_point = unsafe { _mm256_loadu_si256(zero_point.cast()) };
        let zero_point = _mm256_cvtepi32_ps(zero_point);
        let zero_point = if KIND == ZERO_POINT_FIRST {
            zero_point
        } else {
            _mm256_sub_ps(zero_point, constants.shift)
        };
        return Eight { scale, reciprocal, zero_point };
    }
    constants.params
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn magnitude(x: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

/// Rounds a quotient or what stands for it; `away` from zero where it is half way.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round<const KIND: u8>(
    quotient: __m256,
    params: &Eight,
    constants: &Constants,
    away: bool,
) -> Rounded {
    if KIND == ZERO_POINT_FIRST {
        let grid = _mm256_add_ps(quotient, params.zero_point);
        let code = _mm256_round_ps::<NEAREST>(grid);
        let rest = magnitude(_mm256_sub_ps(grid, code));
        return Rounded { code: _mm256_sub_ps(code, constants.shift), rest };
    }
    let mut steps = _mm256_round_ps::<NEAREST>(quotient);
    let rest = _mm256_sub_ps(quotient, steps);
    if away {
        // A tie was rounded towards zero where the rest has the sign of the quotient.
        let half = _mm256_cmp_ps::<_CMP_EQ_OQ>(magnitude(rest), _mm256_set1_ps(0.5));
        let sign = _mm256_set1_ps(-0.0);
        let differ = _mm256_castps_si256(_mm256_xor_ps(rest, quotient));
        let outward = _mm256_castsi256_ps(_mm256_srai_epi32::<31>(differ));
        let one = _mm256_or_ps(_mm256_and_ps(quotient, sign), _mm256_set1_ps(1.0));
        steps = _mm256_add_ps(steps, _mm256_and_ps(_mm256_andnot_ps(outward, half), one));
    }
    Rounded { code: _mm256_add_ps(steps, params.zero_point), rest: magnitude(rest) }
}

/// 32 codes of at most the largest one as bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pack(codes: [__m256; 4], constants: &Constants) -> __m256i {
    let [a, b, c, d] = codes.map(|code| _mm256_cvtps_epi32(code));
    let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)];
    let bytes = _mm256_packs_epi16(words[0], words[1]);
    // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = _mm256_permutevar8x32_epi32(bytes, order);
    _mm256_xor_si256(_mm256_max_epi8(bytes, constants.low_bytes), constants.flip)
}

/// Asks for two lines [`AHEAD`] of `x`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn prefetch(x: *const f32) {
    for line in 0..2 {
        // Any address may be asked for; nothing is read.
        _mm_prefetch::<_MM_HINT_T0>(x.wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

/// Rounds 32 elements from `at` on.
///
/// # Safety
/// `x` and, with `EACH`, the columns have at least `at + 32` elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn half<const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    constants: &Constants,
    at: usize,
) -> [__m256; 4] {
    prefetch(work.x.as_ptr().wrapping_add(at));
    let rounded = PARTS.map(|i| {
        let at = at + 8 * i;
        // SAFETY: 8 elements from `at` on are within `x`, says the caller.
        let x = unsafe { _mm256_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
        // SAFETY: and within the columns.
        let params = unsafe { params::<KIND, EACH>(work, constants, at) };
        round::<KIND>(_mm256_mul_ps(x, params.reciprocal), &params, constants, false)
    });
    if KIND == RECIPROCAL {
        return rounded.map(|rounded| rounded.code);
    }
    let near =
        rounded.map(|rounded| _mm256_cmp_ps::<_CMP_GT_OQ>(rounded.rest, _mm256_set1_ps(TIE)));
    let near = _mm256_or_ps(_mm256_or_ps(near[0], near[1]), _mm256_or_ps(near[2], near[3]));
    if _mm256_movemask_ps(near) == 0 {
        return rounded.map(|rounded| rounded.code);
    }
    let away = work.rounding == Rounding::DivideAway;
    PARTS.map(|i| {
        let at = at + 8 * i;
        // SAFETY: as above.
        let x = unsafe { _mm256_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
        // SAFETY: as above.
        let params = unsafe { params::<KIND, EACH>(work, constants, at) };
        round::<KIND>(_mm256_div_ps(x, params.scale), &params, constants, away).code
    })
}

/// Writes the codes of all elements.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize(work: &Bytes<'_>, codes: &mut [u8]) {
    let each = matches!(work.params, Params::Each(_));
    match (work.rounding, each) {
        (Rounding::ReciprocalEven, false) => quantize_with::<RECIPROCAL, false>(work, codes),
        (Rounding::ReciprocalEven, true) => quantize_with::<RECIPROCAL, true>(work, codes),
        (Rounding::ZeroPointFirst, false) => quantize_with::<ZERO_POINT_FIRST, false>(work, codes),
        (Rounding::ZeroPointFirst, true) => quantize_with::<ZERO_POINT_FIRST, true>(work, codes),
        (Rounding::DivideEven | Rounding::DivideAway, false) => {
            quantize_with::<DIVIDE, false>(work, codes);
        }
        (Rounding::DivideEven | Rounding::DivideAway, true) => {
            quantize_with::<DIVIDE, true>(work, codes);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_with<const KIND: u8, const EACH: bool>(work: &Bytes<'_>, codes: &mut [u8]) {
    let constants = constants::<KIND>(work);
    let len = work.x.len().min(codes.len());
    let whole = len - len % HALF;
    for at in (0..whole).step_by(HALF) {
        // SAFETY: the elements end within `x`; `Bytes` has seen to the columns.
        let rounded = unsafe { half::<KIND, EACH>(work, &constants, at) };
        let bytes = pack(rounded.map(|code| _mm256_min_ps(constants.high, code)), &constants);
        // SAFETY: and within `codes`.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().wrapping_add(at).cast(), bytes) };
    }
    if whole < len {
        quantize_slowly(&work.part(whole, len - whole), &mut codes[whole..len]);
    }
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

/// Adds all elements to `lanes` and, with `STORE`, writes their codes.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn encode<const STORE: bool>(work: &Bytes<'_>, codes: &mut [u8], lanes: &mut LaneSums) {
    let each = matches!(work.params, Params::Each(_));
    match (work.rounding, each) {
        (Rounding::ReciprocalEven, false) => {
            encode_with::<STORE, RECIPROCAL, false>(work, codes, lanes);
        }
        (Rounding::ReciprocalEven, true) => {
            encode_with::<STORE, RECIPROCAL, true>(work, codes, lanes);
        }
        (Rounding::ZeroPointFirst, false) => {
            encode_with::<STORE, ZERO_POINT_FIRST, false>(work, codes, lanes);
        }
        (Rounding::ZeroPointFirst, true) => {
            encode_with::<STORE, ZERO_POINT_FIRST, true>(work, codes, lanes);
        }
        (Rounding::DivideEven | Rounding::DivideAway, false) => {
            encode_with::<STORE, DIVIDE, false>(work, codes, lanes);
        }
        (Rounding::DivideEven | Rounding::DivideAway, true) => {
            encode_with::<STORE, DIVIDE, true>(work, codes, lanes);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn encode_with<const STORE: bool, const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    codes: &mut [u8],
    lanes: &mut LaneSums,
) {
    let constants = constants::<KIND>(work);
    let len = if STORE { work.x.len().min(codes.len()) } else { work.x.len() };
    let whole = len - len % BLOCK;
    let mut restored = Restored { x: [0.0; BLOCK], saturated: [0; BLOCK] };
    for at in (0..whole).step_by(BLOCK) {
        let mut saturated = 0;
        for first in [0, HALF] {
            let at = at + first;
            // SAFETY: the elements end within `x`; `Bytes` has seen to the columns.
            let rounded = unsafe { half::<KIND, EACH>(work, &constants, at) };
            // NaN becomes the lower end.
            let limited = rounded
                .map(|code| _mm256_min_ps(constants.high, _mm256_max_ps(code, constants.low)));
            if STORE {
                let bytes = pack(limited, &constants);
                // SAFETY: the elements end within `codes`.
                unsafe { _mm256_storeu_si256(codes.as_mut_ptr().wrapping_add(at).cast(), bytes) };
            }
            for i in PARTS {
                let changed = _mm256_cmp_ps::<_CMP_NEQ_UQ>(limited[i], rounded[i]);
                saturated |= _mm256_movemask_ps(changed);
                // SAFETY: 8 elements from `at + 8 i` on are within the columns.
                let params = unsafe { params::<KIND, EACH>(work, &constants, at + 8 * i) };
                let mut steps = _mm256_sub_ps(limited[i], params.zero_point);
                if KIND == ZERO_POINT_FIRST {
                    steps = _mm256_add_ps(steps, constants.shift);
                }
                let back = _mm256_mul_ps(steps, params.scale);
                let to = first + 8 * i;
                // SAFETY: the arrays have 64 elements.
                unsafe { _mm256_storeu_ps(restored.x.as_mut_ptr().wrapping_add(to), back) };
                let saturated = restored.saturated.as_mut_ptr().wrapping_add(to).cast();
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(saturated, changed) };
            }
        }
        let x = &work.x[at..at + BLOCK];
        if saturated == 0 {
            add::<false>(x, &restored, lanes);
        } else if x.iter().fold(0.0, |odd, x| odd + x * 0.0) == 0.0 {
            add::<true>(x, &restored, lanes);
        } else {
            measure_slowly(&work.part(at, BLOCK), lanes);
        }
    }
    if whole < len {
        let part = work.part(whole, len - whole);
        if STORE {
            quantize_slowly(&part, &mut codes[whole..len]);
        }
        measure_slowly(&part, lanes);
    }
}

/// As [`scalar::extent`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn extent(x: &[f32]) -> Extent<f32> {
    let zero = _mm256_setzero_ps();
    let mut min = [_mm256_set1_ps(f32::INFINITY); 4];
    let mut max = [_mm256_set1_ps(f32::NEG_INFINITY); 4];
    let mut odd = [zero; 4];
    let (blocks, tail) = x.as_chunks::<HALF>();
    for block in blocks {
        prefetch(block.as_ptr());
        for i in PARTS {
            // SAFETY: a block has 32 elements.
            let x = unsafe { _mm256_loadu_ps(block.as_ptr().wrapping_add(8 * i)) };
            min[i] = _mm256_min_ps(x, min[i]);
            max[i] = _mm256_max_ps(x, max[i]);
            odd[i] = _mm256_fmadd_ps(x, zero, odd[i]);
        }
    }
    let odd = _mm256_add_ps(_mm256_add_ps(odd[0], odd[1]), _mm256_add_ps(odd[2], odd[3]));
    if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(odd, odd)) != 0 {
        return extent_slowly(x);
    }
    let min = _mm256_min_ps(_mm256_min_ps(min[0], min[1]), _mm256_min_ps(min[2], min[3]));
    let max = _mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3]));
    let (mut ends, mut starts) = ([0.0; 8], [0.0; 8]);
    // SAFETY: the array has 8 elements.
    unsafe { _mm256_storeu_ps(starts.as_mut_ptr(), min) };
    // SAFETY: the array has 8 elements.
    unsafe { _mm256_storeu_ps(ends.as_mut_ptr(), max) };
    let mut extent = Extent::default();
    for (min, max) in starts.into_iter().zip(ends) {
        // Adding 0 drops the sign of a zero.
        extent = extent.join(Extent { min: min + 0.0, max: max + 0.0, nan: 0, inf: 0 });
    }
    tail.iter().for_each(|&x| extent.add(x));
    extent
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn extent_slowly(x: &[f32]) -> Extent<f32> {
    scalar::extent(x)
}

/// Gives the extent of each `size` elements to `join`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn extents(x: &[f32], size: usize, mut join: impl FnMut(usize, Extent<f32>)) {
    for (i, x) in x.chunks(size).enumerate() {
        join(i, extent(x));
    }
}

//! AVX-512 F, BW, DQ and VL.
//!
//! A block is 64 elements, one cache line of codes: four vectors of 16 floats
//! are multiplied, rounded with `vrndscaleps`, shifted to the zero point,
//! limited from above and converted; `vpackssdw` and `vpacksswb` narrow them
//! with saturation, which limits them from below, `vpermd` undoes the lanes of
//! the packing, and one store writes the line. Unsigned codes are made as signed
//! ones less 128. Saturation cannot wrap: floats are limited to the largest code
//! before they are converted, and everything below -2^31, minus infinity and NaN
//! become -2^31. `vminps` gives its second operand where one is NaN, so it must
//! be the number.
//!
//! The distance of the quotients from their integers is gathered with `vrangeps`
//! (larger magnitude), and one comparison a block tells whether some is near a
//! tie; then the block is done again with `vdivps` (see the parent module).
//!
//! # Sums
//! Measuring sums in 16 lanes of f64, two registers a sum, so that an addition
//! has finished before the next one needs it. The products of two f32 are exact
//! in f64, and a fused multiply-add therefore rounds as a multiplication and an
//! addition do; the squared error, which is not exact, is multiplied first.
//! Blocks without saturated codes, the usual ones, do not look which are; a
//! block with an element that is not finite is left to the loops of `scalar`.
//! Block and lanes are those of `sums`.
//!
//! # Extents
//! `vminps` and `vmaxps` with the new element first leave out NaN; a fused
//! multiply-add with 0 tells afterwards whether all elements were finite. Four
//! registers of each hide its latency.
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

use sums::Sums;

mod sums;

/// The product is what is rounded.
const RECIPROCAL: u8 = 0;
/// The product stands for a quotient.
const DIVIDE: u8 = 1;
/// The same, and the zero point is added before rounding.
const ZERO_POINT_FIRST: u8 = 2;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
/// `vrange`: the larger magnitude, without its sign.
const LARGER: i32 = 0b1011;

/// Vectors of a block.
const PARTS: [usize; 4] = [0, 1, 2, 3];

/// Constants of a call.
struct Constants {
    /// 128 where codes are unsigned, else 0.
    shift: __m512,
    /// Smallest and largest code, shifted.
    low: __m512,
    high: __m512,
    low_bytes: __m512i,
    flip: __m512i,
    /// Those of all elements, where they share them; the zero point is shifted
    /// unless it is added before rounding.
    scale: __m512,
    reciprocal: __m512,
    zero_point: __m512,
}

/// 16 elements on the way to their codes.
#[derive(Clone, Copy)]
struct Rounded {
    /// Code less the zero point, before saturation.
    steps: __m512,
    /// Shifted code before saturation.
    code: __m512,
    /// Distance from what was rounded.
    rest: __m512,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn constants<const KIND: u8>(work: &Bytes<'_>) -> Constants {
    let CodeRange { min, max } = work.range;
    let shift = if min < 0 { 0 } else { 128 };
    let (scale, zero_point) = match work.params {
        Params::Same(affine) => (affine.scale, affine.zero_point),
        Params::Each(_) => (1.0, 0),
    };
    let zero_point = if KIND == ZERO_POINT_FIRST { zero_point } else { zero_point - shift };
    Constants {
        shift: _mm512_set1_ps(shift as f32),
        low: _mm512_set1_ps((min - shift) as f32),
        high: _mm512_set1_ps((max - shift) as f32),
        low_bytes: _mm512_set1_epi8((min - shift) as i8),
        flip: _mm512_set1_epi8(shift as u8 as i8),
        scale: _mm512_set1_ps(scale),
        reciprocal: _mm512_set1_ps(1.0 / scale),
        zero_point: _mm512_set1_ps(zero_point as f32),
    }
}

/// Parameters of 16 elements.
struct Sixteen {
    scale: __m512,
    reciprocal: __m512,
    zero_point: __m512,
}

/// # Safety
/// With `EACH`, the columns have at least `at + 16` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn params<const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    constants: &Constants,
    at: usize,
) -> Sixteen {
    let Constants { scale, reciprocal, zero_point, .. } = *constants;
    if EACH && let Params::Each(columns) = work.params {
        // SAFETY: 16 elements from `at` on are within the columns, says the caller.
        let scale = unsafe { _mm512_loadu_ps(columns.scales.as_ptr().wrapping_add(at)) };
        let reciprocal = columns.reciprocals.as_ptr().wrapping_add(at);
        // SAFETY: as above.
        let reciprocal = unsafe { _mm512_loadu_ps(reciprocal) };
        let zero_point = columns.zero_points.as_ptr().wrapping_add(at);
        // SAFETY: as above.
        let zero_point = unsafe { _mm512_loadu_si512(zero_point.cast()) };
        let zero_point = _mm512_cvtepi32_ps(zero_point);
        let zero_point = if KIND == ZERO_POINT_FIRST {
            zero_point
        } else {
            _mm512_sub_ps(zero_point, constants.shift)
        };
        return Sixteen { scale, reciprocal, zero_point };
    }
    Sixteen { scale, reciprocal, zero_point }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn round<const KIND: u8>(x: __m512, params: &Sixteen, constants: &Constants) -> Rounded {
    let product = _mm512_mul_ps(x, params.reciprocal);
    if KIND == ZERO_POINT_FIRST {
        let grid = _mm512_add_ps(product, params.zero_point);
        let code = _mm512_roundscale_ps::<NEAREST>(grid);
        Rounded {
            steps: _mm512_sub_ps(code, params.zero_point),
            code: _mm512_sub_ps(code, constants.shift),
            rest: _mm512_sub_ps(grid, code),
        }
    } else {
        let steps = _mm512_roundscale_ps::<NEAREST>(product);
        Rounded {
            steps,
            code: _mm512_add_ps(steps, params.zero_point),
            rest: _mm512_sub_ps(product, steps),
        }
    }
}

/// 64 codes of at most the largest one as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack(codes: [__m512; 4], constants: &Constants) -> __m512i {
    let [a, b, c, d] = codes.map(|code| _mm512_cvtps_epi32(code));
    let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
    let bytes = _mm512_packs_epi16(words[0], words[1]);
    // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_permutexvar_epi32(order, bytes);
    _mm512_xor_si512(_mm512_max_epi8(bytes, constants.low_bytes), constants.flip)
}

/// As [`round`], by division; `away` from zero where it is half way.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn divide<const KIND: u8>(
    x: __m512,
    params: &Sixteen,
    constants: &Constants,
    away: bool,
) -> Rounded {
    let quotient = _mm512_div_ps(x, params.scale);
    let zero = _mm512_setzero_ps();
    if KIND == ZERO_POINT_FIRST {
        let code = _mm512_roundscale_ps::<NEAREST>(_mm512_add_ps(quotient, params.zero_point));
        let steps = _mm512_sub_ps(code, params.zero_point);
        return Rounded { steps, code: _mm512_sub_ps(code, constants.shift), rest: zero };
    }
    let mut steps = _mm512_roundscale_ps::<NEAREST>(quotient);
    if away {
        let rest = _mm512_sub_ps(quotient, steps);
        let (half, one) = (_mm512_set1_ps(0.5), _mm512_set1_ps(1.0));
        // At a tie, `rest` has the sign of the quotient where it was rounded towards zero.
        let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(quotient, zero);
        let up = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(positive, rest, half);
        let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(quotient, zero);
        let half = _mm512_sub_ps(zero, half);
        let down = _mm512_mask_cmp_ps_mask::<_CMP_LE_OQ>(negative, rest, half);
        steps = _mm512_mask_add_ps(steps, up, steps, one);
        steps = _mm512_mask_sub_ps(steps, down, steps, one);
    }
    Rounded { steps, code: _mm512_add_ps(steps, params.zero_point), rest: zero }
}

/// Asks for the block [`AHEAD`] of `x`.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(x: *const f32) {
    for line in 0..4 {
        // Any address may be asked for; nothing is read.
        _mm_prefetch::<_MM_HINT_T0>(x.wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

/// Writes the codes of all elements.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_with<const KIND: u8, const EACH: bool>(work: &Bytes<'_>, codes: &mut [u8]) {
    let constants = constants::<KIND>(work);
    let len = work.x.len().min(codes.len());
    let whole = len - len % BLOCK;
    for at in (0..whole).step_by(BLOCK) {
        // SAFETY: the block ends within `x`; `Bytes` has seen to the columns.
        let rounded = unsafe { block::<KIND, EACH>(work, &constants, at) };
        let limited = rounded.map(|rounded| _mm512_min_ps(constants.high, rounded.code));
        let bytes = pack(limited, &constants);
        // SAFETY: the block ends within `codes`.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().wrapping_add(at).cast(), bytes) };
    }
    if whole < len {
        quantize_slowly(&work.part(whole, len - whole), &mut codes[whole..len]);
    }
}

/// Rounds 64 elements from `at` on.
///
/// # Safety
/// `x` and, with `EACH`, the columns have at least `at + 64` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn block<const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    constants: &Constants,
    at: usize,
) -> [Rounded; 4] {
    prefetch(work.x.as_ptr().wrapping_add(at));
    let rounded = PARTS.map(|i| {
        let at = at + 16 * i;
        // SAFETY: 16 elements from `at` on are within `x`, says the caller.
        let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
        // SAFETY: and within the columns.
        let params = unsafe { params::<KIND, EACH>(work, constants, at) };
        round::<KIND>(x, &params, constants)
    });
    if KIND == RECIPROCAL {
        return rounded;
    }
    let [a, b, c, d] = rounded.map(|rounded| rounded.rest);
    let rest =
        _mm512_range_ps::<LARGER>(_mm512_range_ps::<LARGER>(a, b), _mm512_range_ps::<LARGER>(c, d));
    if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(rest, _mm512_set1_ps(TIE)) == 0 {
        return rounded;
    }
    let away = work.rounding == Rounding::DivideAway;
    PARTS.map(|i| {
        let at = at + 16 * i;
        // SAFETY: as above.
        let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
        // SAFETY: as above.
        let params = unsafe { params::<KIND, EACH>(work, constants, at) };
        divide::<KIND>(x, &params, constants, away)
    })
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

/// Adds all elements to `lanes` and, with `STORE`, writes their codes.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
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

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn encode_with<const STORE: bool, const KIND: u8, const EACH: bool>(
    work: &Bytes<'_>,
    codes: &mut [u8],
    lanes: &mut LaneSums,
) {
    let constants = constants::<KIND>(work);
    let len = if STORE { work.x.len().min(codes.len()) } else { work.x.len() };
    let whole = len - len % BLOCK;
    let mut sums = Sums::load(lanes);
    // Blocks with elements that are not finite.
    let mut odd = 0;
    for at in (0..whole).step_by(BLOCK) {
        // SAFETY: the block ends within `x`; `Bytes` has seen to the columns.
        let rounded = unsafe { block::<KIND, EACH>(work, &constants, at) };
        // NaN becomes the lower end.
        let limited = rounded.map(|rounded| {
            let raised = _mm512_max_ps(rounded.code, constants.low);
            _mm512_min_ps(constants.high, raised)
        });
        if STORE {
            let bytes = pack(limited, &constants);
            // SAFETY: the block ends within `codes`.
            unsafe { _mm512_storeu_si512(codes.as_mut_ptr().wrapping_add(at).cast(), bytes) };
        }
        let mut changed = _mm512_setzero_si512();
        for (&limited, rounded) in limited.iter().zip(&rounded) {
            let (a, b) = (_mm512_castps_si512(limited), _mm512_castps_si512(rounded.code));
            // changed | (a ^ b)
            changed = _mm512_ternarylogic_epi32::<0xf6>(changed, a, b);
        }
        if _mm512_test_epi32_mask(changed, changed) == 0 {
            for (i, rounded) in rounded.iter().enumerate() {
                let at = at + 16 * i;
                // SAFETY: 16 elements from `at` on are within `x`.
                let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
                // SAFETY: and within the columns.
                let params = unsafe { params::<KIND, EACH>(work, &constants, at) };
                sums.add::<false>(x, _mm512_mul_ps(rounded.steps, params.scale), 0);
            }
        } else if is_finite(&work.x[at..at + BLOCK]) {
            for (i, (rounded, &limited)) in rounded.iter().zip(&limited).enumerate() {
                let at = at + 16 * i;
                // SAFETY: 16 elements from `at` on are within `x`.
                let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at)) };
                // SAFETY: and within the columns.
                let params = unsafe { params::<KIND, EACH>(work, &constants, at) };
                let saturated = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(limited, rounded.code);
                let mut steps = _mm512_sub_ps(limited, params.zero_point);
                if KIND == ZERO_POINT_FIRST {
                    steps = _mm512_add_ps(steps, constants.shift);
                }
                sums.add::<true>(x, _mm512_mul_ps(steps, params.scale), saturated);
            }
        } else {
            sums.store(lanes);
            measure_slowly(&work.part(at, BLOCK), lanes);
            sums.reload(lanes);
            odd += 1;
        }
    }
    sums.store(lanes);
    lanes.count += (whole - odd * BLOCK) as u64;
    lanes.clipped_count += sums.clipped_count;
    lanes.zeroed_count += u64::from(_mm512_reduce_add_epi32(sums.zeroed).cast_unsigned());
    if whole < len {
        let part = work.part(whole, len - whole);
        if STORE {
            quantize_slowly(&part, &mut codes[whole..len]);
        }
        measure_slowly(&part, lanes);
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

/// As [`scalar::extent`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn extent(x: &[f32]) -> Extent<f32> {
    let zero = _mm512_setzero_ps();
    let mut min = [_mm512_set1_ps(f32::INFINITY); 4];
    let mut max = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
    let mut odd = [zero; 4];
    let (blocks, tail) = x.as_chunks::<BLOCK>();
    for block in blocks {
        prefetch(block.as_ptr());
        for i in PARTS {
            // SAFETY: a block has 64 elements.
            let x = unsafe { _mm512_loadu_ps(block.as_ptr().wrapping_add(16 * i)) };
            min[i] = _mm512_min_ps(x, min[i]);
            max[i] = _mm512_max_ps(x, max[i]);
            odd[i] = _mm512_fmadd_ps(x, zero, odd[i]);
        }
    }
    for part in tail.chunks(16) {
        // Groups of 32 are all tail.
        _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_byte_add(AHEAD).cast());
        let mask = u16::MAX >> (16 - part.len());
        // SAFETY: only the elements of the part are read.
        let x = unsafe { _mm512_maskz_loadu_ps(mask, part.as_ptr()) };
        min[0] = _mm512_mask_min_ps(min[0], mask, x, min[0]);
        max[0] = _mm512_mask_max_ps(max[0], mask, x, max[0]);
        odd[0] = _mm512_fmadd_ps(x, zero, odd[0]);
    }
    let odd = _mm512_add_ps(_mm512_add_ps(odd[0], odd[1]), _mm512_add_ps(odd[2], odd[3]));
    if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(odd, odd) != 0 {
        return extent_slowly(x);
    }
    let min = _mm512_min_ps(_mm512_min_ps(min[0], min[1]), _mm512_min_ps(min[2], min[3]));
    let max = _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]));
    // Adding 0 drops the sign of a zero.
    let (min, max) = (_mm512_reduce_min_ps(min) + 0.0, _mm512_reduce_max_ps(max) + 0.0);
    Extent { min, max, nan: 0, inf: 0 }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn extent_slowly(x: &[f32]) -> Extent<f32> {
    scalar::extent(x)
}

/// Gives the extent of each `size` elements to `join`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn extents(x: &[f32], size: usize, mut join: impl FnMut(usize, Extent<f32>)) {
    for (i, x) in x.chunks(size).enumerate() {
        join(i, extent(x));
    }
}

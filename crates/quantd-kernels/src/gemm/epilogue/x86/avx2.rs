//! Cells in 256-bit registers: AVX2.
//!
//! Codes are packed by a shuffle of the low bytes of the lanes; they were
//! clamped before. Rounding is the processor's, to nearest and ties to even, in
//! `vcvtps2dq` and `vcvtpd2dq`; what they round is within the codes. There is no
//! arithmetic shift of 64-bit lanes: with the sign flipped, `vpsrlvq` does the
//! same but for what the flip itself becomes, `2^63 >> shift`, which is
//! subtracted again.

use std::arch::x86_64::{
    __m128, __m128i, __m256, __m256i, _mm_storel_epi64, _mm_unpacklo_epi32, _mm256_add_epi32,
    _mm256_add_epi64, _mm256_add_pd, _mm256_add_ps, _mm256_and_si256, _mm256_blend_epi32,
    _mm256_blendv_epi8, _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cmpeq_epi32,
    _mm256_cmpgt_epi32, _mm256_cmpgt_epi64, _mm256_cvtepi32_pd, _mm256_cvtepi32_ps,
    _mm256_cvtpd_epi32, _mm256_cvtps_epi32, _mm256_cvtps_pd, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_epi32, _mm256_max_pd,
    _mm256_max_ps, _mm256_min_epi32, _mm256_min_pd, _mm256_min_ps, _mm256_mul_epi32, _mm256_mul_pd,
    _mm256_mul_ps, _mm256_mullo_epi32, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_set1_pd, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi64,
    _mm256_sllv_epi32, _mm256_sllv_epi64, _mm256_srai_epi32, _mm256_srav_epi32, _mm256_srli_epi32,
    _mm256_srli_epi64, _mm256_srlv_epi64, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi32,
    _mm256_sub_epi64, _mm256_xor_si256,
};

use super::super::super::tile::avx2::Ymm;
use super::Vector;

/// Odd ones of 8 lanes.
const ODD: i32 = 0xAA;

impl<const VNNI: bool> Vector for Ymm<VNNI> {
    type Ints = __m256i;
    type Floats = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> __m256i {
        // SAFETY: the caller has AVX2, and `from` has 32 readable bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m256 {
        // SAFETY: the caller has AVX2, and `from` has 32 readable bytes.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_ints(to: *mut i32, cells: __m256i) {
        // SAFETY: the caller has AVX2, and `to` has 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.cast(), cells) }
    }

    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, cells: __m256) {
        // SAFETY: the caller has AVX2, and `to` has 32 writable bytes.
        unsafe { _mm256_storeu_ps(to, cells) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, cells: __m256i) {
        // SAFETY: the caller has AVX2, and `to` has 8 writable bytes.
        unsafe {
            let bytes = _mm256_shuffle_epi8(cells, _mm256_set1_epi32(0x0C08_0400));
            let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storel_epi64(to.cast(), _mm_unpacklo_epi32(low, high));
        }
    }

    #[inline(always)]
    unsafe fn all(of: i32) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_set1_epi32(of) }
    }

    #[inline(always)]
    unsafe fn all_floats(of: f32) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_set1_ps(of) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_mullo_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn least(a: __m256i, end: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_max_epi32(a, end) }
    }

    #[inline(always)]
    unsafe fn most(a: __m256i, end: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_min_epi32(a, end) }
    }

    #[inline(always)]
    unsafe fn floats(a: __m256i) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn add_floats(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn div_floats(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_floats(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn larger(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn smaller(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn round_even(a: __m256) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_cvtps_epi32(a) }
    }

    #[inline(always)]
    unsafe fn affine(sums: __m256i, factors: __m256, zero: f64, ends: [f64; 2]) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe {
            let first =
                affine(_mm256_castsi256_si128(sums), _mm256_castps256_ps128(factors), zero, ends);
            let second = affine(
                _mm256_extracti128_si256::<1>(sums),
                _mm256_extractf128_ps::<1>(factors),
                zero,
                ends,
            );
            _mm256_set_m128i(second, first)
        }
    }

    #[inline(always)]
    unsafe fn twice(sums: __m256i, mantissas: __m256i, exponents: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe {
            let (none, one) = (_mm256_setzero_si256(), _mm256_set1_epi32(1));
            // What comes back different was shifted beyond 32 bits.
            let left = _mm256_max_epi32(exponents, none);
            let shifted = _mm256_sllv_epi32(sums, left);
            let kept = _mm256_cmpeq_epi32(_mm256_srav_epi32(shifted, left), sums);
            let end = _mm256_xor_si256(_mm256_srai_epi32::<31>(sums), _mm256_set1_epi32(i32::MAX));
            let shifted = _mm256_blendv_epi8(end, shifted, kept);
            let high = high_half(shifted, mantissas);
            let right = _mm256_max_epi32(_mm256_sub_epi32(none, exponents), none);
            let mask = _mm256_sub_epi32(_mm256_sllv_epi32(one, right), one);
            let negative = _mm256_srli_epi32::<31>(high);
            let threshold = _mm256_add_epi32(_mm256_srli_epi32::<1>(mask), negative);
            // -1 where one is to be added.
            let up = _mm256_cmpgt_epi32(_mm256_and_si256(high, mask), threshold);
            _mm256_sub_epi32(_mm256_srav_epi32(high, right), up)
        }
    }

    #[inline(always)]
    unsafe fn once(
        sums: __m256i,
        mantissas: __m256i,
        exponents: __m256i,
        ends: [i64; 2],
    ) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe {
            let shifts = _mm256_sub_epi32(_mm256_set1_epi32(31), exponents);
            let own = _mm256_and_si256(shifts, _mm256_set1_epi64x(0xFFFF_FFFF));
            let even = shift_once(sums, mantissas, own, ends);
            let odd = shift_once(
                _mm256_srli_epi64::<32>(sums),
                _mm256_srli_epi64::<32>(mantissas),
                _mm256_srli_epi64::<32>(shifts),
                ends,
            );
            _mm256_blend_epi32::<ODD>(even, _mm256_slli_epi64::<32>(odd))
        }
    }
}

/// [`Vector::affine`] of half a register.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn affine(sums: __m128i, factors: __m128, zero: f64, [low, high]: [f64; 2]) -> __m128i {
    // SAFETY: the caller has AVX2; only registers are used.
    unsafe {
        let scaled = _mm256_mul_pd(_mm256_cvtepi32_pd(sums), _mm256_cvtps_pd(factors));
        let x = _mm256_add_pd(scaled, _mm256_set1_pd(zero));
        // The second one where either is NaN: the lower end.
        let x = _mm256_max_pd(x, _mm256_set1_pd(low));
        _mm256_cvtpd_epi32(_mm256_min_pd(x, _mm256_set1_pd(high)))
    }
}

/// `(a * b + 2^30) >> 31`: even lanes end in the low half of their 64 bits, odd ones in the high.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn high_half(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2; only registers are used.
    unsafe {
        let half = _mm256_set1_epi64x(1 << 30);
        let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
        let odd = _mm256_slli_epi64::<1>(_mm256_add_epi64(odd, half));
        let even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
        _mm256_blend_epi32::<ODD>(_mm256_srli_epi64::<31>(even), odd)
    }
}

/// [`Vector::once`] of the even lanes; shifts are 64-bit numbers.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn shift_once(
    sums: __m256i,
    mantissas: __m256i,
    shifts: __m256i,
    [low, high]: [i64; 2],
) -> __m256i {
    // SAFETY: the caller has AVX2; only registers are used.
    unsafe {
        let (one, sign) = (_mm256_set1_epi64x(1), _mm256_set1_epi64x(i64::MIN));
        let (low, high) = (_mm256_set1_epi64x(low), _mm256_set1_epi64x(high));
        let half = _mm256_sllv_epi64(one, _mm256_sub_epi64(shifts, one));
        let product = _mm256_add_epi64(_mm256_mul_epi32(sums, mantissas), half);
        let flipped = _mm256_srlv_epi64(_mm256_xor_si256(product, sign), shifts);
        let shifted = _mm256_sub_epi64(flipped, _mm256_srlv_epi64(sign, shifts));
        let above = _mm256_cmpgt_epi64(shifted, low);
        let shifted = _mm256_blendv_epi8(low, shifted, above);
        let beyond = _mm256_cmpgt_epi64(shifted, high);
        _mm256_blendv_epi8(shifted, high, beyond)
    }
}

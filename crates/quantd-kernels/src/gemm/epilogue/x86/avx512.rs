//! Cells in 512-bit registers: AVX-512 F and DQ.
//!
//! Codes are packed by `vpmovdb`, which takes the low byte of each lane: they
//! were clamped before. Rounding is the processor's, to nearest and ties to
//! even, in `vcvtps2dq` and `vcvtpd2dq`; what they round is within the codes.
//! 64-bit lanes have their own arithmetic shift, minimum and maximum.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_storeu_si128, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_add_pd, _mm512_add_ps, _mm512_and_si512, _mm512_castps512_ps256, _mm512_castsi256_si512,
    _mm512_castsi512_si256, _mm512_cmpgt_epi32_mask, _mm512_cmpneq_epi32_mask,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_pd, _mm512_cvtepi32_ps, _mm512_cvtpd_epi32,
    _mm512_cvtps_epi32, _mm512_cvtps_pd, _mm512_div_ps, _mm512_extractf32x8_ps,
    _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_add_epi32, _mm512_mask_blend_epi32, _mm512_max_epi32, _mm512_max_epi64,
    _mm512_max_pd, _mm512_max_ps, _mm512_min_epi32, _mm512_min_epi64, _mm512_min_pd, _mm512_min_ps,
    _mm512_mul_epi32, _mm512_mul_pd, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_set1_pd, _mm512_set1_ps, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_sllv_epi32, _mm512_sllv_epi64, _mm512_srai_epi32, _mm512_srav_epi32, _mm512_srav_epi64,
    _mm512_srli_epi32, _mm512_srli_epi64, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_sub_epi64, _mm512_xor_si512,
};

use bytemuck::Pod;

use super::super::super::tile::avx512::Zmm;
use super::super::{Epilogue, TileOutput};
use super::Vector;

/// Makes cells of sums in memory, of panels of 32 columns.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn finish_rows<T: Pod, F: Epilogue<T>>(
    output: &mut TileOutput<'_, T, F>,
    sums: &[i32],
    stride: usize,
) {
    // SAFETY: this function has the features; panels of the tile unit have columns for two registers.
    unsafe { super::finish_rows::<Zmm<true>, 2, T, F>(output, sums, stride) }
}

/// Odd ones of 16 lanes.
const ODD: u16 = 0xAAAA;

impl<const VNNI: bool> Vector for Zmm<VNNI> {
    type Ints = __m512i;
    type Floats = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load_ints(from: *const i32) -> __m512i {
        // SAFETY: the caller has AVX-512 F, and `from` has 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m512 {
        // SAFETY: the caller has AVX-512 F, and `from` has 64 readable bytes.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_ints(to: *mut i32, cells: __m512i) {
        // SAFETY: the caller has AVX-512 F, and `to` has 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), cells) }
    }

    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, cells: __m512) {
        // SAFETY: the caller has AVX-512 F, and `to` has 64 writable bytes.
        unsafe { _mm512_storeu_ps(to, cells) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, cells: __m512i) {
        // SAFETY: the caller has AVX-512 F, and `to` has 16 writable bytes.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(cells)) }
    }

    #[inline(always)]
    unsafe fn all(of: i32) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_set1_epi32(of) }
    }

    #[inline(always)]
    unsafe fn all_floats(of: f32) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_set1_ps(of) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn least(a: __m512i, end: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_max_epi32(a, end) }
    }

    #[inline(always)]
    unsafe fn most(a: __m512i, end: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_min_epi32(a, end) }
    }

    #[inline(always)]
    unsafe fn floats(a: __m512i) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn add_floats(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn div_floats(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_floats(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn larger(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn smaller(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn round_even(a: __m512) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_cvtps_epi32(a) }
    }

    #[inline(always)]
    unsafe fn affine(sums: __m512i, factors: __m512, zero: f64, ends: [f64; 2]) -> __m512i {
        // SAFETY: the caller has AVX-512 F and DQ; only registers are used.
        unsafe {
            let first =
                affine(_mm512_castsi512_si256(sums), _mm512_castps512_ps256(factors), zero, ends);
            let second = affine(
                _mm512_extracti64x4_epi64::<1>(sums),
                _mm512_extractf32x8_ps::<1>(factors),
                zero,
                ends,
            );
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
        }
    }

    #[inline(always)]
    unsafe fn twice(sums: __m512i, mantissas: __m512i, exponents: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe {
            let (none, one) = (_mm512_setzero_si512(), _mm512_set1_epi32(1));
            // What comes back different was shifted beyond 32 bits.
            let left = _mm512_max_epi32(exponents, none);
            let shifted = _mm512_sllv_epi32(sums, left);
            let lost = _mm512_cmpneq_epi32_mask(_mm512_srav_epi32(shifted, left), sums);
            let end = _mm512_xor_si512(_mm512_srai_epi32::<31>(sums), _mm512_set1_epi32(i32::MAX));
            let shifted = _mm512_mask_blend_epi32(lost, shifted, end);
            let high = high_half(shifted, mantissas);
            let right = _mm512_max_epi32(_mm512_sub_epi32(none, exponents), none);
            let mask = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
            let negative = _mm512_srli_epi32::<31>(high);
            let threshold = _mm512_add_epi32(_mm512_srli_epi32::<1>(mask), negative);
            let up = _mm512_cmpgt_epi32_mask(_mm512_and_si512(high, mask), threshold);
            let scaled = _mm512_srav_epi32(high, right);
            _mm512_mask_add_epi32(scaled, up, scaled, one)
        }
    }

    #[inline(always)]
    unsafe fn once(
        sums: __m512i,
        mantissas: __m512i,
        exponents: __m512i,
        ends: [i64; 2],
    ) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe {
            let shifts = _mm512_sub_epi32(_mm512_set1_epi32(31), exponents);
            let own = _mm512_and_si512(shifts, _mm512_set1_epi64(0xFFFF_FFFF));
            let even = shift_once(sums, mantissas, own, ends);
            let odd = shift_once(
                _mm512_srli_epi64::<32>(sums),
                _mm512_srli_epi64::<32>(mantissas),
                _mm512_srli_epi64::<32>(shifts),
                ends,
            );
            _mm512_mask_blend_epi32(ODD, even, _mm512_slli_epi64::<32>(odd))
        }
    }
}

/// [`Vector::affine`] of half a register.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn affine(sums: __m256i, factors: __m256, zero: f64, [low, high]: [f64; 2]) -> __m256i {
    // SAFETY: the caller has AVX-512 F; only registers are used.
    unsafe {
        let scaled = _mm512_mul_pd(_mm512_cvtepi32_pd(sums), _mm512_cvtps_pd(factors));
        let x = _mm512_add_pd(scaled, _mm512_set1_pd(zero));
        // The second one where either is NaN: the lower end.
        let x = _mm512_max_pd(x, _mm512_set1_pd(low));
        _mm512_cvtpd_epi32(_mm512_min_pd(x, _mm512_set1_pd(high)))
    }
}

/// `(a * b + 2^30) >> 31`: even lanes end in the low half of their 64 bits, odd ones in the high.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn high_half(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512 F; only registers are used.
    unsafe {
        let half = _mm512_set1_epi64(1 << 30);
        let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
        let odd = _mm512_slli_epi64::<1>(_mm512_add_epi64(odd, half));
        let even = _mm512_add_epi64(_mm512_mul_epi32(a, b), half);
        _mm512_mask_blend_epi32(ODD, _mm512_srli_epi64::<31>(even), odd)
    }
}

/// [`Vector::once`] of the even lanes; shifts are 64-bit numbers.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn shift_once(
    sums: __m512i,
    mantissas: __m512i,
    shifts: __m512i,
    [low, high]: [i64; 2],
) -> __m512i {
    // SAFETY: the caller has AVX-512 F; only registers are used.
    unsafe {
        let one = _mm512_set1_epi64(1);
        let half = _mm512_sllv_epi64(one, _mm512_sub_epi64(shifts, one));
        let product = _mm512_add_epi64(_mm512_mul_epi32(sums, mantissas), half);
        let shifted = _mm512_srav_epi64(product, shifts);
        let shifted = _mm512_max_epi64(shifted, _mm512_set1_epi64(low));
        _mm512_min_epi64(shifted, _mm512_set1_epi64(high))
    }
}

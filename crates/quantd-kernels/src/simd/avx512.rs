//! AVX-512 F, BW, DQ and VL: 16 lanes, and masks of a bit each.

use std::arch::x86_64::*;

use super::super::isa::Op;
use super::{Simd, VectorOp, registers, slices};

/// Proof that the machine has AVX-512 F, BW, DQ and VL, and what AVX2 has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Where its instructions may be used.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Undoes what packing twice does, which works in parts of 128 bits: dword 4 i + j then holds
    /// elements 4 i.. of register j.
    #[inline(always)]
    fn in_order(self, bytes: __m512i) -> __m512i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, bytes)
        }
    }
}

/// Runs a loop that the compiler vectorizes.
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run()
}

/// Runs a loop over registers.
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn vectorize<O: VectorOp>(op: O) -> O::Output {
    op.run(Avx512::new())
}

#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn apart<O: Op>(op: O) -> O::Output {
    op.run()
}

/// `vrange`: the larger magnitude, without its sign.
const LARGER: i32 = 0b1011;

/// Odd ones of 16 lanes.
const ODD: u16 = 0xaaaa;

/// [`Simd::mul_shift`] of the even lanes; `by` are 64-bit numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn shift_even(a: __m512i, b: __m512i, by: __m512i, [low, high]: [i64; 2]) -> __m512i {
    let one = _mm512_set1_epi64(1);
    let half = _mm512_sllv_epi64(one, _mm512_sub_epi64(by, one));
    let shifted = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(a, b), half), by);
    let shifted = _mm512_max_epi64(shifted, _mm512_set1_epi64(low));
    _mm512_min_epi64(shifted, _mm512_set1_epi64(high))
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type F64 = __m512d;
    type Mask = __mmask16;
    type Words = [__m512i; 2];
    type U8 = __m512i;

    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        // SAFETY: the token proves that the machine has the instructions.
        unsafe { apart(op) }
    }

    slices! {
        fn load(from: &[f32], 16) -> __m512 { _mm512_loadu_ps(from.as_ptr()) }
        fn load_i32(from: &[i32], 16) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn load_u8(from: &[u8], 64) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn load_bytes(from: &[u8], 64) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn load_f64(from: &[f64], 8) -> __m512d { _mm512_loadu_pd(from.as_ptr()) }
        fn load_wide(from: &[f32], 8) -> __m512d { _mm512_cvtps_pd(_mm256_loadu_ps(from.as_ptr())) }
        fn store(to: &mut [f32], 16, x: __m512) { _mm512_storeu_ps(to.as_mut_ptr(), x) }
        fn store_i32(to: &mut [i32], 16, x: __m512i) { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
        fn store_low_bytes(to: &mut [u8], 16, x: __m512i) {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x))
        }
        fn store_u8(to: &mut [u8], 64, x: __m512i) { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
        fn store_f64(to: &mut [f64], 8, x: __m512d) { _mm512_storeu_pd(to.as_mut_ptr(), x) }
        fn store_past(to: &mut [f32], 16, x: __m512) {
            if to.as_ptr().addr().is_multiple_of(64) {
                _mm512_stream_ps(to.as_mut_ptr(), x);
            } else {
                _mm512_storeu_ps(to.as_mut_ptr(), x);
            }
        }
        fn store_u8_past(to: &mut [u8], 64, x: __m512i) {
            if to.as_ptr().addr().is_multiple_of(64) {
                _mm512_stream_si512(to.as_mut_ptr().cast(), x);
            } else {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            }
        }
    }

    #[inline(always)]
    fn load_codes<const SIGNED: bool>(self, from: &[u8]) -> __m512i {
        assert!(from.len() >= 16, "a register is within its slice");
        // SAFETY: the token proves that the machine has the instructions; the slice has 16 bytes.
        unsafe {
            let codes = _mm_loadu_si128(from.as_ptr().cast());
            if SIGNED { _mm512_cvtepi8_epi32(codes) } else { _mm512_cvtepu8_epi32(codes) }
        }
    }

    #[inline(always)]
    fn load_some(self, from: &[f32]) -> __m512 {
        let count = from.len().clamp(1, 16);
        let others = self.splat(from[0]);
        // SAFETY: the token proves that the machine has the instructions; only elements of the slice are read.
        unsafe { _mm512_mask_loadu_ps(others, u16::MAX >> (16 - count), from.as_ptr()) }
    }

    registers! {
        fn splat(of: f32) -> __m512 { _mm512_set1_ps(of) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn abs(x: __m512) -> __m512 { _mm512_abs_ps(x) }
        fn copysign(magnitude: __m512, sign: __m512) -> __m512 {
            _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0)))
        }
        fn max_magnitude(x: [__m512; 4]) -> __m512 {
            {
                let [a, b, c, d] = x;
                let halves = [_mm512_range_ps::<LARGER>(a, b), _mm512_range_ps::<LARGER>(c, d)];
                _mm512_range_ps::<LARGER>(halves[0], halves[1])
            }
        }
        fn reduce_min(x: __m512) -> f32 { _mm512_reduce_min_ps(x) }
        fn reduce_max(x: __m512) -> f32 { _mm512_reduce_max_ps(x) }

        fn lt(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        fn eq(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
        fn ne(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(a, b) }
        fn not_le(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b) }
        fn unordered(a: __m512, b: __m512) -> __mmask16 {
            _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b)
        }
        fn bits(masks: [__mmask16; 4]) -> u64 {
            {
                let [a, b, c, d] = masks;
                let low = _mm512_kunpackw(b.into(), a.into());
                let high = _mm512_kunpackw(d.into(), c.into());
                _mm512_kunpackd(high.into(), low.into())
            }
        }
        fn keep(mask: __mmask16, x: __m512) -> __m512 { _mm512_maskz_mov_ps(mask, x) }
        fn clear(mask: __mmask16, x: __m512) -> __m512 { _mm512_maskz_mov_ps(!mask, x) }

        fn splat_i32(of: i32) -> __m512i { _mm512_set1_epi32(of) }
        fn to_f32(x: __m512i) -> __m512 { _mm512_cvtepi32_ps(x) }
        // What does not fit becomes 2^31.
        fn round(x: __m512) -> __m512i { _mm512_cvtps_epi32(x) }
        fn as_i32(x: __m512) -> __m512i { _mm512_castps_si512(x) }
        fn as_f32(x: __m512i) -> __m512 { _mm512_castsi512_ps(x) }
        fn add_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn mul_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn min_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_min_epi32(a, b) }
        fn max_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_max_epi32(a, b) }
        fn and_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn shl_i32(a: __m512i, by: __m512i) -> __m512i { _mm512_sllv_epi32(a, by) }
        fn shr_i32(a: __m512i, by: __m512i) -> __m512i { _mm512_srav_epi32(a, by) }
        fn eq_i32(a: __m512i, b: __m512i) -> __mmask16 { _mm512_cmpeq_epi32_mask(a, b) }
        fn gt_i32(a: __m512i, b: __m512i) -> __mmask16 { _mm512_cmpgt_epi32_mask(a, b) }
        fn select_i32(mask: __mmask16, a: __m512i, b: __m512i) -> __m512i {
            _mm512_mask_blend_epi32(mask, b, a)
        }
        fn mul_high(a: __m512i, b: __m512i) -> __m512i {
            {
                // Even lanes end in the low half of their 64 bits, odd ones in the high.
                let half = _mm512_set1_epi64(1 << 30);
                let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
                let odd = _mm512_slli_epi64::<1>(_mm512_add_epi64(odd, half));
                let even = _mm512_add_epi64(_mm512_mul_epi32(a, b), half);
                _mm512_mask_blend_epi32(ODD, _mm512_srli_epi64::<31>(even), odd)
            }
        }
        fn mul_shift(a: __m512i, b: __m512i, by: __m512i, ends: [i64; 2]) -> __m512i {
            {
                let even = shift_even(a, b, _mm512_and_si512(by, _mm512_set1_epi64(0xffff_ffff)), ends);
                let [a, b, by] = [a, b, by].map(|x| _mm512_srli_epi64::<32>(x));
                let odd = shift_even(a, b, by, ends);
                _mm512_mask_blend_epi32(ODD, even, _mm512_slli_epi64::<32>(odd))
            }
        }
        fn nibbles(x: __m512i) -> [__m512i; 2] {
            {
                let low = _mm512_set1_epi8(15);
                [_mm512_and_si512(x, low), _mm512_and_si512(_mm512_srli_epi16::<4>(x), low)]
            }
        }
        fn test_none(x: __m512i, mask: i32) -> __mmask16 {
            _mm512_testn_epi32_mask(x, _mm512_set1_epi32(mask))
        }
        fn low_halves_without(x: [__m512i; 4], mask: i32) -> u32 {
            {
                let [a, b, c, d] = x;
                // The lower half of a minimum is 0 under the mask where one of them is.
                let least = _mm512_min_epu16(_mm512_min_epu16(a, b), _mm512_min_epu16(c, d));
                u32::from(_mm512_testn_epi32_mask(least, _mm512_set1_epi32(mask)))
            }
        }

        fn words(x: [__m512i; 4]) -> [__m512i; 2] {
            [_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])]
        }
        fn any_above(words: [__m512i; 2], limit: u16) -> bool {
            {
                let limit = _mm512_set1_epi16(limit.cast_signed());
                _mm512_cmpgt_epu16_mask(_mm512_max_epu16(words[0], words[1]), limit) != 0
            }
        }
        fn splat_u8(of: u8) -> __m512i { _mm512_set1_epi8(of.cast_signed()) }
        fn add_u8(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi8(a, b) }
        fn min_u8(a: __m512i, b: __m512i) -> __m512i { _mm512_min_epu8(a, b) }
        fn bits_eq_u8(a: __m512i, b: __m512i) -> u64 { _mm512_cmpeq_epi8_mask(a, b) }

        fn splat_f64(of: f64) -> __m512d { _mm512_set1_pd(of) }
        fn widen(x: __m512) -> [__m512d; 2] {
            [
                _mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x)),
            ]
        }
        fn widen_i32(x: __m512i) -> [__m512d; 2] {
            [
                _mm512_cvtepi32_pd(_mm512_castsi512_si256(x)),
                _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64::<1>(x)),
            ]
        }
        fn round_f64(x: [__m512d; 2]) -> __m512i {
            {
                let low = _mm512_castsi256_si512(_mm512_cvtpd_epi32(x[0]));
                _mm512_inserti64x4::<1>(low, _mm512_cvtpd_epi32(x[1]))
            }
        }
        fn min_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_min_pd(a, b) }
        fn max_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_max_pd(a, b) }
        fn add_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_add_pd(a, b) }
        fn sub_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_sub_pd(a, b) }
        fn mul_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_mul_pd(a, b) }
        fn mul_add_f64(a: __m512d, b: __m512d, c: __m512d) -> __m512d { _mm512_fmadd_pd(a, b, c) }
        fn max_magnitude_f64(a: __m512d, b: __m512d) -> __m512d { _mm512_range_pd::<LARGER>(a, b) }
        fn keep_f64(bits: u8, x: __m512d) -> __m512d { _mm512_maskz_mov_pd(bits, x) }
        fn fence() -> () { _mm_sfence() }
    }

    #[inline(always)]
    fn or(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }

    #[inline(always)]
    fn any(self, mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn bytes(self, words: [__m512i; 2]) -> __m512i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe { self.in_order(_mm512_packus_epi16(words[0], words[1])) }
    }

    #[inline(always)]
    fn high_halves<const SIGNED: bool>(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let upper = _mm512_set_epi16(
                63, 61, 59, 57, 31, 29, 27, 25, 55, 53, 51, 49, 23, 21, 19, 17, //
                47, 45, 43, 41, 15, 13, 11, 9, 39, 37, 35, 33, 7, 5, 3, 1,
            );
            let words =
                [_mm512_permutex2var_epi16(a, upper, b), _mm512_permutex2var_epi16(c, upper, d)];
            self.in_order(if SIGNED {
                _mm512_packs_epi16(words[0], words[1])
            } else {
                _mm512_packus_epi16(words[0], words[1])
            })
        }
    }
}

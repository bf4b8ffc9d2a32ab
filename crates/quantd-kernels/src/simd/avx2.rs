//! AVX2 and FMA: 8 lanes, and masks that fill their lane.

use std::arch::x86_64::*;

use super::super::isa::Op;
use super::{Simd, VectorOp, registers, slices};

/// Proof that the machine has AVX2, FMA, F16C and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Where its instructions may be used.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Undoes what packing twice does, which works in parts of 128 bits: dword 4 i + j then holds
    /// elements 4 i.. of register j.
    #[inline(always)]
    fn in_order(self, bytes: __m256i) -> __m256i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe { _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)) }
    }

    /// The low and the high half.
    #[inline(always)]
    fn halves(self, x: __m256) -> [__m128; 2] {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe { [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)] }
    }
}

/// Runs a loop that the compiler vectorizes.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run()
}

/// Runs a loop over registers.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(crate) fn vectorize<O: VectorOp>(op: O) -> O::Output {
    op.run(Avx2::new())
}

#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn apart<O: Op>(op: O) -> O::Output {
    op.run()
}

/// Odd ones of 8 lanes.
const ODD: i32 = 0xaa;

/// [`Simd::mul_shift`] of the even lanes; `by` are 64-bit numbers.
///
/// There is no arithmetic shift of 64-bit lanes: with the sign flipped, `vpsrlvq` does the same but
/// for what the flip itself becomes, `2^63 >> by`, which is subtracted again.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn shift_even(a: __m256i, b: __m256i, by: __m256i, [low, high]: [i64; 2]) -> __m256i {
    let (one, sign) = (_mm256_set1_epi64x(1), _mm256_set1_epi64x(i64::MIN));
    let (low, high) = (_mm256_set1_epi64x(low), _mm256_set1_epi64x(high));
    let half = _mm256_sllv_epi64(one, _mm256_sub_epi64(by, one));
    let product = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
    let flipped = _mm256_srlv_epi64(_mm256_xor_si256(product, sign), by);
    let shifted = _mm256_sub_epi64(flipped, _mm256_srlv_epi64(sign, by));
    let above = _mm256_cmpgt_epi64(shifted, low);
    let shifted = _mm256_blendv_epi8(low, shifted, above);
    let beyond = _mm256_cmpgt_epi64(shifted, high);
    _mm256_blendv_epi8(shifted, high, beyond)
}

impl Simd for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;
    type F64 = __m256d;
    type Mask = __m256;
    type Words = [__m256i; 2];
    type U8 = __m256i;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        // SAFETY: the token proves that the machine has the instructions.
        unsafe { apart(op) }
    }

    slices! {
        fn load(from: &[f32], 8) -> __m256 { _mm256_loadu_ps(from.as_ptr()) }
        fn load_i32(from: &[i32], 8) -> __m256i { _mm256_loadu_si256(from.as_ptr().cast()) }
        fn load_u8(from: &[u8], 32) -> __m256i { _mm256_loadu_si256(from.as_ptr().cast()) }
        fn load_bytes(from: &[u8], 32) -> __m256i { _mm256_loadu_si256(from.as_ptr().cast()) }
        fn load_f64(from: &[f64], 4) -> __m256d { _mm256_loadu_pd(from.as_ptr()) }
        fn load_wide(from: &[f32], 4) -> __m256d { _mm256_cvtps_pd(_mm_loadu_ps(from.as_ptr())) }
        fn store(to: &mut [f32], 8, x: __m256) { _mm256_storeu_ps(to.as_mut_ptr(), x) }
        fn store_i32(to: &mut [i32], 8, x: __m256i) { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
        fn store_low_bytes(to: &mut [u8], 8, x: __m256i) {
            {
                let bytes = _mm256_shuffle_epi8(x, _mm256_set1_epi32(0x0c08_0400));
                let low = _mm256_castsi256_si128(bytes);
                let eight = _mm_unpacklo_epi32(low, _mm256_extracti128_si256::<1>(bytes));
                _mm_storel_epi64(to.as_mut_ptr().cast(), eight)
            }
        }
        fn store_u8(to: &mut [u8], 32, x: __m256i) { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
        fn store_f64(to: &mut [f64], 4, x: __m256d) { _mm256_storeu_pd(to.as_mut_ptr(), x) }
        fn store_past(to: &mut [f32], 8, x: __m256) {
            if to.as_ptr().addr().is_multiple_of(32) {
                _mm256_stream_ps(to.as_mut_ptr(), x);
            } else {
                _mm256_storeu_ps(to.as_mut_ptr(), x);
            }
        }
        fn store_u8_past(to: &mut [u8], 32, x: __m256i) {
            if to.as_ptr().addr().is_multiple_of(32) {
                _mm256_stream_si256(to.as_mut_ptr().cast(), x);
            } else {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), x);
            }
        }
    }

    #[inline(always)]
    fn load_codes<const SIGNED: bool>(self, from: &[u8]) -> __m256i {
        assert!(from.len() >= 8, "a register is within its slice");
        // SAFETY: the token proves that the machine has the instructions; the slice has 8 bytes.
        unsafe {
            let codes = _mm_loadl_epi64(from.as_ptr().cast());
            if SIGNED { _mm256_cvtepi8_epi32(codes) } else { _mm256_cvtepu8_epi32(codes) }
        }
    }

    #[inline(always)]
    fn load_some(self, from: &[f32]) -> __m256 {
        let mut lanes = [from[0]; 8];
        for (lane, &x) in lanes.iter_mut().zip(from) {
            *lane = x;
        }
        self.load(&lanes)
    }

    registers! {
        fn splat(of: f32) -> __m256 { _mm256_set1_ps(of) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn abs(x: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
        fn copysign(magnitude: __m256, sign: __m256) -> __m256 {
            _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0)))
        }

        fn lt(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        fn eq(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
        fn ne(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_NEQ_UQ>(a, b) }
        fn not_le(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_NLE_UQ>(a, b) }
        fn unordered(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b) }
        fn or(a: __m256, b: __m256) -> __m256 { _mm256_or_ps(a, b) }
        fn any(mask: __m256) -> bool { _mm256_movemask_ps(mask) != 0 }
        fn keep(mask: __m256, x: __m256) -> __m256 { _mm256_and_ps(mask, x) }
        fn clear(mask: __m256, x: __m256) -> __m256 { _mm256_andnot_ps(mask, x) }

        fn splat_i32(of: i32) -> __m256i { _mm256_set1_epi32(of) }
        fn to_f32(x: __m256i) -> __m256 { _mm256_cvtepi32_ps(x) }
        // What does not fit becomes 2^31.
        fn round(x: __m256) -> __m256i { _mm256_cvtps_epi32(x) }
        fn as_i32(x: __m256) -> __m256i { _mm256_castps_si256(x) }
        fn as_f32(x: __m256i) -> __m256 { _mm256_castsi256_ps(x) }
        fn add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn mul_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
        fn min_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_min_epi32(a, b) }
        fn max_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi32(a, b) }
        fn and_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn shl_i32(a: __m256i, by: __m256i) -> __m256i { _mm256_sllv_epi32(a, by) }
        fn shr_i32(a: __m256i, by: __m256i) -> __m256i { _mm256_srav_epi32(a, by) }
        fn eq_i32(a: __m256i, b: __m256i) -> __m256 { _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)) }
        fn gt_i32(a: __m256i, b: __m256i) -> __m256 { _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)) }
        fn select_i32(mask: __m256, a: __m256i, b: __m256i) -> __m256i {
            _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask))
        }
        fn mul_high(a: __m256i, b: __m256i) -> __m256i {
            {
                // Even lanes end in the low half of their 64 bits, odd ones in the high.
                let half = _mm256_set1_epi64x(1 << 30);
                let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
                let odd = _mm256_slli_epi64::<1>(_mm256_add_epi64(odd, half));
                let even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
                _mm256_blend_epi32::<ODD>(_mm256_srli_epi64::<31>(even), odd)
            }
        }
        fn mul_shift(a: __m256i, b: __m256i, by: __m256i, ends: [i64; 2]) -> __m256i {
            {
                let even = shift_even(a, b, _mm256_and_si256(by, _mm256_set1_epi64x(0xffff_ffff)), ends);
                let [a, b, by] = [a, b, by].map(|x| _mm256_srli_epi64::<32>(x));
                let odd = shift_even(a, b, by, ends);
                _mm256_blend_epi32::<ODD>(even, _mm256_slli_epi64::<32>(odd))
            }
        }
        fn nibbles(x: __m256i) -> [__m256i; 2] {
            {
                let low = _mm256_set1_epi8(15);
                [_mm256_and_si256(x, low), _mm256_and_si256(_mm256_srli_epi16::<4>(x), low)]
            }
        }
        fn test_none(x: __m256i, mask: i32) -> __m256 {
            {
                let bits = _mm256_and_si256(x, _mm256_set1_epi32(mask));
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, _mm256_setzero_si256()))
            }
        }
        fn words(x: [__m256i; 4]) -> [__m256i; 2] {
            [_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3])]
        }
        fn any_above(words: [__m256i; 2], limit: u16) -> bool {
            {
                let limit = _mm256_set1_epi16(limit.cast_signed());
                let above = _mm256_subs_epu16(_mm256_max_epu16(words[0], words[1]), limit);
                _mm256_testz_si256(above, above) == 0
            }
        }

        fn splat_u8(of: u8) -> __m256i { _mm256_set1_epi8(of.cast_signed()) }
        fn add_u8(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi8(a, b) }
        fn min_u8(a: __m256i, b: __m256i) -> __m256i { _mm256_min_epu8(a, b) }
        fn bits_eq_u8(a: __m256i, b: __m256i) -> u64 {
            u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)).cast_unsigned())
        }

        fn splat_f64(of: f64) -> __m256d { _mm256_set1_pd(of) }
        fn widen(x: __m256) -> [__m256d; 2] {
            [
                _mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)),
            ]
        }
        fn widen_i32(x: __m256i) -> [__m256d; 2] {
            [
                _mm256_cvtepi32_pd(_mm256_castsi256_si128(x)),
                _mm256_cvtepi32_pd(_mm256_extracti128_si256::<1>(x)),
            ]
        }
        fn round_f64(x: [__m256d; 2]) -> __m256i {
            _mm256_set_m128i(_mm256_cvtpd_epi32(x[1]), _mm256_cvtpd_epi32(x[0]))
        }
        fn min_f64(a: __m256d, b: __m256d) -> __m256d { _mm256_min_pd(a, b) }
        fn max_f64(a: __m256d, b: __m256d) -> __m256d { _mm256_max_pd(a, b) }
        fn add_f64(a: __m256d, b: __m256d) -> __m256d { _mm256_add_pd(a, b) }
        fn sub_f64(a: __m256d, b: __m256d) -> __m256d { _mm256_sub_pd(a, b) }
        fn mul_f64(a: __m256d, b: __m256d) -> __m256d { _mm256_mul_pd(a, b) }
        fn mul_add_f64(a: __m256d, b: __m256d, c: __m256d) -> __m256d { _mm256_fmadd_pd(a, b, c) }
        fn max_magnitude_f64(a: __m256d, b: __m256d) -> __m256d {
            {
                let sign = _mm256_set1_pd(-0.0);
                _mm256_max_pd(_mm256_andnot_pd(sign, a), _mm256_andnot_pd(sign, b))
            }
        }
        fn keep_f64(bits: u8, x: __m256d) -> __m256d {
            {
                let each = _mm256_setr_epi64x(1, 2, 4, 8);
                let bits = _mm256_and_si256(_mm256_set1_epi64x(bits.into()), each);
                _mm256_and_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(bits, each)), x)
            }
        }
        fn fence() -> () { _mm_sfence() }
    }

    #[inline(always)]
    fn reduce_min(self, x: __m256) -> f32 {
        let [low, high] = self.halves(x);
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let four = _mm_min_ps(low, high);
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, x: __m256) -> f32 {
        let [low, high] = self.halves(x);
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn bits(self, masks: [__m256; 4]) -> u64 {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let [a, b, c, d] = masks.map(|mask| _mm256_castps_si256(mask));
            let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)];
            let bytes = self.in_order(_mm256_packs_epi16(words[0], words[1]));
            u64::from(_mm256_movemask_epi8(bytes).cast_unsigned())
        }
    }

    #[inline(always)]
    fn low_halves_without(self, [a, b, c, d]: [__m256i; 4], mask: i32) -> u32 {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            // The lower half of a minimum is 0 under the mask where one of them is.
            let least = _mm256_min_epu16(_mm256_min_epu16(a, b), _mm256_min_epu16(c, d));
            _mm256_movemask_ps(self.test_none(least, mask)).cast_unsigned()
        }
    }

    #[inline(always)]
    fn bytes(self, words: [__m256i; 2]) -> __m256i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe { self.in_order(_mm256_packus_epi16(words[0], words[1])) }
    }

    #[inline(always)]
    fn high_halves<const SIGNED: bool>(self, [a, b, c, d]: [__m256i; 4]) -> __m256i {
        // SAFETY: the token proves that the machine has the instructions; only registers are used.
        unsafe {
            let first = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(a), b);
            let second = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(c), d);
            let bytes = if SIGNED {
                _mm256_packs_epi16(first, second)
            } else {
                _mm256_packus_epi16(first, second)
            };
            // In each part of 128 bits four codes of two registers alternate, and then those of the others.
            let order = _mm256_setr_epi8(
                0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, //
                0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
            );
            self.in_order(_mm256_shuffle_epi8(bytes, order))
        }
    }
}

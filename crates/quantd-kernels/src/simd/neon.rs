//! NEON: 4 lanes, and masks that fill their lane.

use std::arch::aarch64::*;

use super::super::isa::Op;
use super::{Simd, VectorOp, registers, slices};

/// Proof that the machine has NEON, which is part of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// Where its instructions may be used.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Runs a loop that the compiler vectorizes.
#[target_feature(enable = "neon")]
pub(crate) fn run<O: Op>(op: O) -> O::Output {
    op.run()
}

/// Runs a loop over registers.
#[target_feature(enable = "neon")]
pub(crate) fn vectorize<O: VectorOp>(op: O) -> O::Output {
    op.run(Neon::new())
}

#[cold]
#[inline(never)]
fn apart<O: Op>(op: O) -> O::Output {
    op.run()
}

impl Simd for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type F64 = float64x2_t;
    type Mask = uint32x4_t;
    type Words = [int16x8_t; 2];
    type U8 = uint8x16_t;

    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        apart(op)
    }

    slices! {
        fn load(from: &[f32], 4) -> float32x4_t { vld1q_f32(from.as_ptr()) }
        fn load_i32(from: &[i32], 4) -> int32x4_t { vld1q_s32(from.as_ptr()) }
        fn load_u8(from: &[u8], 16) -> uint8x16_t { vld1q_u8(from.as_ptr()) }
        fn load_bytes(from: &[u8], 16) -> int32x4_t {
            vreinterpretq_s32_u8(vld1q_u8(from.as_ptr()))
        }
        fn load_f64(from: &[f64], 2) -> float64x2_t { vld1q_f64(from.as_ptr()) }
        fn load_wide(from: &[f32], 2) -> float64x2_t { vcvt_f64_f32(vld1_f32(from.as_ptr())) }
        fn store(to: &mut [f32], 4, x: float32x4_t) { vst1q_f32(to.as_mut_ptr(), x) }
        fn store_i32(to: &mut [i32], 4, x: int32x4_t) { vst1q_s32(to.as_mut_ptr(), x) }
        fn store_low_bytes(to: &mut [u8], 4, x: int32x4_t) {
            {
                let words = vmovn_s32(x);
                let bytes = vmovn_s16(vcombine_s16(words, words));
                let four = vget_lane_u32::<0>(vreinterpret_u32_s8(bytes));
                to.as_mut_ptr().cast::<u32>().write_unaligned(four)
            }
        }
        fn store_u8(to: &mut [u8], 16, x: uint8x16_t) { vst1q_u8(to.as_mut_ptr(), x) }
        fn store_f64(to: &mut [f64], 2, x: float64x2_t) { vst1q_f64(to.as_mut_ptr(), x) }
        // There are no stores past the caches but in pairs, which compilers do not make; processors
        // find by themselves that whole lines are overwritten.
        fn store_past(to: &mut [f32], 4, x: float32x4_t) { vst1q_f32(to.as_mut_ptr(), x) }
        fn store_u8_past(to: &mut [u8], 16, x: uint8x16_t) { vst1q_u8(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn load_codes<const SIGNED: bool>(self, from: &[u8]) -> int32x4_t {
        assert!(from.len() >= 4, "a register is within its slice");
        // SAFETY: NEON is part of the target; the slice has 4 bytes.
        unsafe {
            let four = u64::from(from.as_ptr().cast::<u32>().read_unaligned());
            if SIGNED {
                vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))))
            } else {
                let words = vget_low_u16(vmovl_u8(vcreate_u8(four)));
                vreinterpretq_s32_u32(vmovl_u16(words))
            }
        }
    }

    #[inline(always)]
    fn load_some(self, from: &[f32]) -> float32x4_t {
        let mut lanes = [from[0]; 4];
        for (lane, &x) in lanes.iter_mut().zip(from) {
            *lane = x;
        }
        self.load(&lanes)
    }

    registers! {
        fn splat(of: f32) -> float32x4_t { vdupq_n_f32(of) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            vfmaq_f32(c, a, b)
        }
        // The instructions for it order zeros by their signs.
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn abs(x: float32x4_t) -> float32x4_t { vabsq_f32(x) }
        fn copysign(magnitude: float32x4_t, sign: float32x4_t) -> float32x4_t {
            vbslq_f32(vdupq_n_u32(1 << 31), sign, magnitude)
        }
        fn reduce_min(x: float32x4_t) -> f32 { vminnmvq_f32(x) }
        fn reduce_max(x: float32x4_t) -> f32 { vmaxnmvq_f32(x) }

        fn lt(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vcltq_f32(a, b) }
        fn eq(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vceqq_f32(a, b) }
        fn ne(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vmvnq_u32(vceqq_f32(a, b)) }
        fn not_le(a: float32x4_t, b: float32x4_t) -> uint32x4_t { vmvnq_u32(vcleq_f32(a, b)) }
        fn unordered(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
            vmvnq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b)))
        }
        fn or(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t { vorrq_u32(a, b) }
        fn any(mask: uint32x4_t) -> bool { vmaxvq_u32(mask) != 0 }
        fn bits(masks: [uint32x4_t; 4]) -> u64 {
            {
                let [a, b, c, d] = masks;
                let low = vcombine_u16(vmovn_u32(a), vmovn_u32(b));
                let high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
                bits_of(vcombine_u8(vmovn_u16(low), vmovn_u16(high)))
            }
        }
        fn keep(mask: uint32x4_t, x: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), mask))
        }
        fn clear(mask: uint32x4_t, x: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), mask))
        }

        fn splat_i32(of: i32) -> int32x4_t { vdupq_n_s32(of) }
        fn to_f32(x: int32x4_t) -> float32x4_t { vcvtq_f32_s32(x) }
        // NaN becomes 0, and -2^31 what is below; what is above would become 2^31 - 1.
        fn round(x: float32x4_t) -> int32x4_t {
            {
                let above = vcgeq_f32(x, vdupq_n_f32(2_147_483_648.0));
                vbicq_s32(vcvtnq_s32_f32(x), vreinterpretq_s32_u32(above))
            }
        }
        fn as_i32(x: float32x4_t) -> int32x4_t { vreinterpretq_s32_f32(x) }
        fn as_f32(x: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(x) }
        fn add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        fn sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
        fn mul_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vmulq_s32(a, b) }
        fn min_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vminq_s32(a, b) }
        fn max_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vmaxq_s32(a, b) }
        fn and_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vandq_s32(a, b) }
        fn shl_i32(a: int32x4_t, by: int32x4_t) -> int32x4_t { vshlq_s32(a, by) }
        fn shr_i32(a: int32x4_t, by: int32x4_t) -> int32x4_t { vshlq_s32(a, vnegq_s32(by)) }
        fn eq_i32(a: int32x4_t, b: int32x4_t) -> uint32x4_t { vceqq_s32(a, b) }
        fn gt_i32(a: int32x4_t, b: int32x4_t) -> uint32x4_t { vcgtq_s32(a, b) }
        fn select_i32(mask: uint32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vbslq_s32(mask, a, b)
        }
        fn mul_high(a: int32x4_t, b: int32x4_t) -> int32x4_t { vqrdmulhq_s32(a, b) }
        fn mul_shift(a: int32x4_t, b: int32x4_t, by: int32x4_t, ends: [i64; 2]) -> int32x4_t {
            {
                let by = vnegq_s32(by);
                let low = vrshlq_s64(vmull_s32(vget_low_s32(a), vget_low_s32(b)), vmovl_s32(vget_low_s32(by)));
                let high = vrshlq_s64(vmull_high_s32(a, b), vmovl_high_s32(by));
                // Limited to 32 bits first, which the ends fit.
                let narrow = vcombine_s32(vqmovn_s64(low), vqmovn_s64(high));
                let [low, high] = ends.map(|end| vdupq_n_s32(end as i32));
                vminq_s32(vmaxq_s32(narrow, low), high)
            }
        }
        fn nibbles(x: int32x4_t) -> [int32x4_t; 2] {
            {
                let bytes = vreinterpretq_u8_s32(x);
                let low = vandq_u8(bytes, vdupq_n_u8(15));
                [vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(vshrq_n_u8::<4>(bytes))]
            }
        }
        fn test_none(x: int32x4_t, mask: i32) -> uint32x4_t {
            vmvnq_u32(vtstq_s32(x, vdupq_n_s32(mask)))
        }
        fn low_halves_without(x: [int32x4_t; 4], mask: i32) -> u32 {
            {
                let [a, b, c, d] = x.map(|x| vreinterpretq_u16_s32(x));
                // The lower half of a minimum is 0 under the mask where one of them is.
                let least = vminq_u16(vminq_u16(a, b), vminq_u16(c, d));
                let some = vtstq_s32(vreinterpretq_s32_u16(least), vdupq_n_s32(mask));
                let each = vld1q_u32([1, 2, 4, 8].as_ptr());
                vaddvq_u32(vbicq_u32(each, some))
            }
        }

        fn words(x: [int32x4_t; 4]) -> [int16x8_t; 2] {
            [
                vcombine_s16(vqmovn_s32(x[0]), vqmovn_s32(x[1])),
                vcombine_s16(vqmovn_s32(x[2]), vqmovn_s32(x[3])),
            ]
        }
        fn any_above(words: [int16x8_t; 2], limit: u16) -> bool {
            {
                let [a, b] = words.map(|words| vreinterpretq_u16_s16(words));
                vmaxvq_u16(vmaxq_u16(a, b)) > limit
            }
        }
        fn bytes(words: [int16x8_t; 2]) -> uint8x16_t {
            vcombine_u8(vqmovun_s16(words[0]), vqmovun_s16(words[1]))
        }

        fn splat_u8(of: u8) -> uint8x16_t { vdupq_n_u8(of) }
        fn add_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t { vaddq_u8(a, b) }
        fn min_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t { vminq_u8(a, b) }
        fn bits_eq_u8(a: uint8x16_t, b: uint8x16_t) -> u64 { bits_of(vceqq_u8(a, b)) }

        fn splat_f64(of: f64) -> float64x2_t { vdupq_n_f64(of) }
        fn widen(x: float32x4_t) -> [float64x2_t; 2] {
            [vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)]
        }
        fn widen_i32(x: int32x4_t) -> [float64x2_t; 2] {
            [vcvtq_f64_s64(vmovl_s32(vget_low_s32(x))), vcvtq_f64_s64(vmovl_high_s32(x))]
        }
        fn round_f64(x: [float64x2_t; 2]) -> int32x4_t {
            vcombine_s32(vmovn_s64(vcvtnq_s64_f64(x[0])), vmovn_s64(vcvtnq_s64_f64(x[1])))
        }
        // The instructions for it order zeros by their signs.
        fn min_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t {
            vbslq_f64(vcltq_f64(a, b), a, b)
        }
        fn max_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t {
            vbslq_f64(vcgtq_f64(a, b), a, b)
        }
        fn add_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t { vaddq_f64(a, b) }
        fn sub_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t { vsubq_f64(a, b) }
        fn mul_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t { vmulq_f64(a, b) }
        fn mul_add_f64(a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t {
            vfmaq_f64(c, a, b)
        }
        fn max_magnitude_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t {
            vmaxnmq_f64(vabsq_f64(a), vabsq_f64(b))
        }
        fn keep_f64(bits: u8, x: float64x2_t) -> float64x2_t {
            {
                let each = vld1q_u64([1, 2].as_ptr());
                let mask = vtstq_u64(vdupq_n_u64(bits.into()), each);
                vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(x), mask))
            }
        }
    }

    #[inline(always)]
    fn fence(self) {}

    #[inline(always)]
    fn high_halves<const SIGNED: bool>(self, [a, b, c, d]: [int32x4_t; 4]) -> uint8x16_t {
        // SAFETY: NEON is part of the target; only registers are used.
        unsafe {
            let low = vcombine_s16(vshrn_n_s32::<16>(a), vshrn_n_s32::<16>(b));
            let high = vcombine_s16(vshrn_n_s32::<16>(c), vshrn_n_s32::<16>(d));
            if SIGNED {
                vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)))
            } else {
                vcombine_u8(vqmovun_s16(low), vqmovun_s16(high))
            }
        }
    }
}

/// One bit a byte that is all ones.
#[inline(always)]
fn bits_of(bytes: uint8x16_t) -> u64 {
    // SAFETY: NEON is part of the target; only registers are used.
    unsafe {
        let each = vld1q_u8([1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128].as_ptr());
        let bits = vandq_u8(bytes, each);
        let halves = [vaddv_u8(vget_low_u8(bits)), vaddv_u8(vget_high_u8(bits))];
        u64::from(u16::from_le_bytes(halves))
    }
}

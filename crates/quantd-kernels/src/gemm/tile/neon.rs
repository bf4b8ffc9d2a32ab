//! NEON tiles: 6 rows by 16 columns.
//!
//! `sdot` adds four products of signed bytes to each 32-bit lane. The products
//! are at most 128 * 128, their sum of four is exact, and the addition is modulo
//! 2^32: nothing saturates.
//!
//! Of 32 registers, 24 hold sums, 4 columns, 1 a row.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use std::arch::aarch64::{
    float32x4_t, int32x4_t, vaddq_f32, vaddq_s32, vandq_u8, vcreate_u8, vcvtq_f32_s32, vdupq_n_f32,
    vdupq_n_s32, vdupq_n_u8, vget_low_u16, vld1q_s8, vld1q_u8, vmlsq_n_s32, vmovl_u8, vmovl_u16,
    vmulq_f32, vmulq_n_f32, vreinterpretq_f32_u8, vreinterpretq_s32_s8, vreinterpretq_s32_u8,
    vreinterpretq_s32_u32, vreinterpretq_u8_s32, vshrq_n_u8, vst1q_f32, vst1q_s32,
};
use std::arch::asm;

use super::int4::{self, Nibbles, Totals};
use super::vector::{self, TileEpilogue, Vector};
use super::{Lanes, Panel, Rows, Tile};

/// Tiles with dot products.
pub(super) const TILE: Tile = Tile { rows: 6, columns: 16, lanes: Lanes::SignedBySigned, steps: 1 };

/// Registers across a panel.
const WIDTH: usize = 4;

#[target_feature(enable = "neon,dotprod")]
pub(in super::super) fn multiply(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Neon>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for `WIDTH` registers.
    unsafe { vector::multiply::<Neon, WIDTH>(rows, panel, epilogue) }
}

/// 128-bit registers. The instruction set is NEON and its dot products.
pub(in super::super) struct Neon;

impl Vector for Neon {
    type Register = int32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        // SAFETY: the caller has NEON; only registers are used.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn spread(from: *const u8) -> int32x4_t {
        // SAFETY: the caller has NEON, and `from` has 4 readable bytes.
        unsafe { vdupq_n_s32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> int32x4_t {
        // SAFETY: the caller has NEON, and `from` has 16 readable bytes.
        unsafe { vreinterpretq_s32_s8(vld1q_s8(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut i32, register: int32x4_t) {
        // SAFETY: the caller has NEON, and `to` has 16 writable bytes.
        unsafe { vst1q_s32(to, register) }
    }

    #[inline(always)]
    unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: the caller has NEON; only registers are used.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    unsafe fn step(mut sums: int32x4_t, row: int32x4_t, column: int32x4_t) -> int32x4_t {
        // The intrinsic `vdotq_s32` is not stable yet.
        // SAFETY: the caller has NEON and its dot products; only registers are used.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {row:v}.16b, {column:v}.16b",
                sums = inout(vreg) sums,
                row = in(vreg) row,
                column = in(vreg) column,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(in super::super) fn multiply_int4(
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut Totals,
) {
    // SAFETY: this function has the features.
    unsafe { int4::multiply_with::<Neon, WIDTH>(rows, count, panel, totals) }
}

impl Nibbles for Neon {
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn split(codes: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: the caller has NEON; only registers are used.
        unsafe {
            let codes = vreinterpretq_u8_s32(codes);
            let low = vandq_u8(codes, vdupq_n_u8(15));
            [vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(vshrq_n_u8::<4>(codes))]
        }
    }

    #[inline(always)]
    unsafe fn short_step(sums: int32x4_t, codes: int32x4_t, row: int32x4_t) -> int32x4_t {
        // Codes of 4 bits are the same numbers with a sign.
        // SAFETY: the caller has NEON and its dot products; only registers are used.
        unsafe { Self::step(sums, row, codes) }
    }

    #[inline(always)]
    unsafe fn less_bytes(sums: int32x4_t, factor: i32, terms: *const u8) -> int32x4_t {
        // SAFETY: the caller has NEON, and `terms` has 4 readable bytes.
        unsafe {
            let bytes = vcreate_u8(u64::from(terms.cast::<u32>().read_unaligned()));
            let terms = vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
            Self::less(sums, factor, vreinterpretq_s32_u32(terms))
        }
    }

    #[inline(always)]
    unsafe fn less(sums: int32x4_t, factor: i32, terms: int32x4_t) -> int32x4_t {
        // SAFETY: the caller has NEON; only registers are used.
        unsafe { vmlsq_n_s32(sums, terms, factor) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> float32x4_t {
        // SAFETY: the caller has NEON; only registers are used.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn add_scaled(
        total: float32x4_t,
        sums: int32x4_t,
        scale: f32,
        scales: *const u8,
    ) -> float32x4_t {
        // SAFETY: the caller has NEON, and `scales` has 16 readable bytes.
        unsafe {
            let scales = vmulq_n_f32(vreinterpretq_f32_u8(vld1q_u8(scales)), scale);
            vaddq_f32(total, vmulq_f32(vcvtq_f32_s32(sums), scales))
        }
    }

    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, floats: float32x4_t) {
        // SAFETY: the caller has NEON, and `to` has 16 writable bytes.
        unsafe { vst1q_f32(to, floats) }
    }
}

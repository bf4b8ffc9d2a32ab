//! NEON tiles: 6 rows by 16 columns.
//!
//! `sdot` adds four products of signed bytes to each 32-bit lane. The products
//! are at most 128 * 128, their sum of four is exact, and the addition is modulo
//! 2^32: nothing saturates.
//!
//! Of 32 registers, 24 hold sums, 4 columns, 1 a row.

use std::arch::aarch64::{
    int32x4_t, vaddq_s32, vdotq_s32, vdupq_n_s32, vld1q_s8, vreinterpretq_s8_s32,
    vreinterpretq_s32_s8, vst1q_s32,
};

use super::vector::{self, Vector};
use super::{Lanes, Panel, Rows, Sums, Tile};

/// Tiles with dot products.
pub(super) const TILE: Tile = Tile { rows: 6, columns: 16, lanes: Lanes::SignedBySigned };

/// Registers across a panel.
const WIDTH: usize = 4;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply(rows: Rows<'_>, panel: Panel<'_>, sums: &mut Sums) {
    // SAFETY: this function has the features.
    unsafe { vector::multiply::<Neon, WIDTH>(rows, panel, sums) }
}

/// 128-bit registers.
struct Neon;

impl Vector for Neon {
    type Register = int32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn spread(from: *const u8) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vdupq_n_s32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vreinterpretq_s32_s8(vld1q_s8(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut i32, register: int32x4_t) {
        // SAFETY: the caller's.
        unsafe { vst1q_s32(to, register) }
    }

    #[inline(always)]
    unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    unsafe fn step(sums: int32x4_t, row: int32x4_t, column: int32x4_t) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vdotq_s32(sums, vreinterpretq_s8_s32(row), vreinterpretq_s8_s32(column)) }
    }
}

//! AVX2 tiles: 6 rows by 16 columns.
//!
//! The 256-bit VNNI of client processors (AVX-VNNI) adds four products of
//! unsigned by signed bytes to each 32-bit lane; why nothing saturates is said
//! in `avx512.rs`.
//!
//! Plain AVX2 has two ways to multiply bytes. `vpmaddubsw` takes 32 products an
//! instruction but saturates their pairs at 16 bits, which 255 * 127 * 2
//! exceeds: it is not used. Instead bytes are widened to words when they are
//! packed, `vpmaddwd` adds pairs of products of at most 255 * 255 exactly, and
//! `vpaddd` adds these to the sums: two instructions for 16 products. A core
//! with three vector ports (two of which multiply) does three of the two
//! instructions in two cycles, 24 products a cycle; one with two multiplying
//! ports beside two that add, 32. That is the bound for exact products without
//! VNNI, unless codes are known to be within 7 bits.
//!
//! Of 16 registers, 12 hold sums, 2 columns, 1 a row and 1 a product.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_dpbusd_avx_epi32, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi32,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32,
};

use super::int4::{self, Nibbles, Totals};
use super::vector::{self, TileEpilogue, Vector};
use super::{Lanes, Panel, Rows, Tile};

/// Tiles with AVX-VNNI.
pub(super) const VNNI: Tile =
    Tile { rows: 6, columns: 16, lanes: Lanes::UnsignedBySigned, steps: 1 };
/// Tiles without.
pub(super) const WORDS: Tile = Tile { rows: 6, columns: 16, lanes: Lanes::Words, steps: 1 };

/// Registers across a panel.
const WIDTH: usize = 2;

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(in super::super) fn multiply_vnni(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Ymm<true>>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for `WIDTH` registers.
    unsafe { vector::multiply::<Ymm<true>, WIDTH>(rows, panel, epilogue) }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn multiply_words(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Ymm<false>>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for `WIDTH` registers.
    unsafe { vector::multiply::<Ymm<false>, WIDTH>(rows, panel, epilogue) }
}

/// 256-bit registers. The instruction set is AVX2, and AVX-VNNI where `VNNI`.
pub(in super::super) struct Ymm<const VNNI: bool>;

impl<const VNNI: bool> Vector for Ymm<VNNI> {
    type Register = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn spread(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and `from` has 4 readable bytes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and `from` has 32 readable bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn step(sums: __m256i, row: __m256i, column: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2, and AVX-VNNI where `VNNI`; only registers are used.
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sums, row, column)
            } else {
                _mm256_add_epi32(sums, _mm256_madd_epi16(row, column))
            }
        }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
pub(in super::super) fn multiply_int4_vnni(
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut Totals,
) {
    // SAFETY: this function has the features.
    unsafe { int4::multiply_with::<Ymm<true>, WIDTH>(rows, count, panel, totals) }
}

#[target_feature(enable = "avx2")]
pub(in super::super) fn multiply_int4(
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut Totals,
) {
    // SAFETY: this function has the features.
    unsafe { int4::multiply_with::<Ymm<false>, WIDTH>(rows, count, panel, totals) }
}

impl<const VNNI: bool> Nibbles for Ymm<VNNI> {
    type Floats = __m256;

    #[inline(always)]
    unsafe fn split(codes: __m256i) -> [__m256i; 2] {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
            [_mm256_and_si256(codes, mask), high]
        }
    }

    #[inline(always)]
    unsafe fn short_step(sums: __m256i, codes: __m256i, row: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2, and AVX-VNNI where `VNNI`; only registers are used.
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sums, codes, row)
            } else {
                // Exact for codes of 4 bits: 2 * 15 * 128 fits 16 bits.
                let pairs = _mm256_maddubs_epi16(codes, row);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }

    #[inline(always)]
    unsafe fn less_bytes(sums: __m256i, factor: i32, terms: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and `terms` has 8 readable bytes.
        unsafe {
            let terms = _mm256_cvtepu8_epi32(_mm_loadl_epi64(terms.cast()));
            Self::less(sums, factor, terms)
        }
    }

    #[inline(always)]
    unsafe fn less(sums: __m256i, factor: i32, terms: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_sub_epi32(sums, _mm256_mullo_epi32(terms, _mm256_set1_epi32(factor))) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> __m256 {
        // SAFETY: the caller has AVX2; only registers are used.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn add_scaled(total: __m256, sums: __m256i, scale: f32, scales: *const u8) -> __m256 {
        // SAFETY: the caller has AVX2, and `scales` has 32 readable bytes.
        unsafe {
            let scales = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(scales.cast()));
            _mm256_add_ps(total, _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales))
        }
    }

    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, floats: __m256) {
        // SAFETY: the caller has AVX2, and `to` has 32 writable bytes.
        unsafe { _mm256_storeu_ps(to, floats) }
    }
}

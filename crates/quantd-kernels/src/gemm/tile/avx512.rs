//! AVX-512 tiles: 6 rows by 64 columns.
//!
//! With VNNI, `vpdpbusd` adds four products of unsigned by signed bytes to each
//! 32-bit lane. The products are at most 255 * 128 in magnitude, their sum of
//! four is exact in 32 bits, and the addition is modulo 2^32: nothing
//! saturates. Two are issued a cycle, each of 64 products.
//!
//! Without VNNI, bytes are widened to 16-bit words when they are packed:
//! `vpmaddwd` adds two products of words of at most 255 * 255 and `vpaddd` adds
//! that to the sums, again without saturation (the one product sum that
//! `vpmaddwd` wraps, of four times -32768, cannot come up). The
//! byte instruction, `vpmaddubsw`, saturates and is not used. Where both
//! instructions go to the same two ports, this is a quarter of the products of VNNI.
//!
//! Of 32 registers, 24 hold sums, 4 columns, 1 or 2 a row and a product.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the machine has the instruction set, covers all operations"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_dpbusd_epi32, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maddubs_epi16, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_epi32,
};

use super::int4::{self, Nibbles, Totals};
use super::vector::{self, TileEpilogue, Vector};
use super::{Lanes, Panel, Rows, Tile};

/// Tiles with VNNI.
pub(super) const VNNI: Tile =
    Tile { rows: 6, columns: 64, lanes: Lanes::UnsignedBySigned, steps: 1 };
/// Tiles without.
pub(super) const WORDS: Tile = Tile { rows: 6, columns: 64, lanes: Lanes::Words, steps: 1 };

/// Registers across a panel.
const WIDTH: usize = 4;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn multiply_vnni(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Zmm<true>>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for `WIDTH` registers.
    unsafe { vector::multiply::<Zmm<true>, WIDTH>(rows, panel, epilogue) }
}

/// Panels as the tile unit has them.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn multiply_narrow(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Zmm<true>>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for two registers.
    unsafe { vector::multiply_narrow::<Zmm<true>>(rows, panel, epilogue) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn multiply_words(
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut impl TileEpilogue<Zmm<false>>,
) {
    // SAFETY: this function has the features; `epilogue` has columns for `WIDTH` registers.
    unsafe { vector::multiply::<Zmm<false>, WIDTH>(rows, panel, epilogue) }
}

/// 512-bit registers. The instruction set is AVX-512 F and BW, for cells DQ, and VNNI where `VNNI`.
pub(in super::super) struct Zmm<const VNNI: bool>;

impl<const VNNI: bool> Vector for Zmm<VNNI> {
    type Register = __m512i;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn spread(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 F, and `from` has 4 readable bytes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 F, and `from` has 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn step(sums: __m512i, row: __m512i, column: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 BW, and its VNNI where `VNNI`; only registers are used.
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(sums, row, column)
            } else {
                _mm512_add_epi32(sums, _mm512_madd_epi16(row, column))
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in super::super) fn multiply_int4_vnni(
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut Totals,
) {
    // SAFETY: this function has the features.
    unsafe { int4::multiply_with::<Zmm<true>, WIDTH>(rows, count, panel, totals) }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(in super::super) fn multiply_int4(
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut Totals,
) {
    // SAFETY: this function has the features.
    unsafe { int4::multiply_with::<Zmm<false>, WIDTH>(rows, count, panel, totals) }
}

impl<const VNNI: bool> Nibbles for Zmm<VNNI> {
    type Floats = __m512;

    #[inline(always)]
    unsafe fn split(codes: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller has AVX-512 BW; only registers are used.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
            [_mm512_and_si512(codes, mask), high]
        }
    }

    #[inline(always)]
    unsafe fn short_step(sums: __m512i, codes: __m512i, row: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 BW, and its VNNI where `VNNI`; only registers are used.
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(sums, codes, row)
            } else {
                // Exact for codes of 4 bits: 2 * 15 * 128 fits 16 bits.
                let pairs = _mm512_maddubs_epi16(codes, row);
                _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }
    }

    #[inline(always)]
    unsafe fn less_bytes(sums: __m512i, factor: i32, terms: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512 F, and `terms` has 16 readable bytes.
        unsafe {
            let terms = _mm512_cvtepu8_epi32(_mm_loadu_si128(terms.cast()));
            Self::less(sums, factor, terms)
        }
    }

    #[inline(always)]
    unsafe fn less(sums: __m512i, factor: i32, terms: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_sub_epi32(sums, _mm512_mullo_epi32(terms, _mm512_set1_epi32(factor))) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> __m512 {
        // SAFETY: the caller has AVX-512 F; only registers are used.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn add_scaled(total: __m512, sums: __m512i, scale: f32, scales: *const u8) -> __m512 {
        // SAFETY: the caller has AVX-512 F, and `scales` has 64 readable bytes.
        unsafe {
            let scales = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(scales.cast()));
            _mm512_add_ps(total, _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales))
        }
    }

    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, floats: __m512) {
        // SAFETY: the caller has AVX-512 F, and `to` has 64 writable bytes.
        unsafe { _mm512_storeu_ps(to, floats) }
    }
}

//! Products of bytes, four to a 32-bit lane.
//!
//! Nothing saturates. `vpdpbusd` adds four products of unsigned by signed bytes to each lane, of at most
//! 255 * 128 in magnitude, and `sdot` four of signed ones: their sum is exact in 32 bits, and the addition is
//! modulo 2^32.
//!
//! Plain AVX2 and AVX-512 have two ways to multiply bytes. `vpmaddubsw` takes four products a lane but
//! saturates their pairs at 16 bits, which 255 * 127 * 2 exceeds: it is used for codes of 4 bits alone.
//! Bytes are widened to 16-bit words when they are packed instead: `vpmaddwd` adds two products of words of at
//! most 255 * 255, and `vpaddd` adds that to the sums, again without saturation (the one product sum that
//! `vpmaddwd` wraps, of four times -32768, cannot come up). That is two instructions for half of the products:
//! a core with three vector ports (two of which multiply) does three of the two in two cycles, one with two
//! multiplying ports beside two that add, two a cycle. It is the bound for exact products without VNNI, unless
//! codes are known to be within 7 bits.
#![expect(unsafe_code, reason = "a token proves that the machine has the instructions")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int32x4_t;
#[cfg(target_arch = "aarch64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Simd;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// What the four bytes of a lane are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Four unsigned bytes of a row by four signed ones of a column.
    UnsignedBySigned,
    /// Four signed bytes by four signed ones.
    SignedBySigned,
    /// Two 16-bit words of either.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "what x86 without VNNI multiplies")
    )]
    Words,
}

/// A loop over products. As with [`VectorOp`](super::VectorOp), `run` and all that it calls must be
/// `#[inline(always)]`.
pub(crate) trait ProductOp {
    /// What the loop gives.
    type Output;
    /// The loop.
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}

/// Proof that the machine multiplies bytes on some registers, and how.
pub(crate) trait Dot: Copy {
    /// The registers.
    type Simd: Simd;
    /// What is multiplied.
    const LANES: Lanes;

    fn simd(self) -> Self::Simd;
    /// Adds the products of a lane of a row and of columns, modulo 2^32.
    fn dot(self, sums: I32<Self>, row: I32<Self>, columns: I32<Self>) -> I32<Self>;
    /// Adds the products of four unsigned codes of at most 4 bits by four signed bytes of a row, modulo 2^32.
    fn dot_nibbles(self, sums: I32<Self>, codes: I32<Self>, row: I32<Self>) -> I32<Self>;
}

/// Registers of integers.
type I32<D> = <<D as Dot>::Simd as Simd>::I32;

/// One way to multiply: a token, whose instructions beside those of its registers are `$features`.
macro_rules! products {
    ($(#[$doc:meta])* $name:ident on $simd:ident, $register:ident, $lanes:ident, [$($feature:literal)*];
     $sums:ident, $row:ident, $columns:ident => $dot:expr;
     $of:ident, $codes:ident, $other:ident => $nibbles:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name($simd);

        impl $name {
            /// Where its instructions may be used.
            #[inline]
            #[target_feature($(enable = $feature),*)]
            pub(crate) fn new(simd: $simd) -> Self {
                Self(simd)
            }
        }

        impl Dot for $name {
            type Simd = $simd;
            const LANES: Lanes = Lanes::$lanes;

            #[inline(always)]
            fn simd(self) -> $simd {
                self.0
            }

            #[inline(always)]
            fn dot(self, $sums: $register, $row: $register, $columns: $register) -> $register {
                // SAFETY: the token proves that the machine has the instructions; only registers are used.
                unsafe { $dot }
            }

            #[inline(always)]
            fn dot_nibbles(self, $of: $register, $codes: $register, $other: $register) -> $register {
                // SAFETY: the token proves that the machine has the instructions; only registers are used.
                unsafe { $nibbles }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
products! {
    /// Words on AVX2.
    Avx2Words on Avx2, __m256i, Words, ["avx2"];
    sums, row, columns => _mm256_add_epi32(sums, _mm256_madd_epi16(row, columns));
    // Exact for codes of 4 bits: 2 * 15 * 128 fits 16 bits.
    sums, codes, row => _mm256_add_epi32(
        sums,
        _mm256_madd_epi16(_mm256_maddubs_epi16(codes, row), _mm256_set1_epi16(1)),
    )
}

#[cfg(target_arch = "x86_64")]
products! {
    /// The 256-bit VNNI of client processors.
    AvxVnni on Avx2, __m256i, UnsignedBySigned, ["avxvnni"];
    sums, row, columns => _mm256_dpbusd_avx_epi32(sums, row, columns);
    sums, codes, row => _mm256_dpbusd_avx_epi32(sums, codes, row)
}

#[cfg(target_arch = "x86_64")]
products! {
    /// Words on AVX-512.
    Avx512Words on Avx512, __m512i, Words, ["avx512bw"];
    sums, row, columns => _mm512_add_epi32(sums, _mm512_madd_epi16(row, columns));
    // Exact for codes of 4 bits: 2 * 15 * 128 fits 16 bits.
    sums, codes, row => _mm512_add_epi32(
        sums,
        _mm512_madd_epi16(_mm512_maddubs_epi16(codes, row), _mm512_set1_epi16(1)),
    )
}

#[cfg(target_arch = "x86_64")]
products! {
    /// The VNNI of AVX-512.
    Avx512Vnni on Avx512, __m512i, UnsignedBySigned, ["avx512vnni"];
    sums, row, columns => _mm512_dpbusd_epi32(sums, row, columns);
    sums, codes, row => _mm512_dpbusd_epi32(sums, codes, row)
}

#[cfg(target_arch = "aarch64")]
products! {
    /// The dot products of `ARMv8.2`.
    NeonDot on Neon, int32x4_t, SignedBySigned, ["neon" "dotprod"];
    sums, row, columns => sdot(sums, row, columns);
    // Codes of 4 bits are the same numbers with a sign.
    sums, codes, row => sdot(sums, codes, row)
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // The intrinsic `vdotq_s32` is not stable yet.
    // SAFETY: the function has the instruction; only registers are used.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

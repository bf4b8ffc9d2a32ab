//! Integer matrix products: `C[m, n] = sum over k of (A[m, k] - za) (B[k, n] - zb)`.
//!
//! Both operands are rearranged first, so that the innermost loop only loads
//! and multiplies ([`PackedLhs`], [`PackedRhs`]); a *tile* of a few rows and one
//! *panel* of columns is summed in registers over the whole of K, from the
//! correction for the zero points on, and turned into its final form before it
//! leaves them ([`Output`]). Tiles are independent and their sums are integers, so
//! the result does not depend on threads, blocking or instruction set.
//!
//! # Signs and zero points
//! The VNNI instructions multiply unsigned by signed bytes. Codes of the other
//! sign are shifted by 128, and their zero point with them, which changes
//! nothing: `(a + 128) - (za + 128) = a - za`. With `A'`, `B'` the shifted codes,
//! `C = sum A'B' - za' sum B' - zb' sum A' + K za' zb'`; the sums over columns
//! of B are part of its packed form, those over rows of A are only made when
//! some `zb'` is not 0.
//!
//! # Overflow
//! All of this is arithmetic modulo 2^32, so that what intermediate sums do
//! does not matter: C is exact if and only if it fits 32 bits, which
//! [`max_depth`] bounds. Callers refuse a larger K.

use std::sync::atomic::AtomicBool;

mod epilogue;
mod int4;
mod lhs;
mod microkernel;
mod multiplier;
mod output;
mod requantize;
mod rhs;
mod schedule;
mod shared;
mod terms;
mod tile;
mod tiled;

#[cfg(test)]
mod tests;

pub use int4::{GroupedRhs, PackedInt4, multiply_int4};
pub use lhs::{Dynamic, Elements, Lhs, PackedLhs, RowParams};
pub use multiplier::Multiplier;
pub use output::Output;
pub use requantize::{Mode, Requantize};
pub use rhs::{PackedRhs, Rhs};

/// 8-bit codes of either sign, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    /// 0 to 255.
    U8(&'a [u8]),
    /// -128 to 127.
    I8(&'a [i8]),
}

impl Codes<'_> {
    /// Number of codes.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::U8(codes) => codes.len(),
            Self::I8(codes) => codes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn ends(&self) -> (i32, i32) {
        match self {
            Self::U8(_) => (0, 255),
            Self::I8(_) => (-128, 127),
        }
    }

    /// Largest magnitude of a code less its zero point.
    fn reach(&self, zero_points: &[i32]) -> u64 {
        let (low, high) = self.ends();
        let reach = |&zero: &i32| low.abs_diff(zero).max(high.abs_diff(zero));
        u64::from(
            zero_points.iter().map(reach).max().unwrap_or(low.abs_diff(0).max(high.abs_diff(0))),
        )
    }
}

/// The largest K for which no sum of products of these codes can leave 32
/// bits: 33025 for unsigned codes with zero point 0 on both sides, 65793 for
/// unsigned by signed, 131071 for signed by signed.
#[must_use]
pub fn max_depth(a: Codes<'_>, a_zero: &[i32], b: Codes<'_>, b_zero: &[i32]) -> usize {
    let product = (a.reach(a_zero) * b.reach(b_zero)).max(1);
    usize::try_from(u64::from(i32::MAX.unsigned_abs()) / product).unwrap_or(usize::MAX)
}

/// Multiplies A (`[m, k]`) by packed weights (`[k, n]`) into a target of `m * n`
/// elements, on the rayon pool it is called in where there is enough to do.
///
/// Ends early, with a useless result, once `stop` is set.
///
/// # Panics
/// When the lengths do not fit one another.
pub fn multiply(a: &PackedLhs<'_>, b: &PackedRhs, output: Output<'_>, stop: &AtomicBool) {
    schedule::run(a, b, output, stop);
}

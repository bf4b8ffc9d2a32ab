//! Registers of an instruction set, and what is done with them.
//!
//! A loop that the compiler does not vectorize well by itself is written once, for any
//! [`Simd`], and compiled for each instruction set by [`Isa::vectorize`](super::Isa::vectorize). A value of
//! such a type can only be had where the machine has its instructions: that makes arithmetic and
//! loads from slices safe.
//!
//! Four registers of 32-bit lanes are a block: what they are narrowed to fills one register of bytes.
//!
//! An instruction set is one file here and one row of the table in [`isa`](super::isa).
#![expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a token proves that the machine has the instructions; slices have the length that is read or written"
)]

use super::isa::Op;

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod dot;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

#[cfg(target_arch = "aarch64")]
pub(super) use dot::NeonDot;
#[cfg(target_arch = "x86_64")]
pub(super) use dot::{Avx2Words, Avx512Vnni, Avx512Words, AvxVnni};
pub(super) use dot::{Dot, Lanes, ProductOp};

/// A loop over registers. `run` and all that it calls must be `#[inline(always)]`, or they are
/// compiled for the baseline; what is seldom needed goes through [`Simd::apart`].
pub(super) trait VectorOp {
    /// What the loop gives.
    type Output;
    /// The loop.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Registers of 32-bit lanes and what is done with them, lane by lane. Methods without a type in their
/// name are those of f32, and round as IEEE 754 says.
pub(super) trait Simd: Copy {
    /// `LANES` numbers.
    type F32: Copy;
    /// `LANES` integers.
    type I32: Copy;
    /// `LANES / 2` numbers.
    type F64: Copy;
    /// What was found of each lane.
    type Mask: Copy;
    /// A block of 16-bit integers, in an order of its own.
    type Words: Copy;
    /// A block of bytes.
    type U8: Copy;

    /// Lanes of a register, a divisor of 16.
    const LANES: usize;
    /// Elements of a block, and bytes of a register.
    const BLOCK: usize = 4 * Self::LANES;
    /// How many registers there are.
    const REGISTERS: usize;

    /// Runs a loop that the compiler vectorizes, outside of the caller: what is seldom needed.
    fn apart<O: Op>(self, op: O) -> O::Output;

    fn splat(self, of: f32) -> Self::F32;
    /// The first `LANES` elements.
    ///
    /// # Panics
    /// As all loads and stores, when there are fewer.
    fn load(self, from: &[f32]) -> Self::F32;
    /// As many elements as there are, 1 to `LANES`, and the first of them in the other lanes.
    fn load_some(self, from: &[f32]) -> Self::F32;
    fn store(self, to: &mut [f32], x: Self::F32);
    /// Past the caches where `to` is aligned to a register.
    fn store_past(self, to: &mut [f32], x: Self::F32);

    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a < b ? a : b`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a > b ? a : b`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn abs(self, x: Self::F32) -> Self::F32;
    /// `magnitude`, which is positive, with the sign of `sign`.
    fn copysign(self, magnitude: Self::F32, sign: Self::F32) -> Self::F32;
    /// The largest magnitude in each lane, of numbers that are not NaN.
    #[inline(always)]
    fn max_magnitude(self, [a, b, c, d]: [Self::F32; 4]) -> Self::F32 {
        let [a, b, c, d] = [self.abs(a), self.abs(b), self.abs(c), self.abs(d)];
        self.max(self.max(a, b), self.max(c, d))
    }
    /// The smallest lane, of numbers that are not NaN.
    fn reduce_min(self, x: Self::F32) -> f32;
    /// The largest lane, of numbers that are not NaN.
    fn reduce_max(self, x: Self::F32) -> f32;

    /// Whether `a < b`.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether `a == b`.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether not `a == b`.
    fn ne(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether not `a <= b`.
    fn not_le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether `a` or `b` is NaN.
    fn unordered(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    fn or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    fn any(self, mask: Self::Mask) -> bool;
    /// One bit an element of a block.
    fn bits(self, masks: [Self::Mask; 4]) -> u64;
    /// `x` where `mask` holds, else 0.
    fn keep(self, mask: Self::Mask, x: Self::F32) -> Self::F32;
    /// `x` where `mask` does not hold, else 0.
    fn clear(self, mask: Self::Mask, x: Self::F32) -> Self::F32;

    fn splat_i32(self, of: i32) -> Self::I32;
    fn load_i32(self, from: &[i32]) -> Self::I32;
    fn store_i32(self, to: &mut [i32], x: Self::I32);
    /// The first `4 * LANES` bytes, as they lie.
    fn load_bytes(self, from: &[u8]) -> Self::I32;
    /// The first `LANES` codes of one byte.
    fn load_codes<const SIGNED: bool>(self, from: &[u8]) -> Self::I32;
    /// The nearest numbers.
    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// The nearest integers, the even one of two. What fits no i32 becomes something whose lower 16
    /// bits are 0.
    fn round(self, x: Self::F32) -> Self::I32;
    /// The bits of numbers.
    fn as_i32(self, x: Self::F32) -> Self::I32;
    /// The numbers of bits.
    fn as_f32(self, x: Self::I32) -> Self::F32;
    /// Modulo 2^32.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Modulo 2^32.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Modulo 2^32.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * 2^by` modulo 2^32, `by` being 0 to 31.
    fn shl_i32(self, a: Self::I32, by: Self::I32) -> Self::I32;
    /// `a / 2^by` rounded down, `by` being 0 to 31.
    fn shr_i32(self, a: Self::I32, by: Self::I32) -> Self::I32;
    /// Whether `a == b`.
    fn eq_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;
    /// Whether `a > b`.
    fn gt_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;
    /// `a` where `mask` holds, else `b`.
    fn select_i32(self, mask: Self::Mask, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `(a * b + 2^30) / 2^31` rounded down, but for `a` and `b` of -2^31.
    fn mul_high(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `(a * b + 2^(by - 1)) / 2^by` rounded down, `by` being 1 to 62, limited to `ends`, which fit 32 bits.
    fn mul_shift(self, a: Self::I32, b: Self::I32, by: Self::I32, ends: [i64; 2]) -> Self::I32;
    /// The low and the high halves of all bytes, as bytes.
    fn nibbles(self, x: Self::I32) -> [Self::I32; 2];
    /// The low byte of each lane.
    fn store_low_bytes(self, to: &mut [u8], x: Self::I32);
    /// Whether none of the bits of `mask` is set.
    fn test_none(self, x: Self::I32, mask: i32) -> Self::Mask;
    /// One bit a lane: whether in that of one of the four none of the bits of `mask` is set: the upper ones of the
    /// lower 16, down to some bit.
    fn low_halves_without(self, x: [Self::I32; 4], mask: i32) -> u32;

    /// Limited to i16.
    fn words(self, x: [Self::I32; 4]) -> Self::Words;
    /// Whether one of the words, taken as u16, is above `limit`.
    fn any_above(self, words: Self::Words, limit: u16) -> bool;
    /// The words, limited to u8.
    fn bytes(self, words: Self::Words) -> Self::U8;
    /// The upper 16 bits, limited to i8 or to u8.
    fn high_halves<const SIGNED: bool>(self, x: [Self::I32; 4]) -> Self::U8;

    fn splat_u8(self, of: u8) -> Self::U8;
    fn load_u8(self, from: &[u8]) -> Self::U8;
    fn store_u8(self, to: &mut [u8], x: Self::U8);
    /// Past the caches where `to` is aligned to a register.
    fn store_u8_past(self, to: &mut [u8], x: Self::U8);
    /// Modulo 2^8.
    fn add_u8(self, a: Self::U8, b: Self::U8) -> Self::U8;
    fn min_u8(self, a: Self::U8, b: Self::U8) -> Self::U8;
    /// One bit an element: whether both are equal.
    fn bits_eq_u8(self, a: Self::U8, b: Self::U8) -> u64;

    fn splat_f64(self, of: f64) -> Self::F64;
    fn load_f64(self, from: &[f64]) -> Self::F64;
    fn store_f64(self, to: &mut [f64], x: Self::F64);
    /// The first `LANES / 2` elements.
    fn load_wide(self, from: &[f32]) -> Self::F64;
    fn widen(self, x: Self::F32) -> [Self::F64; 2];
    fn widen_i32(self, x: Self::I32) -> [Self::F64; 2];
    /// The nearest integers, the even one of two, of numbers that fit.
    fn round_f64(self, x: [Self::F64; 2]) -> Self::I32;
    fn add_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    fn sub_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    fn mul_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `a * b + c`, rounded once.
    fn mul_add_f64(self, a: Self::F64, b: Self::F64, c: Self::F64) -> Self::F64;
    /// `a < b ? a : b`.
    fn min_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `a > b ? a : b`.
    fn max_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// The larger magnitude, of numbers that are not NaN.
    fn max_magnitude_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `x` in the lanes whose bits are set, else 0.
    fn keep_f64(self, bits: u8, x: Self::F64) -> Self::F64;

    /// Waits for stores past the caches.
    fn fence(self);
}

/// Each of four. Closures over registers are to be `#[inline(always)]` as well.
#[inline(always)]
pub(super) fn each<T: Copy, U>([a, b, c, d]: [T; 4], mut f: impl FnMut(T) -> U) -> [U; 4] {
    // `map` of arrays is no function that is always inlined.
    [f(a), f(b), f(c), f(d)]
}

/// Methods that use registers and nothing else.
macro_rules! registers {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty { $body:expr })*) => { $(
        $(#[$doc])*
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $result {
            // SAFETY: the token proves that the machine has the instructions; only registers are used.
            unsafe { $body }
        }
    )* };
}

/// Methods that read the first `$len` elements of a slice, or write them.
macro_rules! slices {
    ($(fn $name:ident($slice:ident: $of:ty, $len:expr $(, $arg:ident: $type:ty)?) $(-> $result:ty)? { $body:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $slice: $of $(, $arg: $type)?) $(-> $result)? {
            assert!($slice.len() >= $len, "a register is within its slice");
            // SAFETY: the token proves that the machine has the instructions; the slice has the elements.
            unsafe { $body }
        }
    )* };
}

use {registers, slices};

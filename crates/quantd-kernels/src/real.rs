//! The two compute types.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, Div, Mul, Neg, Sub};

use bytemuck::Pod;

/// f32 or f64: the type in which a tensor is quantized.
pub trait Real:
    Pod
    + PartialOrd
    + Debug
    + Default
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Sum
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// One half.
    const HALF: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Smallest positive normal number.
    const TINY: Self;
    /// Distance from 1 to the next larger number.
    const EPSILON: Self;
    /// Bits of the type.
    const BITS: u32;

    /// Nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The same value in f64 (exact).
    fn to_f64(self) -> f64;
    /// Nearest value; exact for every code and zero point (17 bits).
    fn from_i32(x: i32) -> Self;
    /// Magnitude.
    fn abs(self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Not a number.
    fn is_nan(self) -> bool;
    /// Integer nearest to `self`, ties to even, for `|self| < 2^21`: adding
    /// 1.5 * 2^p (p the number of mantissa bits) leaves the integer in the low
    /// bits. Unlike `round_ties_even` this needs no instruction beyond an add
    /// and therefore vectorizes on every x86-64.
    fn round_even(self) -> i32;
    /// Integer part; the nearest i32 where that is none, 0 for NaN.
    fn truncate(self) -> i32;
    /// A key whose unsigned order is the order of the numbers, `-0.0` just
    /// below `0.0`. Keys of f32 use the low 32 bits.
    fn order_key(self) -> u64;
    /// The number of that [`order_key`](Self::order_key).
    fn from_order_key(key: u64) -> Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const HALF: Self = 0.5;
    const INFINITY: Self = Self::INFINITY;
    const TINY: Self = Self::MIN_POSITIVE;
    const EPSILON: Self = Self::EPSILON;
    const BITS: u32 = 32;

    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_i32(x: i32) -> Self {
        x as Self
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[inline(always)]
    fn round_even(self) -> i32 {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23
        (self + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()).cast_signed()
    }
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "saturation is what is asked for")]
    fn truncate(self) -> i32 {
        self as i32
    }
    #[inline(always)]
    fn order_key(self) -> u64 {
        let bits = self.to_bits();
        u64::from(if bits >> 31 == 1 { !bits } else { bits | 1 << 31 })
    }
    #[expect(clippy::cast_possible_truncation, reason = "keys of f32 have 32 bits")]
    #[inline(always)]
    fn from_order_key(key: u64) -> Self {
        let key = key as u32;
        Self::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const HALF: Self = 0.5;
    const INFINITY: Self = Self::INFINITY;
    const TINY: Self = Self::MIN_POSITIVE;
    const EPSILON: Self = Self::EPSILON;
    const BITS: u32 = 64;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_i32(x: i32) -> Self {
        Self::from(x)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[expect(clippy::cast_possible_truncation, reason = "the integer is in the low bits")]
    #[inline(always)]
    fn round_even(self) -> i32 {
        const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
        (self + MAGIC).to_bits() as i32
    }
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "saturation is what is asked for")]
    fn truncate(self) -> i32 {
        self as i32
    }
    #[inline(always)]
    fn order_key(self) -> u64 {
        let bits = self.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
    }
    #[inline(always)]
    fn from_order_key(key: u64) -> Self {
        Self::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_to_even() {
        for i in -4_000_000..4_000_000_i32 {
            let x = f64::from(i) / 8.0;
            let expect = x.round_ties_even() + 0.0;
            assert_eq!(f64::from(x.round_even()).to_bits(), expect.to_bits(), "{x}");
            assert_eq!(f64::from(f32::from_f64(x).round_even()).to_bits(), expect.to_bits(), "{x}");
        }
    }

    #[test]
    fn order_keys_are_ordered_and_reversible() {
        let numbers =
            [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::INFINITY];
        for pair in numbers.windows(2) {
            assert!(pair[0].order_key() < pair[1].order_key(), "{pair:?}");
            assert!(f64::from(pair[0]).order_key() < f64::from(pair[1]).order_key(), "{pair:?}");
        }
        for x in numbers {
            assert_eq!(f32::from_order_key(x.order_key()).to_bits(), x.to_bits());
            let x = f64::from(x);
            assert_eq!(f64::from_order_key(x.order_key()).to_bits(), x.to_bits());
        }
    }
}

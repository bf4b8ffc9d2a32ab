//! What blocks are of.

use quantd_kernels::minifloat::MiniFloat;

/// What blocks are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Floats.
    Float(MiniFloat),
    /// Integers of 8 bits, of which 64 steps are one: `MXINT8`.
    Int8,
}

impl Element {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Float(float) => float.bits(),
            Self::Int8 => 8,
        }
    }

    /// Bits behind the leading one.
    pub(super) fn mantissa_bits(self) -> i32 {
        match self {
            Self::Float(float) => float.mantissa_bits.cast_signed(),
            Self::Int8 => 6,
        }
    }

    pub(super) fn largest(self) -> f64 {
        match self {
            Self::Float(float) => float.largest().into(),
            Self::Int8 => 127.0 / 64.0,
        }
    }

    /// Exponent of the power of two at or below the largest number.
    pub(super) fn largest_exponent(self) -> i32 {
        match self {
            Self::Float(float) => float.largest_exponent(),
            Self::Int8 => 0,
        }
    }

    /// Steps of a code that are one.
    pub(super) const fn steps(self) -> f32 {
        match self {
            Self::Float(_) => 1.0,
            Self::Int8 => 64.0,
        }
    }
}

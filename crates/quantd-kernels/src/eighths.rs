//! Floats of eight bits as elements that are computed with.

use bytemuck::{Pod, Zeroable};

use super::convert::ToF32;
use super::minifloat::MiniFloat;

/// An element of eight bits: its pattern.
macro_rules! eighths {
    ($($(#[$doc:meta])* $name:ident = $float:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub u8);

        impl ToF32 for $name {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                MiniFloat::$float.value(self.0.into())
            }
        }
    )*};
}

eighths! {
    /// `float8_e4m3fn`.
    F8E4M3 = E4M3;
    /// `float8_e5m2`.
    F8E5M2 = E5M2;
    /// `float8_e4m3fnuz`.
    F8E4M3Fnuz = E4M3_FNUZ;
    /// `float8_e5m2fnuz`.
    F8E5M2Fnuz = E5M2_FNUZ;
}

/// `float8_e8m0fnu`: `2^(pattern - 127)`, 255 being NaN (OCP Microscaling formats 1.0, 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct F8E8M0(pub u8);

impl F8E8M0 {
    /// The pattern of NaN.
    pub const NAN: Self = Self(255);
}

impl ToF32 for F8E8M0 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        match self {
            Self::NAN => f32::NAN,
            // Below the smallest normal number.
            Self(0) => f32::MIN_POSITIVE / 2.0,
            Self(pattern) => f32::from_bits(u32::from(pattern) << 23),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for (pattern, expect) in
            [(0, 2.0_f32.powi(-127)), (1, 2.0_f32.powi(-126)), (127, 1.0), (254, 2.0_f32.powi(127))]
        {
            assert_eq!(F8E8M0(pattern).to_f32().to_bits(), f32::to_bits(expect));
        }
        assert!(F8E8M0(255).to_f32().is_nan());
    }
}

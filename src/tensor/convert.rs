//! Elements as f32, the type that all but `F64` are computed in.

use bytemuck::Pod;
use half::{bf16, f16};

/// An element that is computed in f32. Loops over it vectorize.
pub trait ToF32: Pod + Send + Sync {
    /// The nearest f32: the same number for all but integers of more than 24 bits.
    fn to_f32(self) -> f32;
}

impl ToF32 for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        /// Exponents count from 127 and not from 15.
        const SHIFT: f32 = f32::from_bits((127 + 127 - 15) << 23);
        /// All bits of an exponent, there and here.
        const ALL: [u32; 2] = [0x1f << 23, 0xff << 23];
        let bits = u32::from(self.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        // Which is right for subnormal numbers as well: they become normal ones.
        let number = f32::from_bits(magnitude) * SHIFT;
        let odd = if magnitude >= ALL[0] { ALL[1] } else { 0 };
        f32::from_bits(number.to_bits() | odd | sign)
    }
}

impl ToF32 for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

macro_rules! integers {
    ($($t:ty)*; $to_f32:expr) => {$(impl ToF32 for $t {
        #[inline(always)]
        fn to_f32(self) -> f32 { $to_f32(self) }
    })*};
}
integers!(i16 i8 u16 u8; f32::from);
integers!(i64 i32 u64 u32; |x| x as f32);

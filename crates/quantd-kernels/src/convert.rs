//! Elements of other types in f32. The loop needs no instruction beyond shifts, conversions and a product, so that it
//! vectorizes for every instruction set; halves are converted a second time for less than it takes to write them down.

use bytemuck::Pod;
use half::{bf16, f16};

use super::Isa;
use super::cache::{LINE, prefetch};
use super::isa::Op;

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

impl Isa {
    /// Writes each element to `to`, as many as there are in both.
    pub fn convert<E: ToF32>(self, from: &[E], to: &mut [f32]) {
        self.run(Convert { from, to });
    }
}

/// Elements that are converted between two times that those ahead are asked for.
const STEP: usize = 64;
/// Bytes between what is read and what is asked for.
const AHEAD: usize = 4096;

struct Convert<'a, E> {
    from: &'a [E],
    to: &'a mut [f32],
}

impl<E: ToF32> Op for Convert<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.chunks_mut(STEP).zip(self.from.chunks(STEP)) {
            for line in (0..size_of_val(from)).step_by(LINE) {
                prefetch::<false>(from.as_ptr().cast::<u8>().wrapping_add(AHEAD + line));
            }
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::real::Real;

    fn check<E: ToF32>(from: &[E], expect: impl Fn(&E) -> f32) {
        let expect: Vec<f32> = from.iter().map(expect).collect();
        for isa in Isa::available() {
            for start in [0, 1, 17] {
                let (from, expect) = (&from[start..], &expect[start..]);
                let mut to = vec![0.5; from.len()];
                isa.convert(from, &mut to);
                let is_same =
                    |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(to.iter().zip(expect).all(is_same), "{} from {start}", isa.name());
            }
        }
    }

    #[test]
    fn every_half_becomes_its_number() {
        check(&(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>(), |x| x.to_f32());
        check(&(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>(), |x| x.to_f32());
    }

    #[test]
    fn integers_become_the_nearest_number() {
        let integers: Vec<i64> = (0..300).map(|i| (i64::MAX >> (i % 63)) - 7 * i).collect();
        // Of two as near, the even one: f64 holds what is between.
        let small: Vec<i32> =
            integers.iter().map(|x| i32::try_from(x % (1 << 31)).unwrap()).collect();
        check(&small, |&x| <f32 as Real>::from_f64(f64::from(x)));
        check(&(0..=u8::MAX).collect::<Vec<_>>(), |&x| f32::from(x));
        check(&[16_777_217_i64; 40], |_| 16_777_216.0);
        check(&[u64::MAX; 40], |_| 18_446_744_073_709_551_616.0);
    }
}

//! How many elements lie in each of many bins, and their sum.
//!
//! An element x becomes x * scale, whose nearest integer is its bin; the rest,
//! in units of [`UNIT`], is added to the sum of the bin. So a bin knows its
//! number of elements and their mean, the latter within half a unit and the
//! rounding of the product. Both are kept in one number, to be updated at once.
//!
//! As in [`histogram`](super::histogram), a run of elements first becomes a run
//! of numbers, by arithmetic that vectorizes, and neighbours are counted in
//! different tables. A run is short enough for the processor to begin with the
//! arithmetic of the next while it counts.

use super::Isa;
use super::isa::Op;
use super::real::Real;

/// Bins of a slice, at most.
pub const BINS: usize = 1 << 15;
/// Units of a bin. An offset is between -1/2 and 1/2 of a bin.
pub const UNITS: i32 = 1 << 14;
/// What offsets are multiples of; the width of a bin is 1.
pub const UNIT: f64 = 1.0 / UNITS as f64;
/// Elements of one call, at most: offsets of up to 2^14 then have a sum below 2^39.
pub const MOST: usize = (1 << 25) - 1;

/// Elements whose numbers are found at a time.
const RUN: usize = 128;
/// A number has the bin in its upper 16 bits, and half a bin and the offset in the lower ones.
const HALF_BIN: i32 = UNITS / 2;
/// Bins that 16 bits tell apart.
const SLOTS: usize = 1 << 16;
/// The number of what is not finite, in the last of them.
const NOT_FINITE: u32 = 0xffff << 16;
/// One element in an entry, whose lower bits are the sum.
const ONE: u64 = 1 << 39;

/// Bins about the multiples of 1 / scale.
#[derive(Clone, Copy, Debug)]
pub struct Bins<T> {
    scale: T,
    first: i32,
}

impl<T: Real> Bins<T> {
    /// Bins for elements between `min` and `max`, or none where the difference
    /// is so small or large that a scale or a square might not be a normal number.
    #[must_use]
    pub fn new(min: T, max: T) -> Option<Self> {
        let width = max.to_f64() - min.to_f64();
        if !(1e-30..=1e100).contains(&width) {
            return None;
        }
        // Both ends may round away from one another.
        let scale = T::from_f64((BINS - 2) as f64 / width);
        Some(Self { scale, first: (min * scale).round_even() })
    }

    /// Bins per 1.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale.to_f64()
    }

    /// The middle of the first bin.
    #[must_use]
    pub fn first(&self) -> i32 {
        self.first
    }

    #[inline(always)]
    fn number(&self, x: T) -> u32 {
        let scaled = x * self.scale;
        let bin = scaled.round_even();
        // The difference is exact, and so is its product with a power of two.
        let offset = ((scaled - T::from_i32(bin)) * T::from_i32(UNITS)).round_even();
        let bin = bin.wrapping_sub(self.first).wrapping_shl(16);
        let number = bin.wrapping_add(offset).wrapping_add(HALF_BIN).cast_unsigned();
        if x.is_finite() { number } else { NOT_FINITE }
    }
}

/// Counts and sums while elements are added.
struct Table([Vec<u64>; 2]);

/// Elements of each bin and the sum of their offsets, in units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moments {
    /// Elements.
    pub counts: Vec<u64>,
    /// Their distances from the middle of the bin, added up.
    pub offsets: Vec<i64>,
}

impl Default for Moments {
    fn default() -> Self {
        Self { counts: vec![0; BINS], offsets: vec![0; BINS] }
    }
}

impl Moments {
    /// Those of both.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, other)| *own += other);
        self.offsets.iter_mut().zip(&other.offsets).for_each(|(own, other)| *own += other);
        self
    }

    fn from(table: &Table) -> Self {
        let [a, b] = &table.0;
        let entries = || a.iter().zip(b).take(BINS);
        let sum = |entry: u64| (entry % ONE).cast_signed();
        let half_bins = |entry: u64| (entry / ONE).cast_signed() * i64::from(HALF_BIN);
        let offsets = |entry| sum(entry) - half_bins(entry);
        Self {
            counts: entries().map(|(a, b)| a / ONE + b / ONE).collect(),
            offsets: entries().map(|(&a, &b)| offsets(a) + offsets(b)).collect(),
        }
    }
}

impl Isa {
    /// The moments of the finite elements of `x`, of which there are at most
    /// [`MOST`], all between the ends of `bins`.
    #[must_use]
    pub fn moments<T: Real>(self, x: &[T], bins: &Bins<T>) -> Moments {
        debug_assert!(x.len() <= MOST);
        let mut table = Table([vec![0; SLOTS], vec![0; SLOTS]]);
        self.run(Add { x, bins, table: &mut table });
        Moments::from(&table)
    }
}

struct Add<'a, T> {
    x: &'a [T],
    bins: &'a Bins<T>,
    table: &'a mut Table,
}

impl<T: Real> Op for Add<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let bins = *self.bins;
        let [a, b] = &mut self.table.0;
        // No number then needs a look at its bounds.
        let (Some(a), Some(b)) = (a.first_chunk_mut::<SLOTS>(), b.first_chunk_mut::<SLOTS>())
        else {
            return;
        };
        let add = |slots: &mut [u64; SLOTS], number: u32| {
            slots[(number >> 16) as usize] += ONE + u64::from(number & 0xffff);
        };
        let mut numbers = [0_u32; RUN];
        let (runs, rest) = self.x.as_chunks::<RUN>();
        for run in runs {
            for (number, &x) in numbers.iter_mut().zip(run) {
                *number = bins.number(x);
            }
            for pair in numbers.as_chunks::<2>().0 {
                add(a, pair[0]);
                add(b, pair[1]);
            }
        }
        for &x in rest {
            add(a, bins.number(x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "integers within the bins"
    )]
    #[test]
    fn moments_are_those_of_each_bin() {
        let x: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 4001) as f32 / 700.0 - 1.0).collect();
        let bins = Bins::new(-1.0, 5.0).unwrap();
        let mut expect = Moments::default();
        for &x in &x {
            let scaled = f64::from(x * bins.scale);
            let bin = scaled.round_ties_even();
            let i = (bin - f64::from(bins.first)) as usize;
            expect.counts[i] += 1;
            expect.offsets[i] += ((scaled - bin) / UNIT).round_ties_even() as i64;
        }
        let not_finite = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for isa in Isa::available() {
            let (front, back) = x.split_at(3001);
            let front = [&not_finite, front].concat();
            let found = isa.moments(&front, &bins).join(&isa.moments(back, &bins));
            assert!(found == expect, "{}", isa.name());
        }
    }

    #[test]
    fn both_ends_have_bins() {
        for [min, max] in [[-1.0_f32, 1.0], [0.0, 3.0], [-7.3, 0.0], [-1e-9, 1.7e-9], [-1e30, 1e38]]
        {
            let bins = Bins::new(min, max).unwrap();
            let counts = Isa::best().moments(&[min, max], &bins).counts;
            assert_eq!(counts.iter().sum::<u64>(), 2, "{min} {max}");
        }
        assert!(Bins::new(0.0_f32, 0.0).is_none() && Bins::new(f64::MIN, f64::MAX).is_none());
    }
}

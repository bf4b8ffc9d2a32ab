//! How many elements lie in each of many bins, and their sum.
//!
//! An element x becomes x * scale, whose nearest integer is its bin; the rest,
//! in units of [`UNIT`], is added to the sum of the bin. So a bin knows its
//! number of elements and their mean, the latter within half a unit and the
//! rounding of the product. Both are kept in one number, to be updated at once.
//!
//! As in [`histogram`](super::histogram), a run of elements first becomes a run
//! of numbers, by arithmetic that vectorizes. It is short enough for the processor
//! to begin with the arithmetic of the next while it counts. Elements are asked for
//! ahead of time: between the accesses to the table, which are anywhere, the
//! processor does not notice that they follow one another, and one in sixteen would
//! wait for memory. Two tables would be twice as much to keep in the cache, but where
//! few bins have most elements, neighbours are counted in different ones: an entry that
//! was just written takes several cycles to be read again.

use super::Isa;
use super::cache::{LINE, prefetch};
use super::isa::Op;
use super::real::Real;

/// Bins of a slice, at most.
pub const BINS: usize = 1 << 15;
/// Units of a bin. An offset is between -1/2 and 1/2 of a bin.
pub const UNITS: i32 = 1 << 14;
/// What offsets are multiples of; the width of a bin is 1.
pub const UNIT: f64 = 1.0 / UNITS as f64;
/// Elements of one call, at most.
pub const LONGEST: usize = 1 << 20;
/// Elements of a table, at most: lower bits of up to 2^14 then have a sum below
/// [`ONE`], and so many times 2^39 + 2^32 are below 2^64.
const MOST: usize = (1 << 25) - (1 << 20);

/// Elements whose numbers are found at a time.
const RUN: usize = 128;
/// How many elements ahead memory is asked for.
const AHEAD: usize = 1024;
/// A number has the bin in its upper 16 bits, and half a bin and the offset in the lower ones.
const HALF_BIN: i32 = UNITS / 2;
/// Bins that 16 bits tell apart.
const SLOTS: usize = 1 << 16;
/// The number of what is not finite, in the last of them.
const NOT_FINITE: u32 = 0xffff << 16;
/// How far apart elements of one bin count as neighbours.
const NEAR: usize = 4;
/// One pair of neighbours in so many is of one bin where there are two tables.
const CLUMPED: usize = 32;
/// An entry is the sum of the numbers of its elements and of this for each: the upper
/// bits of the numbers of a bin are the same, and need not be taken off.
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

    fn of(tables: &[Vec<u64>; 2]) -> Self {
        let [a, b] = tables;
        let (mut counts, mut offsets) = (Vec::with_capacity(BINS), Vec::with_capacity(BINS));
        for ((&a, &b), bin) in a.iter().zip(b).take(BINS).zip(0..) {
            // An entry is a multiple of this, and less than that above.
            let each = ONE + (bin << 16);
            let count = a / each + b / each;
            let sum = (a % each + b % each).cast_signed();
            counts.push(count);
            offsets.push(sum - count.cast_signed() * i64::from(HALF_BIN));
        }
        Self { counts, offsets }
    }
}

/// Moments while elements are added, piece by piece.
#[derive(Debug, Default)]
pub struct Tally {
    /// Empty until they are needed.
    tables: [Vec<u64>; 2],
    /// Elements in them.
    added: usize,
    /// Of the elements of tables before.
    before: Option<Moments>,
}

impl Tally {
    /// The moments of all that was added, if anything was.
    #[must_use]
    pub fn finish(mut self) -> Option<Moments> {
        self.empty();
        self.before
    }

    /// Leaves no elements in the tables.
    fn empty(&mut self) {
        if self.added > 0 {
            let moments = Moments::of(&std::mem::take(&mut self.tables));
            self.before = Some(match self.before.take() {
                Some(before) => before.join(&moments),
                None => moments,
            });
            self.added = 0;
        }
    }
}

impl Isa {
    /// Adds the finite elements of `x`, all between the ends of `bins`.
    ///
    /// # Panics
    /// When they are more than [`LONGEST`].
    pub fn tally<T: Real>(self, x: &[T], bins: &Bins<T>, tally: &mut Tally) {
        assert!(x.len() <= LONGEST, "a piece of {} elements", x.len());
        if tally.added + x.len() > MOST {
            tally.empty();
        }
        if tally.added == 0 {
            tally.tables = [vec![0; SLOTS], vec![0; SLOTS]];
        }
        tally.added += x.len();
        self.run(Add { x, bins, tables: &mut tally.tables });
    }
}

/// Whether neighbours often are of the same bin.
fn clumped(numbers: &[u32; RUN]) -> bool {
    let pairs = |step| numbers.iter().zip(&numbers[step..]);
    let same = |step| pairs(step).filter(|(a, b)| *a >> 16 == *b >> 16).count();
    (1..=NEAR).map(same).sum::<usize>() * CLUMPED >= RUN * NEAR
}

struct Add<'a, T> {
    x: &'a [T],
    bins: &'a Bins<T>,
    tables: &'a mut [Vec<u64>; 2],
}

impl<T: Real> Op for Add<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let bins = *self.bins;
        let [a, b] = self.tables;
        // No number then needs a look at its bounds.
        let (Some(a), Some(b)) = (a.first_chunk_mut::<SLOTS>(), b.first_chunk_mut::<SLOTS>())
        else {
            return;
        };
        let add = |slots: &mut [u64; SLOTS], number: u32| {
            slots[(number >> 16) as usize] += ONE + u64::from(number);
        };
        let mut numbers = [0_u32; RUN];
        let mut in_both = None;
        let (runs, rest) = self.x.as_chunks::<RUN>();
        for run in runs {
            let ahead = run.as_ptr().wrapping_add(AHEAD).cast::<u8>();
            for line in 0..size_of::<[T; RUN]>() / LINE {
                prefetch::<false>(ahead.wrapping_add(line * LINE));
            }
            for (number, &x) in numbers.iter_mut().zip(run) {
                *number = bins.number(x);
            }
            // The first run tells for all.
            if *in_both.get_or_insert_with(|| clumped(&numbers)) {
                for [first, second] in numbers.as_chunks::<2>().0 {
                    add(a, *first);
                    add(b, *second);
                }
            } else {
                for &number in &numbers {
                    add(a, number);
                }
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
        let x = (0..5000).map(|i| ((i * 7919) % 4001) as f32 / 700.0 - 1.0);
        // Many of the later ones are zeros, which are counted in two tables.
        let x: Vec<f32> =
            x.enumerate().map(|(i, x)| if i > 3000 && i % 3 == 0 { 0.0 } else { x }).collect();
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
            let (mut one, mut other) = (Tally::default(), Tally::default());
            isa.tally(&front[..1500], &bins, &mut one);
            isa.tally(back, &bins, &mut other);
            isa.tally(&front[1500..], &bins, &mut one);
            let found = one.finish().unwrap().join(&other.finish().unwrap());
            assert!(found == expect, "{}", isa.name());
        }
    }

    /// The largest numbers there are, as many as a table may hold, and more.
    #[test]
    fn full_tables_are_emptied() {
        let bins = Bins::new(-1.0_f32, 0.5).unwrap();
        let top = f32::from_f64(0.5 + 0.4999 / bins.scale());
        let piece = vec![top; LONGEST];
        let (mut one, mut many) = (Tally::default(), Tally::default());
        Isa::best().tally(&piece, &bins, &mut one);
        let one = one.finish().unwrap();
        let pieces = MOST / LONGEST + 2;
        for _ in 0..pieces {
            Isa::best().tally(&piece, &bins, &mut many);
        }
        let many = many.finish().unwrap();
        let times = |count: u64| count * pieces as u64;
        assert_eq!(many.counts, one.counts.into_iter().map(times).collect::<Vec<_>>());
        let times = |sum: i64| sum * pieces as i64;
        assert_eq!(many.offsets, one.offsets.into_iter().map(times).collect::<Vec<_>>());
        assert!(Tally::default().finish().is_none());
    }

    #[test]
    fn both_ends_have_bins() {
        for [min, max] in [[-1.0_f32, 1.0], [0.0, 3.0], [-7.3, 0.0], [-1e-9, 1.7e-9], [-1e30, 1e38]]
        {
            let bins = Bins::new(min, max).unwrap();
            let mut tally = Tally::default();
            Isa::best().tally(&[min, max], &bins, &mut tally);
            let counts = tally.finish().unwrap().counts;
            assert_eq!(counts.iter().sum::<u64>(), 2, "{min} {max}");
        }
        assert!(Bins::new(0.0_f32, 0.0).is_none() && Bins::new(f64::MIN, f64::MAX).is_none());
    }
}

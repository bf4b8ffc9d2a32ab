//! Bounds of the error of every candidate, from one pass over a slice.
//!
//! The pass leaves the number of elements n and the mean m of many narrow bins
//! ([`moments`](quantd_kernels::moments)). In what follows the width of a bin
//! is 1, y is an element in these units as the pass rounded it, and v the value
//! that a candidate restores it as.
//!
//! 1. A bin all of whose elements have the same v contributes
//!    sum (y - v)^2 = n (m - v)^2 + sum (y - m)^2. The last sum is at most n / 4
//!    and, added up over all bins, a number W that all candidates share: W need
//!    not be known, as candidates are compared with one another only.
//! 2. Bins around the middle of two values v and v + d, where the code changes,
//!    are taken together. Let t be the distance of y from that middle. Their sum
//!    is n d^2 / 4 + sum t^2 - d sum ±t, with + for elements that have the upper
//!    code, and the sum of ±t lies between |sum t| and the chord of |t| over the
//!    bins (|t| is convex). With |sum t| it is the sum of the bins with the
//!    better of both codes, hence that is an upper bound, and the other one is
//!    d n (chord - |mean t|) lower. The rounding of the quantizer and of y may
//!    make a wrong sign of |t| <= e: at most 2 d n e more.
//! 3. x, in these units, is y + r. Sum (x - v)^2 is thus within
//!    2 sqrt(sum (y - v)^2 sum r^2) of sum (y - v)^2 + sum r^2, of which the
//!    last sum is common to all again.
//!
//! The first share of elements has bins around a middle: 1 / d of them, where
//! the bounds are d / 4 apart on average; their distance is n / 4, to an error of
//! n d^2 / 12. A range of 256 codes has a d of about 128.
//!
//! Where d is not large beside a bin (16 bits) only the elements that are cut
//! off are told from the others, whose error is between 0 and n d^2 / 4. This
//! needs no look at each code, and so it is also a first sieve of candidates.
//!
//! All sums are exact integers until they are multiplied. What f64 loses
//! afterwards, here and in the exhaustive search itself, widens the bounds.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicUsize};

use rayon::prelude::*;

use super::super::BLOCK;
use super::super::grid::Grid;
use crate::Task;
use crate::params::{Numerics, Range};
use quantd_kernels::moments::{BINS, Bins, Moments, Tally, UNIT, UNITS};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{CodeRange, QuantParams};

/// Shorter slices are searched through sooner than summed up.
pub(super) const LEAST: usize = 1 << 18;
/// Sums of offsets of longer ones might not fit.
const LONGEST: usize = 1 << 31;
/// A thread's share of a slice, at least.
const SHARE: usize = 1 << 19;
/// Bits of codes whose steps are many bins wide.
const FINE: u32 = 8;

/// What the squared error of a candidate lies between, less what is common to
/// all candidates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Bounds {
    const UNKNOWN: Self = Self { least: f64::NEG_INFINITY, most: f64::INFINITY };
}

/// Bytes that a thread works with: its share of the bins, and their sums.
pub(super) const THREAD_BYTES: usize = 5 << 19;

/// The candidates that may have the least error, the most promising first, or
/// none where bounds cannot be had.
pub(super) fn survivors<T: Real>(
    values: &[T],
    whole: Range<T>,
    grid: &Grid<T>,
    numerics: &Numerics,
    task: &Task,
) -> Option<Vec<usize>> {
    let summary = Summary::of(values, whole, task)?;
    let affine = |i: usize| numerics.affine(grid.get(i));
    let codes = numerics.code_range();
    let coarse = (0..grid.len()).map(|i| (i, summary.coarse(affine(i), codes)));
    let coarse: Vec<_> = coarse.collect();
    if coarse.iter().all(|(_, bounds)| bounds.most == f64::INFINITY) {
        return None;
    }
    let kept = sieve(coarse);
    if numerics.bits > FINE {
        return Some(kept);
    }
    let fine = kept.into_par_iter().map(|i| (i, summary.fine(affine(i), codes)));
    Some(sieve(fine.collect()))
}

/// Leaves out what is certainly worse than another one, and sorts the others.
fn sieve(mut bounds: Vec<(usize, Bounds)>) -> Vec<usize> {
    let most = bounds.iter().map(|(_, bounds)| bounds.most).fold(f64::INFINITY, f64::min);
    // What is not a number is kept.
    bounds.retain(|(_, bounds)| bounds.least.partial_cmp(&most) != Some(Ordering::Greater));
    bounds.sort_by(|(i, a), (j, b)| a.most.total_cmp(&b.most).then(i.cmp(j)));
    bounds.into_iter().map(|(i, _)| i).collect()
}

/// A slice in bins, summed up from the first bin on: entry i is about the bins before bin i.
#[derive(Debug)]
pub(super) struct Summary {
    counts: Vec<u64>,
    /// Sums of y, in units.
    sums: Vec<i64>,
    /// Sums of n m^2.
    squares: Vec<f64>,
    /// The middle of bin 0.
    first: i32,
    /// Bins per 1.
    scale: f64,
    /// Upper bound of the sum of the squares of r.
    rounded: f64,
    /// What a sum of the exhaustive search is off at most, relative to itself.
    summation: f64,
}

/// Bins of a summary, taken together.
#[derive(Clone, Copy)]
struct Part {
    count: f64,
    /// Of y.
    sum: f64,
}

/// The error of a candidate while parts are added.
#[derive(Default)]
struct Error {
    /// Above the sum of n m^2: of (v^2 n - 2 v sum y).
    sum: f64,
    /// How far below it may be.
    below: f64,
    /// How far above.
    above: f64,
    /// Magnitudes that were added up, for what f64 loses.
    size: f64,
}

impl Error {
    fn add(&mut self, part: Part, value: f64) {
        self.sum += value * (value * part.count - 2.0 * part.sum);
        self.size += value.abs() * (value.abs() * part.count + 2.0 * part.sum.abs());
    }
}

impl Summary {
    /// One pass over the slice, whose finite elements are within `whole`.
    pub(super) fn of<T: Real>(values: &[T], whole: Range<T>, task: &Task) -> Option<Self> {
        if values.len() > LONGEST {
            return None;
        }
        let bins = Bins::new(whole.min, whole.max)?;
        let isa = task.isa();
        // The other way than the pass for the extent, whose last elements may still be
        // in a cache. Threads take blocks as they come, as each has tables to be added
        // up in the end: as much memory as a small slice.
        let blocks = values.len().div_ceil(BLOCK);
        let taken = AtomicUsize::new(0);
        let next = || {
            let i = blocks.checked_sub(taken.fetch_add(1, atomic::Ordering::Relaxed) + 1)?;
            let rest = &values[i * BLOCK..];
            (!task.is_cancelled()).then(|| &rest[..rest.len().min(BLOCK)])
        };
        let add = |_| {
            let mut tally = Tally::default();
            while let Some(block) = next() {
                isa.tally(block, &bins, &mut tally);
            }
            tally.finish()
        };
        let shares = rayon::current_num_threads().min(values.len().div_ceil(SHARE));
        let moments = (0..shares).into_par_iter().with_max_len(1).filter_map(add);
        let moments = moments.reduce_with(|a, b| a.join(&b))?;
        Some(Self::new(&moments, &bins, values.len()))
    }

    fn new<T: Real>(moments: &Moments, bins: &Bins<T>, elements: usize) -> Self {
        let first = bins.first();
        let (mut counts, mut sums, mut squares) = (vec![0], vec![0], vec![0.0]);
        let (mut count, mut sum, mut square) = (0_u64, 0_i64, 0.0_f64);
        let middles = i64::from(first)..;
        for ((&n, &offset), middle) in moments.counts.iter().zip(&moments.offsets).zip(middles) {
            let s = n.cast_signed() * middle * i64::from(UNITS) + offset;
            (count, sum) = (count + n, sum + s);
            let real = real(s) * UNIT;
            square += if n == 0 { 0.0 } else { real * real / real_count(n) };
            counts.push(count);
            sums.push(sum);
            squares.push(square);
        }
        // |r| is at most half a unit and half the epsilon of x: the square of a
        // sum is at most twice the sum of squares. So is that of x = y + r.
        let (n, epsilon) = (real_count(count), T::EPSILON.to_f64());
        let rounded = n * UNIT * UNIT + epsilon * epsilon * (square + 2.0 * n);
        // Additions into a lane, of lanes, and of blocks, and twice that.
        let additions = BLOCK / 16 + elements / BLOCK + 64;
        let summation = additions as f64 * f64::EPSILON;
        Self { counts, sums, squares, first, scale: bins.scale(), rounded, summation }
    }

    /// Bins per 1: errors are in units of a bin.
    #[cfg(test)]
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    /// Bounds that look at each code.
    pub(super) fn fine<T: Real>(&self, affine: QuantParams<T>, codes: CodeRange) -> Bounds {
        if !self.is_usual(affine, codes) {
            return Bounds::UNKNOWN;
        }
        let mut error = Error::default();
        let (mut begin, mut value) = (0, self.value(affine, codes.min));
        for code in codes.min..codes.max {
            let next = self.value(affine, code + 1);
            let (step, middle) = (next - value, f64::midpoint(value, next));
            let reach = self.reach(affine, code, middle, step);
            let low = self.bin((middle - reach - 0.5).ceil());
            let high = self.bin((middle + reach + 0.5).floor() + 1.0);
            if low < begin {
                // Two changes of codes in one bin.
                return self.coarse(affine, codes);
            }
            error.add(self.part(begin, low), value);
            let part = self.part(low, high);
            if part.count > 0.0 {
                let ends = [low, high].map(|bin| self.edge(bin) - middle);
                let sum = part.sum - part.count * middle;
                error.add(part, if sum > 0.0 { next } else { value });
                error.below +=
                    step * (part.count * chord(ends, sum / part.count) - sum.abs()).max(0.0);
                error.above += 2.0 * step * part.count * reach;
                error.size += step * part.count * (middle.abs() + step);
            }
            (begin, value) = (high, next);
        }
        error.add(self.part(begin, BINS), value);
        self.bounds(&error, self.squares[BINS])
    }

    /// Bounds that only look at what is cut off.
    pub(super) fn coarse<T: Real>(&self, affine: QuantParams<T>, codes: CodeRange) -> Bounds {
        if !self.is_usual(affine, codes) {
            return Bounds::UNKNOWN;
        }
        let (min, max) = (self.value(affine, codes.min), self.value(affine, codes.max));
        let step = (max - min) / f64::from(codes.max - codes.min);
        let reach =
            self.reach(affine, codes.min, min, step).max(self.reach(affine, codes.max, max, step));
        let low = self.bin((min - reach - 0.5).floor() + 1.0);
        let high = self.bin((max + reach + 0.5).ceil()).max(low);
        let mut error = Error::default();
        error.add(self.part(0, low), min);
        error.add(self.part(high, BINS), max);
        let within = self.part(low, high).count;
        // An element may also be one bin beyond the last value.
        let farthest = (step / 2.0).max(1.0) + 2.0 * reach;
        error.below = within / 4.0;
        error.above = within * farthest * farthest;
        self.bounds(&error, self.squares[BINS] - (self.squares[high] - self.squares[low]))
    }

    /// Adds `squares`, the sum of n m^2 that belongs to `error`, and all that is rounded.
    fn bounds(&self, error: &Error, squares: f64) -> Bounds {
        let additions = (BINS + self.counts.len()) as f64;
        let lost = additions * f64::EPSILON * (error.size + 2.0 * self.squares[BINS]);
        let sum = squares + error.sum;
        let spread = real_count(self.counts[BINS]) / 4.0;
        let most = (sum + error.above + spread + lost).max(0.0);
        let moved = 2.0 * (most * self.rounded).sqrt();
        let slack = lost + moved + self.summation * (most + moved + self.rounded);
        Bounds { least: sum - error.below - slack, most: sum + error.above + slack }
    }

    /// Whether the bounds hold: neither values nor the reciprocal of the scale
    /// are subnormal or infinite.
    fn is_usual<T: Real>(&self, affine: QuantParams<T>, codes: CodeRange) -> bool {
        let least = T::TINY / T::EPSILON;
        let is_normal = affine.scale > least && T::ONE / affine.scale > least;
        is_normal && [codes.min, codes.max].iter().all(|&code| self.value(affine, code).is_finite())
    }

    /// What a code is restored as: rounded by the type of the elements, exact in f64
    /// but for the scale.
    fn value<T: Real>(&self, affine: QuantParams<T>, code: i32) -> f64 {
        (T::from_i32(code - affine.zero_point) * affine.scale).to_f64() * self.scale
    }

    /// How far from the `middle` above `code` an element may be when it gets
    /// the farther code.
    ///
    /// With m = code + 1/2 - zero point, x is divided by the scale (or
    /// multiplied with its reciprocal) and perhaps moved by the zero point with
    /// a relative error of at most half an epsilon each, and the values on both
    /// sides of m have such an error too: 3/2 |m| + 1/2 |code + 1/2| + 1/2 epsilons
    /// of a step. y is off by half a unit and half an epsilon of itself.
    fn reach<T: Real>(&self, affine: QuantParams<T>, code: i32, middle: f64, step: f64) -> f64 {
        let code = f64::from(code) + 0.5;
        let steps = (code - f64::from(affine.zero_point)).abs() + code.abs() + 1.0;
        let epsilon = T::EPSILON.to_f64();
        2.0 * epsilon * steps * step + epsilon * (middle.abs() + 1.0) + UNIT
    }

    /// The bin around the integer `y`, or the end beyond which it is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the bins before; NaN is 0, and makes a sum that is none"
    )]
    fn bin(&self, y: f64) -> usize {
        (y - f64::from(self.first)).clamp(0.0, BINS as f64) as usize
    }

    /// The lower edge of a bin.
    fn edge(&self, bin: usize) -> f64 {
        bin as f64 + f64::from(self.first) - 0.5
    }

    fn part(&self, begin: usize, end: usize) -> Part {
        Part {
            count: real_count(self.counts[end] - self.counts[begin]),
            sum: real(self.sums[end] - self.sums[begin]) * UNIT,
        }
    }
}

/// The straight line between |t| at both `ends`, at t.
fn chord([low, high]: [f64; 2], t: f64) -> f64 {
    (low.abs() * (high - t) + high.abs() * (t - low)) / (high - low)
}

fn real_count(count: u64) -> f64 {
    count as f64
}

fn real(sum: i64) -> f64 {
    sum as f64
}

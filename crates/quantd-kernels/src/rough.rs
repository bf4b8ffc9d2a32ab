//! What quantizers lose, roughly: enough to tell candidates for a range from
//! one another, at a fraction of what the exact figures cost. How far off
//! they may be is said of each; searches compute exactly what is left.
//!
//! Candidates are side by side, one in a lane, and elements one after the
//! other: slices of two elements fill vectors as well as long ones do, and no
//! sum goes across lanes.

use std::f64::consts::LOG2_E;

use super::Isa;
use super::isa::Op;
use super::real::Real;
use super::scalar::{
    CodeRange, DIVIDE_AWAY, DIVIDE_EVEN, QuantParams, Quantizer, RECIPROCAL_EVEN, Rounding,
    ZERO_POINT_FIRST,
};
use super::smooth::power_of_two;

/// Candidates that are looked at side by side.
pub const SIDE: usize = 16;
/// Elements whose squares are added in the type of the elements.
const RUN: usize = 64;
/// Elements whose terms are added in f32.
const SHORT_RUN: usize = 16;

/// A number of each candidate.
pub type Lanes<T> = [T; SIDE];

/// The parameters of each candidate.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<T> {
    /// Their scales.
    pub scales: Lanes<T>,
    /// Their zero points.
    pub zero_points: Lanes<i32>,
}

/// Sums over elements, each of which has the weight t and is restored as
/// itself and `d`; `u` is `d` less that of some other element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bends {
    /// Of `t u`.
    pub mean: Lanes<f64>,
    /// Of `t (exp(u) - 1 - u)`, `u` being at most [`FARTHEST`](Self::FARTHEST) there.
    pub bend: Lanes<f64>,
    /// The largest `u`.
    pub largest: Lanes<f32>,
}

impl Bends {
    /// From here on `exp(u)` is too small.
    pub const FARTHEST: f32 = 40.0;
    /// What is lost of a sum of bends, relative to itself: 4e-6 of each, and what is rounded of
    /// weights, of `u`, of products and sums.
    const ROUGH: f64 = 6e-6;
    /// What is lost of a sum of `t |u|`, or of weights, likewise.
    const SUMMED: f64 = 2e-6;
    /// Logarithms of sums as near to 1 as this are made in lanes.
    pub const NEAR: f64 = 0.4;

    /// What `loss` may be off, its sum being `1 + above`.
    #[must_use]
    #[inline(always)]
    pub fn slack(above: f64, bend: f64) -> f64 {
        // sum t |u| is at most this, or twice the width of any range.
        let size = bend + (2.0 * bend).sqrt();
        let size = if size < 2e3 { size } else { 2e3 };
        (Self::ROUGH * bend + Self::SUMMED * size * above.abs()) / (1.0 + above)
    }
}

impl Isa {
    /// The sum of the squared distances of `x`, all of it finite, to the
    /// nearest restored values, in steps of the scale and the type of `x`. A code may
    /// be a neighbour of the exact one where `x` is near the middle of two.
    #[must_use]
    pub fn rough_squares<T: Real>(
        self,
        x: &[T],
        candidates: &Candidates<T>,
        codes: CodeRange,
    ) -> Lanes<f64> {
        self.run(Squares { x, candidates, codes })
    }

    /// The sum of the squared distances of `x` times `unit` to the nearest number from a lane of
    /// `low` to the same of `high`.
    #[must_use]
    pub fn excess<T: Real>(self, x: &[T], unit: T, [low, high]: [&Lanes<T>; 2]) -> Lanes<f64> {
        self.run(Excess { x, unit, low, high })
    }

    /// Adds to `sums` those of `x`, all of it finite, of which each element has
    /// its weight. `u` is relative to the shift of `peak` and exact, for
    /// elements of f32, before it is rounded to f32; see `bend` for what is
    /// made of it. Sums of 16 terms are in f32.
    pub fn bends<T: Real>(
        self,
        (x, weights): (&[T], &[f32]),
        peak: T,
        candidates: &Candidates<T>,
        (codes, rounding): (CodeRange, Rounding),
        sums: &mut Bends,
    ) {
        let of = (x, weights, peak, (codes, rounding));
        match rounding {
            Rounding::DivideEven => self.run(Shifts::<T, DIVIDE_EVEN> { of, candidates, sums }),
            Rounding::ReciprocalEven => {
                self.run(Shifts::<T, RECIPROCAL_EVEN> { of, candidates, sums });
            }
            Rounding::ZeroPointFirst => {
                self.run(Shifts::<T, ZERO_POINT_FIRST> { of, candidates, sums });
            }
            Rounding::DivideAway => self.run(Shifts::<T, DIVIDE_AWAY> { of, candidates, sums }),
        }
    }

    /// `exp(x - peak)` of each element, to a relative error of 2^-23, or to 2^-149, and the sum of all, to 1e-8.
    pub fn exponentials<T: Real>(self, x: &[T], peak: f64, result: &mut [f32]) -> f64 {
        self.run(Exponentials { x, peak, result })
    }

    /// What `log(1 + mean + bend) - mean` is at least, and at most, where `mean + bend` is
    /// no more than [`NEAR`](Bends::NEAR) from 0.
    #[must_use]
    pub fn divergences(self, sums: &Bends) -> [Lanes<f64>; 2] {
        self.run(Divergences { sums })
    }

    /// At least the divergence between the softmax of `x`, roughly its `weights`, and that of
    /// numbers among which none of the elements above an end is larger than another one, but by `reach`
    /// and how much that end is above the other element.
    /// With `sign` -1 likewise of elements below an end.
    #[must_use]
    pub fn beyond<T: Real>(
        self,
        (x, weights): (&[T], &[f32]),
        (sign, peak, reach): (T, f64, f64),
        ends: &Lanes<T>,
    ) -> Lanes<f64> {
        self.run(Beyond { x, weights, sign, peak, reach, ends })
    }
}

/// `exp(v)` for `v` up to 700, and 0 far below.
#[inline(always)]
fn exp(v: f64) -> f64 {
    let v = if v > -690.0 { v } else { -690.0 };
    let v = if v < 690.0 { v } else { 690.0 };
    let (above, below) = power_of_two(v * LOG2_E);
    above / below
}

/// `exp(f) - 1 - f` is f^2 times these times the powers of f.
const SERIES: [f32; 6] = [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];

/// `exp(u) - 1 - u` to a relative error of 4e-6, for `u` up to [`Bends::FARTHEST`].
///
/// With u = k ln 2 + f it is 2^k (exp(f) - 1 - f) + (2^k - 1) + (2^k f - u), of
/// which the last two are exactly 0 where k is. Elsewhere they cancel to a
/// tenth of themselves at most, and f is off by 2^-24 |u|.
#[inline(always)]
fn bend(u: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23, as in `Real::round_even`
    let v = if u > -80.0 { u } else { -80.0 };
    let shifted = v * std::f32::consts::LOG2_E + MAGIC;
    let f = v - (shifted - MAGIC) * std::f32::consts::LN_2;
    let near = SERIES.iter().rev().fold(0.0, |sum, c| sum * f + c) * f * f;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    power * near + ((power - 1.0) + (power * f - u))
}

struct Squares<'a, T> {
    x: &'a [T],
    candidates: &'a Candidates<T>,
    codes: CodeRange,
}

impl<T: Real> Op for Squares<'_, T> {
    type Output = Lanes<f64>;

    #[inline(always)]
    fn run(self) -> Lanes<f64> {
        let (mut reciprocals, mut low, mut high) =
            ([T::ZERO; SIDE], [T::ZERO; SIDE], [T::ZERO; SIDE]);
        for i in 0..SIDE {
            let zero_point = self.candidates.zero_points[i];
            reciprocals[i] = T::ONE / self.candidates.scales[i];
            low[i] = T::from_i32(self.codes.min - zero_point);
            high[i] = T::from_i32(self.codes.max - zero_point);
        }
        let mut sums = [0.0; SIDE];
        for run in self.x.chunks(RUN) {
            let mut lanes = [T::ZERO; SIDE];
            for &x in run {
                for i in 0..SIDE {
                    let steps = x * reciprocals[i];
                    let within = if steps > low[i] { steps } else { low[i] };
                    let within = if within < high[i] { within } else { high[i] };
                    let error = steps - T::from_i32(within.round_even());
                    lanes[i] = lanes[i] + error * error;
                }
            }
            add(&mut sums, &lanes);
        }
        sums
    }
}

/// Adds lanes to sums of more than a run.
#[inline(always)]
fn add<T: Real>(sums: &mut Lanes<f64>, lanes: &Lanes<T>) {
    for i in 0..SIDE {
        sums[i] += lanes[i].to_f64();
    }
}

struct Excess<'a, T> {
    x: &'a [T],
    unit: T,
    low: &'a Lanes<T>,
    high: &'a Lanes<T>,
}

impl<T: Real> Op for Excess<'_, T> {
    type Output = Lanes<f64>;

    #[inline(always)]
    fn run(self) -> Lanes<f64> {
        let (low, high) = (*self.low, *self.high);
        let mut sums = [0.0; SIDE];
        for run in self.x.chunks(RUN) {
            let mut lanes = [T::ZERO; SIDE];
            for &x in run {
                let x = x * self.unit;
                for i in 0..SIDE {
                    let (above, below) = (x - high[i], low[i] - x);
                    let beyond = if above > below { above } else { below };
                    let beyond = if beyond > T::ZERO { beyond } else { T::ZERO };
                    lanes[i] = lanes[i] + beyond * beyond;
                }
            }
            add(&mut sums, &lanes);
        }
        sums
    }
}

struct Shifts<'a, T, const ROUNDING: u8> {
    /// Elements, their weights, the peak, and how codes are made.
    of: (&'a [T], &'a [f32], T, (CodeRange, Rounding)),
    candidates: &'a Candidates<T>,
    sums: &'a mut Bends,
}

impl<T: Real, const ROUNDING: u8> Op for Shifts<'_, T, ROUNDING> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (x, weights, peak, (codes, rounding)) = self.of;
        let Candidates { scales, zero_points } = *self.candidates;
        let reciprocals = std::array::from_fn::<_, SIDE, _>(|i| T::ONE / scales[i]);
        let restored = |x: T, i: usize| {
            let affine = QuantParams { scale: scales[i], zero_point: zero_points[i] };
            let quantizer = Quantizer::with_reciprocal(affine, reciprocals[i], codes, rounding);
            quantizer.restore::<ROUNDING>(x).0
        };
        let mut first = [0.0; SIDE];
        for (i, first) in first.iter_mut().enumerate() {
            *first = restored(peak, i).to_f64() - peak.to_f64();
        }
        let mut largest = self.sums.largest;
        for (x, weights) in x.chunks(SHORT_RUN).zip(weights.chunks(SHORT_RUN)) {
            let (mut mean, mut bends) = ([0.0_f32; SIDE], [0.0_f32; SIDE]);
            for (&x, &weight) in x.iter().zip(weights) {
                // One loop for each width of numbers: each fills its vectors.
                let (mut near, mut shifts) = ([T::ZERO; SIDE], [0.0_f32; SIDE]);
                for (i, near) in near.iter_mut().enumerate() {
                    *near = restored(x, i);
                }
                for i in 0..SIDE {
                    let shift = near[i].to_f64() - x.to_f64();
                    shifts[i] = <f32 as Real>::from_f64(shift - first[i]);
                }
                for i in 0..SIDE {
                    let u = shifts[i];
                    largest[i] = if u > largest[i] { u } else { largest[i] };
                    mean[i] += weight * u;
                    let near = if u < Bends::FARTHEST { u } else { Bends::FARTHEST };
                    bends[i] += weight * bend(near);
                }
            }
            add(&mut self.sums.mean, &mean);
            add(&mut self.sums.bend, &bends);
        }
        self.sums.largest = largest;
    }
}

struct Exponentials<'a, T> {
    x: &'a [T],
    peak: f64,
    result: &'a mut [f32],
}

impl<T: Real> Op for Exponentials<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut lanes = [0.0; SIDE];
        for (x, result) in self.x.chunks(SIDE).zip(self.result.chunks_mut(SIDE)) {
            // What fills the last block is as far below the peak as can be.
            let mut block = [-700.0; SIDE];
            block.iter_mut().zip(x).for_each(|(v, x)| *v = x.to_f64() - self.peak);
            let mut short = [0.0; SIDE];
            for i in 0..SIDE {
                let power = exp(block[i]);
                lanes[i] += power;
                short[i] = <f32 as Real>::from_f64(power);
            }
            result.copy_from_slice(&short[..x.len()]);
        }
        lanes.iter().sum()
    }
}

struct Divergences<'a> {
    sums: &'a Bends,
}

impl Op for Divergences<'_> {
    type Output = [Lanes<f64>; 2];

    #[inline(always)]
    fn run(self) -> [Lanes<f64>; 2] {
        let (mut least, mut most) = ([0.0; SIDE], [0.0; SIDE]);
        for i in 0..SIDE {
            let (mean, bend) = (self.sums.mean[i], self.sums.bend[i]);
            let above = mean + bend;
            let (loss, slack) = (logarithm(above) - mean, Bends::slack(above, bend));
            least[i] = loss - slack;
            most[i] = loss + slack;
        }
        [least, most]
    }
}

/// `log(1 + x)`, to an error of 1e-10 times `x^2` for `x` near 0.
#[inline(always)]
fn logarithm(x: f64) -> f64 {
    const TERMS: [f64; 7] =
        [1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0];
    // 2 artanh(x / (2 + x))
    let y = x / (2.0 + x);
    let square = y * y;
    let rest = TERMS.iter().rev().fold(0.0, |sum, term| (sum + term) * square);
    2.0 * y * (1.0 + rest)
}

struct Beyond<'a, T> {
    x: &'a [T],
    weights: &'a [f32],
    sign: T,
    peak: f64,
    reach: f64,
    ends: &'a Lanes<T>,
}

impl<T: Real> Op for Beyond<'_, T> {
    type Output = Lanes<f64>;

    #[inline(always)]
    fn run(self) -> Lanes<f64> {
        // What is lost of sums of weights, with some to spare.
        const LOST: f64 = 4.0 * Bends::SUMMED;
        let sign = self.sign.to_f64();
        let (lost, reach) = (sign * LOST, sign * self.reach);
        let ends = self.ends.map(|end| end * self.sign);
        let (mut counts, mut shares) = ([0.0; SIDE], [0.0; SIDE]);
        let mut unit = 0.0_f32;
        for (&x, &weight) in self.x.iter().zip(self.weights) {
            // The weight of the peak.
            unit = if weight > unit { weight } else { unit };
            let (x, weight) = (x * self.sign, f64::from(weight));
            for i in 0..SIDE {
                let is_beyond = x > ends[i];
                counts[i] += if is_beyond { 1.0 } else { 0.0 };
                shares[i] += if is_beyond { weight } else { 0.0 };
            }
        }
        let unit = f64::from(unit) * (1.0 + lost);
        let mut bounds = [0.0; SIDE];
        for i in 0..SIDE {
            let share = shares[i] * (1.0 - lost);
            let rest = 1.0 - shares[i] - lost;
            let power = exp(self.ends[i].to_f64() + reach - self.peak);
            let odds = counts[i] * power * unit / rest;
            let other = odds / (1.0 + odds);
            // On the right side, and of numbers that say something.
            let apart = (share - other) * sign;
            let is_known = counts[i] > 0.0 && rest > 1e-2 && apart > 0.0;
            let (low, high) = if sign > 0.0 { (other, share) } else { (share, other) };
            let curvature = if high < 1.0 - low { high } else { 1.0 - low };
            let curvature = if curvature < 0.25 { curvature } else { 0.25 };
            bounds[i] = if is_known { apart * apart / (2.0 * curvature) } else { 0.0 };
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bends_are_near_the_exact_ones() {
        let mut u = 1e-6;
        while u < 300.0 {
            for u in [u, -u] {
                let u = <f32 as Real>::from_f64(u);
                if u > Bends::FARTHEST {
                    continue;
                }
                let exact = libm::expm1(u.into()) - f64::from(u);
                // Of small ones the difference says nothing.
                let series = f64::from(u) * f64::from(u) * (0.5 + f64::from(u) / 6.0);
                let exact = if u.abs() < 1e-3 { series } else { exact };
                let error = f64::from(bend(u)) / exact - 1.0;
                assert!(error.abs() < 4e-6, "{u}: {error}");
            }
            u *= 1.003;
        }
    }
}

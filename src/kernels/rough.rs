//! What a quantizer loses, roughly: enough to tell candidates for a range from
//! one another, at a fraction of what the exact figures cost. How far off
//! they may be is said of each; searches compute exactly what is left.

use std::f64::consts::LOG2_E;

use super::Isa;
use super::isa::Op;
use super::real::Real;
use super::scalar::{
    Affine, CodeRange, DIVIDE_AWAY, DIVIDE_EVEN, Quantizer, RECIPROCAL_EVEN, Rounding,
    ZERO_POINT_FIRST,
};
use super::smooth::power_of_two;

/// Sums side by side.
const LANES: usize = 16;
/// Elements whose squares are added in the type of the elements.
const RUN: usize = 1024;

impl Isa {
    /// The sum of the squared distances of `x`, all of it finite, to the
    /// nearest restored values, in steps of the scale and the type of `x`. A code may
    /// be a neighbour of the exact one where `x` is near the middle of two.
    #[must_use]
    pub fn rough_squares<T: Real>(self, x: &[T], affine: Affine<T>, codes: CodeRange) -> f64 {
        self.run(Squares { x, affine, codes })
    }

    /// The sum of the squared distances of `x` to the nearest number from `low` to `high`.
    #[must_use]
    pub fn excess<T: Real>(self, x: &[T], [low, high]: [f64; 2]) -> f64 {
        self.run(Excess { x, low, high })
    }

    /// Writes to `shift` what each element of `x`, all of it finite, is restored as, less itself; exact
    /// where both are of f32. Gives the sum of them, each times its weight.
    pub fn shifts<T: Real>(
        self,
        (x, weights): (&[T], &[f64]),
        affine: Affine<T>,
        (codes, rounding): (CodeRange, Rounding),
        shift: &mut [f64],
    ) -> f64 {
        let quantizer = Quantizer::new(affine, codes, rounding);
        match rounding {
            Rounding::DivideEven => {
                self.run(Shifts::<T, DIVIDE_EVEN> { x, weights, quantizer, shift })
            }
            Rounding::ReciprocalEven => {
                self.run(Shifts::<T, RECIPROCAL_EVEN> { x, weights, quantizer, shift })
            }
            Rounding::ZeroPointFirst => {
                self.run(Shifts::<T, ZERO_POINT_FIRST> { x, weights, quantizer, shift })
            }
            Rounding::DivideAway => {
                self.run(Shifts::<T, DIVIDE_AWAY> { x, weights, quantizer, shift })
            }
        }
    }

    /// The sum of `t (exp(u) - 1 - u)`, `u` the difference of an element of `shift` and `mean`, with `t =
    /// weights`, to a relative error of 1e-7, for `u` up to 690.
    #[must_use]
    pub fn curvature(self, weights: &[f64], shift: &[f64], mean: f64) -> f64 {
        self.run(Curvature { weights, shift, mean })
    }

    /// `exp(x - peak)` of each element, to a relative error of 1e-9; 0 below 1e-300.
    pub fn exponentials<T: Real>(self, x: &[T], peak: f64, result: &mut [f64]) {
        self.run(Exponentials { x, peak, result });
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

/// `exp(u) - 1 - u` is u^2 times these times the powers of u, where the difference would cancel.
const SERIES: [f64; 7] =
    [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0];

/// The sum of all lanes, by halves.
#[inline(always)]
fn total(mut lanes: [f64; LANES]) -> f64 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// A block that begins with `rest` and has zeros then, which add nothing to any sum here.
#[inline(always)]
fn filled<T: Real>(rest: &[T]) -> [T; LANES] {
    let mut block = [T::ZERO; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// Calls `add` with all of `x`, the last block filled up.
#[inline(always)]
fn for_each_block<T: Real>(x: &[T], mut add: impl FnMut(&[T; LANES])) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    blocks.iter().for_each(&mut add);
    if !rest.is_empty() {
        add(&filled(rest));
    }
}

struct Squares<'a, T> {
    x: &'a [T],
    affine: Affine<T>,
    codes: CodeRange,
}

impl<T: Real> Op for Squares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let [low, high] =
            [self.codes.min, self.codes.max].map(|code| T::from_i32(code - self.affine.zero_point));
        let reciprocal = T::ONE / self.affine.scale;
        let square = |x: T| {
            let steps = x * reciprocal;
            let within = if steps > low { steps } else { low };
            let within = if within < high { within } else { high };
            let error = steps - T::from_i32(within.round_even());
            error * error
        };
        let mut sum = 0.0;
        for run in self.x.chunks(RUN) {
            let mut lanes = [T::ZERO; LANES];
            for_each_block(run, |block| {
                for (lane, &x) in lanes.iter_mut().zip(block) {
                    *lane = *lane + square(x);
                }
            });
            sum += total(lanes.map(T::to_f64));
        }
        sum
    }
}

struct Excess<'a, T> {
    x: &'a [T],
    low: f64,
    high: f64,
}

impl<T: Real> Op for Excess<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let square = |x: T| {
            let x = x.to_f64();
            let (above, below) = (x - self.high, self.low - x);
            let beyond = if above > below { above } else { below };
            let beyond = if beyond > 0.0 { beyond } else { 0.0 };
            beyond * beyond
        };
        let mut lanes = [0.0; LANES];
        for_each_block(self.x, |block| {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                *lane += square(x);
            }
        });
        total(lanes)
    }
}

struct Shifts<'a, T, const ROUNDING: u8> {
    x: &'a [T],
    weights: &'a [f64],
    quantizer: Quantizer<T>,
    shift: &'a mut [f64],
}

impl<T: Real, const ROUNDING: u8> Op for Shifts<'_, T, ROUNDING> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut lanes = [0.0; LANES];
        let mut block = |x: &[T; LANES], weights: &[f64; LANES]| {
            let mut shift = [0.0; LANES];
            for i in 0..LANES {
                let (restored, _) = self.quantizer.restore::<ROUNDING>(x[i]);
                shift[i] = restored.to_f64() - x[i].to_f64();
                lanes[i] += weights[i] * shift[i];
            }
            shift
        };
        let ((x, x_rest), (weights, weights_rest)) =
            (self.x.as_chunks::<LANES>(), self.weights.as_chunks::<LANES>());
        let (shift, shift_rest) = self.shift.as_chunks_mut::<LANES>();
        for ((x, weights), shift) in x.iter().zip(weights).zip(shift) {
            *shift = block(x, weights);
        }
        if !x_rest.is_empty() {
            let rest = block(&filled(x_rest), &filled(weights_rest));
            shift_rest.copy_from_slice(&rest[..shift_rest.len()]);
        }
        total(lanes)
    }
}

struct Curvature<'a> {
    weights: &'a [f64],
    shift: &'a [f64],
    mean: f64,
}

impl Op for Curvature<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let term = |weight: f64, d: f64| {
            let u = d - self.mean;
            let series = SERIES.iter().rev().fold(0.0, |sum, c| sum * u + c) * u * u;
            let far = exp(u) - 1.0 - u;
            weight * if u.abs() < 0.25 { series } else { far }
        };
        let mut lanes = [0.0; LANES];
        let mut block = |weights: &[f64; LANES], shift: &[f64; LANES]| {
            for i in 0..LANES {
                lanes[i] += term(weights[i], shift[i]);
            }
        };
        let ((weights, weights_rest), (shift, shift_rest)) =
            (self.weights.as_chunks::<LANES>(), self.shift.as_chunks::<LANES>());
        weights.iter().zip(shift).for_each(|(weights, shift)| block(weights, shift));
        if !weights_rest.is_empty() {
            block(&filled(weights_rest), &filled(shift_rest));
        }
        total(lanes)
    }
}

struct Exponentials<'a, T> {
    x: &'a [T],
    peak: f64,
    result: &'a mut [f64],
}

impl<T: Real> Op for Exponentials<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let block = |x: &[T; LANES]| x.map(|x| exp(x.to_f64() - self.peak));
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (result, result_rest) = self.result.as_chunks_mut::<LANES>();
        result.iter_mut().zip(x).for_each(|(result, x)| *result = block(x));
        result_rest.copy_from_slice(&block(&filled(x_rest))[..x_rest.len()]);
    }
}

//! Smooth activations of f32, the same on every instruction set.
//!
//! Computed in f64 with nothing but sums, products and one quotient, so that
//! the compiler makes loops of vectors of them; relative errors stay near
//! 2^-33 down to the smallest result, where `1 + erf` would cancel. The
//! constants are minimax approximations in the relative error.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LOG2_E};

use super::Isa;
use super::isa::Op;
use super::real::Real;

/// From here on a negative argument has the result 0 in f32, and a positive
/// one itself.
const FAR: f64 = 14.5;

/// `exp(a^2 / 2) erfc(a / sqrt 2) / 2` for `a` from 0 to [`FAR`] is the
/// quotient of these two, to 2^-33.5; lowest powers first.
const TOP: [f64; 6] = [
    224.865_107_278_252_17,
    228.129_461_812_261_44,
    112.578_477_813_060_1,
    32.022_524_052_988_594,
    5.225_703_245_761_683,
    0.398_941_774_231_959,
];
/// Its highest power, the sixth, has the coefficient 1 and is left out.
const BOTTOM: [f64; 6] = [
    449.730_214_593_443_4,
    815.091_714_831_672_9,
    650.640_997_868_126_8,
    295.246_199_828_039_27,
    81.271_101_741_136_48,
    13.098_810_476_674_437,
];

/// `2^f = (e + o) / (e - o)` with `e = EVEN + f^2` and
/// `o = f (ODD[0] + ODD[1] f^2)` for `f` from -1/2 to 1/2, to 2^-33.3.
const EVEN: f64 = 20.818_923_059_138_82;
const ODD: [f64; 2] = [7.215_288_896_819_781, 0.057_690_082_404_928_86];

/// `2^u`, for `|u| < 1000`, as the quotient of two numbers; what divides by
/// one more thing divides once. NaN gives a NaN below.
#[inline(always)]
pub(super) fn power_of_two(u: f64) -> (f64, f64) {
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52, as in `Real::round_even`
    let shifted = u + MAGIC;
    let f = u - (shifted - MAGIC);
    let square = f * f;
    let even = EVEN + square;
    let odd = f * (ODD[0] + ODD[1] * square);
    let exponent = shifted.to_bits() << 52;
    (f64::from_bits((even + odd).to_bits().wrapping_add(exponent)), even - odd)
}

/// `((first x + c[n - 1]) x + ..) x + c[0]`.
#[inline(always)]
fn polynomial(first: f64, rest: &[f64], x: f64) -> f64 {
    rest.iter().rev().fold(first, |sum, c| sum * x + c)
}

/// `x (1 + erf(x / sqrt 2)) / 2`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let x = x.to_f64();
    // In this order NaN stays.
    let a = if FAR < x.abs() { FAR } else { x.abs() };
    let (up, down) = power_of_two(a * a * (-0.5 * LOG2_E));
    let (top, bottom) = (polynomial(TOP[5], &TOP[..5], a), polynomial(1.0, &BOTTOM, a));
    let tail = a * up * top / (bottom * down);
    // What a negative number loses to 0 a positive one loses to itself.
    let most = if x >= 0.0 { x } else { -0.0 };
    f32::from_f64(most - tail)
}

/// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // `(1 + tanh y) / 2 = 1 / (1 + 2^(-2 y / ln 2))`.
    const LINEAR: f64 = -2.0 * LOG2_E * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    const CUBIC: f64 = 0.044_715 * LINEAR;
    let x = x.to_f64();
    // In this order NaN stays.
    let x = if x < -FAR { -FAR } else { x };
    let near = if FAR < x { FAR } else { x };
    let (up, down) = power_of_two(near * (LINEAR + CUBIC * (near * near)));
    f32::from_f64(x * down / (down + up))
}

struct Each<'a, F> {
    x: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> Op for Each<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.x.iter_mut().for_each(|x| *x = (self.f)(*x));
    }
}

impl Isa {
    /// Replaces each `x` by `x (1 + erf(x / sqrt 2)) / 2`, within 0.503 units
    /// in the last place; minus infinity gives the limit, -0.
    pub fn gelu(self, x: &mut [f32]) {
        self.run(Each { x, f: gelu });
    }

    /// Replaces each `x` by `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`,
    /// as exactly.
    pub fn gelu_tanh(self, x: &mut [f32]) {
        self.run(Each { x, f: gelu_tanh });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact_gelu(x: f64) -> f64 {
        if x < -30.0 { -0.0 } else { 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2) }
    }

    fn exact_gelu_tanh(x: f64) -> f64 {
        let twice = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
        if twice < -700.0 { -0.0 } else { x / (1.0 + libm::exp(-twice)) }
    }

    /// Distance in units in the last place that f32 has there.
    fn units(found: f32, exact: f64) -> f64 {
        let size = exact.abs().max(f64::from(f32::MIN_POSITIVE));
        let exponent = f64::from_bits(size.to_bits() & 0x7ff0_0000_0000_0000);
        (f64::from(found) - exact).abs() / (exponent * f64::from(f32::EPSILON))
    }

    /// All exponents, both signs; the step is a prime, so that all ends of mantissas occur.
    fn numbers() -> Vec<f32> {
        let all = (0..=u32::MAX).step_by(4093).map(f32::from_bits);
        // Where results become subnormal, and then 0.
        let ends = (0..20_000_u16).map(|i| -11.0 - f32::from(i) / 5000.0);
        all.filter(|x| x.is_finite()).chain(ends).collect()
    }

    type Function = (fn(Isa, &mut [f32]), fn(f64) -> f64);
    const FUNCTIONS: [Function; 2] = [(Isa::gelu, exact_gelu), (Isa::gelu_tanh, exact_gelu_tanh)];

    #[test]
    fn the_error_is_hardly_more_than_of_rounding() {
        let x = numbers();
        for (function, exact) in FUNCTIONS {
            let mut made = x.clone();
            function(Isa::best(), &mut made);
            for (&x, &made) in x.iter().zip(&made) {
                let exact = exact(x.into());
                assert!(units(made, exact) < 0.503, "{x}: {made}, not {exact}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        // A length that is no multiple of a vector's.
        let x: Vec<f32> = numbers().into_iter().step_by(7).chain([f32::NAN, 1.0, -1.0]).collect();
        for (function, _) in FUNCTIONS {
            let mut expect = x.clone();
            for x in &mut expect {
                function(Isa::best(), std::slice::from_mut(x));
            }
            for isa in Isa::available() {
                let mut made = x.clone();
                function(isa, &mut made);
                let same =
                    |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(made.iter().zip(&expect).all(same), "{}", isa.name());
            }
        }
    }

    #[test]
    fn signs_ends_and_nan() {
        let x = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -1e-45, 1e-45];
        let gelu = [0.0, -0.0, f32::INFINITY, -0.0, f32::MAX, -0.0, -0.0, 0.0];
        for (function, _) in FUNCTIONS {
            let mut made = [x.as_slice(), &[f32::NAN]].concat();
            function(Isa::best(), &mut made);
            assert!(made.pop().is_some_and(f32::is_nan));
            // Half of the smallest number is a tie, which either side may take.
            let (made, ties) = made.split_at(6);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(made), bits(&gelu[..6]));
            assert!(ties.iter().all(|x| x.abs() <= f32::from_bits(1)));
        }
    }
}

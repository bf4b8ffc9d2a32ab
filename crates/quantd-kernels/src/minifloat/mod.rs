//! Floats of few bits: FP8, FP6, FP4, and the halves.
//!
//! A number is `(-1)^sign * 2^(max(exponent, 1) - bias) * (mantissa, with a leading 1 where the exponent is not 0)`,
//! sign, exponent and mantissa being the bits of its code from the highest one down. What the codes above the largest
//! number mean differs: `MiniFloat` says it. The functions here are the definition of each operation; codes of one
//! byte and elements of F32 have kernels over registers.
//!
//! Sources: OCP 8-bit floating point specification (OFP8) 1.0, OCP Microscaling formats 1.0, and for the `fnuz` types
//! "8-bit numerical formats for deep neural networks" (Noune et al., 2022) as ONNX and `ml_dtypes` have them.

use super::Isa;
use super::elementwise::{Stores, kernels};
use super::isa::Op;
use super::real::Real;
use super::scalar::{Code, Params};
use super::sums::{BLOCK, Block, LaneSums};

/// What the codes of a float mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniFloat {
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the mantissa, without the leading one.
    pub mantissa_bits: u32,
    /// What exponents count from.
    pub bias: i32,
    /// Code of the largest number.
    pub max: u16,
    /// Code of infinity, where there is one.
    pub infinity: Option<u16>,
    /// A code of NaN, where there is one. Where it is the sign alone there is no -0.
    pub nan: Option<u16>,
}

impl MiniFloat {
    /// `float8_e4m3fn`: no infinities, the largest number is 448.
    pub const E4M3: Self = Self::new(4, 3, 7, 0x7e).with_nan(0x7f);
    /// `float8_e5m2`: as IEEE 754 would have it, the largest number is 57344.
    pub const E5M2: Self = Self::new(5, 2, 15, 0x7b).with_infinity(0x7c).with_nan(0x7e);
    /// `float8_e4m3fnuz`: one NaN, no infinities, no -0, the largest number is 240.
    pub const E4M3_FNUZ: Self = Self::new(4, 3, 8, 0x7f).with_nan(0x80);
    /// `float8_e5m2fnuz`: one NaN, no infinities, no -0, the largest number is 57344.
    pub const E5M2_FNUZ: Self = Self::new(5, 2, 16, 0x7f).with_nan(0x80);
    /// `float6_e2m3fn`: numbers alone, up to 7.5.
    pub const E2M3: Self = Self::new(2, 3, 1, 0x1f);
    /// `float6_e3m2fn`: numbers alone, up to 28.
    pub const E3M2: Self = Self::new(3, 2, 3, 0x1f);
    /// `float4_e2m1fn`: 0, 0.5, 1, 1.5, 2, 3, 4 and 6.
    pub const E2M1: Self = Self::new(2, 1, 1, 7);
    /// IEEE 754 binary16.
    pub const F16: Self = Self::new(5, 10, 15, 0x7bff).with_infinity(0x7c00).with_nan(0x7e00);
    /// bfloat16.
    pub const BF16: Self = Self::new(8, 7, 127, 0x7f7f).with_infinity(0x7f80).with_nan(0x7fc0);

    const fn new(exponent_bits: u32, mantissa_bits: u32, bias: i32, max: u16) -> Self {
        Self { exponent_bits, mantissa_bits, bias, max, infinity: None, nan: None }
    }

    const fn with_infinity(self, code: u16) -> Self {
        Self { infinity: Some(code), ..self }
    }

    const fn with_nan(self, code: u16) -> Self {
        Self { nan: Some(code), ..self }
    }

    /// Bits of a code.
    #[must_use]
    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// The bit of the sign.
    #[must_use]
    pub const fn sign(self) -> u16 {
        1 << (self.bits() - 1)
    }

    /// Whether 0 has a code with a sign.
    #[must_use]
    pub fn has_negative_zero(self) -> bool {
        self.nan != Some(self.sign())
    }

    /// Exponent of the numbers that are not normal, and of the smallest that are.
    pub(super) const fn least_exponent(self) -> i32 {
        1 - self.bias
    }

    /// The largest number.
    #[must_use]
    pub fn largest(self) -> f32 {
        self.value(self.max)
    }

    /// The power of two below the largest number, as an exponent.
    #[must_use]
    pub fn largest_exponent(self) -> i32 {
        i32::from(self.max >> self.mantissa_bits) - self.bias
    }

    /// The number of a code, whose bits above the code's count for nothing. Exact.
    #[inline(always)]
    #[must_use]
    pub fn value(self, code: u16) -> f32 {
        let magnitude = code & (self.sign() - 1);
        let negative = code & self.sign() != 0;
        if Some(magnitude) == self.infinity {
            return if negative { f32::NEG_INFINITY } else { f32::INFINITY };
        }
        if magnitude > self.max || (negative && magnitude == 0 && !self.has_negative_zero()) {
            return f32::NAN;
        }
        let exponent = i32::from(magnitude >> self.mantissa_bits);
        let mantissa = i32::from(magnitude & ((1 << self.mantissa_bits) - 1));
        let leading = i32::from(exponent > 0) << self.mantissa_bits;
        let power = exponent.max(1) - self.bias - self.mantissa_bits.cast_signed();
        let number = f64::from(leading + mantissa) * power_of_two(power);
        #[expect(clippy::cast_possible_truncation, reason = "exact: f32 has every such number")]
        let number = number as f32;
        if negative { -number } else { number }
    }
}

/// `2^exponent`, which is a normal number.
#[inline(always)]
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).cast_unsigned()) << 52)
}

/// How numbers become codes of a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatSpec {
    /// What the codes mean.
    pub float: MiniFloat,
    /// Whether elements are multiplied with the reciprocal of their scale instead of divided by it.
    pub reciprocal: bool,
    /// Whether what is too large becomes the largest number, and not infinity or NaN.
    pub saturate: bool,
    /// Whether -0 gets the code of 0; what is rounded to it keeps its sign.
    pub unsigned_zero: bool,
    /// How codes are written.
    pub stores: Stores,
}

/// The constants of a loop.
#[derive(Clone, Copy, Debug)]
struct Rounder {
    spec: FloatSpec,
    /// What is as large has a code above the largest number's.
    limit: f64,
    largest: f64,
}

/// A rounded quotient.
#[derive(Clone, Copy, Debug)]
struct Rounded {
    code: u16,
    /// What the code stands for, of the same sign.
    value: f64,
    saturated: bool,
}

impl Rounder {
    #[inline(always)]
    fn new(spec: FloatSpec) -> Self {
        let largest = f64::from(spec.float.largest());
        Self { spec, limit: 2.0 * largest, largest }
    }

    /// The nearest number, of two the one with an even code. NaN becomes 0: it is the quotient of a 0 by a scale too
    /// small to divide by, or whoever calls knows of it.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "codes have at most 16 bits"
    )]
    fn round(&self, quotient: f64) -> Rounded {
        /// Bits of the mantissa of an f64, and what its exponents count from.
        const MANTISSA: i64 = 52;
        const BIAS: i32 = 1023;
        let FloatSpec { float, saturate, .. } = self.spec;
        let quotient = if quotient.is_nan() { 0.0 } else { quotient };
        let magnitude = quotient.abs();
        let magnitude = if magnitude < self.limit { magnitude } else { self.limit };
        let least = i64::from(float.least_exponent() + BIAS);
        let exponent = ((magnitude.to_bits() >> MANTISSA) as i64).max(least);
        // A number whose last bit is that of the mantissa here: adding it rounds there.
        let unit = f64::from_bits(
            ((exponent + MANTISSA - i64::from(float.mantissa_bits)) as u64) << MANTISSA,
        );
        let sum = magnitude + unit;
        let steps = (sum.to_bits() - unit.to_bits()) as i64;
        let code = (steps + ((exponent - least) << float.mantissa_bits)) as u16;
        let saturated = code > float.max;
        // Of the sum of -0 and 0 the sign is plus.
        let zero = if self.spec.unsigned_zero { 0.0 } else { -0.0 };
        let negative = (quotient + zero).is_sign_negative();
        let (code, value) = match (saturated, saturate) {
            (false, _) => (code, sum - unit),
            (true, true) => (float.max, self.largest),
            (true, false) => (float.too_large(), f64::INFINITY),
        };
        let signed = negative && (code != 0 || float.has_negative_zero());
        Rounded {
            code: if signed { code | float.sign() } else { code },
            value: if negative { -value } else { value },
            saturated,
        }
    }

    #[inline(always)]
    fn quotient<T: Real>(&self, x: T, scale: T, reciprocal: T) -> f64 {
        if self.spec.reciprocal { (x * reciprocal).to_f64() } else { (x / scale).to_f64() }
    }
}

impl MiniFloat {
    /// The code of what is too large where that is not to be the largest number; with the sign, where there is one.
    #[inline(always)]
    pub(super) fn too_large(self) -> u16 {
        self.infinity.or(self.nan).unwrap_or(self.max)
    }
}

impl<T: Real> Params<'_, T> {
    /// Scale and reciprocal of element `i`.
    #[inline(always)]
    pub(super) fn factors(&self, i: usize) -> [T; 2] {
        let columns = |columns: &super::table::Columns<'_, T>, i: usize| {
            [columns.scales[i], columns.reciprocals[i]]
        };
        match self {
            Self::Same(affine) => [affine.scale, T::ONE / affine.scale],
            Self::Each(all) => columns(all, i % all.len()),
            Self::Groups(groups) => columns(&groups.slices, groups.slice(i)),
        }
    }
}

/// The code of one number.
#[must_use]
pub fn code(x: f64, spec: FloatSpec) -> u16 {
    Rounder::new(spec).round(x).code
}

/// Writes the code of each element of `x` to `codes`; zero points count for nothing.
#[inline(always)]
pub fn quantize<T: Real, C: Code>(
    x: &[T],
    params: Params<'_, T>,
    spec: FloatSpec,
    codes: &mut [C],
) {
    let rounder = Rounder::new(spec);
    let code = |x: T, [scale, reciprocal]: [T; 2]| {
        C::from_code(i32::from(rounder.round(rounder.quotient(x, scale, reciprocal)).code))
    };
    match params {
        Params::Same(_) => {
            let factors = params.factors(0);
            x.iter().zip(codes).for_each(|(&x, to)| *to = code(x, factors));
        }
        Params::Each(_) | Params::Groups(_) => {
            x.iter()
                .zip(codes)
                .enumerate()
                .for_each(|(i, (&x, to))| *to = code(x, params.factors(i)));
        }
    }
}

/// Adds what quantizing `x` loses to `lanes`.
#[inline(always)]
pub fn measure<T: Real>(x: &[T], params: Params<'_, T>, spec: FloatSpec, lanes: &mut LaneSums) {
    let rounder = Rounder::new(spec);
    let mut block = Block::default();
    let same = params.factors(0);
    for (first, x) in x.chunks(BLOCK).enumerate() {
        for (i, &x) in x.iter().enumerate() {
            let [scale, reciprocal] = match params {
                Params::Same(_) => same,
                Params::Each(_) | Params::Groups(_) => params.factors(first * BLOCK + i),
            };
            let Rounded { value, saturated, .. } =
                rounder.round(rounder.quotient(x, scale, reciprocal));
            block.set(i, x, T::from_f64(value) * scale, saturated);
        }
        lanes.add(&mut block, x.len());
    }
}

/// Writes the number of each code times its scale to `x`.
#[inline(always)]
pub fn dequantize<T: Real, C: Code>(
    codes: &[C],
    params: Params<'_, T>,
    float: MiniFloat,
    x: &mut [T],
) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bits of a code"
    )]
    let value = |code: C| T::from_f64(float.value(code.to_code() as u16).into());
    match params {
        Params::Same(affine) => {
            x.iter_mut().zip(codes).for_each(|(x, &code)| *x = value(code) * affine.scale);
        }
        Params::Each(_) | Params::Groups(_) => {
            let all = x.iter_mut().zip(codes).enumerate();
            all.for_each(|(i, (x, &code))| *x = value(code) * params.affine(i).scale);
        }
    }
}

impl Isa {
    /// As [`quantize`] and [`measure`], in one pass.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn encode_floats<T: Real, C: Code>(
        self,
        x: &[T],
        params: Params<'_, T>,
        spec: FloatSpec,
        codes: &mut [C],
        lanes: &mut LaneSums,
    ) {
        assert!(x.len() == codes.len(), "a code for each element");
        if !kernels::encode_floats(self, x, params, spec, Some(&mut *codes), lanes) {
            self.run(Encode { x, params, spec, codes: Some(codes), lanes });
        }
    }

    /// As [`measure`].
    pub fn measure_floats<T: Real>(
        self,
        x: &[T],
        params: Params<'_, T>,
        spec: FloatSpec,
        lanes: &mut LaneSums,
    ) {
        if !kernels::encode_floats::<T, u8>(self, x, params, spec, None, lanes) {
            self.run(Encode::<T, u8> { x, params, spec, codes: None, lanes });
        }
    }

    /// As [`dequantize`].
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn dequantize_floats<T: Real, C: Code>(
        self,
        codes: &[C],
        params: Params<'_, T>,
        float: MiniFloat,
        stores: Stores,
        x: &mut [T],
    ) {
        assert!(x.len() == codes.len(), "a code for each element");
        // Rows that begin with the same slices, one after another.
        let row = match params {
            Params::Same(_) => x.len(),
            Params::Each(columns) => columns.len(),
            Params::Groups(groups) if groups.offset == 0 => groups.slices.len() * groups.size,
            Params::Groups(_) => x.len(),
        };
        let row = row.max(1);
        for (x, codes) in x.chunks_mut(row).zip(codes.chunks(row)) {
            if !kernels::dequantize_floats(self, codes, params, float, stores, x) {
                self.run(Dequantize { codes, params, float, x });
            }
        }
    }
}

struct Encode<'a, T, C> {
    x: &'a [T],
    params: Params<'a, T>,
    spec: FloatSpec,
    codes: Option<&'a mut [C]>,
    lanes: &'a mut LaneSums,
}

impl<T: Real, C: Code> Op for Encode<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if let Some(codes) = self.codes {
            quantize(self.x, self.params, self.spec, codes);
        }
        measure(self.x, self.params, self.spec, self.lanes);
    }
}

struct Dequantize<'a, T, C> {
    codes: &'a [C],
    params: Params<'a, T>,
    float: MiniFloat,
    x: &'a mut [T],
}

impl<T: Real, C: Code> Op for Dequantize<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        dequantize(self.codes, self.params, self.float, self.x);
    }
}

#[cfg(test)]
mod tests;

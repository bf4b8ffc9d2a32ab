//! Codes of another scale, by each definition of requantization.

use super::super::super::real::Real;
use super::super::super::simd::Simd;
use super::super::multiplier::Multiplier;
use super::super::requantize::Requantize;
use super::super::terms::{Column, Columns, Divisor};
use super::Epilogue;

/// As `Mode::FloatOrt`.
pub(in super::super) struct AsFloatOrt {
    scale_c: f32,
    low: f32,
    high: f32,
    zero_point: i32,
}

impl AsFloatOrt {
    pub(in super::super) fn new(scale_c: f32, to: &Requantize<'_>) -> Self {
        let [low, high] = to.ends().map(f32::from_i32);
        Self { scale_c, low, high, zero_point: to.zero_point }
    }
}

impl Epilogue<u8> for AsFloatOrt {
    const SCALED: bool = true;

    #[inline(always)]
    fn divisor(&self) -> Divisor {
        Some(self.scale_c)
    }

    #[inline(always)]
    fn cell(&self, sum: i32, column: Column) -> u8 {
        let x = clamped(f32::from_i32(sum) * column.factor, self.low, self.high);
        low_byte(x.round_even() + self.zero_point)
    }

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, factors): (S::I32, S::F32),
        _: &Columns<'_>,
        _: usize,
        to: &mut [u8],
    ) {
        let x = simd.mul(simd.to_f32(sums), factors);
        // The second one where either is NaN: the lower end.
        let x = simd.max(x, simd.splat(self.low));
        let x = simd.min(x, simd.splat(self.high));
        let codes = simd.add_i32(simd.round(x), simd.splat_i32(self.zero_point));
        simd.store_low_bytes(to, codes);
    }
}

/// As `Mode::FloatOnnx`.
pub(in super::super) struct AsFloatOnnx {
    scale_c: f32,
    low: f64,
    high: f64,
    zero_point: f64,
}

impl AsFloatOnnx {
    pub(in super::super) fn new(scale_c: f32, to: &Requantize<'_>) -> Self {
        let [low, high, zero_point] = [to.range.min, to.range.max, to.zero_point].map(f64::from);
        Self { scale_c, low, high, zero_point }
    }
}

impl Epilogue<u8> for AsFloatOnnx {
    const SCALED: bool = true;

    #[inline(always)]
    fn divisor(&self) -> Divisor {
        Some(self.scale_c)
    }

    #[inline(always)]
    fn cell(&self, sum: i32, column: Column) -> u8 {
        let x = f64::from(sum) * f64::from(column.factor) + self.zero_point;
        low_byte(clamped(x, self.low, self.high).round_even())
    }

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, factors): (S::I32, S::F32),
        _: &Columns<'_>,
        _: usize,
        to: &mut [u8],
    ) {
        let (sums, factors) = (simd.widen_i32(sums), simd.widen(factors));
        let zero_point = simd.splat_f64(self.zero_point);
        let [low, high] = [simd.splat_f64(self.low), simd.splat_f64(self.high)];
        let mut codes = sums;
        for (code, factor) in codes.iter_mut().zip(factors) {
            let x = simd.add_f64(simd.mul_f64(*code, factor), zero_point);
            // The second one where either is NaN: the lower end.
            *code = simd.min_f64(simd.max_f64(x, low), high);
        }
        simd.store_low_bytes(to, simd.round_f64(codes));
    }
}

/// As `Mode::Gemmlowp`.
pub(in super::super) struct AsGemmlowp {
    /// Ends of the codes less the zero point.
    ends: [i32; 2],
    zero_point: i32,
}

impl AsGemmlowp {
    pub(in super::super) fn new(to: &Requantize<'_>) -> Self {
        Self { ends: to.ends(), zero_point: to.zero_point }
    }
}

impl Epilogue<u8> for AsGemmlowp {
    const SCALED: bool = false;

    #[inline(always)]
    fn cell(&self, sum: i32, column: Column) -> u8 {
        let [low, high] = self.ends;
        let scaled = Multiplier::of(column.mantissa, column.exponent).twice(sum);
        low_byte(scaled.max(low).min(high) + self.zero_point)
    }

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, _): (S::I32, S::F32),
        columns: &Columns<'_>,
        at: usize,
        to: &mut [u8],
    ) {
        let mantissas = simd.load_i32(&columns.mantissas[at..]);
        let exponents = simd.load_i32(&columns.exponents[at..]);
        let [low, high] = self.ends;
        let scaled = simd.max_i32(twice(simd, sums, mantissas, exponents), simd.splat_i32(low));
        let scaled = simd.min_i32(scaled, simd.splat_i32(high));
        simd.store_low_bytes(to, simd.add_i32(scaled, simd.splat_i32(self.zero_point)));
    }
}

/// As `Mode::SingleRound`.
pub(in super::super) struct AsSingleRound {
    /// Ends of the codes less the zero point.
    ends: [i64; 2],
    zero_point: i32,
}

impl AsSingleRound {
    pub(in super::super) fn new(to: &Requantize<'_>) -> Self {
        Self { ends: to.ends().map(i64::from), zero_point: to.zero_point }
    }
}

impl Epilogue<u8> for AsSingleRound {
    const SCALED: bool = false;

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the codes before")]
    fn cell(&self, sum: i32, column: Column) -> u8 {
        let [low, high] = self.ends;
        let scaled = Multiplier::of(column.mantissa, column.exponent).once(sum);
        low_byte(scaled.max(low).min(high) as i32 + self.zero_point)
    }

    #[inline(always)]
    fn cells<S: Simd>(
        &self,
        simd: S,
        (sums, _): (S::I32, S::F32),
        columns: &Columns<'_>,
        at: usize,
        to: &mut [u8],
    ) {
        let mantissas = simd.load_i32(&columns.mantissas[at..]);
        let exponents = simd.load_i32(&columns.exponents[at..]);
        // As `Multiplier::once`.
        let by = simd.sub_i32(simd.splat_i32(31), exponents);
        let scaled = simd.mul_shift(sums, mantissas, by, self.ends);
        simd.store_low_bytes(to, simd.add_i32(scaled, simd.splat_i32(self.zero_point)));
    }
}

/// As [`Multiplier::twice`], lane by lane.
#[inline(always)]
fn twice<S: Simd>(simd: S, sums: S::I32, mantissas: S::I32, exponents: S::I32) -> S::I32 {
    let [none, one, ones] = [0, 1, -1].map(
        #[inline(always)]
        |of| simd.splat_i32(of),
    );
    // What comes back different was shifted beyond 32 bits.
    let left = simd.max_i32(exponents, none);
    let shifted = simd.shl_i32(sums, left);
    let kept = simd.eq_i32(simd.shr_i32(shifted, left), sums);
    let [least, most] = [simd.splat_i32(i32::MIN), simd.splat_i32(i32::MAX)];
    let end = simd.select_i32(simd.gt_i32(none, sums), least, most);
    let high = simd.mul_high(simd.select_i32(kept, shifted, end), mantissas);
    let right = simd.max_i32(simd.sub_i32(none, exponents), none);
    let mask = simd.sub_i32(simd.shl_i32(one, right), one);
    // The half, and one more where the number is negative.
    let negative = simd.shr_i32(high, simd.splat_i32(31));
    let threshold = simd.sub_i32(simd.shr_i32(mask, one), negative);
    let up = simd.gt_i32(simd.and_i32(high, mask), threshold);
    simd.sub_i32(simd.shr_i32(high, right), simd.select_i32(up, ones, none))
}

/// The code of either sign as a byte: it fits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "clamped to 8-bit codes before")]
#[expect(clippy::cast_sign_loss, reason = "bytes of signed codes")]
const fn low_byte(code: i32) -> u8 {
    code as u8
}

/// `x` within both ends; the lower end for NaN (0 times an infinite multiplier).
#[inline(always)]
fn clamped<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

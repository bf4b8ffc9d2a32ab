//! Codes of another scale, by each definition of requantization.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "one contract, that the machine has the instruction set, covers all operations"
    )
)]

use super::super::super::real::Real;
use super::super::multiplier::Multiplier;
use super::super::requantize::Requantize;
#[cfg(target_arch = "x86_64")]
use super::super::terms::Columns;
use super::super::terms::{Column, Divisor};
use super::Epilogue;
#[cfg(target_arch = "x86_64")]
use super::x86::Vector;

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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: Vector>(
        &self,
        sums: V::Ints,
        factors: V::Floats,
        _: &Columns<'_>,
        _: usize,
        to: *mut u8,
    ) {
        // SAFETY: the caller has the instructions of `V`, and `to` has `V::LANES` writable bytes.
        unsafe {
            let x = V::mul_floats(V::floats(sums), factors);
            // The second one where either is NaN: the lower end.
            let x = V::larger(x, V::all_floats(self.low));
            let x = V::smaller(x, V::all_floats(self.high));
            V::store_bytes(to, V::add(V::round_even(x), V::all(self.zero_point)));
        }
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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: Vector>(
        &self,
        sums: V::Ints,
        factors: V::Floats,
        _: &Columns<'_>,
        _: usize,
        to: *mut u8,
    ) {
        // SAFETY: the caller has the instructions of `V`, and `to` has `V::LANES` writable bytes.
        unsafe {
            V::store_bytes(to, V::affine(sums, factors, self.zero_point, [self.low, self.high]));
        }
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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: Vector>(
        &self,
        sums: V::Ints,
        _: V::Floats,
        columns: &Columns<'_>,
        at: usize,
        to: *mut u8,
    ) {
        // SAFETY: the caller has the instructions of `V`, `mantissas` and `exponents` (of
        // `MAX_COLUMNS`) have `V::LANES` values from `at` on, and `to` has as many writable bytes.
        unsafe {
            let mantissas = V::load_ints(columns.mantissas.as_ptr().add(at));
            let exponents = V::load_ints(columns.exponents.as_ptr().add(at));
            let [low, high] = self.ends;
            let scaled = V::least(V::twice(sums, mantissas, exponents), V::all(low));
            let scaled = V::most(scaled, V::all(high));
            V::store_bytes(to, V::add(scaled, V::all(self.zero_point)));
        }
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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn cells<V: Vector>(
        &self,
        sums: V::Ints,
        _: V::Floats,
        columns: &Columns<'_>,
        at: usize,
        to: *mut u8,
    ) {
        // SAFETY: the caller has the instructions of `V`, `mantissas` and `exponents` (of
        // `MAX_COLUMNS`) have `V::LANES` values from `at` on, and `to` has as many writable bytes.
        unsafe {
            let mantissas = V::load_ints(columns.mantissas.as_ptr().add(at));
            let exponents = V::load_ints(columns.exponents.as_ptr().add(at));
            let scaled = V::once(sums, mantissas, exponents, self.ends);
            V::store_bytes(to, V::add(scaled, V::all(self.zero_point)));
        }
    }
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

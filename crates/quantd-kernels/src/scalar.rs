//! The definition of every element-wise operation.
//!
//! Each function works on slices and numbers, is written so that the compiler
//! can vectorize its loop, and gives the same result whatever the length of
//! the slices it is called with, sums excepted: those depend on where a
//! sequence begins, which `quant` fixes and never the number of threads.
//!
//! All of it is `#[inline(always)]`, so that [`Isa`](super::Isa) can compile
//! the same loops for each instruction set.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "codes fit the type they are stored in: the caller chose it by their range"
)]

use bytemuck::Pod;

use super::real::Real;
use super::sums::{BLOCK, Block, LANES, LaneSums};
use super::table::{Columns, Groups};

/// How a real number becomes a code (docs/NUMERICS.md, "Profiles").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `saturate(rne(x / s) + z)`: ONNX `QuantizeLinear`.
    DivideEven,
    /// `saturate(rne(x * (1 / s)) + z)`: PyTorch.
    ReciprocalEven,
    /// `rne(saturate(x / s + z))`: compressed-tensors.
    ZeroPointFirst,
    /// `saturate(round_half_away(x / s) + z)`: TFLite.
    DivideAway,
}

/// Codes a scheme may use, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// Smallest code.
    pub min: i32,
    /// Largest code.
    pub max: i32,
}

/// Scale and zero point of one slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams<T> {
    /// Step between neighbouring codes, positive and finite.
    pub scale: T,
    /// Code of 0.0.
    pub zero_point: i32,
}

/// An integer type that stores codes.
pub trait Code: Pod + Send + Sync {
    /// The low bits of `code`, which fits.
    fn from_code(code: i32) -> Self;
    /// The code.
    fn to_code(self) -> i32;
}

macro_rules! code {
    ($($t:ty)*) => {$(impl Code for $t {
        #[inline(always)]
        fn from_code(code: i32) -> Self { code as Self }
        #[inline(always)]
        fn to_code(self) -> i32 { self as i32 }
    })*};
}
code!(i8 u8 i16 u16 i32);

/// One slice's quantizer: the constants of the loop, computed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantizer<T> {
    scale: T,
    reciprocal: T,
    zero_point: i32,
    zero_point_real: T,
    codes: CodeRange,
    low: T,
    high: T,
}

impl<T: Real> Quantizer<T> {
    #[inline(always)]
    pub(super) fn new(affine: QuantParams<T>, codes: CodeRange, rounding: Rounding) -> Self {
        Self::with_reciprocal(affine, T::ONE / affine.scale, codes, rounding)
    }

    #[inline(always)]
    fn at(columns: &Columns<'_, T>, i: usize, codes: CodeRange, rounding: Rounding) -> Self {
        Self::with_reciprocal(columns.affine(i), columns.reciprocals[i], codes, rounding)
    }

    #[inline(always)]
    pub(super) fn with_reciprocal(
        affine: QuantParams<T>,
        reciprocal: T,
        codes: CodeRange,
        rounding: Rounding,
    ) -> Self {
        let QuantParams { scale, zero_point } = affine;
        let shift = if rounding == Rounding::ZeroPointFirst { 0 } else { zero_point };
        // One step beyond the codes, so that a saturated value stays visible.
        Self {
            scale,
            reciprocal,
            zero_point,
            zero_point_real: T::from_i32(zero_point),
            codes,
            low: T::from_i32(codes.min - shift - 1),
            high: T::from_i32(codes.max - shift + 1),
        }
    }

    /// The rounded code of `x` before saturation, or, where that is further
    /// away, one step beyond the end. NaN gives the lower end.
    #[inline(always)]
    fn wide<const ROUNDING: u8>(&self, x: T) -> i32 {
        let grid = match ROUNDING {
            RECIPROCAL_EVEN => x * self.reciprocal,
            ZERO_POINT_FIRST => x / self.scale + self.zero_point_real,
            _ => x / self.scale,
        };
        // Comparisons, not `max`/`min`: they keep NaN out and compile to one instruction.
        let grid = if grid > self.low { grid } else { self.low };
        let grid = if grid < self.high { grid } else { self.high };
        let even = grid.round_even();
        match ROUNDING {
            ZERO_POINT_FIRST => even,
            DIVIDE_AWAY => {
                // Exact: the difference of neighbours needs no more bits than they have.
                let rest = grid - T::from_i32(even);
                let up = i32::from(rest >= T::HALF && grid > T::ZERO);
                let down = i32::from(rest <= -T::HALF && grid < T::ZERO);
                even + up - down + self.zero_point
            }
            _ => even + self.zero_point,
        }
    }

    /// What `x` comes back as, and whether its code was saturated.
    #[inline(always)]
    pub(super) fn restore<const ROUNDING: u8>(&self, x: T) -> (T, bool) {
        let wide = self.wide::<ROUNDING>(x);
        let code = self.saturate(wide);
        (T::from_i32(code - self.zero_point) * self.scale, wide != code)
    }

    /// (x - x̂)^2; 0 where `x` is not finite.
    #[inline(always)]
    fn squared_error<const ROUNDING: u8>(&self, x: T) -> f64 {
        let (restored, _) = self.restore::<ROUNDING>(x);
        let error = x.to_f64() - restored.to_f64();
        if x.is_finite() { error * error } else { 0.0 }
    }

    #[inline(always)]
    fn saturate(&self, wide: i32) -> i32 {
        wide.max(self.codes.min).min(self.codes.max)
    }
}

pub(super) const DIVIDE_EVEN: u8 = 0;
pub(super) const RECIPROCAL_EVEN: u8 = 1;
pub(super) const ZERO_POINT_FIRST: u8 = 2;
pub(super) const DIVIDE_AWAY: u8 = 3;

/// Where the affine parameters of the elements of one call come from.
#[derive(Clone, Copy, Debug)]
pub enum Params<'a, T> {
    /// All elements share them.
    Same(QuantParams<T>),
    /// Each element of a row has its own (the last axis is the channel, or slices are short). What
    /// follows is further rows with the same ones: element `i` has those of column `i % columns`.
    Each(Columns<'a, T>),
    /// A few neighbours share them.
    Groups(Groups<'a, T>),
}

impl<T: Real> Params<'_, T> {
    /// Zero point of element `i`.
    #[must_use]
    pub fn zero_point(&self, i: usize) -> i32 {
        self.affine(i).zero_point
    }

    /// Scale and zero point of element `i`.
    #[inline(always)]
    pub(super) fn affine(&self, i: usize) -> QuantParams<T> {
        match self {
            Self::Same(affine) => *affine,
            Self::Each(columns) => columns.affine(i % columns.len()),
            Self::Groups(groups) => groups.affine(i),
        }
    }
}

/// Writes the code of each element of `x` to `codes`; NaN gets the smallest code.
#[inline(always)]
pub fn quantize<T: Real, C: Code>(
    x: &[T],
    params: Params<'_, T>,
    range: CodeRange,
    rounding: Rounding,
    codes: &mut [C],
) {
    match rounding {
        Rounding::DivideEven => {
            quantize_with::<T, C, DIVIDE_EVEN>(x, params, range, rounding, codes)
        }
        Rounding::ReciprocalEven => {
            quantize_with::<T, C, RECIPROCAL_EVEN>(x, params, range, rounding, codes);
        }
        Rounding::ZeroPointFirst => {
            quantize_with::<T, C, ZERO_POINT_FIRST>(x, params, range, rounding, codes);
        }
        Rounding::DivideAway => {
            quantize_with::<T, C, DIVIDE_AWAY>(x, params, range, rounding, codes)
        }
    }
}

#[inline(always)]
fn quantize_with<T: Real, C: Code, const ROUNDING: u8>(
    x: &[T],
    params: Params<'_, T>,
    range: CodeRange,
    rounding: Rounding,
    codes: &mut [C],
) {
    debug_assert_eq!(x.len(), codes.len());
    match params {
        Params::Same(affine) => {
            let quantizer = Quantizer::new(affine, range, rounding);
            for (&x, code) in x.iter().zip(codes) {
                *code = C::from_code(quantizer.saturate(quantizer.wide::<ROUNDING>(x)));
            }
        }
        Params::Each(columns) => {
            let row = columns.len().max(1);
            for (x, codes) in x.chunks(row).zip(codes.chunks_mut(row)) {
                for (i, (&x, code)) in x.iter().zip(codes).enumerate() {
                    let quantizer = Quantizer::at(&columns, i, range, rounding);
                    *code = C::from_code(quantizer.saturate(quantizer.wide::<ROUNDING>(x)));
                }
            }
        }
        Params::Groups(groups) => {
            for (i, (&x, code)) in x.iter().zip(codes).enumerate() {
                let quantizer = Quantizer::at(&groups.slices, groups.slice(i), range, rounding);
                *code = C::from_code(quantizer.saturate(quantizer.wide::<ROUNDING>(x)));
            }
        }
    }
}

/// Writes `(code - zero_point) * scale` of each code to `x`. The difference is
/// exact for codes of up to 16 bits; for I32 (biases, zero point 0) it rounds once.
#[inline(always)]
pub fn dequantize<T: Real, C: Code>(codes: &[C], params: Params<'_, T>, x: &mut [T]) {
    debug_assert_eq!(x.len(), codes.len());
    match params {
        Params::Same(QuantParams { scale, zero_point }) => {
            for (x, &code) in x.iter_mut().zip(codes) {
                *x = T::from_i32(code.to_code().wrapping_sub(zero_point)) * scale;
            }
        }
        Params::Each(columns) => {
            let row = columns.len().max(1);
            for (x, codes) in x.chunks_mut(row).zip(codes.chunks(row)) {
                for (i, (x, &code)) in x.iter_mut().zip(codes).enumerate() {
                    let QuantParams { scale, zero_point } = columns.affine(i);
                    *x = T::from_i32(code.to_code().wrapping_sub(zero_point)) * scale;
                }
            }
        }
        Params::Groups(groups) => {
            for (i, (x, &code)) in x.iter_mut().zip(codes).enumerate() {
                let QuantParams { scale, zero_point } = groups.affine(i);
                *x = T::from_i32(code.to_code().wrapping_sub(zero_point)) * scale;
            }
        }
    }
}

/// Adds what quantizing `x` with these parameters loses to `lanes`.
#[inline(always)]
pub fn measure<T: Real>(
    x: &[T],
    params: Params<'_, T>,
    range: CodeRange,
    rounding: Rounding,
    lanes: &mut LaneSums,
) {
    match rounding {
        Rounding::DivideEven => measure_with::<T, DIVIDE_EVEN>(x, params, range, rounding, lanes),
        Rounding::ReciprocalEven => {
            measure_with::<T, RECIPROCAL_EVEN>(x, params, range, rounding, lanes);
        }
        Rounding::ZeroPointFirst => {
            measure_with::<T, ZERO_POINT_FIRST>(x, params, range, rounding, lanes);
        }
        Rounding::DivideAway => measure_with::<T, DIVIDE_AWAY>(x, params, range, rounding, lanes),
    }
}

#[inline(always)]
fn measure_with<T: Real, const ROUNDING: u8>(
    x: &[T],
    params: Params<'_, T>,
    range: CodeRange,
    rounding: Rounding,
    lanes: &mut LaneSums,
) {
    match params {
        Params::Same(affine) => {
            let quantizer = Quantizer::new(affine, range, rounding);
            add_blocks::<T, ROUNDING>(x, |_| quantizer, lanes);
        }
        Params::Each(columns) => {
            let at = |i| Quantizer::at(&columns, i, range, rounding);
            let row = columns.len();
            if x.len() <= row {
                add_blocks::<T, ROUNDING>(x, at, lanes);
            } else {
                add_blocks::<T, ROUNDING>(x, |i| at(i % row), lanes);
            }
        }
        Params::Groups(groups) => {
            let at = |i| Quantizer::at(&groups.slices, groups.slice(i), range, rounding);
            add_blocks::<T, ROUNDING>(x, at, lanes);
        }
    }
}

/// Adds what is lost where element `i` is quantized by `quantizer(i)`.
#[inline(always)]
fn add_blocks<T: Real, const ROUNDING: u8>(
    x: &[T],
    quantizer: impl Fn(usize) -> Quantizer<T>,
    lanes: &mut LaneSums,
) {
    let mut block = Block::default();
    for (first, x) in x.chunks(BLOCK).enumerate() {
        for (i, &x) in x.iter().enumerate() {
            let (restored, saturated) = quantizer(first * BLOCK + i).restore::<ROUNDING>(x);
            block.set(i, x, restored, saturated);
        }
        lanes.add(&mut block, x.len());
    }
}

/// Sum of (x - x̂)^2 over the finite elements: what [`measure`] finds, alone.
#[inline(always)]
pub fn squared_error<T: Real>(
    x: &[T],
    affine: QuantParams<T>,
    range: CodeRange,
    rounding: Rounding,
) -> f64 {
    match rounding {
        Rounding::DivideEven => squared_error_with::<T, DIVIDE_EVEN>(x, affine, range, rounding),
        Rounding::ReciprocalEven => {
            squared_error_with::<T, RECIPROCAL_EVEN>(x, affine, range, rounding)
        }
        Rounding::ZeroPointFirst => {
            squared_error_with::<T, ZERO_POINT_FIRST>(x, affine, range, rounding)
        }
        Rounding::DivideAway => squared_error_with::<T, DIVIDE_AWAY>(x, affine, range, rounding),
    }
}

#[inline(always)]
fn squared_error_with<T: Real, const ROUNDING: u8>(
    x: &[T],
    affine: QuantParams<T>,
    range: CodeRange,
    rounding: Rounding,
) -> f64 {
    let quantizer = Quantizer::new(affine, range, rounding);
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.split_at(x.len() - x.len() % LANES);
    let rest: f64 = rest.iter().map(|&x| quantizer.squared_error::<ROUNDING>(x)).sum();
    add_squares::<T, ROUNDING>(whole, &quantizer, &mut lanes);
    lanes.iter().sum::<f64>() + rest
}

#[inline(always)]
fn add_squares<T: Real, const ROUNDING: u8>(
    x: &[T],
    quantizer: &Quantizer<T>,
    lanes: &mut [f64; LANES],
) {
    for block in x.chunks_exact(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += quantizer.squared_error::<ROUNDING>(x);
        }
    }
}

/// What [`squared_error`] does with elements that fill all lanes: adds
/// (x - x̂)^2 of each finite one to the lane of its index.
#[inline(always)]
pub(super) fn add_squared_errors<T: Real>(
    x: &[T],
    affine: QuantParams<T>,
    range: CodeRange,
    rounding: Rounding,
    lanes: &mut [f64; LANES],
) {
    let quantizer = Quantizer::new(affine, range, rounding);
    match rounding {
        Rounding::DivideEven => add_squares::<T, DIVIDE_EVEN>(x, &quantizer, lanes),
        Rounding::ReciprocalEven => add_squares::<T, RECIPROCAL_EVEN>(x, &quantizer, lanes),
        Rounding::ZeroPointFirst => add_squares::<T, ZERO_POINT_FIRST>(x, &quantizer, lanes),
        Rounding::DivideAway => add_squares::<T, DIVIDE_AWAY>(x, &quantizer, lanes),
    }
}

/// Extent of the finite elements of a slice, and what was not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent<T> {
    /// Smallest finite element; infinity when there is none.
    pub min: T,
    /// Largest finite element; minus infinity when there is none.
    pub max: T,
    /// NaN elements.
    pub nan: u64,
    /// Infinite elements of either sign.
    pub inf: u64,
}

impl<T: Real> Default for Extent<T> {
    fn default() -> Self {
        Self { min: T::INFINITY, max: -T::INFINITY, nan: 0, inf: 0 }
    }
}

impl<T: Real> Extent<T> {
    /// The extent of both.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.min = if other.min < self.min { other.min } else { self.min };
        self.max = if other.max > self.max { other.max } else { self.max };
        self.nan += other.nan;
        self.inf += other.inf;
        self
    }

    /// Takes in one element. Of zeros the sign is dropped, as it would depend
    /// on which one comes first.
    #[inline(always)]
    pub fn add(&mut self, x: T) {
        if x.is_finite() {
            let x = x + T::ZERO;
            self.min = if x < self.min { x } else { self.min };
            self.max = if x > self.max { x } else { self.max };
        } else if x.is_nan() {
            self.nan += 1;
        } else {
            self.inf += 1;
        }
    }
}

/// Finds the extent of `x`.
#[inline(always)]
pub fn extent<T: Real>(x: &[T]) -> Extent<T> {
    const WIDTH: usize = 16;
    let mut min = [T::INFINITY; WIDTH];
    let mut max = [-T::INFINITY; WIDTH];
    // 0 as long as all are finite: 0 times infinity or NaN is NaN.
    let mut odd = [T::ZERO; WIDTH];
    let blocks = x.chunks_exact(WIDTH);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..WIDTH {
            let x = block[i];
            min[i] = if x < min[i] { x } else { min[i] };
            max[i] = if x > max[i] { x } else { max[i] };
            odd[i] = odd[i] + x * T::ZERO;
        }
    }
    let mut extent = Extent::default();
    if odd.iter().all(|&odd| odd == T::ZERO) {
        for i in 0..WIDTH {
            let (min, max) = (min[i] + T::ZERO, max[i] + T::ZERO);
            extent = extent.join(Extent { min, max, nan: 0, inf: 0 });
        }
        rest.iter().for_each(|&x| extent.add(x));
    } else {
        x.iter().for_each(|&x| extent.add(x));
    }
    extent
}

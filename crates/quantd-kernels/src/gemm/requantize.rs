//! Sums of products to 8-bit codes of another scale.
//!
//! Four definitions are in use, which differ by one in rare cases
//! (docs/NUMERICS.md, "Products").

use super::super::scalar::CodeRange;
use super::multiplier::Multiplier;
use super::terms::Extra;

/// How sums become codes.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// The definition followed.
    pub mode: Mode<'a>,
    /// Zero point of the result.
    pub zero_point: i32,
    /// Codes of the result, both ends included; `ReLU` raises the lower end to the zero point.
    pub range: CodeRange,
    /// Added to the sums, one a column.
    pub bias: Option<&'a [i32]>,
}

/// Definitions of requantization.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// ONNX Runtime's `QLinearMatMul`: in f32, `saturate(rne(f32(sum) * m) + z)`
    /// with `m = (scale_a * scale_b) / scale_c`, `scale_c` given here.
    FloatOrt(f32),
    /// The reference of ONNX: `saturate(rne(f64(sum) * m + z))` with the same f32 `m`.
    FloatOnnx(f32),
    /// gemmlowp and TFLite, rounding twice; one multiplier, or one a column.
    Gemmlowp(&'a [Multiplier]),
    /// TFLite with `TFLITE_SINGLE_ROUNDING`; one multiplier, or one a column.
    SingleRound(&'a [Multiplier]),
}

impl Requantize<'_> {
    /// Ends of the codes less the zero point.
    pub(super) const fn ends(&self) -> [i32; 2] {
        [self.range.min - self.zero_point, self.range.max - self.zero_point]
    }

    /// What it needs of the columns.
    pub(super) fn extra(&self) -> Extra<'_> {
        let multipliers = match self.mode {
            Mode::FloatOrt(_) | Mode::FloatOnnx(_) => &[],
            Mode::Gemmlowp(all) | Mode::SingleRound(all) => all,
        };
        Extra { sums: self.bias.unwrap_or_default(), bias: &[], multipliers }
    }
}

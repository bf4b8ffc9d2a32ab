//! From a range of real numbers to a scale and a zero point.
//!
//! The formulas of each profile are those of the tool it is named after; the
//! sources are listed in docs/NUMERICS.md.

use crate::tensor::DType;
use crate::words;
use quantd_kernels::CodeSpec;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{CodeRange, QuantParams, Rounding};

words! {
    /// Whose numerics are followed.
    pub enum Profile {
        /// ONNX `DynamicQuantizeLinear` where there are its codes, else the ONNX Runtime quantization tool.
        Onnx = "onnx",
        /// PyTorch observers and `quantize_per_tensor` / `_per_channel`.
        Torch = "torch",
        /// The compressed-tensors checkpoints that serving engines load.
        CompressedTensors = "compressed-tensors",
        /// TFLite / LiteRT.
        Tflite = "tflite",
        /// NVIDIA Model-Optimizer.
        Modelopt = "modelopt",
    }
}

impl Profile {
    /// Whether symmetric signed codes leave out the most negative one by default.
    #[must_use]
    pub const fn restricted_by_default(self) -> bool {
        matches!(self, Self::Onnx | Self::Tflite)
    }
}

/// The integer type that stores codes, one a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeType {
    /// Signed, up to 8 bits.
    I8,
    /// Unsigned, up to 8 bits.
    U8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
}

impl CodeType {
    /// As an element type of tensors.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::I8 => DType::I8,
            Self::U8 => DType::U8,
            Self::I16 => DType::I16,
            Self::U16 => DType::U16,
        }
    }
}

/// The clipping range [beta, alpha] of one slice; it contains 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range<T> {
    /// beta, at most 0.
    pub min: T,
    /// alpha, at least 0.
    pub max: T,
}

impl<T: Real> Range<T> {
    /// The smallest range that contains `min`, `max` and 0.
    #[must_use]
    pub fn around_zero(min: T, max: T) -> Self {
        Self {
            min: if min < T::ZERO { min } else { T::ZERO },
            max: if max > T::ZERO { max } else { T::ZERO },
        }
    }

    /// Largest magnitude in the range.
    #[must_use]
    pub fn abs_max(self) -> T {
        let (low, high) = (self.min.abs(), self.max.abs());
        if low > high { low } else { high }
    }
}

/// What decides scale, zero point and code of a number, apart from its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics {
    /// Whose formulas.
    pub profile: Profile,
    /// Bits of a code: 2 to 8, or 16.
    pub bits: u32,
    /// Two's complement codes rather than unsigned ones.
    pub signed: bool,
    /// Zero point fixed in the middle: 0 for signed codes, 2^(bits-1) for unsigned ones.
    pub symmetric: bool,
    /// Leave out the most negative signed code: -127..127 at 8 bits.
    pub restricted: bool,
}

impl Numerics {
    /// The type that stores the codes.
    #[must_use]
    pub const fn code_type(&self) -> CodeType {
        match (self.signed, self.bits > 8) {
            (true, false) => CodeType::I8,
            (false, false) => CodeType::U8,
            (true, true) => CodeType::I16,
            (false, true) => CodeType::U16,
        }
    }

    /// The codes in use.
    #[must_use]
    pub const fn code_range(&self) -> CodeRange {
        let half = 1_i32 << (self.bits - 1);
        match (self.signed, self.restricted) {
            (true, true) => CodeRange { min: 1 - half, max: half - 1 },
            (true, false) => CodeRange { min: -half, max: half - 1 },
            (false, _) => CodeRange { min: 0, max: 2 * half - 1 },
        }
    }

    /// How the profile rounds.
    #[must_use]
    pub const fn rounding(&self) -> Rounding {
        match self.profile {
            // Of Model-Optimizer there are no integers here.
            Profile::Onnx | Profile::Modelopt => Rounding::DivideEven,
            Profile::Torch => Rounding::ReciprocalEven,
            Profile::CompressedTensors => Rounding::ZeroPointFirst,
            Profile::Tflite => Rounding::DivideAway,
        }
    }

    /// The two, for codes that are read again soon.
    #[must_use]
    pub const fn how(&self) -> CodeSpec {
        CodeSpec::new(self.code_range(), self.rounding())
    }

    /// The zero point of symmetric codes.
    #[must_use]
    pub const fn middle(&self) -> i32 {
        if self.signed { 0 } else { 1 << (self.bits - 1) }
    }

    /// Scale and zero point for a range. A range of no extent (an empty,
    /// constant-zero or all-infinite slice) gets a positive scale, so that 0
    /// still maps to exactly 0.
    #[must_use]
    pub fn affine<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let range = if self.symmetric {
            let amax = range.abs_max();
            Range { min: -amax, max: amax }
        } else {
            range
        };
        match self.profile {
            Profile::Onnx if self.is_of_operator::<T>() => self.onnx_operator(range),
            Profile::Onnx | Profile::Modelopt => self.onnx_tool(range),
            Profile::Torch => self.torch(range),
            Profile::CompressedTensors => self.compressed_tensors(range),
            Profile::Tflite => self.tflite(range),
        }
    }

    /// The scale of symmetric codes for ranges up to `max` that ask for no special one.
    #[inline(always)]
    pub(super) fn symmetric_step<T: Real>(&self, max: T) -> T {
        let steps = self.steps();
        match self.profile {
            Profile::Onnx | Profile::Tflite | Profile::Modelopt => {
                T::from_f64((max.to_f64() + max.to_f64()) / f64::from(steps))
            }
            Profile::Torch | Profile::CompressedTensors => max / (T::from_i32(steps) * T::HALF),
        }
    }

    fn steps(&self) -> i32 {
        let CodeRange { min, max } = self.code_range();
        max - min
    }

    /// The step of a range in f64.
    fn step(&self, min: f64, max: f64) -> f64 {
        // An f64 range may exceed the largest number; half of it does not.
        if (max - min).is_finite() {
            (max - min) / f64::from(self.steps())
        } else {
            (max / 2.0 - min / 2.0) / f64::from(self.steps()) * 2.0
        }
    }

    /// Whether the codes are those that ONNX `DynamicQuantizeLinear` makes, which exists for F32 only.
    const fn is_of_operator<T: Real>(&self) -> bool {
        self.bits == 8 && !self.signed && !self.symmetric && T::BITS == 32
    }

    /// ONNX `DynamicQuantizeLinear` as ONNX Runtime computes it: all in F32. Where its scale is not a number to divide
    /// by, because the width overflows or the quotient is 0, there is that of the tool.
    fn onnx_operator<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let scale = (range.max - range.min) / T::from_i32(self.steps());
        if !(scale > T::ZERO && scale.is_finite()) {
            return self.onnx_tool(range);
        }
        let zero_point = T::from_i32(self.code_range().min) - range.min / scale;
        QuantParams { scale, zero_point: self.clamped_even(zero_point.to_f64()) }
    }

    /// `onnxruntime/quantization/quant_utils.py: compute_scale_zp`: everything
    /// in f64, the scale rounded to the tensor's type at the end.
    fn onnx_tool<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let (min, max) = (range.min.to_f64(), range.max.to_f64());
        let scale = self.step(min, max);
        if scale < T::TINY.to_f64() {
            return self.without_extent();
        }
        let zero_point = if self.symmetric {
            self.middle()
        } else {
            self.clamped_even(f64::from(self.code_range().min) - min / scale)
        };
        QuantParams { scale: T::from_f64(scale), zero_point }
    }

    /// Scale 1; the zero point is 0 where that is a code, as ONNX Runtime answers for a tensor of zeros.
    fn without_extent<T: Real>(&self) -> QuantParams<T> {
        let CodeRange { min, max } = self.code_range();
        let zero_point = if self.symmetric { self.middle() } else { 0.clamp(min, max) };
        QuantParams { scale: T::ONE, zero_point }
    }

    #[expect(clippy::cast_possible_truncation, reason = "clamped to the codes before")]
    fn clamped_even(&self, x: f64) -> i32 {
        let CodeRange { min, max } = self.code_range();
        x.round_ties_even().clamp(f64::from(min), f64::from(max)) as i32
    }

    /// `torch/ao/quantization/observer.py: _calculate_qparams`: in the type of
    /// the tensor, with the machine epsilon of f32 as smallest scale.
    fn torch<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let CodeRange { min: qmin, max: qmax } = self.code_range();
        let floor = T::from_f64(f64::from(f32::EPSILON));
        let at_least = |scale: T| if scale > floor { scale } else { floor };
        if self.symmetric {
            let scale = at_least(finite_or_max(self.symmetric_step(range.max)));
            return QuantParams { scale, zero_point: self.middle() };
        }
        let scale = at_least(finite_or_max((range.max - range.min) / T::from_i32(qmax - qmin)));
        let shift = (range.min / scale).to_f64().round_ties_even();
        let zero_point = self.clamped_even(f64::from(qmin) - shift);
        QuantParams { scale, zero_point }
    }

    /// `compressed_tensors/quantization/utils/helpers.py: calculate_qparams`:
    /// as PyTorch, but the zero point is rounded after the subtraction and only
    /// a scale of zero is replaced by epsilon.
    fn compressed_tensors<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let CodeRange { min: qmin, max: qmax } = self.code_range();
        let positive = |scale: T| if scale > T::ZERO { scale } else { T::EPSILON };
        if self.symmetric {
            let scale = positive(finite_or_max(self.symmetric_step(range.max)));
            return QuantParams { scale, zero_point: self.middle() };
        }
        let scale = positive(finite_or_max((range.max - range.min) / T::from_i32(qmax - qmin)));
        let zero_point = T::from_i32(qmin) - range.min / scale;
        QuantParams { scale, zero_point: self.clamped_even(zero_point.to_f64()) }
    }

    /// `tflite/kernels/internal/quantization_util.h: ChooseQuantizationParams`:
    /// in f64 to the end, so that the zero point does not see the scale as it is stored; it is computed from the end
    /// that loses less.
    fn tflite<T: Real>(&self, range: Range<T>) -> QuantParams<T> {
        let CodeRange { min: qmin, max: qmax } = self.code_range();
        let (min, max) = (range.min.to_f64(), range.max.to_f64());
        let step = self.step(min, max);
        if step < T::TINY.to_f64() {
            return self.without_extent();
        }
        let scale = T::from_f64(step);
        if self.symmetric {
            return QuantParams { scale, zero_point: self.middle() };
        }
        let (qmin, qmax) = (f64::from(qmin), f64::from(qmax));
        let min_error = qmin.abs() + (min / step).abs();
        let max_error = qmax.abs() + (max / step).abs();
        let exact = if min_error < max_error { qmin - min / step } else { qmax - max / step };
        // `round`, half away from zero, and then nothing left for `clamped_even` to round.
        QuantParams { scale, zero_point: self.clamped_even(exact.round()) }
    }
}

/// An f32 range near the largest number may have an infinite width; the
/// largest finite scale then covers it.
fn finite_or_max<T: Real>(scale: T) -> T {
    if scale.is_finite() { scale } else { T::from_order_key(T::INFINITY.order_key() - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Word;

    fn numerics(profile: Profile, bits: u32, kind: &str) -> Numerics {
        Numerics {
            profile,
            bits,
            signed: kind.contains("signed") && !kind.contains("unsigned"),
            symmetric: kind.contains("symmetric"),
            restricted: kind.contains("restricted"),
        }
    }

    /// Figures of onnxruntime 1.32.0, torch 2.15.0 and compressed-tensors
    /// 0.20.0, from the project's numerics study.
    #[test]
    fn parameters_of_each_profile() {
        let check = |profile, bits, kind, range: [f32; 2], scale: f32, zero_point| {
            let range = Range::around_zero(range[0], range[1]);
            let affine = numerics(profile, bits, kind).affine(range);
            assert_eq!(
                affine,
                QuantParams { scale, zero_point },
                "{profile:?} {bits} {kind} {range:?}"
            );
        };
        use Profile::{CompressedTensors, Onnx, Tflite, Torch};
        check(Onnx, 8, "unsigned", [1.0, 3.0], 0.011_764_706, 0);
        check(Onnx, 8, "unsigned", [-3.0, -1.0], 0.011_764_706, 255);
        check(Onnx, 8, "unsigned", [0.0, 0.0], 1.0, 0);
        check(Onnx, 8, "signed symmetric restricted", [-2.0, 1.0], 2.0 / 127.0, 0);
        check(Onnx, 4, "signed symmetric", [-2.0, 1.0], 2.0 / 7.5, 0);
        check(Onnx, 8, "unsigned symmetric", [-1.0, 0.5], 2.0 / 255.0, 128);
        check(Torch, 8, "signed symmetric", [-1.0, 0.5], 0.007_843_138, 0);
        check(Torch, 8, "unsigned symmetric", [-1.0, 0.5], 0.007_843_138, 128);
        check(Torch, 8, "unsigned", [-1.0, 0.5], 0.005_882_353, 170);
        check(Torch, 8, "signed", [-1.0, 0.5], 0.005_882_353, 42);
        check(Torch, 8, "unsigned", [0.0, 0.0], f32::EPSILON, 0);
        check(CompressedTensors, 8, "signed symmetric", [-1.0, 1.0], 0.007_843_138, 0);
        check(CompressedTensors, 4, "signed", [-1.0, 3.0], 4.0 / 15.0, -4);
        check(CompressedTensors, 8, "signed symmetric", [0.0, 0.0], f32::EPSILON, 0);
        // LiteRT: 0.5 left over, which the scale in F32 would hide.
        check(Tflite, 8, "unsigned", [-1.0, 1.0], 2.0 / 255.0, 128);
        check(Tflite, 8, "signed", [-1.0, 1.0], 2.0 / 255.0, -1);
        check(Tflite, 8, "unsigned", [-1.0, 5.0], 6.0 / 255.0, 43);
    }

    /// `DynamicQuantizeLinear` of onnx 1.23.2 and onnxruntime 1.32.0; its tool says 43.
    #[test]
    fn unsigned_codes_of_f32_are_those_of_the_operator() {
        let unsigned = numerics(Profile::Onnx, 8, "unsigned");
        let affine = unsigned.affine(Range::around_zero(-0.1_f32, 0.5));
        assert_eq!(affine, QuantParams { scale: 0.002_352_941_3, zero_point: 42 });
        let tiny = unsigned.affine(Range::around_zero(0.0_f32, 1e-38));
        assert_eq!(tiny, QuantParams { scale: 1e-38 / 255.0, zero_point: 0 });
        let wide = unsigned.affine(Range { min: f32::MIN, max: f32::MAX });
        assert_eq!(wide, QuantParams { scale: f32::MAX / 255.0 * 2.0, zero_point: 128 });
        // Numbers of F64 and all other codes are those of the tool.
        let double = unsigned.affine(Range::around_zero(-0.1_f64, 0.5));
        assert_eq!(double, QuantParams { scale: 0.6 / 255.0, zero_point: 43 });
        let signed = numerics(Profile::Onnx, 8, "signed");
        assert_eq!(signed.affine(Range::around_zero(-0.1_f32, 0.5)).zero_point, -85);
    }

    /// 2^-1022 * 255 is the least range of a normal step; the quotient is exact.
    #[test]
    fn the_step_near_the_subnormals_is_rounded_once() {
        for profile in [Profile::Onnx, Profile::Tflite] {
            let numerics = numerics(profile, 8, "unsigned");
            for k in 0..64 {
                let max = f64::MIN_POSITIVE * 255.0 + f64::from_bits(k);
                let affine = numerics.affine(Range { min: 0.0, max });
                assert_eq!(
                    affine,
                    QuantParams { scale: max / 255.0, zero_point: 0 },
                    "{profile:?} {k}"
                );
            }
        }
    }

    #[test]
    fn extreme_ranges_keep_a_usable_scale() {
        for &profile in Profile::ALL {
            for kind in ["signed symmetric", "unsigned", "signed", "signed symmetric restricted"] {
                let numerics = numerics(profile, 8, kind);
                let codes = numerics.code_range();
                let check = |scale: f64, zero_point: i32| {
                    assert!(scale > 0.0 && scale.is_finite(), "{profile:?} {kind} {scale}");
                    assert!((codes.min..=codes.max).contains(&zero_point), "{profile:?} {kind}");
                };
                for range in [[f32::MIN, f32::MAX], [-1e-45, 1e-45], [0.0, f32::MAX], [0.0, 0.0]] {
                    let a = numerics.affine(Range { min: range[0], max: range[1] });
                    check(f64::from(a.scale), a.zero_point);
                }
                for range in [[f64::MIN, f64::MAX], [-5e-324, 5e-324], [f64::MIN, 0.0]] {
                    let a = numerics.affine(Range { min: range[0], max: range[1] });
                    check(a.scale, a.zero_point);
                }
            }
        }
    }
}

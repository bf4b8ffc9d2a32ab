//! Scales of blocks that are floats of 8 bits, under one of the tensor.

use quantd_kernels::minifloat::{FloatSpec, MiniFloat, code};

use super::element::Element;
use crate::format::float::saturating;
use crate::params::Profile;

const E4M3: FloatSpec = saturating(MiniFloat::E4M3);

/// How a tensor is scaled, and its blocks below that.
///
/// Sources: compressed-tensors `quantization/utils/helpers.py` (`generate_gparam`, `calculate_qparams`); NVIDIA
/// Model-Optimizer `torch/quantization/qtensor/nvfp4_tensor.py`; torchao `prototype/mx_formats/nvfp4_tensor.py`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TwoLevel {
    profile: Profile,
    /// The scale of the tensor: what numbers were multiplied with (compressed-tensors), or are to be.
    pub(super) global: f32,
    largest: f32,
}

/// What an element is divided by, and multiplied with instead where a profile does that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Factors {
    pub(super) scale: f32,
    pub(super) reciprocal: f32,
}

impl TwoLevel {
    /// That of a tensor of that largest magnitude.
    pub(super) fn of(abs_max: f32, element: Element, profile: Profile) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a float of 4 bits")]
        let largest = element.largest() as f32;
        let span = MiniFloat::E4M3.largest() * largest;
        let global = match profile {
            Profile::Modelopt | Profile::Torch => abs_max / span,
            Profile::CompressedTensors | Profile::Onnx | Profile::Tflite => {
                // As PyTorch divides a number by a tensor.
                1.0 / abs_max.max(f32::MIN_POSITIVE) * span
            }
        };
        // Of a tensor of zeros, or of numbers too small to divide by.
        let global = if global.is_finite() && global > 0.0 { global } else { 1.0 };
        Self { profile, global, largest }
    }

    /// As it comes back.
    pub(super) const fn stored(global: f32, profile: Profile) -> Self {
        Self { profile, global, largest: 0.0 }
    }

    /// The scale of a block of that largest magnitude.
    pub(super) fn block(&self, abs_max: f32) -> u8 {
        let scale = match self.profile {
            Profile::Modelopt if abs_max == 0.0 => 1.0,
            // At least the smallest number.
            Profile::Modelopt => (abs_max / (self.largest * self.global)).max(0.001_953_125),
            // At least the smallest normal number.
            Profile::Torch => (abs_max / self.largest / self.global).max(0.015_625),
            Profile::CompressedTensors | Profile::Onnx | Profile::Tflite => {
                abs_max / self.largest * self.global
            }
        };
        let [pattern, _] = code(scale.into(), E4M3).to_le_bytes();
        // The distance from 1 to the next number, as other scales of 0 become that of their types.
        if pattern == 0 { 0x20 } else { pattern }
    }

    /// What the elements of a block of that scale are divided by.
    pub(super) fn factors(&self, pattern: u8) -> Factors {
        let block = MiniFloat::E4M3.value(pattern.into());
        let scale = match self.profile {
            Profile::Modelopt | Profile::Torch => block * self.global,
            Profile::CompressedTensors | Profile::Onnx | Profile::Tflite => block / self.global,
        };
        Factors { scale, reciprocal: 1.0 / self.global / block }
    }
}

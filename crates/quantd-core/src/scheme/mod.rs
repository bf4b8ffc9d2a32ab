//! What to do with a tensor.
//!
//! A [`Scheme`] holds values that were checked against one another when its
//! format made it of [`Options`]; whether it fits a given tensor (its axis
//! exists, its arrays have one entry a slice) is checked when it meets one.

mod options;

use crate::tensor::{DType, Tensor};
use crate::words;

use super::format::{Format, Plan, Quantized};
use super::params::{Numerics, Profile};
use super::{QuantError, Task};

pub use options::Options;

/// Which elements share a scale and a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those with the same index on `axis` (negative counts from the back).
    Channel {
        /// The axis.
        axis: i64,
    },
    /// `size` neighbours along `axis`; the last group of a line may be short.
    Group {
        /// The axis.
        axis: i64,
        /// Elements of a group, at least 1.
        size: usize,
    },
    /// Rectangles of the last two axes.
    Block {
        /// Rows and columns of a block, each at least 1.
        shape: [usize; 2],
    },
    /// The vectors along the last axis.
    Token,
}

words! {
    /// The words for granularities.
    pub enum GranularityName {
        /// One scale for all elements.
        Tensor = "tensor",
        /// One for each index of an axis.
        Channel = "channel",
        /// One for so many neighbours along an axis.
        Group = "group",
        /// One for each rectangle of the last two axes.
        Block = "block",
        /// One for each vector along the last axis.
        Token = "token",
    }
}

impl Granularity {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> GranularityName {
        match self {
            Self::Tensor => GranularityName::Tensor,
            Self::Channel { .. } => GranularityName::Channel,
            Self::Group { .. } => GranularityName::Group,
            Self::Block { .. } => GranularityName::Block,
            Self::Token => GranularityName::Token,
        }
    }
}

/// How the clipping range of a slice is found.
#[derive(Clone, Debug, PartialEq)]
pub enum RangeMethod {
    /// From the smallest to the largest finite element.
    MinMax,
    /// Between two percentiles of the elements (of their magnitudes when symmetric).
    Percentile(f64),
    /// The range of least squared error on a grid.
    Mse,
    /// Least KL divergence as ONNX Runtime computes it, over 2048 bins.
    EntropyOrt,
    /// Least KL divergence by the search of TensorRT, over 2048 bins.
    EntropyTensorrt,
    /// The same with what NVIDIA Model-Optimizer makes of it.
    EntropyModelopt,
    /// Least cross-entropy of softmax of the result against softmax of the input.
    CrossEntropy {
        /// Axis of the softmax when the granularity is tensor; other slices are one line each.
        axis: i64,
    },
    /// Given by the caller, one pair for all slices or one a slice.
    Explicit {
        /// Lower ends.
        min: Vec<f64>,
        /// Upper ends.
        max: Vec<f64>,
    },
    /// Scale and zero point given by the caller, one for all slices or one a slice.
    Given {
        /// Scales, positive and finite.
        scale: Vec<f64>,
        /// Zero points; empty means the middle of symmetric codes, or 0.
        zero_point: Vec<i32>,
    },
}

words! {
    /// The words for range methods.
    pub enum RangeName {
        /// From the smallest to the largest finite element.
        MinMax = "min_max",
        /// Between two percentiles.
        Percentile = "percentile",
        /// The range of least squared error.
        Mse = "mse",
        /// Least KL divergence as ONNX Runtime computes it.
        EntropyOrt = "entropy_ort",
        /// Least KL divergence by the search of TensorRT.
        EntropyTensorrt = "entropy_tensorrt",
        /// The same as NVIDIA Model-Optimizer has it.
        EntropyModelopt = "entropy_modelopt",
        /// Least cross-entropy of softmax.
        CrossEntropy = "cross_entropy",
        /// Given by the caller.
        Explicit = "explicit",
    }
}

impl RangeMethod {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> RangeName {
        match self {
            Self::MinMax => RangeName::MinMax,
            Self::Percentile(_) => RangeName::Percentile,
            Self::Mse => RangeName::Mse,
            Self::EntropyOrt => RangeName::EntropyOrt,
            Self::EntropyTensorrt => RangeName::EntropyTensorrt,
            Self::EntropyModelopt => RangeName::EntropyModelopt,
            Self::CrossEntropy { .. } => RangeName::CrossEntropy,
            Self::Explicit { .. } | Self::Given { .. } => RangeName::Explicit,
        }
    }
}

words! {
    /// What happens to NaN elements.
    pub enum NanPolicy {
        /// The tensor is refused, the index of the first one named.
        Refuse = "refuse",
        /// They get the code of 0.
        Zero = "zero",
        /// They get the smallest code.
        Min = "min",
        /// They get the largest code.
        Max = "max",
        /// They stay NaN, in formats that have it.
        Keep = "keep",
    }
}

words! {
    /// How the exponent of a block's scale is found from its largest magnitude, where the scale is a power of two.
    pub enum ScaleRounding {
        /// The power of two at or below it, less the format's largest exponent: OCP Microscaling 1.0, 6.3.
        Floor = "floor",
        /// The same after the magnitude was rounded as an element is.
        Even = "even",
        /// The power of two at or above it, less the format's largest exponent.
        Ceil = "ceil",
        /// The least power of two by which no element exceeds the largest number.
        Rceil = "rceil",
    }
}

/// What only the formats of one kind have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    /// Integers.
    Integer(Numerics),
    /// Floats, with one scale a slice where they are scaled.
    Float {
        /// What decides the scale of a slice of zeros.
        profile: Profile,
        /// What is too large becomes the largest number.
        saturate: bool,
    },
    /// Blocks whose scales are powers of two.
    Microscaling {
        /// Whose `even` it is.
        profile: Profile,
        /// How scales are found.
        rounding: ScaleRounding,
    },
    /// Blocks of floats with scales that are floats themselves, under one for the tensor.
    TwoLevel {
        /// Whose conventions.
        profile: Profile,
    },
}

/// A complete description of how to quantize.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheme {
    /// How the numbers are stored.
    pub format: &'static dyn Format,
    /// What only formats of its kind have.
    pub coding: Coding,
    /// Which elements share parameters.
    pub granularity: Granularity,
    /// How their range is found.
    pub range: RangeMethod,
    /// What happens to NaN.
    pub nan: NanPolicy,
    /// Codes below 8 bits leave as a bit stream, low bits first, rather than one a byte.
    pub packed: bool,
}

impl Scheme {
    /// What becomes of `tensor`, and what that takes.
    ///
    /// # Errors
    /// [`QuantError`] when the scheme does not fit the tensor.
    pub fn plan(&self, tensor: &Tensor) -> Result<Plan, QuantError> {
        self.format.plan(self, tensor.shape(), tensor.dtype())
    }

    /// Quantizes `tensor`; with `per_slice` also reports on each slice.
    ///
    /// # Errors
    /// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
    pub fn quantize(
        &self,
        tensor: &Tensor,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        self.format.quantize(tensor, self, per_slice, task)
    }

    /// Codes and formulas, if they are those of integers, which are all that `what` are of.
    ///
    /// # Errors
    /// [`QuantError`] about `format`.
    pub fn integers(&self, what: &str) -> Result<&Numerics, QuantError> {
        match &self.coding {
            Coding::Integer(numerics) => Ok(numerics),
            Coding::Float { .. } | Coding::Microscaling { .. } | Coding::TwoLevel { .. } => {
                Err(self.format.not_integer(what))
            }
        }
    }

    /// Codes and formulas, if they are those of integers of up to 8 bits, which are all that `what` multiply.
    ///
    /// # Errors
    /// [`QuantError`] about `format` or `bits`.
    pub fn multiplied(&self, what: &str) -> Result<&Numerics, QuantError> {
        let numerics = self.integers(what)?;
        if numerics.bits > 8 {
            let detail = format!("{what} are of codes of up to 8 bits");
            return Err(QuantError::field("bits", detail).cure("use bits 2 to 8"));
        }
        Ok(numerics)
    }

    /// Whose numerics are followed, where that makes a difference.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        match &self.coding {
            Coding::Integer(numerics) => numerics.profile,
            Coding::Float { profile, .. }
            | Coding::Microscaling { profile, .. }
            | Coding::TwoLevel { profile } => *profile,
        }
    }
}

/// Type of the scales of a tensor: F64 for F64, else F32.
#[must_use]
pub fn scale_dtype(source: DType) -> DType {
    if source == DType::F64 { DType::F64 } else { DType::F32 }
}

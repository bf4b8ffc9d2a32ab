//! What to do with a tensor.
//!
//! A [`Scheme`] holds values that were checked against one another when it was
//! made from the options of a request; whether it fits a given tensor (its
//! axis exists, its arrays have one entry a slice) is checked when it meets one.

use super::params::Numerics;

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

impl Granularity {
    /// Name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Channel { .. } => "channel",
            Self::Group { .. } => "group",
            Self::Block { .. } => "block",
            Self::Token => "token",
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

impl RangeMethod {
    /// Name in requests and answers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MinMax => "min_max",
            Self::Percentile(_) => "percentile",
            Self::Mse => "mse",
            Self::EntropyOrt => "entropy_ort",
            Self::EntropyTensorrt => "entropy_tensorrt",
            Self::EntropyModelopt => "entropy_modelopt",
            Self::CrossEntropy { .. } => "cross_entropy",
            Self::Explicit { .. } | Self::Given { .. } => "explicit",
        }
    }
}

/// What happens to NaN elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanPolicy {
    /// The tensor is refused, the index of the first one named.
    Refuse,
    /// They get the code of 0.
    Zero,
    /// They get the smallest code.
    Min,
    /// They get the largest code.
    Max,
}

impl NanPolicy {
    /// Every policy, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Refuse, Self::Zero, Self::Min, Self::Max];

    /// Name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Zero => "zero",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// A complete description of how to quantize.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheme {
    /// Codes and formulas.
    pub numerics: Numerics,
    /// Which elements share parameters.
    pub granularity: Granularity,
    /// How their range is found.
    pub range: RangeMethod,
    /// What happens to NaN.
    pub nan: NanPolicy,
    /// Codes below 8 bits leave as a bit stream, low bits first, rather than one a byte.
    pub packed: bool,
}

//! How a calibrator learns: method, granularity, resolution.

use crate::QuantError;
use crate::partition::Partition;
use crate::scheme::Granularity;
use crate::tensor::Shape;
use crate::word::Word;
use crate::words;

use super::{Slice, distinct, sample};

/// Bins on each side of 0 unless others are asked for, and what the entropy
/// searches look at.
pub const BINS: usize = 2048;
/// Fewest bins.
pub const FEWEST_BINS: usize = 256;
/// Most bins.
pub const MOST_BINS: usize = 1 << 16;

/// How the range of a slice is made of all that was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// From the smallest to the largest finite element.
    MinMax,
    /// Averages of the ends of each batch: `m += (1 - decay) (end - m)`, beginning with the first batch.
    MovingAverage {
        /// Share of the past, 0 to below 1.
        decay: f64,
    },
    /// Between two percentiles of the elements (of their magnitudes when symmetric).
    Percentile(f64),
    /// Least squared error on the grid of the search over elements.
    Mse,
    /// Least KL divergence as ONNX Runtime computes it.
    EntropyOrt,
    /// Least KL divergence by the search of TensorRT.
    EntropyTensorrt,
    /// The same with what NVIDIA Model-Optimizer makes of it.
    EntropyModelopt,
    /// Least cross-entropy of softmax over a sample of lines.
    CrossEntropy {
        /// Axis of the softmax.
        axis: i64,
    },
}

words! {
    /// The words for the ways in which calibrators find ranges.
    pub enum MethodName {
        /// From the smallest to the largest finite element.
        MinMax = "min_max",
        /// Averages of the ends of each batch.
        MovingAverage = "moving_average",
        /// Between two percentiles.
        Percentile = "percentile",
        /// Least squared error.
        Mse = "mse",
        /// Least KL divergence as ONNX Runtime computes it.
        EntropyOrt = "entropy_ort",
        /// Least KL divergence by the search of TensorRT.
        EntropyTensorrt = "entropy_tensorrt",
        /// The same as NVIDIA Model-Optimizer has it.
        EntropyModelopt = "entropy_modelopt",
        /// Least cross-entropy of softmax.
        CrossEntropy = "cross_entropy",
    }
}

impl Method {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> MethodName {
        match self {
            Self::MinMax => MethodName::MinMax,
            Self::MovingAverage { .. } => MethodName::MovingAverage,
            Self::Percentile(_) => MethodName::Percentile,
            Self::Mse => MethodName::Mse,
            Self::EntropyOrt => MethodName::EntropyOrt,
            Self::EntropyTensorrt => MethodName::EntropyTensorrt,
            Self::EntropyModelopt => MethodName::EntropyModelopt,
            Self::CrossEntropy { .. } => MethodName::CrossEntropy,
        }
    }

    /// Whether it looks at a histogram.
    #[must_use]
    pub const fn counts(self) -> bool {
        self.takes_bins() || self.is_entropy()
    }

    /// Whether it looks at a histogram of any resolution.
    #[must_use]
    pub const fn takes_bins(self) -> bool {
        matches!(self, Self::Percentile(_) | Self::Mse)
    }

    /// Whether it compares distributions.
    #[must_use]
    pub const fn is_entropy(self) -> bool {
        matches!(self, Self::EntropyOrt | Self::EntropyTensorrt | Self::EntropyModelopt)
    }

    /// Whether it averages the ends of batches.
    #[must_use]
    pub const fn averages(self) -> bool {
        matches!(self, Self::MovingAverage { .. })
    }

    /// Whether a range takes a search, rather than a look at what is kept.
    #[must_use]
    pub const fn searches(self) -> bool {
        !matches!(self, Self::MinMax | Self::MovingAverage { .. } | Self::Percentile(_))
    }
}

/// Everything that decides what is kept of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    method: Method,
    granularity: Granularity,
    bins: usize,
    ignore_nan: bool,
}

impl Plan {
    /// A plan whose parts go together. `bins` is the number on each side of 0,
    /// for methods that count.
    ///
    /// # Errors
    /// [`QuantError`] names the part that does not.
    pub fn new(
        method: Method,
        granularity: Granularity,
        bins: Option<usize>,
        ignore_nan: bool,
    ) -> Result<Self, QuantError> {
        match granularity {
            Granularity::Tensor => {}
            Granularity::Channel { .. } => {
                if let Method::CrossEntropy { .. } = method {
                    let text = "cross_entropy is learnt over whole tensors";
                    return Err(QuantError::field("granularity", text).cure("use tensor"));
                }
            }
            Granularity::Token => {
                return Err(QuantError::field(
                    "granularity",
                    "tokens of a batch are not seen again",
                )
                .cure("use tensor or channel; scales of tokens are found when they arrive"));
            }
            Granularity::Group { .. } | Granularity::Block { .. } => {
                let text = "groups and blocks of a batch are not seen again";
                return Err(QuantError::field("granularity", text).cure("use tensor or channel"));
            }
        }
        if let Some(bins) = bins {
            if !method.takes_bins() {
                let text = format!("does not go with range {}", method.word().name());
                return Err(QuantError::field("bins", text)
                    .cure("use range percentile or mse, or leave bins out"));
            }
            if !bins.is_power_of_two() || !(FEWEST_BINS..=MOST_BINS).contains(&bins) {
                return Err(QuantError::field("bins", "not an allowed number of bins")
                    .cure(format!("use a power of two from {FEWEST_BINS} to {MOST_BINS}")));
            }
        }
        Ok(Self { method, granularity, bins: bins.unwrap_or(BINS), ignore_nan })
    }

    /// How ranges are made.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Which elements share a range: tensor or channel.
    #[must_use]
    pub const fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Bins on each side of 0.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.bins
    }

    /// Whether NaN is left out rather than refused.
    #[must_use]
    pub const fn ignores_nan(&self) -> bool {
        self.ignore_nan
    }

    /// The first part, by name, in which another plan keeps something else.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.method.word() != other.method.word() {
            return Some("range");
        }
        if self.granularity.word() != other.granularity.word() {
            return Some("granularity");
        }
        if self.granularity != other.granularity {
            return Some("axis");
        }
        if self.bins != other.bins {
            return Some("bins");
        }
        match (self.method, other.method) {
            (a, b) if a == b => None,
            (Method::MovingAverage { .. }, _) => Some("decay"),
            (Method::CrossEntropy { .. }, _) => Some("axis"),
            _ => Some("percentile"),
        }
    }

    /// Slices that a batch of that shape has.
    ///
    /// # Errors
    /// [`QuantError`] when the granularity does not fit the shape.
    pub fn slices(&self, shape: &Shape) -> Result<usize, QuantError> {
        Ok(Partition::new(self.granularity, shape)?.slices())
    }

    /// Most bytes that are ever kept of so many slices.
    #[must_use]
    pub fn bytes(&self, slices: usize) -> usize {
        let counts = if self.method.counts() { 2 * self.bins * size_of::<u64>() } else { 0 };
        let sample =
            if let Method::CrossEntropy { .. } = self.method { sample::MOST_BYTES } else { 0 };
        let pairs = if self.method.is_entropy() { distinct::MOST } else { 0 };
        let slice = size_of::<Slice>() + counts + pairs * size_of::<(f64, u64)>();
        slices.saturating_mul(slice).saturating_add(sample)
    }
}

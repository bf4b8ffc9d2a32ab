//! The documents of `/v1` as they are written and described.

use serde::Serialize;
use utoipa::ToSchema;

use quantd_core::inspect::Statistics;
use quantd_core::matmul;
use quantd_core::scheme::{Coding, Granularity, Options, RangeMethod, Scheme};
use quantd_core::word::Word;

pub use super::report::ReportDoc;

/// A scheme with every field as it was resolved; `null` where a field does not apply.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResolvedScheme)]
pub struct SchemeDoc {
    /// How the numbers are stored.
    #[schema(example = "int")]
    pub format: &'static str,
    /// Bits of an integer.
    #[schema(example = 8)]
    pub bits: Option<u32>,
    /// Two's complement codes.
    pub signed: Option<bool>,
    /// Zero point fixed in the middle of the codes.
    pub symmetric: Option<bool>,
    /// Without the most negative code.
    pub restricted: Option<bool>,
    /// Which elements share a scale.
    #[schema(example = "channel")]
    pub granularity: &'static str,
    /// Axis of the channels or groups, or of the softmax.
    pub axis: Option<i64>,
    /// Elements of a group.
    pub group_size: Option<usize>,
    /// Rows and columns of a block.
    pub block_shape: Option<[usize; 2]>,
    /// How the range was found.
    #[schema(example = "min_max")]
    pub range: &'static str,
    /// Percentile of the range.
    pub percentile: Option<f64>,
    /// Lower ends given by the caller.
    pub min: Option<Vec<f64>>,
    /// Upper ends given by the caller.
    pub max: Option<Vec<f64>>,
    /// Whose numerics.
    #[schema(example = "onnx")]
    pub profile: &'static str,
    /// What happened to NaN.
    #[schema(example = "refuse")]
    pub nan: &'static str,
    /// Codes are a bit stream, low bits first.
    pub packed: bool,
    /// What is too large became the largest number.
    pub saturate: Option<bool>,
    /// How scales that are powers of two were found.
    #[schema(example = "floor")]
    pub scale_rounding: Option<&'static str>,
}

impl From<&Scheme> for SchemeDoc {
    fn from(scheme: &Scheme) -> Self {
        let Options { axis, group_size, block_shape, .. } = scheme.granularity.into();
        let (mut softmax_axis, mut percentile, mut ends) = (None, None, None);
        match &scheme.range {
            RangeMethod::CrossEntropy { axis } if scheme.granularity == Granularity::Tensor => {
                softmax_axis = Some(*axis);
            }
            RangeMethod::Percentile(p) => percentile = Some(*p),
            RangeMethod::Explicit { min, max } => ends = Some((min.clone(), max.clone())),
            RangeMethod::MinMax
            | RangeMethod::Mse
            | RangeMethod::EntropyOrt
            | RangeMethod::EntropyTensorrt
            | RangeMethod::EntropyModelopt
            | RangeMethod::CrossEntropy { .. }
            | RangeMethod::Given { .. } => {}
        }
        let (min, max) = ends.unzip();
        let (mut integers, mut saturated, mut scale_rounding) = (None, None, None);
        match scheme.coding {
            Coding::Integer(numerics) => integers = Some(numerics),
            Coding::Float { saturate, .. } => saturated = Some(saturate),
            Coding::Microscaling { rounding, .. } => scale_rounding = Some(rounding.name()),
            Coding::TwoLevel { .. } => {}
        }
        Self {
            format: scheme.format.name(),
            bits: integers.map(|numerics| numerics.bits),
            signed: integers.map(|numerics| numerics.signed),
            symmetric: integers.map(|numerics| numerics.symmetric),
            restricted: integers.map(|numerics| numerics.restricted),
            granularity: scheme.granularity.word().name(),
            axis: axis.or(softmax_axis),
            group_size,
            block_shape,
            range: scheme.range.word().name(),
            percentile,
            min,
            max,
            profile: scheme.profile().name(),
            nan: scheme.nan.name(),
            packed: scheme.packed,
            saturate: saturated,
            scale_rounding,
        }
    }
}

/// Error of a product against the product of the real numbers. A figure is
/// `null` where it is not a finite number.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ProductReport)]
pub struct ProductReportDoc {
    /// Mean of the squared differences.
    pub mse: Option<f64>,
    /// Largest difference.
    pub max_abs_error: Option<f64>,
    /// 10 log10(Σ(real product)² / Σ(differences)²), dB.
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between the two.
    pub cosine: Option<f64>,
}

impl From<&matmul::Report> for ProductReportDoc {
    fn from(report: &matmul::Report) -> Self {
        Self {
            mse: report.mse,
            max_abs_error: report.max_abs_error,
            sqnr_db: report.sqnr_db,
            cosine: report.cosine,
        }
    }
}

/// A percentile of a tensor or slice.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Percentile)]
pub struct PercentileDoc {
    /// Which one, 0 to 100.
    pub p: f64,
    /// Its value, linearly interpolated; `null` when there are no finite elements.
    pub value: Option<f64>,
}

/// Counts of finite elements in bins of equal width.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Histogram)]
pub struct HistogramDoc {
    /// Ends of the bins: one more than there are bins. The last bin includes its end.
    pub edges: Vec<f64>,
    /// Elements in each bin.
    pub counts: Vec<u64>,
}

/// What a tensor or slice looks like, over its finite elements.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Statistics)]
pub struct StatisticsDoc {
    /// Elements.
    pub count: u64,
    /// NaN elements.
    pub nan: u64,
    /// Infinite elements.
    pub inf: u64,
    /// Elements equal to 0.
    pub zeros: u64,
    /// Smallest finite element.
    pub min: Option<f64>,
    /// Largest finite element.
    pub max: Option<f64>,
    /// Largest magnitude.
    pub abs_max: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
    /// Percentiles asked for.
    pub percentiles: Vec<PercentileDoc>,
    /// Histogram between the smallest and the largest element.
    pub histogram: HistogramDoc,
}

impl From<Statistics> for StatisticsDoc {
    fn from(statistics: Statistics) -> Self {
        Self {
            count: statistics.count,
            nan: statistics.nan,
            inf: statistics.inf,
            zeros: statistics.zeros,
            min: statistics.min,
            max: statistics.max,
            abs_max: statistics.abs_max,
            mean: statistics.mean,
            std: statistics.std,
            percentiles: statistics
                .percentiles
                .into_iter()
                .map(|(p, value)| PercentileDoc { p, value })
                .collect(),
            histogram: HistogramDoc {
                edges: statistics.histogram.edges,
                counts: statistics.histogram.counts,
            },
        }
    }
}

/// One row of a comparison.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ComparedScheme)]
pub struct ComparedDoc {
    /// Preset, or a short description of the scheme.
    pub name: String,
    /// The scheme as resolved.
    pub scheme: SchemeDoc,
    /// What it loses.
    pub report: ReportDoc,
    /// Whether no other scheme of the table has both fewer bits and less error.
    pub pareto: bool,
}

/// A comparison of schemes on one tensor.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CompareAnswer)]
pub struct CompareDoc {
    /// Element type of the tensor.
    pub dtype: &'static str,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// One row a scheme, sorted as asked.
    pub results: Vec<ComparedDoc>,
    /// Names of the tensors that are no weights, or were excluded; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<String>,
}

/// Statistics of one tensor.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = InspectAnswer)]
pub struct InspectDoc {
    /// Element type of the tensor.
    pub dtype: &'static str,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Over all elements.
    pub statistics: StatisticsDoc,
    /// Slice by slice, when a granularity was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slices: Option<Vec<StatisticsDoc>>,
}

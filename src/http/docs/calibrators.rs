//! Bodies and parameters of `/v1/calibrators`.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::api::schemas::{
    Codes, LearntGranularity, LearntNan, LearntRange, Numbers, OneOrMore, PresetName, ProfileName,
    ScaleDtype,
};

/// The name of a calibrator.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct CalibratorPath {
    /// Letters, digits and `. _ -`, a letter or digit first, at most 128 in all.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", example = "activations")]
    name: String,
}

/// Codes, or the name of a preset.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum CodesOrPreset {
    /// Fields.
    Fields(Codes),
    /// Name of a preset.
    Preset(PresetName),
}

/// A calibrator to be.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CalibratorRequest {
    /// Its name: letters, digits and `. _ -`, a letter or digit first.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    name: String,
    /// How ranges are found. Default `min_max`, or what `percentile` or `decay` imply.
    range: Option<LearntRange>,
    /// Percentile of range percentile.
    #[schema(minimum = 50, maximum = 100)]
    percentile: Option<f64>,
    /// Share of the past in a moving average: 1 less the averaging constant of others. Default 0.99.
    #[schema(minimum = 0, maximum = 1)]
    decay: Option<f64>,
    /// Which elements share a range. Default: channel if `axis` is given, else tensor.
    granularity: Option<LearntGranularity>,
    /// Axis of the channels (default 0), or of the softmax of `cross_entropy` (default -1).
    axis: Option<i64>,
    /// Bins on each side of 0 for percentile and mse, a power of two. Default 2048.
    #[schema(minimum = 256, maximum = 65536)]
    bins: Option<u32>,
    /// What happens to NaN: refused (default), or left out and counted.
    nan: Option<LearntNan>,
    /// The codes that scales and zero points are for. Default int8.
    scheme: Option<CodesOrPreset>,
    /// An exported calibrator, instead of all but `name` and `replace`.
    document: Option<CalibratorDocument>,
    /// Whether one of that name goes. Default false: then it is refused.
    replace: Option<bool>,
}

/// The codes as resolved.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ResolvedCodes {
    /// Bits of a code.
    bits: u32,
    /// Two's complement codes.
    signed: bool,
    /// Zero point fixed in the middle.
    symmetric: bool,
    /// Without the most negative code.
    restricted: bool,
    /// Whose numerics.
    profile: ProfileName,
}

/// How a calibrator learns; `null` where a field does not apply.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct LearntSetup {
    /// How ranges are found.
    range: LearntRange,
    /// Percentile of the range.
    #[schema(required)]
    percentile: Option<f64>,
    /// Share of the past in a moving average.
    #[schema(required)]
    decay: Option<f64>,
    /// Which elements share a range.
    granularity: LearntGranularity,
    /// Axis of the channels or of the softmax.
    #[schema(required)]
    axis: Option<i64>,
    /// Bins on each side of 0.
    #[schema(required)]
    bins: Option<u64>,
    /// What happens to NaN.
    nan: LearntNan,
    /// The codes that scales and zero points are for.
    scheme: ResolvedCodes,
}

/// Numbers of everything that was fed.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct LearntCounts {
    /// Batches.
    batches: u64,
    /// Elements, NaN and infinities included.
    elements: u64,
    /// NaN elements.
    nan_elements: u64,
    /// Infinite elements.
    inf_elements: u64,
}

/// A calibrator: how it learns, what it has seen, and what follows. Range,
/// scale and zero point are a number for granularity tensor, else an array with
/// one for each channel; `null` before the first batch and where no search was
/// made.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CalibratorAnswer {
    /// Its name.
    name: String,
    #[serde(flatten)]
    setup: LearntSetup,
    #[serde(flatten)]
    counts: LearntCounts,
    /// Slices: 1, or the number of channels; 0 before the first batch.
    slices: u64,
    /// Smallest finite element of all.
    #[schema(required)]
    observed_min: Option<f64>,
    /// Largest finite element of all.
    #[schema(required)]
    observed_max: Option<f64>,
    /// Lower end of the range, at most 0.
    #[schema(required)]
    min: Option<OneOrMore>,
    /// Upper end of the range, at least 0.
    #[schema(required)]
    max: Option<OneOrMore>,
    /// Scale.
    #[schema(required)]
    scale: Option<OneOrMore>,
    /// Zero point.
    #[schema(required)]
    zero_point: Option<OneOrMore>,
    /// Type of range and scale.
    scale_dtype: ScaleDtype,
}

/// One calibrator in a list.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CalibratorSummary {
    /// Its name.
    name: String,
    #[serde(flatten)]
    setup: LearntSetup,
    /// Batches.
    batches: u64,
    /// Elements.
    elements: u64,
    /// Slices.
    slices: u64,
    /// Bytes that are set aside for what it has learnt.
    bytes: u64,
}

/// All calibrators.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CalibratorList {
    /// In the order of their names.
    calibrators: Vec<CalibratorSummary>,
}

/// An exported calibrator. Columns have an entry for each slice; those that
/// would be empty are left out. docs/NUMERICS.md says what they mean.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CalibratorDocument {
    /// `quantd-calibrator`.
    format: String,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    version: u32,
    #[serde(flatten)]
    setup: LearntSetup,
    #[serde(flatten)]
    counts: LearntCounts,
    /// Finite elements.
    finite: Option<Vec<u64>>,
    /// The smallest of them, 0 where there are none.
    min: Option<Vec<f64>>,
    /// The largest of them, 0 where there are none.
    max: Option<Vec<f64>>,
    /// Averages of the lower ends.
    average_min: Option<Vec<f64>>,
    /// Averages of the upper ends.
    average_max: Option<Vec<f64>>,
    /// Counts of positive elements, bin by bin from 0 on.
    positive: Option<Vec<Vec<u64>>>,
    /// Counts of negative elements, bin by bin from 0 on.
    negative: Option<Vec<Vec<u64>>>,
    /// How many distinct values are kept, 0 where there are more than 512.
    distinct: Option<Vec<u64>>,
    /// These values, slice by slice, in ascending order.
    values: Option<Vec<f64>>,
    /// How often each of them was seen.
    value_counts: Option<Vec<u64>>,
    /// The lines of the softmax that are kept.
    lines: Option<Numbers>,
    /// How often each of them was seen.
    line_counts: Option<Vec<u64>>,
}

/// The other calibrator of a merge: one of the two.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct MergeRequest {
    /// Name of one of this server.
    from: Option<String>,
    /// An exported one.
    document: Option<CalibratorDocument>,
}

/// What is gone.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Deleted {
    /// Its name.
    pub(in crate::http) deleted: String,
}

/// An example request that runs.
pub(in crate::http) fn calibrator_example() -> Value {
    json!({
        "name": "activations", "range": "percentile", "percentile": 99.9,
        "scheme": {"bits": 8, "signed": false}
    })
}

/// A range for each channel.
pub(in crate::http) fn calibrator_channels() -> Value {
    json!({"name": "per_channel", "granularity": "channel", "axis": -1, "scheme": "int8", "replace": true})
}

/// An example request that runs.
pub(in crate::http) fn batch_example() -> Value {
    json!({"data": [[0.0, 0.25, 3.0], [1.5, 0.0, -0.5]]})
}

/// An example request that runs.
pub(in crate::http) fn merge_example() -> Value {
    json!({
        "document": {
            "format": "quantd-calibrator", "version": 1,
            "range": "percentile", "percentile": 99.9, "decay": null, "granularity": "tensor",
            "axis": null, "bins": 2048, "nan": "refuse",
            "scheme": {"bits": 8, "signed": false, "symmetric": false, "restricted": false, "profile": "onnx"},
            "batches": 1, "elements": 3, "nan_elements": 0, "inf_elements": 0,
            "finite": [3], "min": [0.0], "max": [0.0]
        }
    })
}

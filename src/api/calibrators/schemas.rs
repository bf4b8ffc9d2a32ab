//! Schemas of what stands for a calibrator in a request.

use utoipa::ToSchema;

use crate::api::schemas::{Codes, Numbers, PresetName};

use super::SetupDoc;

/// Codes, or the name of a preset.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(untagged)]
pub enum CodesOrPreset {
    /// Fields.
    Fields(Codes),
    /// Name of a preset.
    Preset(PresetName),
}

/// Numbers of everything that was fed.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct LearntCounts {
    /// Batches.
    batches: u64,
    /// Elements, NaN and infinities included.
    elements: u64,
    /// NaN elements.
    nan_elements: u64,
    /// Infinite elements.
    inf_elements: u64,
}

/// An exported calibrator. Columns have an entry for each slice; those that
/// would be empty are left out. docs/NUMERICS.md says what they mean.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct CalibratorDocument {
    /// `quantd-calibrator`.
    format: String,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    version: u32,
    #[serde(flatten)]
    setup: SetupDoc,
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

//! Bodies and parameters of `/v1/calibrators`.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::api::calibrators::SetupDoc;
use crate::api::calibrators::schemas::LearntCounts;
use crate::api::schemas::{OneOrMore, ScaleDtype};

/// The name of a calibrator.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct CalibratorPath {
    /// Letters, digits and `. _ -`, a letter or digit first, at most 128 in all.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", example = "activations")]
    name: String,
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
    setup: SetupDoc,
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

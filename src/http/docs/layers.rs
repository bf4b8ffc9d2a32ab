//! Bodies and options of the routes of layers.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::api::schemas::{Dtype, Numbers};

/// The name in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct NamePath {
    /// Letters, digits and `. _ -`, a letter or digit first, at most 128.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    name: String,
}

/// The result of a layer.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ForwardAnswer {
    /// Name of the layer.
    layer: String,
    /// Its version.
    version: u64,
    /// Element type: F32, or U8 or I8 for codes.
    dtype: Dtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The result.
    data: Numbers,
    /// Scale of codes.
    scale: Option<f64>,
    /// Zero point of codes.
    zero_point: Option<i64>,
}

/// Weights in real numbers.
pub(in crate::http) fn layer_real() -> Value {
    json!({
        "name": "fc1",
        "weight": {"data": [[0.5, -0.25], [1.0, 0.75], [-0.6, 0.2]], "scheme": "int8_per_channel"},
        "bias": [0.1, 0.0, -0.1],
        "activation": "relu"
    })
}

/// Weights as quantize answers them, and an input whose range is known.
pub(in crate::http) fn layer_codes() -> Value {
    json!({
        "name": "fc1_codes",
        "weight": {"codes": [[127, -64], [127, 95], [-127, 42]], "scale": [0.003_9, 0.007_9, 0.004_7],
            "scheme": {"granularity": "channel", "axis": 0}},
        "input": {"min": -2, "max": 2, "signed": false}
    })
}

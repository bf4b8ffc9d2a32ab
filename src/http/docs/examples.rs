//! Requests that run, and an answer.

use serde_json::{Value, json};

/// An example request that runs.
pub(in crate::http) fn quantize_example() -> Value {
    json!({
        "data": [[0.1, -2.0], [3.3, 0.0]],
        "dtype": "F32",
        "scheme": {"bits": 8, "signed": true, "symmetric": true, "granularity": "channel", "axis": 0}
    })
}

/// What the example answers.
pub(in crate::http) fn quantize_answer_example() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[6, -127], [127, 0]],
        "scale": [0.015_748_031, 0.025_984_252],
        "zero_point": [0, 0],
        "scale_dtype": "F32",
        "scheme": {
            "bits": 8, "signed": true, "symmetric": true, "restricted": true,
            "granularity": "channel", "axis": 0, "group_size": null, "block_shape": null,
            "range": "min_max", "percentile": null, "min": null, "max": null,
            "profile": "onnx", "nan": "refuse", "packed": false
        },
        "report": {
            "mse": 7.6e-6, "mse_clipped": 0.0, "mse_rounded": 7.6e-6, "max_abs_error": 0.005_512,
            "sqnr_db": 56.9, "cosine": 0.999_999, "clipped": 0, "nan": 0, "inf": 0, "zeroed": 0,
            "bits_per_element": 24.0, "compression_ratio": 1.333
        }
    })
}

/// An example request that runs.
pub(in crate::http) fn dequantize_example() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[6, -127], [127, 0]],
        "scale": [0.015_748_031, 0.025_984_252],
        "zero_point": [0, 0],
        "scheme": {"granularity": "channel", "axis": 0}
    })
}

/// An example request that runs.
pub(in crate::http) fn compare_example() -> Value {
    json!({
        "data": [[0.1, -2.0, 0.7, 1.5], [3.3, 0.0, -0.4, 0.9]],
        "schemes": ["int8", "int4", {"bits": 4, "granularity": "channel", "axis": 0, "range": "mse"}],
        "sort": "bits"
    })
}

/// An example request that runs.
pub(in crate::http) fn inspect_example() -> Value {
    json!({"data": [[0.1, -2.0], [3.3, 0.0]], "bins": 4, "granularity": "channel", "axis": 0})
}

/// An example request that runs.
pub(in crate::http) fn matmul_example() -> Value {
    json!({
        "a": {"data": [[0.1, -2.0, 0.7], [3.3, 0.0, 1.5]]},
        "b": {"data": [[0.5, -0.25], [1.0, 0.75], [-0.6, 0.2]]},
        "report": true
    })
}

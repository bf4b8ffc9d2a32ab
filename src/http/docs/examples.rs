//! Requests that run, and an answer.

use serde_json::{Value, json};

/// One tensor and no scheme: what a form beside the body says counts.
pub(in crate::http) fn quantize_plain() -> Value {
    json!({"data": [[0.1, -2.0], [3.3, 0.0]]})
}

/// A scale for each row.
pub(in crate::http) fn quantize_rows() -> Value {
    json!({
        "data": [[0.1, -2.0], [3.3, 0.0]],
        "dtype": "F32",
        "scheme": {"bits": 8, "signed": true, "symmetric": true, "granularity": "channel", "axis": 0}
    })
}

/// Groups of few bits, packed.
pub(in crate::http) fn quantize_groups() -> Value {
    json!({
        "data": [[0.1, -2.0, 0.7, 1.5], [3.3, 0.0, -0.4, 0.9]],
        "scheme": {"bits": 4, "group_size": 2, "packed": true}
    })
}

/// A range that leaves out the extremes.
pub(in crate::http) fn quantize_percentile() -> Value {
    json!({
        "data": [0.1, -0.2, 0.3, 0.15, -0.1, 0.25, 40.0, 0.05],
        "scheme": {"preset": "uint8", "range": "percentile", "percentile": 90},
        "per_slice": true
    })
}

/// Several tensors at once.
pub(in crate::http) fn quantize_several() -> Value {
    json!({
        "tensors": {
            "fc1.weight": {"data": [[0.5, -0.25], [1.0, 0.75]]},
            "fc1.bias": {"data": [0.1, -0.1], "dtype": "F64"}
        },
        "scheme": "int8"
    })
}

/// What the example answers.
pub(in crate::http) fn quantize_answer_example() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[4, -77], [127, 0]],
        "scale": 0.025_984_252,
        "zero_point": 0,
        "scale_dtype": "F32",
        "scheme": {
            "format": "int", "bits": 8, "signed": true, "symmetric": true, "restricted": true,
            "granularity": "tensor", "axis": null, "group_size": null, "block_shape": null,
            "range": "min_max", "percentile": null, "min": null, "max": null,
            "profile": "onnx", "nan": "refuse", "packed": false, "saturate": null,
            "scale_rounding": null
        },
        "report": {
            "mse": 4.03e-6, "mse_clipped": 0.0, "mse_rounded": 4.03e-6, "max_abs_error": 0.003_937,
            "sqnr_db": 59.66, "cosine": 0.999_999, "clipped": 0, "nan": 0, "inf": 0, "zeroed": 0,
            "bits_per_element": 16.0, "compression_ratio": 2.0
        }
    })
}

/// A scale for each row.
pub(in crate::http) fn dequantize_rows() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[6, -127], [127, 0]],
        "scale": [0.015_748_031, 0.025_984_252],
        "zero_point": [0, 0],
        "scheme": {"granularity": "channel", "axis": 0}
    })
}

/// Four-bit codes, two a byte.
pub(in crate::http) fn dequantize_packed() -> Value {
    json!({
        "dtype": "U8",
        "shape": [2, 2],
        "codes": [33, 67],
        "scale": 0.5,
        "scheme": {"bits": 4, "packed": true},
        "output_dtype": "F16"
    })
}

/// One scheme after the other.
pub(in crate::http) fn compare_listed() -> Value {
    json!({
        "data": [[0.1, -2.0, 0.7, 1.5], [3.3, 0.0, -0.4, 0.9]],
        "schemes": ["int8", "int4", {"bits": 4, "granularity": "channel", "axis": 0, "range": "mse"}],
        "sort": "bits"
    })
}

/// A sweep of common schemes.
pub(in crate::http) fn compare_sweep() -> Value {
    json!({"data": [[0.1, -2.0, 0.7, 1.5], [3.3, 0.0, -0.4, 0.9]]})
}

/// The tensor as a whole.
pub(in crate::http) fn inspect_whole() -> Value {
    json!({"data": [[0.1, -2.0], [3.3, 0.0]], "bins": 4})
}

/// Each row too.
pub(in crate::http) fn inspect_rows() -> Value {
    json!({"data": [[0.1, -2.0], [3.3, 0.0]], "bins": 4, "granularity": "channel", "axis": 0,
        "percentiles": [50, 99]})
}

/// Real numbers, quantized on the way.
pub(in crate::http) fn matmul_real() -> Value {
    json!({
        "a": {"data": [[0.1, -2.0, 0.7], [3.3, 0.0, 1.5]]},
        "b": {"data": [[0.5, -0.25], [1.0, 0.75], [-0.6, 0.2]]},
        "report": true
    })
}

/// Codes as quantize answers them.
pub(in crate::http) fn matmul_codes() -> Value {
    json!({
        "a": {"codes": [[4, -77], [127, 0]], "scale": 0.026},
        "b": {"data": [[0.5, -0.25], [1.0, 0.75]], "scheme": "int8"},
        "bias": [0.1, -0.1],
        "relu": true
    })
}

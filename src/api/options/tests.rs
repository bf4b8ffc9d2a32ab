use super::*;
use quantd_core::params::Numerics;
use quantd_core::scheme::{Granularity, RangeMethod};
use serde_json::json;

#[track_caller]
fn scheme(value: serde_json::Value) -> Scheme {
    scheme_of_value(value, "/scheme").unwrap()
}

#[track_caller]
fn refused(value: serde_json::Value, expect: &str) {
    let error = scheme_of_value(value, "/scheme").unwrap_err();
    assert_eq!(format!("{error}; {}", error.cure), expect);
}

#[test]
fn defaults_depend_on_profile_and_sign() {
    let flags = |value| {
        let scheme = scheme(value);
        let &Numerics { bits, signed, symmetric, restricted, .. } = scheme.integers("").unwrap();
        (bits, signed, symmetric, restricted)
    };
    assert_eq!(flags(json!({})), (8, true, true, true));
    assert_eq!(flags(json!({"signed": false})), (8, false, false, false));
    assert_eq!(flags(json!({"symmetric": false})), (8, true, false, false));
    assert_eq!(flags(json!({"profile": "torch"})), (8, true, true, false));
    assert_eq!(flags(json!({"scale": 0.5})), (8, true, true, false));
    assert_eq!(flags(json!({"scale": 0.5, "zero_point": 3})), (8, true, false, false));
    assert_eq!(flags(json!("uint4")), (4, false, false, false));
}

#[test]
fn granularity_is_implied_by_its_fields() {
    let granularity = |value| scheme(value).granularity;
    assert_eq!(granularity(json!({"axis": -1})), Granularity::Channel { axis: -1 });
    assert_eq!(granularity(json!({"group_size": 32})), Granularity::Group { axis: -1, size: 32 });
    assert_eq!(granularity(json!({"block_shape": [2, 3]})), Granularity::Block { shape: [2, 3] });
    assert_eq!(
        granularity(json!({"preset": "int4_g128", "axis": 0})),
        Granularity::Group { axis: 0, size: 128 }
    );
    assert_eq!(
        granularity(json!({"preset": "int4_g128", "group_size": 32})),
        Granularity::Group { axis: -1, size: 32 }
    );
    let softmax = scheme(json!({"range": "cross_entropy", "axis": 0}));
    assert_eq!(softmax.granularity, Granularity::Tensor);
    assert_eq!(softmax.range, RangeMethod::CrossEntropy { axis: 0 });
}

/// A sweep over bits need not treat whole bytes apart.
#[test]
fn codes_that_fill_bytes_are_packed_as_they_are() {
    for (bits, packed) in [(2, true), (7, true), (8, false), (16, false)] {
        assert_eq!(scheme(json!({"bits": bits, "packed": true})).packed, packed, "{bits}");
    }
}

#[test]
fn contradictions_name_their_field() {
    refused(
        json!({"granularity": "tensor", "axis": 1}),
        "/scheme/axis: does not go with granularity tensor; use granularity channel, or leave axis out",
    );
    refused(
        json!({"granularity": "group"}),
        "/scheme/group_size: missing for granularity group; for instance 128",
    );
    refused(
        json!({"range": "mse", "percentile": 99}),
        "/scheme/percentile: does not go with range mse; use range percentile, or leave percentile out",
    );
    refused(
        json!({"range": "min_max", "scale": 1}),
        "/scheme/scale: does not go with range min_max; use range explicit, or leave the field out",
    );
    refused(
        json!({"range": "explicit"}),
        "/scheme/range: explicit, but nothing given; add min and max, or scale and zero_point",
    );
    refused(json!({"min": 1}), "/scheme/max: missing; range explicit takes min and max");
    refused(json!({"min": 1, "max": 0}), "/scheme/min: above max; swap them");
    refused(
        json!({"min": 0, "max": 1, "scale": 1}),
        "/scheme/scale: contradicts min and max; give the range, or the scale",
    );
    refused(
        json!({"scale": 1, "zero_point": 300}),
        "/scheme/zero_point: not one of the codes; use -128 to 127",
    );
    refused(
        json!({"scale": 1, "zero_point": 3, "symmetric": true}),
        "/scheme/zero_point: contradicts symmetric; leave one of them out",
    );
    refused(
        json!({"zero_point": 3}),
        "/scheme/zero_point: given without scale; add scale, or leave zero_point out",
    );
    refused(
        json!({"restricted": true, "signed": false}),
        "/scheme/restricted: only signed symmetric codes can be restricted; leave restricted out, or set signed and symmetric",
    );
    refused(
        json!({"bits": 12}),
        "/scheme/bits: not a supported number of bits; use 2, 3, 4, 5, 6, 7, 8 or 16",
    );
    refused(
        json!({"profile": "compressed-tensors", "signed": false}),
        "/scheme/signed: compressed-tensors has signed codes only; leave signed out",
    );
    refused(
        json!(3),
        "/scheme: not a scheme; use an object of scheme fields or the name of a preset",
    );
    let error = scheme_of_value(json!("int9"), "/scheme").unwrap_err();
    assert!(error.cure.starts_with("did you mean int8? use one of: int8, "), "{}", error.cure);
}

//! What holds for every method and every granularity.

use crate::tensor::{DType, Shape, Tensor};

use super::Task;
use super::compare::compare;
use super::format::{INTEGER, Quantized};
use super::params::{Numerics, Profile};
use super::scheme::{Coding, Granularity, NanPolicy, RangeMethod, Scheme};

const METHODS: [RangeMethod; 7] = [
    RangeMethod::MinMax,
    RangeMethod::Percentile(95.0),
    RangeMethod::Mse,
    RangeMethod::EntropyOrt,
    RangeMethod::EntropyTensorrt,
    RangeMethod::CrossEntropy { axis: -1 },
    RangeMethod::CrossEntropy { axis: 0 },
];

fn numerics(profile: Profile, bits: u32, signed: bool) -> Numerics {
    Numerics { profile, bits, signed, symmetric: signed, restricted: false }
}

fn scheme(numerics: Numerics, granularity: Granularity, range: RangeMethod) -> Scheme {
    Scheme {
        format: &INTEGER,
        coding: Coding::Integer(numerics),
        granularity,
        range,
        nan: NanPolicy::Refuse,
        packed: false,
    }
}

fn tensor(dims: &[usize], x: &[f32]) -> Tensor {
    Tensor::from_elements(DType::F32, Shape::new(dims.to_vec()).unwrap(), x).unwrap()
}

/// Numbers such that a softmax over five, seven or all of them prefers other ranges.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 4001) as f32 / 100.0 - 20.0).collect()
}

fn run(tensor: &Tensor, scheme: &Scheme) -> Quantized {
    scheme.quantize(tensor, true, &Task::default()).unwrap()
}

fn part<'a>(made: &'a Quantized, name: &str) -> &'a Tensor {
    made.parts.get(name).unwrap()
}

/// The first slices of `many` are the slices of `one`.
fn check_prefix(one: &Quantized, many: &Quantized, at: &str) {
    for (one, many) in one.parts.iter().zip(many.parts.iter()) {
        let (one, many) = (one.tensor.bytes(), many.tensor.bytes());
        assert_eq!(one, &many[..one.len()], "{at}");
    }
    assert_eq!(one.slices, many.slices[..one.slices.len()], "{at}");
}

#[test]
fn a_slice_has_the_result_that_it_has_among_others() {
    let (rows, columns) = (5, 7);
    let granularities = [
        Granularity::Channel { axis: 0 },
        Granularity::Token,
        Granularity::Group { axis: -1, size: columns },
        Granularity::Group { axis: -1, size: 1000 },
        Granularity::Block { shape: [1, columns] },
        Granularity::Block { shape: [1000, 1000] },
    ];
    for (profile, bits, signed) in
        [(Profile::Onnx, 8, false), (Profile::Torch, 4, true), (Profile::Tflite, 8, false)]
    {
        for granularity in granularities {
            for method in METHODS {
                let scheme = scheme(numerics(profile, bits, signed), granularity, method);
                let at = format!("{scheme:?}");
                // One slice: one row of three axes, in which a block or a channel holds all.
                let x = numbers(rows * columns, bits as usize);
                let holds_all = matches!(
                    granularity,
                    Granularity::Channel { .. } | Granularity::Block { shape: [1000, _] }
                );
                let (one, dims) = if holds_all {
                    (x, [1, rows, columns])
                } else {
                    (x[..columns].to_vec(), [1, 1, columns])
                };
                let others = numbers(one.len(), 3);
                let more: Vec<f32> = one.iter().chain(&others).copied().collect();
                let alone = run(&tensor(&dims, &one), &scheme);
                assert_eq!(part(&alone, "scale").shape().len(), 1, "{at}");
                let among = run(&tensor(&[2, dims[1], dims[2]], &more), &scheme);
                assert_eq!(part(&among, "scale").shape().len(), 2, "{at}");
                check_prefix(&alone, &among, &at);
            }
        }
    }
}

#[test]
fn compare_sees_slices_as_quantize_does() {
    let x = tensor(&[1, 5, 7], &numbers(35, 1));
    for granularity in [Granularity::Tensor, Granularity::Channel { axis: 0 }, Granularity::Token] {
        for method in METHODS {
            let scheme = scheme(numerics(Profile::Onnx, 4, false), granularity, method);
            let made = run(&x, &scheme);
            let reports = compare(&x, std::slice::from_ref(&scheme), &Task::default()).unwrap();
            assert_eq!(reports, [made.report], "{scheme:?}");
        }
    }
}

/// Along an axis for the tensor, over all elements for the only channel: figures of an independent search.
#[test]
fn the_only_channel_is_one_line_of_a_softmax() {
    let x = [-14.0, 13.0, -5.0, 14.0, 6.0, -5.0, 2.0, -17.0, 19.0];
    let unsigned = numerics(Profile::Onnx, 8, false);
    let softmax = || RangeMethod::CrossEntropy { axis: 0 };
    let found = |dims: &[usize], granularity| {
        let made = run(&tensor(dims, &x), &scheme(unsigned, granularity, softmax()));
        let zero_point = part(&made, "zero_point").elements::<u8>()[0];
        (part(&made, "scale").elements::<f32>()[0], zero_point)
    };
    let one_line = (0.103_676_47, 72);
    assert_eq!(found(&[1, 3, 3], Granularity::Channel { axis: 0 }), one_line);
    assert_eq!(found(&[3, 3], Granularity::Block { shape: [3, 3] }), one_line);
    assert_eq!(found(&[1, 9], Granularity::Token), one_line);
    // Lines of one element, whose softmax no range changes.
    assert_eq!(found(&[1, 3, 3], Granularity::Tensor), (0.141_176_48, 120));
}

#[test]
fn a_softmax_along_an_axis_that_is_none_is_refused() {
    let scheme = |axis| {
        let range = RangeMethod::CrossEntropy { axis };
        scheme(numerics(Profile::Onnx, 8, true), Granularity::Tensor, range)
    };
    let run = |tensor, axis| scheme(axis).quantize(tensor, false, &Task::default());
    let matrix = tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let error = run(&matrix, 2).unwrap_err();
    assert_eq!(error.to_string(), "axis: not an axis of a tensor with 2 dimensions");
    assert!(run(&matrix, -2).is_ok());
    assert!(run(&tensor(&[], &[1.0]), -1).is_ok());
}

//! Against what the exact methods find in all elements at once, and against the definitions.

use proptest::prelude::*;

use super::*;
use crate::params::{Numerics, Profile, Range};
use crate::range::{self, Slice as Exact};
use crate::scheme::{Granularity, RangeMethod};
use crate::tensor::{DType, Shape};
use quantd_kernels::scalar::extent;

fn tensor(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_elements(DType::F32, Shape::new(dims.to_vec()).unwrap(), values).unwrap()
}

fn plan(method: Method) -> Plan {
    Plan::new(method, Granularity::Tensor, None, false).unwrap()
}

fn numerics(bits: u32, symmetric: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed: symmetric, symmetric, restricted: symmetric }
}

fn batch(plan: Plan, values: &[f32]) -> Calibration {
    Calibration::of_batch(plan, &tensor(values, &[values.len()]), &Task::default()).unwrap()
}

fn fed<'a>(plan: Plan, batches: impl IntoIterator<Item = &'a [f32]>) -> Calibration {
    let mut calibration = Calibration::new(plan);
    batches.into_iter().for_each(|values| calibration.feed(&batch(plan, values)).unwrap());
    calibration
}

fn range(calibration: &Calibration, numerics: &Numerics) -> Range<f32> {
    calibration.ranges(numerics, &Task::default()).unwrap()[0]
}

fn exact(method: &RangeMethod, values: &[f32], numerics: &Numerics) -> Range<f32> {
    let slice = Exact { values, extent: extent(values), line: values.len() };
    range::find(method, slice, numerics, &Task::default())
}

/// Numbers with an outlier, both signs, zeros, and few of everything.
fn samples() -> Vec<(&'static str, Vec<f32>)> {
    let normal = |i: u32| {
        // A sum of twelve uniform numbers.
        let uniform = |k: u32| {
            let x = (i * 12 + k).wrapping_mul(0x9e37_79b9);
            f64::from((x ^ x >> 15).wrapping_mul(0x85eb_ca6b)) / f64::from(u32::MAX)
        };
        (0..12).map(uniform).sum::<f64>() - 6.0
    };
    let from =
        |f: &dyn Fn(u32) -> f64, n: u32| (0..n).map(|i| <f32 as Real>::from_f64(f(i))).collect();
    vec![
        ("gauss", from(&normal, 20_000)),
        ("relu", from(&|i| normal(i).max(0.0), 20_000)),
        ("outlier", from(&|i| if i == 77 { 300.0 } else { normal(i) }, 20_000)),
        ("cubes", from(&|i| normal(i).powi(3), 20_000)),
        ("integers", from(&|i| f64::from(i % 17) - 5.0, 1000)),
        ("negative", from(&|i| -2.0 - normal(i).abs(), 5000)),
        ("few", vec![0.1, -2.0, 3.3, 0.0, -0.4, 0.9, 1e-3]),
        ("one", vec![-2.5]),
        ("zeros", vec![0.0; 9]),
    ]
}

const METHODS: [Method; 7] = [
    Method::MinMax,
    Method::Percentile(99.0),
    Method::Mse,
    Method::EntropyOrt,
    Method::EntropyTensorrt,
    Method::EntropyModelopt,
    Method::CrossEntropy { axis: -1 },
];

/// Of any cut and any order, fed to one or to several that are merged.
#[test]
fn the_parts_add_up_to_the_whole() {
    for (name, values) in samples() {
        for method in METHODS {
            let plan = plan(method);
            let is_softmax = matches!(method, Method::CrossEntropy { .. });
            // Lines of other lengths do not go together.
            let length = if is_softmax { 20.min(values.len()) } else { values.len().div_ceil(9) };
            let whole = if is_softmax { values.len() / length * length } else { values.len() };
            let values = &values[..whole];
            let batches: Vec<&[f32]> = values.chunks(length).collect();
            let forward = fed(plan, batches.iter().copied());
            let backward = fed(plan, batches.iter().rev().copied());
            assert_eq!(forward, backward, "{name} {method:?}");
            let (left, right) = batches.split_at(batches.len() / 2);
            let mut joined = fed(plan, right.iter().copied());
            joined.merge(&fed(plan, left.iter().copied())).unwrap();
            assert_eq!(forward, joined, "{name} {method:?}");
            let mut own = Calibration::new(plan);
            own.merge(&forward).unwrap();
            assert_eq!(forward, own, "{name} {method:?}");
            assert_eq!(forward.seen().elements, values.len() as u64);
        }
    }
}

#[test]
fn min_max_is_that_of_all_elements() {
    for (name, values) in samples() {
        let calibration = fed(plan(Method::MinMax), values.chunks(1000));
        for symmetric in [false, true] {
            let numerics = numerics(8, symmetric);
            let expected = exact(&RangeMethod::MinMax, &values, &numerics);
            assert_eq!(range(&calibration, &numerics), expected, "{name}");
            let parameters = calibration.parameters(&numerics, &Task::default()).unwrap();
            assert_eq!(parameters, [numerics.affine(expected)], "{name}");
        }
    }
}

/// `MovingAverageMinMaxObserver` and ONNX Runtime's `merge_range`.
#[test]
fn moving_averages_follow_the_formula() {
    let plan = plan(Method::MovingAverage { decay: 0.75 });
    let calibration = fed(plan, [&[-1.0, 2.0][..], &[-3.0, 1.0], &[f32::INFINITY], &[0.5, 6.0]]);
    // -1, then + 0.25 (-3 + 1), nothing, + 0.25 (0.5 + 1.5); 2, 1.75, 1.75 + 0.25 * 4.25.
    assert_eq!(range(&calibration, &numerics(8, false)), Range { min: -1.0, max: 2.8125 });
    assert_eq!(calibration.observed(), Some([-3.0, 6.0]));
    let mut merged = fed(plan, [&[-1.0, 1.0][..], &[-1.0, 1.0], &[-1.0, 1.0]]);
    merged.merge(&fed(plan, [&[-5.0, 9.0][..]])).unwrap();
    assert_eq!(range(&merged, &numerics(8, false)), Range { min: -2.0, max: 3.0 });
}

/// The bound of docs/NUMERICS.md: less than a bin.
#[test]
fn percentiles_are_within_one_bin_of_the_exact_ones() {
    for (name, values) in samples() {
        for p in [50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
            let calibration = fed(plan(Method::Percentile(p)), values.chunks(997));
            let amax = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            let bin = amax / 1024.0;
            for symmetric in [false, true] {
                let numerics = numerics(8, symmetric);
                let found = range(&calibration, &numerics);
                let expected = exact(&RangeMethod::Percentile(p), &values, &numerics);
                let off = (found.min - expected.min).abs().max((found.max - expected.max).abs());
                assert!(off <= bin, "{name} {p} {symmetric}: {found:?}, not {expected:?}");
                if p >= 100.0 {
                    assert_eq!(found, expected, "{name}");
                }
            }
        }
    }
}

/// More bins, a smaller error.
#[test]
fn bins_bound_the_error() {
    let (_, values) = samples().swap_remove(2);
    for bins in [256, 65_536] {
        let method = Method::Percentile(99.9);
        let plan = Plan::new(method, Granularity::Tensor, Some(bins), false).unwrap();
        let numerics = numerics(8, true);
        let found = range(&fed(plan, values.chunks(100)), &numerics);
        let expected = exact(&RangeMethod::Percentile(99.9), &values, &numerics);
        assert!((found.max - expected.max).abs() <= 600.0 / bins as f32, "{bins}");
    }
}

fn error_of(values: &[f32], range: Range<f32>, numerics: &Numerics) -> f64 {
    let affine = numerics.affine(range);
    let codes = (numerics.code_range(), numerics.rounding());
    let sum = quantd_kernels::scalar::squared_error(values, affine, codes.0, codes.1);
    (sum / values.len() as f64).sqrt()
}

/// The bound of docs/NUMERICS.md on the root of the mean squared error, and
/// what it is on distributions that are not made to be bad.
#[test]
fn mse_is_near_that_of_the_exact_search() {
    for (name, values) in samples() {
        let calibration = fed(plan(Method::Mse), values.chunks(1000));
        let amax = values.iter().fold(0.0_f64, |a, x| a.max(f64::from(x.abs())));
        for (bits, symmetric) in [(8, true), (4, true), (2, true), (8, false), (4, false)] {
            let numerics = numerics(bits, symmetric);
            let found = error_of(&values, range(&calibration, &numerics), &numerics);
            let least = error_of(&values, exact(&RangeMethod::Mse, &values, &numerics), &numerics);
            assert!(found >= least, "{name} {bits}: not the least");
            assert!(found <= least + 1.155 * amax / 1024.0, "{name} {bits}: {found} {least}");
            if ["gauss", "relu", "cubes"].contains(&name) {
                assert!(found <= least * 1.01, "{name} {bits} {symmetric}: {found} {least}");
            }
        }
    }
}

/// Lines that all fit into the sample are searched exactly.
#[test]
fn cross_entropy_of_few_lines_is_the_exact_search() {
    let (_, values) = samples().swap_remove(0);
    let method = Method::CrossEntropy { axis: -1 };
    let mut calibration = Calibration::new(plan(method));
    for rows in values[..6000].chunks(2000) {
        let rows = Calibration::of_batch(plan(method), &tensor(rows, &[200, 10]), &Task::default());
        calibration.feed(&rows.unwrap()).unwrap();
    }
    let values = &values[..6000];
    for numerics in [numerics(4, true), numerics(4, false)] {
        let slice = Exact { values, extent: extent(values), line: 10 };
        let method = RangeMethod::CrossEntropy { axis: -1 };
        let expected = range::find(&method, slice, &numerics, &Task::default());
        assert_eq!(range(&calibration, &numerics), expected);
    }
}

/// A mask, classes, what a quantizer left: bins that are wider than those of the search do not tell
/// where these values are.
#[test]
fn entropy_of_few_values_is_the_exact_search() {
    let with = |values: &[f32]| values.to_vec();
    let mut fives = vec![5.0_f32; 50];
    fives.push(1.0);
    let levels: Vec<f32> = (0..3000).map(|i| ((i * i) % 509) as f32 * 0.1 - 12.0).collect();
    let mask: Vec<f32> = (0..300).map(|i| f32::from(u8::from(i % 3 == 0))).collect();
    let samples = [mask, fives, levels, with(&[-1.0, 0.0, 0.0, 1.0, 1.0]), with(&[0.3, 0.3, -7.1])];
    let kinds = [
        (Method::EntropyOrt, RangeMethod::EntropyOrt),
        (Method::EntropyTensorrt, RangeMethod::EntropyTensorrt),
        (Method::EntropyModelopt, RangeMethod::EntropyModelopt),
    ];
    for values in samples {
        for (learnt, method) in &kinds {
            for numerics in [numerics(8, true), numerics(8, false), numerics(4, true)] {
                let expected = exact(method, &values, &numerics);
                let calibration = fed(plan(*learnt), values.chunks(7));
                assert_eq!(
                    range(&calibration, &numerics),
                    expected,
                    "{method:?} {:?}",
                    &values[..2]
                );
            }
        }
    }
    let calibration = fed(plan(Method::EntropyOrt), [&[0.0, 1.0, 0.0][..], &[1.0, 1.0]]);
    assert_eq!(range(&calibration, &numerics(8, false)), Range { min: 0.0, max: 1.0 });
}

/// What came first does not matter to what is forgotten.
#[test]
fn many_values_are_forgotten() {
    let many: Vec<f32> = (0..600).map(|i| i as f32).collect();
    let (few, rest) = many.split_at(512);
    let kept = |batches: &[&[f32]]| {
        let calibration = fed(plan(Method::EntropyOrt), batches.iter().copied());
        calibration.parts().distinct[0]
    };
    assert_eq!(kept(&[few, &few[..9]]), 512);
    assert_eq!((kept(&[few, rest]), kept(&[rest, few]), kept(&[&many, few])), (0, 0, 0));
    // A document from before values were kept.
    let calibration = fed(plan(Method::EntropyOrt), [few]);
    let mut parts = calibration.parts();
    (parts.distinct, parts.values, parts.value_counts) = Default::default();
    let mut old = Calibration::from_parts(plan(Method::EntropyOrt), &parts).unwrap();
    old.merge(&calibration).unwrap();
    assert_eq!(old.parts().distinct, [0]);
}

#[test]
fn a_sample_is_bounded_and_counts_what_repeats() {
    let line = |i: u64| (0..300).map(move |k| ((i * 31 + k) % 977) as f64).collect::<Vec<_>>();
    let mut sample = Sample::new(300).unwrap();
    for i in 0..2000 {
        sample.insert(&line(i % 977), 1 + i % 2);
    }
    assert_eq!(sample.capacity(), 873);
    assert_eq!(sample.len(), 873);
    // Twice each, once as odd and once as even, but for the last ones.
    assert!(sample.counts().iter().all(|&count| count == 3 || count == 4 || count == 5));
    assert!(Sample::new(sample::MOST_ELEMENTS + 1).is_err());
}

#[test]
fn channels_are_learnt_apart() {
    let plan = Plan::new(Method::Percentile(100.0), Granularity::Channel { axis: 1 }, None, false);
    let plan = plan.unwrap();
    let mut calibration = Calibration::new(plan);
    let feed = |calibration: &mut Calibration, values: &[f32], dims: &[usize]| {
        let batch = Calibration::of_batch(plan, &tensor(values, dims), &Task::default())?;
        calibration.feed(&batch)
    };
    feed(&mut calibration, &[1.0, -10.0, 2.0, -20.0], &[2, 2]).unwrap();
    // Another rank, as long as the axis fits.
    feed(&mut calibration, &[-3.0, 4.0, 50.0, 60.0], &[1, 2, 2]).unwrap();
    let before = calibration.clone();
    let error = feed(&mut calibration, &[1.0, 2.0, 3.0], &[1, 3]).unwrap_err();
    assert_eq!((error.field, &*error.detail), ("shape", "3 channels, earlier batches had 2"));
    assert_eq!(feed(&mut calibration, &[1.0], &[1]).unwrap_err().field, "axis");
    assert_eq!(feed(&mut calibration, &[], &[0, 2]).unwrap_err().field, "data");
    assert_eq!(calibration, before);
    let ranges: Vec<Range<f32>> =
        calibration.ranges(&numerics(8, false), &Task::default()).unwrap();
    assert_eq!(ranges, [Range { min: -3.0, max: 4.0 }, Range { min: -20.0, max: 60.0 }]);
}

#[test]
fn nan_is_refused_or_left_out() {
    let values = [1.0, f32::NAN, -2.0, f32::INFINITY];
    for method in METHODS {
        let error = Calibration::of_batch(plan(method), &tensor(&values, &[4]), &Task::default());
        assert_eq!(&*error.unwrap_err().detail, "element 1 is NaN");
        let ignoring = Plan::new(method, Granularity::Tensor, None, true).unwrap();
        let calibration = batch(ignoring, &values);
        let Seen { elements, nan, inf, .. } = calibration.seen();
        assert_eq!((elements, nan, inf), (4, 1, 1));
        let found = range(&calibration, &numerics(8, false));
        assert!(found.min >= -2.0 && found.max <= 1.0, "{method:?} {found:?}");
    }
}

#[test]
fn without_data_there_is_no_range() {
    let empty = Calibration::new(plan(Method::MinMax));
    let error = empty.parameters::<f32>(&numerics(8, true), &Task::default()).unwrap_err();
    assert_eq!(error.field, "calibrator");
}

#[test]
fn kinds_do_not_mix() {
    let differ = |a: Plan, b: Plan, field: &str| {
        let mut first = fed(a, [&[1.0, 2.0][..]]);
        let before = first.clone();
        assert_eq!(first.merge(&batch(b, &[3.0, 4.0])).unwrap_err().field, field);
        assert_eq!(first, before);
    };
    let with = |method, axis: Option<i64>, bins| {
        let granularity = axis.map_or(Granularity::Tensor, |axis| Granularity::Channel { axis });
        Plan::new(method, granularity, bins, false).unwrap()
    };
    let p = Method::Percentile(99.0);
    differ(with(p, None, None), with(Method::Mse, None, None), "range");
    differ(with(p, None, None), with(Method::Percentile(98.0), None, None), "percentile");
    differ(with(p, None, None), with(p, Some(0), None), "granularity");
    differ(with(p, Some(-1), None), with(p, Some(0), None), "axis");
    differ(with(p, None, None), with(p, None, Some(4096)), "bins");
    let average = |decay| with(Method::MovingAverage { decay }, None, None);
    differ(average(0.9), average(0.99), "decay");
    let refused =
        |method, granularity, bins| Plan::new(method, granularity, bins, false).unwrap_err();
    assert_eq!(refused(p, Granularity::Token, None).field, "granularity");
    assert_eq!(refused(p, Granularity::Tensor, Some(1000)).field, "bins");
    assert_eq!(refused(Method::MinMax, Granularity::Tensor, Some(512)).field, "bins");
    let softmax = Method::CrossEntropy { axis: 0 };
    assert_eq!(refused(softmax, Granularity::Channel { axis: 0 }, None).field, "granularity");
}

#[test]
fn numbers_of_every_size_are_counted() {
    for factor in [f64::from_bits(1), 1e-300, 1e-30, 1.0, 1e30, 8e307] {
        let values = [1.0, -2.0, 0.5, 0.0, 1.25].map(|x| x * factor);
        let shape = Shape::vector(5).unwrap();
        let tensor = Tensor::from_elements(DType::F64, shape, &values).unwrap();
        for method in METHODS {
            let found = Calibration::of_batch(plan(method), &tensor, &Task::default()).unwrap();
            for numerics in [numerics(8, true), numerics(8, false)] {
                let ranges = found.ranges::<f64>(&numerics, &Task::default()).unwrap();
                let amax = ranges[0].abs_max();
                assert!(amax <= 2.0 * factor && amax >= 0.0, "{method:?} {factor} {ranges:?}");
                if method != Method::MinMax && factor > 1e-300 {
                    assert!(amax > 0.3 * factor, "{method:?} {factor} {ranges:?}");
                }
            }
            let narrow = found.ranges::<f32>(&numerics(8, true), &Task::default());
            assert_eq!(narrow.is_err(), factor > 1e100, "{factor}");
        }
    }
}

#[test]
fn parts_make_the_same_calibration() {
    for (name, values) in samples() {
        for method in METHODS.into_iter().chain([Method::MovingAverage { decay: 0.3 }]) {
            let plan = plan(method);
            let line = values.len().min(10);
            let whole = values.len() / line * line;
            let calibration = fed(plan, values[..whole].chunks(line).take(300));
            let again = Calibration::from_parts(plan, &calibration.parts());
            assert_eq!(again.as_ref(), Ok(&calibration), "{name} {method:?}");
        }
    }
    let empty = Calibration::new(plan(Method::Mse));
    assert_eq!(Calibration::from_parts(plan(Method::Mse), &empty.parts()), Ok(empty));
}

#[test]
fn parts_that_nothing_has_are_refused() {
    let check = |method: Method, field: &str, change: &dyn Fn(&mut Parts)| {
        let plan = plan(method);
        let mut parts = fed(plan, [&[1.0, -0.5, 0.0, 0.25][..]]).parts();
        assert!(Calibration::from_parts(plan, &parts).is_ok());
        change(&mut parts);
        let error = Calibration::from_parts(plan, &parts).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    };
    let p = Method::Percentile(99.0);
    check(p, "batches", &|parts| parts.seen.batches = 0);
    check(p, "batches", &|parts| parts.seen.batches = 5);
    check(p, "batches", &|parts| parts.seen.batches = u64::MAX);
    check(p, "elements", &|parts| parts.seen.elements = 5);
    check(p, "elements", &|parts| parts.seen.elements = u64::MAX);
    check(p, "nan_elements", &|parts| parts.seen.nan = u64::MAX);
    check(p, "elements", &|parts| parts.finite[0] = u64::MAX);
    check(p, "finite", &|parts| {
        parts.finite.push(4);
        parts.seen.elements = 8;
    });
    check(p, "min", &|parts| parts.min.clear());
    check(p, "min", &|parts| parts.min[0] = f64::NAN);
    check(p, "max", &|parts| parts.max[0] = f64::INFINITY);
    check(p, "min", &|parts| parts.min[0] = 2.0);
    check(p, "max", &|parts| parts.max.push(1.0));
    check(p, "positive", &|parts| parts.max[0] = 1.5);
    check(p, "negative", &|parts| parts.min[0] = -0.7);
    check(p, "negative", &|parts| parts.negative.truncate(3));
    check(p, "positive", &|parts| parts.positive.resize(1 << 20, 0));
    check(p, "positive", &|parts| parts.positive[0] = 9);
    check(p, "positive", &|parts| parts.positive.iter_mut().for_each(|n| *n = u64::MAX));
    check(p, "average_min", &|parts| parts.average_min.push(0.0));
    check(p, "lines", &|parts| parts.lines.push(0.0));
    let ort = Method::EntropyOrt;
    check(ort, "distinct", &|parts| parts.distinct.push(0));
    check(p, "distinct", &|parts| parts.distinct.push(4));
    check(ort, "values", &|parts| parts.distinct[0] = 3);
    check(ort, "values", &|parts| parts.distinct[0] = u64::MAX);
    check(ort, "values", &|parts| parts.values.truncate(3));
    check(ort, "values", &|parts| parts.values.swap(1, 2));
    check(ort, "values", &|parts| parts.values[3] = f64::NAN);
    check(ort, "values", &|parts| parts.values[1] = -0.0);
    check(ort, "values", &|parts| parts.values[3] = 1.5);
    check(ort, "value_counts", &|parts| parts.values[2] = 0.75);
    check(ort, "values", &|parts| parts.value_counts[1] = 0);
    check(ort, "value_counts", &|parts| parts.value_counts[1] = 2);
    check(ort, "value_counts", &|parts| parts.value_counts.truncate(3));
    check(Method::MinMax, "positive", &|parts| parts.positive.push(1));
    let average = Method::MovingAverage { decay: 0.5 };
    check(average, "average_min", &|parts| parts.average_min[0] = -9.0);
    check(average, "average_max", &|parts| parts.average_max[0] = f64::NAN);
    check(average, "average_max", &|parts| parts.average_max.clear());
    let softmax = Method::CrossEntropy { axis: 0 };
    check(softmax, "lines", &|parts| parts.line = 0);
    check(softmax, "lines", &|parts| parts.lines.truncate(3));
    check(softmax, "shape", &|parts| parts.line = usize::MAX);
    check(softmax, "line_counts", &|parts| parts.line_counts[0] = 2);
    check(softmax, "line_counts", &|parts| parts.line_counts[0] = 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bins of numbers counted one by one, however wide the histogram was when they came.
    #[test]
    fn widening_loses_no_count(
        batches in prop::collection::vec(
            prop::collection::vec((-1e4_f32..1e4, -40..40_i32), 1..40), 1..6),
    ) {
        let batches: Vec<Vec<f32>> = batches
            .into_iter()
            .map(|batch| batch.into_iter().map(|(x, e)| libm::ldexpf(x, e)).collect())
            .collect();
        let all: Vec<f32> = batches.concat();
        let parts = fed(plan(Method::Mse), batches.iter().map(Vec::as_slice)).parts();
        let amax = all.iter().fold(0.0_f64, |a, x| a.max(f64::from(x.abs())));
        let mut width = libm::ldexp(1.0, -200);
        while amax >= 2048.0 * width {
            width *= 2.0;
        }
        for (counts, sign) in [(&parts.positive, 1.0), (&parts.negative, -1.0)] {
            let mut expected = vec![0; counts.len()];
            for x in all.iter().map(|&x| sign * f64::from(x)).filter(|x| *x > 0.0) {
                let bin = (x / width).floor();
                expected[usize::try_from(<f64 as Real>::truncate(bin)).unwrap()] += 1;
            }
            prop_assert_eq!(counts, &expected);
        }
        prop_assert_eq!(parts.finite[0], all.len() as u64);
    }
}

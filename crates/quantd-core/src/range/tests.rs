//! Against NumPy, ONNX Runtime and Model-Optimizer, by `tests/golden/make_ranges.py`.

use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::params::Profile;
use quantd_kernels::scalar::{Code, Params, dequantize, extent, quantize, squared_error};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    percentiles: Vec<Percentiles<f32>>,
    percentiles_f64: Vec<Percentiles<f64>>,
    histogram: Counts,
    searches: Vec<Search>,
    entropy_ort: Option<[f32; 2]>,
    #[serde(default)]
    entropy_tensorrt: Vec<Entropy>,
}

#[derive(Deserialize)]
struct Percentiles<T> {
    p: f64,
    low: T,
    high: T,
    abs: T,
}

#[derive(Deserialize)]
struct Counts {
    edges: Vec<f64>,
    counts: Vec<u64>,
}

#[derive(Deserialize)]
struct Search {
    bits: u32,
    symmetric: bool,
    mse: f64,
    cross_entropy: f64,
}

#[derive(Deserialize)]
struct Entropy {
    bits: u32,
    signed: bool,
    amax: f32,
}

fn golden() -> Vec<(Case, Vec<f32>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ranges");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let Golden { cases } = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 8);
    let with_data = |case: Case| {
        let path = folder.join(format!("{}.npy", case.name));
        let x: ndarray::Array1<f32> = ndarray_npy::read_npy(path).unwrap();
        (case, x.to_vec())
    };
    cases.into_iter().map(with_data).collect()
}

fn numerics(bits: u32, symmetric: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed: symmetric, symmetric, restricted: symmetric }
}

fn search<T: Real>(method: &RangeMethod, values: &[T], numerics: &Numerics) -> Range<T> {
    let slice = Slice { values, extent: extent(values), line: values.len() };
    find(method, slice, numerics, &Task::default())
}

fn check_percentiles<T: Real>(name: &str, x: &[T], expected: &[Percentiles<T>]) {
    for &Percentiles { p, low, high, abs } in expected {
        let method = RangeMethod::Percentile(p);
        let found = search(&method, x, &numerics(8, false));
        assert_eq!(found, Range::around_zero(low, high), "{name} {p}");
        let found = search(&method, x, &numerics(8, true));
        assert_eq!(found, Range { min: -abs, max: abs }, "{name} {p}");
    }
}

#[test]
fn percentiles_are_numpys() {
    for (case, x) in golden() {
        check_percentiles(&case.name, &x, &case.percentiles);
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        check_percentiles(&case.name, &wide, &case.percentiles_f64);
    }
}

/// A long slice is counted out digit by digit.
#[test]
fn long_slices_have_the_percentiles_of_sorted_ones() {
    for (case, x) in golden() {
        let long: Vec<f32> = x.iter().copied().cycle().take(70_000).collect();
        let mut sorted: Vec<f32> = long.iter().copied().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        for rank in [0, 1, 77, sorted.len() / 2, sorted.len() - 1] {
            let percent = 100.0 * rank as f64 / (sorted.len() - 1) as f64;
            let [found] =
                percentile::percentiles(&long, sorted.len(), [percent], |x| x, &Task::default());
            // The percentage of a rank is rounded: a neighbour may have a share.
            let near = &sorted[rank.saturating_sub(1)..(rank + 2).min(sorted.len())];
            assert!(near[0] <= found && found <= near[near.len() - 1], "{} {rank}", case.name);
            assert!((found - sorted[rank]).abs() <= 1e-3, "{} {rank}", case.name);
        }
    }
}

/// Whatever a sample makes one believe, and where infinities sort before all.
#[test]
fn order_statistics_are_those_of_sorted_elements() {
    let n = 30_011;
    let spread = |i: usize| ((i * 7919) % n) as f32 - 9000.0;
    let shapes: [(&str, &dyn Fn(usize) -> f32); 8] = [
        ("ascending", &|i| i as f32),
        ("mixed", &spread),
        ("equal", &|_| 3.5),
        ("two values", &|i| if i % 2 == 0 { -1.0 } else { 1.0 }),
        ("zeros of both signs", &|i| if i % 3 == 0 { -0.0 } else { 0.0 }),
        ("one far away", &|i| if i == 77 { 1e30 } else { 1.0 }),
        ("tail at the end", &|i| if i > n - 40 { spread(i) * 1e6 } else { spread(i) }),
        ("not all finite", &|i| match i % 5 {
            0 => f32::NEG_INFINITY,
            1 => f32::NAN,
            2 => f32::INFINITY,
            _ => spread(i),
        }),
    ];
    for (name, shape) in shapes {
        let x: Vec<f32> = (0..n).map(shape).collect();
        for (map, sign) in [((|x| x) as fn(f32) -> f32, "signed"), (f32::abs, "magnitude")] {
            let finite = x.iter().copied().filter(|x| x.is_finite());
            let mut sorted: Vec<f32> = finite.map(|x| map(x) + 0.0).collect();
            sorted.sort_by(f32::total_cmp);
            let last = sorted.len() - 1;
            let ranks = [0, 1, last / 10_000, last / 100, last / 2, last - last / 1000, last];
            let never = Task::default();
            let found = order::statistics(&x, sorted.len(), ranks, map, &never);
            let expected = ranks.map(|rank| [sorted[rank], sorted[(rank + 1).min(last)]]);
            assert_eq!(found, expected, "{name} {sign}");
        }
    }
}

#[test]
fn histograms_are_numpys() {
    for (case, x) in golden() {
        let all = extent(&x);
        let ends = [f64::from(all.min), f64::from(all.max)];
        let found = histogram::histogram(&x, f64::from, 37, ends, &Task::default());
        assert_eq!(found.counts, case.histogram.counts, "{}", case.name);
        assert_eq!(found.edges, case.histogram.edges, "{}", case.name);
    }
}

#[test]
fn entropies_are_those_of_the_tools() {
    for (case, x) in golden() {
        if let Some([low, high]) = case.entropy_ort {
            let found = search(&RangeMethod::EntropyOrt, &x, &numerics(8, false));
            assert_eq!(found, Range::around_zero(low, high), "{}", case.name);
        }
        for Entropy { bits, signed, amax } in case.entropy_tensorrt {
            let numerics = Numerics { signed, ..numerics(bits, true) };
            let found = search(&RangeMethod::EntropyModelopt, &x, &numerics);
            assert_eq!(found, Range { min: -amax, max: amax }, "{} {bits} {signed}", case.name);
        }
    }
}

#[test]
fn entropies_stay_within_the_elements() {
    let methods =
        [RangeMethod::EntropyOrt, RangeMethod::EntropyTensorrt, RangeMethod::EntropyModelopt];
    for method in methods {
        for (case, x) in golden() {
            for symmetric in [true, false] {
                let range = search(&method, &x, &numerics(8, symmetric));
                assert!(range.min <= 0.0 && range.max >= 0.0, "{method:?} {} {range:?}", case.name);
                let whole = Range::around_zero(extent(&x).min, extent(&x).max).abs_max();
                assert!(range.abs_max() <= whole * 1.01, "{method:?} {} {range:?}", case.name);
            }
        }
    }
}

fn restored(x: &[f32], range: Range<f32>, numerics: &Numerics) -> Vec<f32> {
    let params = Params::Same(numerics.affine(range));
    let mut codes = vec![i16::from_code(0); x.len()];
    quantize(x, params, numerics.code_range(), numerics.rounding(), &mut codes);
    let mut restored = vec![0.0; x.len()];
    dequantize(&codes, params, &mut restored);
    restored
}

/// -sum softmax(x) log softmax(restored), as the definition has it.
#[expect(clippy::disallowed_methods, reason = "an independent way to nearly the same numbers")]
fn cross_entropy(x: &[f32], restored: &[f32]) -> f64 {
    let log_softmax = |x: &[f32]| -> Vec<f64> {
        let peak = x.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = x.iter().map(|&x| f64::from(x - peak).exp()).sum();
        x.iter().map(|&x| f64::from(x) - f64::from(peak) - total.ln()).collect()
    };
    let terms = log_softmax(x).into_iter().zip(log_softmax(restored));
    -terms.map(|(x, restored)| x.exp() * restored).sum::<f64>()
}

#[test]
fn searches_find_the_least_of_their_grids() {
    for (case, x) in golden() {
        let x: Vec<f32> = x.into_iter().filter(|x| x.is_finite()).collect();
        for Search { bits, symmetric, mse, cross_entropy: least } in case.searches {
            let name = format!("{} {bits} {symmetric}", case.name);
            let numerics = numerics(bits, symmetric);
            let range = search(&RangeMethod::Mse, &x, &numerics);
            let affine = numerics.affine(range);
            let error = squared_error(&x, affine, numerics.code_range(), numerics.rounding());
            assert!((error - mse).abs() <= 1e-9 * mse, "{name}: {error} {mse}");
            let range = search(&RangeMethod::CrossEntropy { axis: -1 }, &x, &numerics);
            let loss = cross_entropy(&x, &restored(&x, range, &numerics));
            assert!((loss - least).abs() <= 1e-6 * least.abs() + 1e-12, "{name}: {loss} {least}");
        }
    }
}

/// A slice longer than a block takes another path to the same range.
#[test]
fn long_slices_are_searched_as_short_ones() {
    let numerics = numerics(4, true);
    for (case, x) in golden().into_iter().filter(|(_, x)| x.len() >= 1000) {
        let long: Vec<f32> = x.iter().copied().cycle().take(64 * x.len()).collect();
        let (short, long) =
            (search(&RangeMethod::Mse, &x, &numerics), search(&RangeMethod::Mse, &long, &numerics));
        let error = |range| {
            let affine = numerics.affine(range);
            squared_error(&x, affine, numerics.code_range(), numerics.rounding())
        };
        assert!(error(long) <= error(short) * (1.0 + 1e-9), "{} {short:?} {long:?}", case.name);
    }
}

#[test]
fn nothing_finite_has_the_range_of_zeros() {
    for method in [RangeMethod::Percentile(99.0), RangeMethod::Mse, RangeMethod::EntropyOrt] {
        for values in [&[][..], &[f32::NAN], &[f32::INFINITY, f32::NEG_INFINITY]] {
            assert_eq!(search(&method, values, &numerics(8, true)), Range { min: 0.0, max: 0.0 });
        }
    }
}

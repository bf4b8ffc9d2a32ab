use super::*;
use crate::kernels::scalar::{extent, squared_error};
use crate::quant::params::Profile;

fn numerics(bits: u32, symmetric: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed: symmetric, symmetric, restricted: symmetric }
}

fn search(method: &RangeMethod, values: &[f32], numerics: &Numerics) -> Range<f32> {
    let slice = Slice { values, extent: extent(values), line: values.len() };
    find(method, slice, numerics, &Cancel::default())
}

/// Uniform numbers in [-1, 1).
fn noise(n: usize, mut state: u64) -> impl Iterator<Item = f32> {
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(n)
}

/// Distributions with and without tails.
fn samples(n: usize) -> Vec<(&'static str, Vec<f32>)> {
    let gauss: Vec<f32> =
        noise(n, 7).zip(noise(n, 8)).zip(noise(n, 9)).map(|((a, b), c)| a + b + c).collect();
    let heavy: Vec<f32> = gauss.iter().map(|x| x * x * x).collect();
    let mut outlier: Vec<f32> = noise(n, 3).collect();
    outlier[n / 2] = 40.0;
    let one_sided: Vec<f32> = gauss.iter().map(|x| x.abs()).collect();
    let two: Vec<f32> = noise(n, 5).map(|x| if x > 0.3 { 1.0 } else { -0.37 }).collect();
    let mut odd = gauss.clone();
    (odd[0], odd[1]) = (f32::NAN, f32::INFINITY);
    vec![
        ("gauss", gauss),
        ("heavy", heavy),
        ("outlier", outlier),
        ("one-sided", one_sided),
        ("two", two),
        ("constant", vec![-2.5; n]),
        ("zero", vec![0.0; n]),
        ("odd", odd),
    ]
}

#[test]
fn percentiles_are_those_of_sorted_elements() {
    for n in [8, 1000, (1 << 16) + 3] {
        for (name, values) in samples(n) {
            let mut sorted: Vec<f32> = values.iter().copied().filter(|x| x.is_finite()).collect();
            sorted.sort_by(f32::total_cmp);
            let at = |p: f64| {
                let index = (sorted.len() - 1) as f64 * (p / 100.0);
                let (low, weight) = (index.floor(), index - index.floor());
                let a = sorted[low as usize];
                let b = sorted[(low as usize + 1).min(sorted.len() - 1)];
                if weight < 0.5 {
                    a + (b - a) * weight as f32
                } else {
                    b - (b - a) * (1.0 - weight) as f32
                }
            };
            let found = search(&RangeMethod::Percentile(99.0), &values, &numerics(8, false));
            assert_eq!(found, Range::around_zero(at(1.0), at(99.0)), "{name} {n}");
        }
    }
}

#[test]
fn mse_is_the_best_of_its_grid() {
    for (bits, symmetric) in [(8, true), (4, true), (2, true), (4, false), (8, false)] {
        let numerics = numerics(bits, symmetric);
        for n in [9, 128, 3000] {
            for (name, values) in samples(n) {
                let error = |range| {
                    squared_error(
                        &values,
                        numerics.affine(range),
                        numerics.code_range(),
                        numerics.rounding(),
                    )
                };
                let found = error(search(&RangeMethod::Mse, &values, &numerics));
                let all = Range::around_zero(extent(&values).min, extent(&values).max);
                for candidate in grid(all, &numerics, 100, 32) {
                    assert!(found <= error(candidate), "{name} {n} {bits} {symmetric}");
                }
                assert!(found <= error(all), "{name}: never worse than min-max");
            }
        }
    }
}

#[test]
fn long_slices_are_searched_as_short_ones() {
    let values: Vec<f32> = noise(3 * BLOCK + 17, 11).map(|x| x * x * x).collect();
    let numerics = numerics(4, true);
    let found = search(&RangeMethod::Mse, &values, &numerics);
    let error = |range| {
        squared_error(&values, numerics.affine(range), numerics.code_range(), numerics.rounding())
    };
    let all = Range::around_zero(extent(&values).min, extent(&values).max);
    let least = grid(all, &numerics, 100, 32).into_iter().map(error).fold(f64::INFINITY, f64::min);
    assert!(error(found) <= least * (1.0 + 1e-12));
}

#[test]
fn entropies_stay_within_the_elements() {
    for method in [RangeMethod::EntropyOrt, RangeMethod::EntropyTensorrt] {
        for (name, values) in samples(2000) {
            for symmetric in [true, false] {
                let range = search(&method, &values, &numerics(8, symmetric));
                assert!(range.min <= 0.0 && range.max >= 0.0, "{method:?} {name} {range:?}");
                assert!(
                    range.abs_max()
                        <= extent(&values).min.abs().max(extent(&values).max.abs()) * 1.01
                );
            }
        }
    }
}

#[test]
fn cross_entropy_keeps_the_softmax() {
    // A confident line: what decides is the one large element.
    let values = [0.1_f32, -0.2, 0.05, 9.0, 0.3, -0.1];
    let range = search(&RangeMethod::CrossEntropy { axis: -1 }, &values, &numerics(4, true));
    assert!(range.max > 6.0, "{range:?}");
    for (name, values) in samples(64) {
        let range = search(&RangeMethod::CrossEntropy { axis: -1 }, &values, &numerics(8, false));
        assert!(range.min <= 0.0 && range.max >= 0.0, "{name} {range:?}");
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

//! The searches that leave out candidates against those that compute all.

use proptest::prelude::*;

use super::estimate::Estimate;
use super::tensorrt::Thresholds;
use super::*;
use crate::Task;
use crate::params::{Numerics, Profile, Range};
use crate::range::histogram::{Sparse, histogram};
use quantd_kernels::scalar::extent;

/// The first of the candidates with the least divergence.
fn exhaustive_ort(counts: &[u64]) -> (usize, usize) {
    let sums = ort::prefix_sums(counts);
    let middle = counts.len() / 2;
    let window = |half: usize| (middle - half, (middle + half + 1).min(counts.len()));
    let mut best = (f32::INFINITY, middle.min(QUANTIZED / 2));
    for half in QUANTIZED / 2..=middle {
        let (start, end) = window(half);
        let divergence = ort::divergence(counts, &sums, start, end);
        if divergence < best.0 {
            best = (divergence, half);
        }
    }
    window(best.1)
}

/// The last of the candidates with the least divergence, as the tool computes each.
fn exhaustive_tensorrt(counts: &[u64], levels: usize, thresholds: Thresholds) -> usize {
    let mut counts = counts.to_vec();
    if let [first, second, ..] = &mut counts[..] {
        *first = *second;
    }
    let whole: u64 = counts.iter().sum();
    let mut best = (f64::INFINITY, counts.len());
    for kept in QUANTIZED..=counts.len() {
        let clipped: u64 = counts[kept..].iter().sum();
        if thresholds == Thresholds::OfOutliers && clipped > whole / 10 {
            continue;
        }
        let divergence = divergence(&counts[..kept], whole, levels);
        if divergence <= best.0 {
            best = (divergence, kept);
        }
    }
    best.1
}

fn divergence(counts: &[u64], whole: u64, levels: usize) -> f64 {
    let total: u64 = counts.iter().sum();
    let tail = whole - total;
    if total == 0 {
        // NaN, which NumPy takes for the least.
        return f64::NEG_INFINITY;
    }
    if tail > 0 && counts.ends_with(&[0]) {
        return f64::INFINITY;
    }
    let step = counts.len() as f64 / levels as f64;
    let level = |bin: usize| (0..levels).rev().find(|&k| k as f64 * step <= bin as f64).unwrap();
    let level_of: Vec<usize> = (0..counts.len()).map(level).collect();
    let mut totals = vec![(0_u64, 0_u64); levels];
    for (&count, &level) in counts.iter().zip(&level_of).filter(|(count, _)| **count > 0) {
        totals[level].0 += count;
        totals[level].1 += 1;
    }
    let mean = |(&count, &level): (&u64, &usize)| {
        let (total, bins) = totals[level];
        if count > 0 { total as f64 / bins as f64 } else { 0.0 }
    };
    let mut q: Vec<f64> = counts.iter().zip(&level_of).map(mean).collect();
    let (p_sum, q_sum) = (whole as f64, pairwise_sum(&q));
    for (bin, (&count, q)) in counts.iter().zip(&mut q).enumerate().filter(|(_, (c, _))| **c > 0) {
        let tail = if bin + 1 == counts.len() { tail } else { 0 };
        let p = (count + tail) as f64 / p_sum;
        *q = p * libm::log(p / (*q / q_sum));
    }
    pairwise_sum(&q)
}

fn numerics(bits: u32, signed: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed, symmetric: true, restricted: signed }
}

fn check(values: &[f32]) {
    let never = Task::default();
    let extent = extent(values);
    let amax = Range::around_zero(extent.min, extent.max).abs_max();
    let counts = histogram(values, |x| x, BINS, [-amax, amax], &never).counts;
    assert_eq!(ort::search(&counts, &never), exhaustive_ort(&counts));
    let counts = histogram(values, f32::abs, BINS, [0.0, amax], &never).counts;
    let (sparse, _) = Sparse::of(values, f32::abs, BINS, [0.0, amax], &never);
    assert_eq!(sparse, Sparse::from_counts(counts.clone()));
    use Thresholds::{All, OfOutliers};
    for (bits, signed, thresholds) in [
        (8, true, OfOutliers),
        (8, false, All),
        (4, true, All),
        (4, false, OfOutliers),
        (2, true, All),
    ] {
        let levels = 1 << (bits - u32::from(signed));
        let found = tensorrt::search(sparse.clone(), thresholds, &numerics(bits, signed), &never);
        assert_eq!(found, exhaustive_tensorrt(&counts, levels, thresholds), "{bits}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_better_candidate_is_left_out(
        x in proptest::collection::vec(-1.0_f32..1.0, 1..200),
        power in 1_i32..6,
        steps in prop_oneof![Just(f32::INFINITY), Just(2.0_f32), Just(7.0), Just(100.0)],
        shift in prop_oneof![Just(0.0_f32), Just(1.5)],
    ) {
        let rounded = |x: f32| if steps < f32::INFINITY { (x * steps).round() / steps } else { x };
        let x: Vec<f32> = x.into_iter().map(|x| rounded(x.powi(power)) + shift).collect();
        check(&x);
    }

    /// Over all windows, of counts that are few, many and both.
    #[test]
    fn estimates_are_near_to_what_is_computed(
        mut counts in proptest::collection::vec(
            prop_oneof![6 => Just(0_u64), 3 => 0..4_u64, 2 => 20..80_u64, 1 => 0..9_000_000_u64],
            300..700,
        ),
        kept in 1..700_usize,
    ) {
        // Sometimes nothing but zeros at both ends.
        let bins = counts.len();
        for (bin, count) in counts.iter_mut().enumerate() {
            *count *= u64::from(bin.abs_diff(bins / 2) < kept);
        }
        let sums = ort::prefix_sums(&counts);
        let mut estimate = Estimate::new(&counts, &sums);
        for half in QUANTIZED / 2..=bins / 2 {
            let (start, end) = (bins / 2 - half, (bins / 2 + half + 1).min(bins));
            let computed = f64::from(ort::divergence(&counts, &sums, start, end));
            let estimated = estimate.of((start, end));
            let same = estimated == f64::INFINITY && computed == f64::INFINITY
                || ort::least_computed(estimated) < computed
                    && (estimated - computed).abs() < 1e-5 * (estimated + 3.0);
            prop_assert!(same, "{start}..{end} of {bins}: {estimated} {computed}");
        }
    }

    #[test]
    fn sparse_sums_are_those_of_all(
        x in proptest::collection::vec(prop_oneof![3 => Just(0.0), 1 => -1e3..1e3], 1..2100),
    ) {
        let sparse: Vec<(usize, f64)> =
            x.iter().copied().enumerate().filter(|(_, x)| *x != 0.0).collect();
        prop_assert_eq!(sparse_sum(&sparse, 0, x.len()).to_bits(), pairwise_sum(&x).to_bits());
    }
}

/// Where most elements lie away from 0, few of them below a threshold say nothing of the others.
#[test]
fn what_is_far_from_zero_is_kept() {
    let x: Vec<f32> = (0..3000).map(|i| 1.0 + ((i * 7919) % 3000) as f32 / 3000.0).collect();
    let extent = extent(&x);
    for (bits, signed) in [(8, true), (8, false), (4, true), (2, true)] {
        let never = Task::default();
        let range = |which| tensorrt::range(&x, extent, which, &numerics(bits, signed), &never).max;
        let clipped = |amax: f32| x.iter().filter(|x| **x > amax).count();
        assert!(
            clipped(range(Thresholds::OfOutliers)) < 300,
            "{bits} {}",
            range(Thresholds::OfOutliers)
        );
        assert!(clipped(range(Thresholds::All)) > 2900, "{bits} {}", range(Thresholds::All));
    }
}

/// The width of the histogram has no number, or one that is small.
#[test]
fn ranges_of_ort_go_with_their_elements() {
    let x = [-1.0_f32, 0.0, -0.75, 0.0, 0.5, 0.25];
    let never = Task::default();
    let of = |factor: f32| {
        let x = x.map(|x| x * factor);
        let range = ort::range(&x, extent(&x), &never);
        Range { min: range.min / factor, max: range.max / factor }
    };
    for power in [-126_i32, -100, -10, 10, 100, 126, 127] {
        assert_eq!(of(2.0_f32.powi(power)), of(1.0), "{power}");
    }
    let largest = [f32::MIN, 0.0, -2.5, 0.0];
    let unit = largest.map(|x| x / 2.0_f32.powi(120));
    let (found, expected) =
        (ort::range(&largest, extent(&largest), &never), ort::range(&unit, extent(&unit), &never));
    assert_eq!((found.min / 2.0_f32.powi(120)).to_bits(), expected.min.to_bits());
    let x = [f64::MAX, 0.0, -2.5, f64::MIN];
    assert_eq!(ort::range(&x, extent(&x), &never), Range { min: f64::MIN, max: f64::MAX });
}

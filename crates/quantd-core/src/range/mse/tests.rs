//! The sieved search against the exhaustive one.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::bounds::{Bounds, Summary};
use super::*;
use crate::params::Profile;
use crate::word::Word;
use quantd_kernels::scalar::extent;

/// The first of the candidates with the least sum.
fn exhaustive<T: Real>(values: &[T], whole: Range<T>, numerics: &Numerics) -> Range<T> {
    let mut best = (f64::INFINITY, whole);
    for range in candidates(whole, numerics).iter() {
        let affine = numerics.affine(range);
        let sum = bounded_sum(
            values,
            f64::INFINITY,
            |x| error(Isa::best(), x, affine, numerics),
            &Task::default(),
        );
        if sum < best.0 {
            best = (sum, range);
        }
    }
    best.1
}

fn whole<T: Real>(values: &[T]) -> Range<T> {
    let extent = extent(values);
    Range::around_zero(extent.min, extent.max)
}

/// What the search does with a long slice, and how many candidates are left to it.
fn sieved<T: Real>(values: &[T], numerics: &Numerics) -> Option<(Range<T>, usize)> {
    let (whole, never) = (whole(values), Task::default());
    let candidates = candidates(whole, numerics);
    let order = bounds::survivors(values, whole, &candidates, numerics, &never)?;
    Some((candidates.get(least(values, &candidates, &order, numerics, &never)), order.len()))
}

fn check<T: Real>(name: &str, values: &[T], numerics: &Numerics) {
    let expect = exhaustive(values, whole(values), numerics);
    // The front door of a short slice.
    let found = range(values, whole(values), numerics, &Task::default());
    assert_eq!(found, expect, "{name} {numerics:?}");
    if let Some((found, _)) = sieved(values, numerics) {
        assert_eq!(found, expect, "{name} {numerics:?}");
    }
}

/// Some number K, in units of the bins, is what all bounds leave out.
fn check_bounds<T: Real>(name: &str, values: &[T], numerics: &Numerics) {
    let Some(summary) = Summary::of(values, whole(values), &Task::default()) else { return };
    let codes = numerics.code_range();
    let (mut low, mut high) = (0.0_f64, f64::INFINITY);
    for range in candidates(whole(values), numerics).iter() {
        let affine = numerics.affine(range);
        let sum = bounded_sum(
            values,
            f64::INFINITY,
            |x| error(Isa::best(), x, affine, numerics),
            &Task::default(),
        );
        let sum = sum * summary.scale() * summary.scale();
        for bounds in [summary.coarse(affine, codes), summary.fine(affine, codes)] {
            let Bounds { least, most } = bounds;
            assert!(
                most.partial_cmp(&least) != Some(Ordering::Less),
                "{name} {numerics:?} {range:?}: {bounds:?}"
            );
            (low, high) = (low.max(sum - most), high.min(sum - least));
        }
    }
    let spread = 0.2500001 * values.len() as f64;
    assert!(low <= high && low <= spread && high >= 0.0, "{name} {numerics:?}: {low} {high}");
}

/// Numbers that look random, between -1 and 1.
fn uniform(count: usize) -> Vec<f64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn shapes(count: usize) -> Vec<(&'static str, Vec<f64>)> {
    let u = uniform(6 * count);
    let bell: Vec<f64> = u.chunks(6).map(|u| u.iter().sum::<f64>() * 0.7).collect();
    let long: Vec<f64> = bell.iter().zip(&u).map(|(g, u)| g * g * g / (0.02 + u.abs())).collect();
    let map = |f: &dyn Fn(f64) -> f64| bell.iter().map(|&x| f(x)).collect::<Vec<f64>>();
    let with = |rest: &[f64]| {
        let mut x = bell.clone();
        x.iter_mut().step_by(97).zip(rest.iter().cycle()).for_each(|(x, &other)| *x = other);
        x
    };
    let mut outlier = bell.clone();
    outlier[count / 3] = 300.0;
    vec![
        ("uniform", u[..count].to_vec()),
        ("rectified", map(&|x| x.max(0.0))),
        ("negative", map(&|x| -x.abs() - 1.0)),
        ("shifted", map(&|x| x + 100.0)),
        ("constant", vec![0.7; count]),
        ("zeros", vec![0.0; count]),
        ("two values", map(&|x| if x < 0.0 { -1.0 } else { 0.75 })),
        ("few values", map(&|x| (3.0 * x).round() / 3.0)),
        ("ties", map(&|x| (2.0 * x * 40.0).round() * 0.5 / 127.0)),
        ("ties of the widest", map(&|x| ((x * 40.0).round() + 0.5).clamp(-127.0, 127.0))),
        ("not finite", with(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN])),
        ("tiny", map(&|x| x * 1e-28)),
        ("subnormal", map(&|x| x * 1e-39)),
        ("mixed sizes", map(&|x| x * x * x * x * x * 1e-3 + x * 1e-38)),
        ("huge", map(&|x| x * 6e37)),
        ("largest", with(&[f64::from(f32::MAX), -f64::from(f32::MAX)])),
        ("bell", bell),
        ("long tails", long),
        ("outlier", outlier),
    ]
}

fn schemes() -> Vec<Numerics> {
    let kinds =
        [(true, true, true), (true, true, false), (false, true, false), (true, false, false)];
    let kinds = kinds.into_iter().chain([(false, false, false)]);
    let of = |(signed, symmetric, restricted)| {
        let bits = [2, 3, 4, 5, 6, 7, 8, 16].into_iter();
        bits.flat_map(move |bits| {
            Profile::ALL.iter().map(move |&profile| Numerics {
                profile,
                bits,
                signed,
                symmetric,
                restricted,
            })
        })
    };
    kinds.flat_map(of).collect()
}

/// Every shape with some schemes, every scheme with some shapes.
fn each(count: usize, stride: usize, check: impl Fn(&str, &[f64], &Numerics) + Sync) {
    let (shapes, schemes) = (shapes(count), schemes());
    shapes.par_iter().enumerate().for_each(|(i, (name, x))| {
        schemes.iter().skip(i % stride).step_by(stride).for_each(|scheme| check(name, x, scheme));
    });
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| f32::from_f64(x)).collect()
}

#[test]
fn bounds_contain_the_errors() {
    each(1_500, 7, |name, x, numerics| check_bounds(name, &narrow(x), numerics));
    each(700, 13, check_bounds);
}

#[test]
fn the_sieve_keeps_the_best() {
    each(1_200, 7, |name, x, numerics| check(name, &narrow(x), numerics));
    each(900, 13, check);
}

/// Through the front door, on both sides of the length from which it sieves.
#[test]
fn long_slices_have_the_range_of_the_exhaustive_search() {
    let schemes = schemes();
    let symmetric = |bits| schemes.iter().find(|scheme| scheme.bits == bits);
    for count in [bounds::LEAST - 1, bounds::LEAST, bounds::LEAST + 17] {
        for (name, x) in shapes(count) {
            if !["bell", "few values", "not finite"].contains(&name) {
                continue;
            }
            let x = narrow(&x);
            for numerics in [symmetric(8), symmetric(4)].into_iter().flatten() {
                let found = range(&x, whole(&x), numerics, &Task::default());
                assert_eq!(found, exhaustive(&x, whole(&x), numerics), "{name} {count}");
            }
        }
    }
}

#[test]
fn few_candidates_are_left() {
    for (name, x) in shapes(50_000) {
        let most = match name {
            "bell" | "uniform" | "rectified" | "not finite" => 3,
            "long tails" => 12,
            _ => continue,
        };
        for numerics in schemes().into_iter().filter(|numerics| numerics.bits == 8) {
            let (_, left) = sieved(&narrow(&x), &numerics).unwrap();
            assert!(left <= most, "{name} {numerics:?}: {left}");
        }
    }
}

/// Scales near the smallest that are taken as they are: nothing is certain, and the sample orders.
#[test]
fn bounds_that_say_nothing_are_none() {
    let x: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32 * 2e-33 - 5e-30).collect();
    let schemes = schemes();
    let eight = schemes.iter().filter(|numerics| numerics.bits == 8 && numerics.symmetric);
    assert!(eight.into_iter().any(|numerics| sieved(&x, numerics).is_none()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_slice_has_the_range_of_the_exhaustive_search(
        x in proptest::collection::vec(-1.0_f32..1.0, 1..400),
        power in 1_i32..12,
        size in -60_i32..120,
        scheme in 0_usize..160,
    ) {
        let size = 2.0_f32.powi(size);
        let x: Vec<f32> = x.into_iter().map(|x| x.powi(power) * size).collect();
        let numerics = schemes()[scheme];
        check("any", &x, &numerics);
        check_bounds("any", &x, &numerics);
    }
    /// Elements that lie on codes of some candidates, or in the middle of two.
    #[test]
    fn any_small_group_has_the_range_of_the_exhaustive_search(
        x in proptest::collection::vec(-127_i16..=127, 2..=128),
        unit in prop_oneof![Just(1.0_f32), Just(0.5), Just(1.0 / 127.0), Just(0.07)],
        scheme in 0_usize..160,
    ) {
        let x: Vec<f32> = x.into_iter().map(|x| f32::from(x) * unit).collect();
        check("small", &x, &schemes()[scheme]);
        let wide: Vec<f64> = x.into_iter().map(f64::from).collect();
        check("small", &wide, &schemes()[scheme]);
    }
}

//! The search that rules candidates out against the one that computes all.

use proptest::prelude::*;

use super::*;
use crate::params::Profile;
use crate::word::Word;
use quantd_kernels::scalar::extent;

fn check<T: Real>(values: &[T], line: usize, weights: &[u64], numerics: &Numerics) {
    let never = Task::default();
    let extent = extent(values);
    let whole = Range::around_zero(extent.min, extent.max);
    let lines = Lines { values, line, weights };
    let grid = Grid::new(whole, numerics, SYMMETRIC, ASYMMETRIC);
    let all: Vec<usize> = (0..grid.len()).collect();
    let expected = least(lines, &grid, &all, numerics, &never).unwrap_or(whole);
    assert_eq!(weighted(lines, whole, numerics, &never), expected, "{numerics:?}");
}

fn schemes() -> Vec<Numerics> {
    let kinds =
        [(true, true, true), (true, true, false), (false, true, false), (true, false, false)];
    let kinds = kinds.into_iter().chain([(false, false, false)]);
    let of = |(signed, symmetric, restricted)| {
        [2, 3, 4, 5, 6, 7, 8, 16].into_iter().flat_map(move |bits| {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_better_candidate_is_ruled_out(
        x in proptest::collection::vec(-1.0_f32..1.0, 1..140),
        power in 1_i32..5,
        size in prop_oneof![Just(1e-5_f32), Just(0.3), Just(3.0), Just(20.0), Just(140.0), Just(3e3)],
        shift in prop_oneof![3 => Just(0.0_f32), 1 => Just(-4.0), 1 => Just(4.0)],
        odd in prop_oneof![5 => Just(None), 1 => Just(Some(f32::NAN)), 1 => Just(Some(f32::NEG_INFINITY))],
        lines in 1_usize..4,
        scheme in 0_usize..160,
    ) {
        let mut x: Vec<f32> = x.into_iter().map(|x| x.powi(power) * size + shift).collect();
        if let Some(odd) = odd {
            x[0] = odd;
        }
        let line = x.len().div_ceil(lines);
        let numerics = schemes()[scheme];
        check(&x, line, &[], &numerics);
        check(&x, line, &[3, 1, 2], &numerics);
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        check(&wide, line, &[], &numerics);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Elements that lie on codes of some candidates, or in the middle of two.
    #[test]
    fn no_better_candidate_of_a_small_group_is_ruled_out(
        x in proptest::collection::vec(-127_i16..=127, 2..=128),
        unit in prop_oneof![Just(1.0_f32), Just(0.5), Just(1.0 / 127.0), Just(0.07)],
        scheme in 0_usize..160,
    ) {
        let x: Vec<f32> = x.into_iter().map(|x| f32::from(x) * unit).collect();
        check(&x, x.len(), &[], &schemes()[scheme]);
    }
}

/// Elements that tie, and lines of one number.
#[test]
fn ties_go_to_the_wider_range() {
    for numerics in schemes() {
        check(&[1.0_f32; 9], 9, &[], &numerics);
        check(&[0.0_f32; 4], 2, &[], &numerics);
        check(&[-3.0_f32, -3.0, 5.0, 5.0], 4, &[], &numerics);
        check(&[2.5_f32], 1, &[], &numerics);
        check(&(0..64).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>(), 8, &[], &numerics);
    }
}

//! The definitions against their formulas, element by element, and against
//! figures measured of the tools they are named after.

use proptest::prelude::*;

use super::real::Real;
use super::scalar::{
    self, CodeRange, Extent, Params, QuantParams, Rounding, dequantize, extent, quantize,
    squared_error,
};
use super::sums::{ErrorSums, LaneSums};
use super::table::Table;

const U8: CodeRange = CodeRange { min: 0, max: 255 };
const I8: CodeRange = CodeRange { min: -128, max: 127 };
const ROUNDINGS: [Rounding; 4] = [
    Rounding::DivideEven,
    Rounding::ReciprocalEven,
    Rounding::ZeroPointFirst,
    Rounding::DivideAway,
];

fn codes<T: Real>(
    x: &[T],
    affine: QuantParams<T>,
    range: CodeRange,
    rounding: Rounding,
) -> Vec<i32> {
    let mut codes = vec![0_i32; x.len()];
    quantize(x, Params::Same(affine), range, rounding, &mut codes);
    codes
}

fn measure<T: Real>(
    x: &[T],
    params: Params<'_, T>,
    range: CodeRange,
    rounding: Rounding,
) -> ErrorSums {
    let mut lanes = LaneSums::default();
    scalar::measure(x, params, range, rounding, &mut lanes);
    lanes.total()
}

/// The formula of each profile as it stands in docs/NUMERICS.md, in f64, which
/// holds every quotient of f32 well enough to find its rounding.
#[expect(clippy::cast_possible_truncation, reason = "codes are small")]
fn formula(x: f32, affine: QuantParams<f32>, range: CodeRange, rounding: Rounding) -> i32 {
    let QuantParams { scale, zero_point } = affine;
    let (min, max) = (f64::from(range.min), f64::from(range.max));
    let z = f64::from(zero_point);
    if x.is_nan() {
        return range.min;
    }
    let code = match rounding {
        Rounding::DivideEven => f64::from(x / scale).round_ties_even() + z,
        Rounding::ReciprocalEven => f64::from(x * (1.0 / scale)).round_ties_even() + z,
        Rounding::ZeroPointFirst => {
            f64::from((x / scale + f32::from_i32(zero_point)).clamp(min as f32, max as f32))
                .round_ties_even()
        }
        Rounding::DivideAway => f64::from(x / scale).round() + z,
    };
    code.clamp(min, max) as i32
}

#[test]
fn ties_and_saturation_are_those_of_each_tool() {
    let x = [0.5_f32, 1.5, 2.5, -0.5, -1.5];
    let at = |zero_point| QuantParams { scale: 1.0, zero_point };
    // ONNX Runtime and PyTorch.
    for rounding in [Rounding::DivideEven, Rounding::ReciprocalEven] {
        assert_eq!(codes(&x, at(3), U8, rounding), [3, 5, 5, 3, 1]);
        assert_eq!(codes(&x, at(-5), I8, rounding), [-5, -3, -3, -5, -7]);
    }
    // compressed-tensors adds the zero point before it rounds.
    assert_eq!(codes(&x, at(3), U8, Rounding::ZeroPointFirst), [4, 4, 6, 2, 2]);
    assert_eq!(codes(&x, at(0), I8, Rounding::DivideAway), [1, 2, 3, -1, -2]);
    let huge = [f32::INFINITY, f32::NEG_INFINITY, 1e10, -1e10, f32::MAX, f32::MIN];
    for rounding in ROUNDINGS {
        assert_eq!(codes(&huge, at(7), U8, rounding), [255, 0, 255, 0, 255, 0], "{rounding:?}");
        assert_eq!(codes(&huge, at(-3), I8, rounding), [127, -128, 127, -128, 127, -128]);
        let wide = CodeRange { min: 0, max: 65_535 };
        assert_eq!(codes(&huge, at(9), wide, rounding), [65_535, 0, 65_535, 0, 65_535, 0]);
    }
    // Multiplying by the reciprocal is not dividing.
    let affine = QuantParams { scale: 0.002_148_548_6_f32, zero_point: 0 };
    assert_eq!(codes(&[0.273_939_94], affine, U8, Rounding::ReciprocalEven), [128]);
    assert_eq!(codes(&[0.273_939_94], affine, U8, Rounding::DivideEven), [127]);
}

#[test]
fn every_code_of_sixteen_bits_comes_back() {
    let range = CodeRange { min: -32_768, max: 32_767 };
    for zero_point in [-32_768, -1, 0, 32_767] {
        let affine = QuantParams { scale: 0.037_f32, zero_point };
        let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut x = vec![0.0_f32; all.len()];
        dequantize(&all, Params::Same(affine), &mut x);
        for rounding in ROUNDINGS {
            let back = codes(&x, affine, range, rounding);
            assert!(back.iter().zip(&all).all(|(back, code)| *back == i32::from(*code)));
        }
    }
}

fn any_scale() -> impl Strategy<Value = f32> {
    prop_oneof![1e-3_f32..10.0, Just(1.0), Just(0.25), 1e-38_f32..1e-30, 1e30_f32..1e38]
}

/// Numbers of every size, with ties of common scales and the special values.
fn any_x() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        4 => -300.0_f32..300.0,
        2 => (-1200_i32..1200).prop_map(|i| i as f32 / 8.0),
        1 => any::<f32>(),
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX]),
    ];
    prop::collection::vec(one, 0..70)
}

fn any_range() -> impl Strategy<Value = (CodeRange, i32)> {
    prop::sample::select(vec![
        U8,
        I8,
        CodeRange { min: -127, max: 127 },
        CodeRange { min: -8, max: 7 },
    ])
    .prop_flat_map(|range| (Just(range), range.min..=range.max))
}

proptest! {
    #[test]
    fn codes_follow_their_formula(x in any_x(), scale in any_scale(), (range, zero_point) in any_range()) {
        let affine = QuantParams { scale, zero_point };
        for rounding in ROUNDINGS {
            let expect: Vec<i32> =
                x.iter().map(|&x| formula(x, affine, range, rounding)).collect();
            prop_assert_eq!(&codes(&x, affine, range, rounding), &expect, "{:?}", rounding);
            // One set of parameters an element is the same as one for all.
            let table = Table::new(&vec![affine; x.len()]);
            let each = Params::Each(table.columns(0..x.len()));
            let mut by_each = vec![0_i32; x.len()];
            quantize(&x, each, range, rounding, &mut by_each);
            prop_assert_eq!(&by_each, &expect, "{:?}", rounding);
            // Nor does it matter where a slice is cut.
            let cut = x.len() / 3;
            let mut parts = codes(&x[..cut], affine, range, rounding);
            parts.extend(codes(&x[cut..], affine, range, rounding));
            prop_assert_eq!(&parts, &expect, "{:?}", rounding);
        }
    }

    #[test]
    fn sums_are_those_of_the_restored_elements(
        x in any_x(), scale in 1e-3_f32..10.0, (range, zero_point) in any_range(),
    ) {
        let affine = QuantParams { scale, zero_point };
        for rounding in ROUNDINGS {
            let codes = codes(&x, affine, range, rounding);
            let mut restored = vec![0.0_f32; x.len()];
            dequantize(&codes, Params::Same(affine), &mut restored);
            let mut expect = ErrorSums::default();
            let [mut signal, mut product] = [0.0; 2];
            for (&x, &r) in x.iter().zip(&restored).filter(|(x, _)| x.is_finite()) {
                let (x64, r64) = (f64::from(x), f64::from(r));
                signal += x64 * x64;
                product += x64 * r64;
                expect.restored += r64 * r64;
                expect.rounded += (x64 - r64) * (x64 - r64);
                expect.max_abs = expect.max_abs.max((x64 - r64).abs());
                expect.zeroed_count += u64::from(x != 0.0 && r == 0.0);
                expect.count += 1;
            }
            let found = measure(&x, Params::Same(affine), range, rounding);
            let table = Table::new(&vec![affine; x.len()]);
            let each = Params::Each(table.columns(0..x.len()));
            prop_assert_eq!(measure(&x, each, range, rounding), found);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
            prop_assert!(close(found.restored, expect.restored));
            // Zero points need not be codes here: 0 may be restored as something else.
            let close_in = |a: f64, b: f64, to: f64| (a - b).abs() <= 1e-12 * to;
            let most = signal.max(expect.restored);
            prop_assert!(close_in(found.signal(), signal, most), "{:?} {}", found, signal);
            prop_assert!(close_in(found.product(), product, most), "{:?} {}", found, product);
            if (range.min..=range.max).contains(&zero_point) {
                prop_assert!(close(found.signal(), signal), "{:?} {}", found, signal);
            }
            prop_assert!(close(found.rounded + found.clipped, expect.rounded));
            prop_assert_eq!(found.max_abs.to_bits(), expect.max_abs.to_bits());
            prop_assert_eq!((found.zeroed_count, found.count), (expect.zeroed_count, expect.count));
            let alone = squared_error(&x, affine, range, rounding);
            prop_assert!(close(alone, expect.rounded), "{} {:?}", alone, expect);
        }
    }

    #[test]
    fn extents_leave_out_what_is_not_finite(x in any_x()) {
        let finite = || x.iter().copied().filter(|x| x.is_finite());
        let expect = Extent {
            min: finite().fold(f32::INFINITY, f32::min),
            max: finite().fold(f32::NEG_INFINITY, f32::max),
            nan: x.iter().filter(|x| x.is_nan()).count() as u64,
            inf: x.iter().filter(|x| x.is_infinite()).count() as u64,
        };
        prop_assert_eq!(extent(&x), expect);
        let cut = x.len() / 2;
        prop_assert_eq!(extent(&x[..cut]).join(extent(&x[cut..])), expect);
    }
}

#[test]
fn saturated_elements_are_told_from_rounded_ones() {
    let affine = QuantParams { scale: 1.0_f32, zero_point: 0 };
    let x = [126.6, 127.4, 127.6, 300.0, -128.4, -129.0, 0.25];
    let sums = measure(&x, Params::Same(affine), I8, Rounding::DivideEven);
    assert_eq!((sums.clipped_count, sums.zeroed_count), (3, 1));
    let clipped = 0.6_f64.powi(2) + 173.0_f64.powi(2) + 1.0;
    assert!((sums.clipped - clipped).abs() < 1e-4, "{sums:?}");
    assert!((sums.rounded - (3.0 * 0.16 + 0.0625)).abs() < 1e-4, "{sums:?}");
}

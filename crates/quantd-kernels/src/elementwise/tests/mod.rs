//! Every instruction set of the machine against `scalar`, plain equality.

mod cases;

use proptest::prelude::*;

use super::*;
use crate::Buffer;
use crate::sums::ErrorSums;
use crate::table::{Expanded, Groups, Span, TILE, Table};

const ROUNDINGS: [Rounding; 4] = [
    Rounding::DivideEven,
    Rounding::ReciprocalEven,
    Rounding::ZeroPointFirst,
    Rounding::DivideAway,
];

const SIGNED: [(i32, i32); 3] = [(-128, 127), (-127, 127), (-8, 7)];
const UNSIGNED: [(i32, i32); 3] = [(0, 255), (0, 15), (37, 255)];

/// Sums as bits; all NaN are one (restored elements may overflow).
fn total(lanes: &LaneSums) -> ([u64; 5], [u64; 3]) {
    let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
    let ErrorSums { restored, cross, rounded, clipped, max_abs, .. } = lanes.total();
    let counts = [lanes.clipped_count, lanes.zeroed_count, lanes.count];
    ([restored, cross, rounded, clipped, max_abs].map(bits), counts)
}

/// Checks all operations from `x` to codes of type `C`.
fn check<T: Real, C: Code + PartialEq + std::fmt::Debug>(
    x: &[T],
    params: Params<'_, T>,
    (range, rounding): (CodeRange, Rounding),
) {
    let how = CodeSpec::new(range, rounding);
    let mut expect = vec![C::from_code(1); x.len()];
    scalar::quantize(x, params, range, rounding, &mut expect);
    let mut expect_lanes = LaneSums::default();
    scalar::measure(x, params, range, rounding, &mut expect_lanes);
    let mut expect_back = vec![T::ZERO; x.len()];
    scalar::dequantize(&expect, params, &mut expect_back);
    for isa in Isa::available() {
        let name = isa.name();
        // At the beginning of a cache line, and beside it.
        for (stores, at) in [(Stores::Temporal, 0), (Stores::Streaming, 0), (Stores::Streaming, 1)]
        {
            let mut buffer = Buffer::zeroed((at + x.len()) * size_of::<C>());
            let codes = &mut buffer.elements_mut::<C>()[at..];
            isa.quantize(x, params, CodeSpec { stores, ..how }, codes);
            assert!(codes == expect, "{name} {stores:?} {how:?} {params:?} {x:?}");
            codes.fill(C::from_code(1));
            let mut lanes = LaneSums::default();
            isa.encode(x, params, CodeSpec { stores, ..how }, codes, &mut lanes);
            assert!(codes == expect, "{name} {stores:?} {how:?} {params:?} {x:?}");
            assert_eq!(total(&lanes), total(&expect_lanes), "{name} {how:?} {params:?} {x:?}");
            let mut buffer = Buffer::zeroed((at + x.len()) * size_of::<T>());
            let back = &mut buffer.elements_mut::<T>()[at..];
            isa.dequantize(&expect, params, stores, back);
            let same = back.iter().zip(&expect_back).all(|(a, b)| a.order_key() == b.order_key());
            assert!(same, "{name} {stores:?} {params:?} {expect:?}");
        }
        let mut lanes = LaneSums::default();
        isa.measure(x, params, how, &mut lanes);
        assert_eq!(total(&lanes), total(&expect_lanes), "{name} {how:?} {params:?} {x:?}");
    }
}

/// All code types and roundings.
fn check_all<T: Real>(x: &[T], params: Params<'_, T>) {
    for rounding in ROUNDINGS {
        for (min, max) in SIGNED {
            check::<T, i8>(x, params, (CodeRange { min, max }, rounding));
        }
        for (min, max) in UNSIGNED {
            check::<T, u8>(x, params, (CodeRange { min, max }, rounding));
        }
        check::<T, i16>(x, params, (CodeRange { min: -32_768, max: 32_767 }, rounding));
        check::<T, u16>(x, params, (CodeRange { min: 0, max: 65_535 }, rounding));
    }
}

fn neighbours(x: f32) -> [f32; 3] {
    [x.next_down(), x, x.next_up()]
}

const ODD: [f32; 14] = [
    f32::NAN,
    -f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    -1e-45,
    1e-40,
    2_147_483_648.0,
    -2_147_483_904.0,
    4e9,
];

fn any_scale() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => 1e-4_f32..10.0,
        2 => (1_u32..0x7f80_0000).prop_map(f32::from_bits),
        1 => prop::sample::select(vec![
            1.0, 0.5, 2.0_f32.powi(126), 2.0_f32.powi(127), 1e-45, f32::MIN_POSITIVE, f32::MAX,
        ]),
    ]
}

/// Such as kernels take; with `common`, of the zero point of all.
fn tamed(QuantParams { scale, zero_point }: QuantParams<f32>, common: bool) -> QuantParams<f32> {
    let zero_point = if common { 5 } else { zero_point % 128 };
    QuantParams { scale: scale.clamp(1e-30, 1e30), zero_point }
}

fn any_affine() -> impl Strategy<Value = QuantParams<f32>> {
    let zero_point = prop_oneof![
        4 => -128..=255_i32, 2 => Just(0), 1 => Just(128), 1 => -70_000..70_000_i32,
    ];
    (any_scale(), zero_point).prop_map(|(scale, zero_point)| QuantParams { scale, zero_point })
}

/// Elements at, beside and between the ties of `scale`, and some odd ones.
fn any_x(scale: f32, len: usize) -> impl Strategy<Value = Vec<f32>> {
    let tie = (-600..600_i32, 0..3_usize)
        .prop_map(move |(k, side)| neighbours((k as f32 + 0.5) * scale)[side]);
    let plain = (-300.0_f32..300.0).prop_map(move |k| k * scale);
    // Mostly without anything that makes a kernel leave its usual way.
    prop_oneof![
        prop::collection::vec(plain.clone(), len),
        prop::collection::vec(prop_oneof![40 => plain.clone(), 1 => tie.clone()], len),
        prop::collection::vec(
            prop_oneof![
                4 => plain, 3 => tie, 1 => any::<f32>(),
                1 => prop::sample::select(ODD.to_vec()),
            ],
            len,
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn elements_that_share_parameters(
        (affine, x) in (any_affine(), 0..200_usize)
            .prop_flat_map(|(affine, len)| (Just(affine), any_x(affine.scale, len))),
        cut in 0..17_usize,
    ) {
        let x = &x[cut.min(x.len())..];
        check_all(x, Params::Same(affine));
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let affine = QuantParams { scale: f64::from(affine.scale), zero_point: affine.zero_point };
        check_all(&x, Params::Same(affine));
    }

    #[test]
    fn elements_with_their_own_parameters(
        columns in prop::collection::vec(
            any_affine().prop_flat_map(|affine| (Just(affine), any_x(affine.scale, 1))), 0..200),
        tame in any::<bool>(),
        cut in 0..17_usize,
    ) {
        let x: Vec<f32> = columns.iter().map(|(_, x)| x[0]).collect();
        let affines: Vec<QuantParams<f32>> = columns
            .iter()
            .map(|&(affine, _)| {
                if !tame { return affine; }
                QuantParams { scale: affine.scale.clamp(1e-30, 1e30), zero_point: affine.zero_point % 128 }
            })
            .collect();
        let table = Table::new(&affines);
        let cut = cut.min(x.len());
        check_all(&x[cut..], Params::Each(table.columns(cut..x.len())));
    }

    #[test]
    fn rows_whose_columns_have_their_own_parameters(
        columns in prop::collection::vec(
            any_affine().prop_flat_map(|affine| (Just(affine), any_x(affine.scale, 6))), 1..150),
        whole in any::<bool>(),
        tame in any::<bool>(),
        len in 0..900_usize,
    ) {
        // Whole vectors in half of the cases.
        let row = columns.len();
        let row = if whole && row >= 16 { row - row % 16 } else { row };
        let affines: Vec<QuantParams<f32>> = columns[..row]
            .iter()
            .map(|&(affine, _)| {
                if !tame { return affine; }
                QuantParams { scale: affine.scale.clamp(1e-30, 1e30), zero_point: affine.zero_point % 128 }
            })
            .collect();
        let x: Vec<f32> = (0..len.min(6 * row)).map(|i| columns[i % row].1[i / row]).collect();
        let table = Table::new(&affines);
        let params = Params::Each(table.columns(0..row));
        for (i, affine) in affines.iter().cycle().take(x.len()).enumerate() {
            prop_assert_eq!(params.affine(i), *affine);
        }
        check_all(&x, params);
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let wide = |&QuantParams { scale, zero_point }| QuantParams { scale: f64::from(scale), zero_point };
        let table = Table::new(&affines.iter().map(wide).collect::<Vec<_>>());
        check_all(&x, Params::Each(table.columns(0..row)));
    }

    #[test]
    fn elements_that_share_parameters_with_their_neighbours(
        (size, slices, tame) in (
            prop::sample::select(vec![1, 3, 16, 32, 48, 64, 80, 100, 128]),
            prop_oneof![7 => 1..8_usize, 1 => 60..140_usize]
                .prop_flat_map(|n| prop::collection::vec((any_affine(), any_x(1.0, 130)), n)),
            any::<bool>(),
        ),
        cut in 0..300_usize,
        common in any::<bool>(),
    ) {
        let affines: Vec<QuantParams<f32>> =
            slices.iter().map(|&(affine, _)| if tame { tamed(affine, common) } else { affine }).collect();
        let x: Vec<f32> = slices
            .iter()
            .zip(&affines)
            .flat_map(|((_, x), affine)| x[..size].iter().map(|x| x * affine.scale))
            .collect();
        let table = Table::new(&affines);
        // Whole vectors in half of the cases.
        let cut = cut.min(x.len() - 1);
        let cut = if cut % 2 == 0 { cut } else { cut - cut % 16 };
        let first = cut / size;
        let slices = table.columns(first..affines.len());
        let groups = Groups { slices, offset: cut % size, size };
        check_all(&x[cut..], Params::Groups(groups));
        check_all(&x[cut..x.len() - (x.len() - cut) / 3], Params::Groups(groups));
    }

    #[test]
    fn slices_that_begin_again(
        size in prop::sample::select(vec![1, 3, 16, 32, 48, 64, 96, 128, 192, 320]),
        slices in prop_oneof![
            3 => prop::collection::vec((any_affine(), any_x(1.0, 330)), 1..6),
            1 => prop::collection::vec((any_affine(), any_x(1.0, 16)), 60..140),
        ],
        (tame, common) in (any::<bool>(), any::<bool>()),
        (cut, rounds) in (0..300_usize, 1..4_usize),
    ) {
        let affines: Vec<QuantParams<f32>> =
            slices.iter().map(|&(affine, _)| if tame { tamed(affine, common) } else { affine }).collect();
        let count = affines.len();
        let len = if count < 60 { rounds * size * count + cut } else { size * count + cut };
        let affine = |i: usize| affines[i / size % count];
        let x: Vec<f32> = (0..len)
            .map(|i| {
                let x = &slices[i / size % count].1;
                x[(i + i / size) % x.len()] * affine(i).scale
            })
            .collect();
        let table = Table::new(&affines);
        // Whole vectors in half of the cases.
        let cut = (if cut % 2 == 0 { cut } else { cut - cut % 16 }) % size;
        let params = Params::Groups(Groups { slices: table.columns(0..count), offset: cut, size });
        for i in 0..x.len() - cut {
            prop_assert_eq!(params.affine(i), affine(cut + i));
        }
        for (min, max) in [(-128, 127), (-8, 7)] {
            for rounding in ROUNDINGS {
                check::<f32, i8>(&x[cut..], params, (CodeRange { min, max }, rounding));
            }
        }
        let range = CodeRange { min: 0, max: 65_535 };
        check::<f32, u16>(&x[cut..], params, (range, Rounding::DivideEven));
    }

    #[test]
    fn spreading_gives_each_element_its_slice(
        sizes in prop::collection::vec((1..40_usize, 0..9_usize, 1..200_usize), 1..20),
    ) {
        let affines: Vec<_> = (0..300).map(|i| QuantParams { scale: i as f32 + 0.5, zero_point: i }).collect();
        let table = Table::new(&affines);
        for isa in Isa::available() {
            let mut spread = Expanded::default();
            let mut expect = Vec::new();
            for (i, &(size, offset, len)) in sizes.iter().enumerate() {
                let span = Span { len, slice: i, offset: offset % size, size };
                table.put(isa, span, &mut spread);
                expect.extend((0..len).map(|k| affines[i + (span.offset + k) / size]));
            }
            expect.truncate(TILE);
            let columns = table.spread(&spread);
            prop_assert_eq!(columns.scales.len(), expect.len());
            for (i, expect) in expect.iter().enumerate() {
                prop_assert_eq!(columns.affine(i), *expect);
                prop_assert_eq!(columns.reciprocals[i].to_bits(), (1.0 / expect.scale).to_bits());
            }
        }
    }

    #[test]
    fn extents(x in (0..200_usize).prop_flat_map(|len| any_x(1.0, len)), cut in 0..17_usize) {
        let x = &x[cut.min(x.len())..];
        let expect = scalar::extent(x);
        for isa in Isa::available() {
            let found = isa.extent(x);
            prop_assert_eq!(found, expect, "{}", isa.name());
            prop_assert_eq!(found.min.to_bits(), expect.min.to_bits());
            prop_assert_eq!(found.max.to_bits(), expect.max.to_bits());
            for size in [2, 9, 16, 32, 64, 100] {
                let mut found = vec![Extent::default(); x.len().div_ceil(size)];
                isa.extents([x, &x[..x.len() / 2]].into_iter(), size, &mut found);
                let bits = |e: Extent<f32>| (e.min.to_bits(), e.max.to_bits(), e.nan, e.inf);
                let mut again = x[..x.len() / 2].chunks(size).map(scalar::extent);
                for (found, part) in found.iter().zip(x.chunks(size)) {
                    let again = again.next().unwrap_or_default();
                    prop_assert_eq!(bits(*found), bits(scalar::extent(part).join(again)));
                }
            }
        }
    }

    #[test]
    fn extents_of_columns(
        (x, width) in (1..70_usize, 0..21_usize)
            .prop_flat_map(|(width, rows)| (any_x(1.0, width * rows), Just(width))),
    ) {
        let mut expect = vec![Extent::default(); width];
        x.chunks(width).for_each(|x| expect.iter_mut().zip(x).for_each(|(own, &x)| own.add(x)));
        let bits = |e: &Extent<f32>| (e.min.to_bits(), e.max.to_bits(), e.nan, e.inf);
        for isa in Isa::available() {
            let mut found = vec![Extent::default(); width];
            isa.extents(x.chunks(width), 1, &mut found);
            prop_assert_eq!(
                found.iter().map(bits).collect::<Vec<_>>(),
                expect.iter().map(bits).collect::<Vec<_>>(),
                "{}", isa.name()
            );
        }
    }

    #[test]
    fn squared_errors(
        (affine, x) in (any_affine(), 0..200_usize)
            .prop_flat_map(|(affine, len)| (Just(affine), any_x(affine.scale, len))),
    ) {
        let range = CodeRange { min: -127, max: 127 };
        for rounding in ROUNDINGS {
            let expect = scalar::squared_error(&x, affine, range, rounding);
            for isa in Isa::available() {
                let found = isa.squared_error(&x, affine, range, rounding);
                prop_assert_eq!(found.to_bits(), expect.to_bits(), "{}", isa.name());
            }
        }
    }
}

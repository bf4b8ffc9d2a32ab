//! Every instruction set of the machine against the definition, and the definition against what others list.

use super::*;
use crate::Buffer;
use crate::scalar::QuantParams;
use crate::sums::ErrorSums;
use crate::table::{Groups, Table};

/// Floats of one byte.
const BYTES: [MiniFloat; 7] = [
    MiniFloat::E4M3,
    MiniFloat::E5M2,
    MiniFloat::E4M3_FNUZ,
    MiniFloat::E5M2_FNUZ,
    MiniFloat::E2M3,
    MiniFloat::E3M2,
    MiniFloat::E2M1,
];

fn spec(float: MiniFloat, reciprocal: bool, saturate: bool) -> FloatSpec {
    let unsigned_zero = reciprocal;
    FloatSpec { float, reciprocal, saturate, unsigned_zero, stores: Stores::Temporal }
}

/// The code of one number.
fn code(float: MiniFloat, saturate: bool, x: f32) -> u16 {
    let mut codes = [0_u16];
    let params = Params::Same(QuantParams { scale: 1.0, zero_point: 0 });
    quantize(&[x], params, spec(float, false, saturate), &mut codes);
    codes[0]
}

/// OFP8 1.0, tables 1 and 2; OCP MX 1.0, tables 2 to 5; `ml_dtypes.finfo` of the others.
#[test]
fn the_ends_of_each_float() {
    for (float, largest, smallest_normal, smallest) in [
        (MiniFloat::E4M3, 448.0, 0.015_625, 0.001_953_125),
        (MiniFloat::E5M2, 57_344.0, 6.103_515_6e-5, 1.525_878_9e-5),
        (MiniFloat::E4M3_FNUZ, 240.0, 0.007_812_5, 0.000_976_562_5),
        (MiniFloat::E5M2_FNUZ, 57_344.0, 3.051_757_8e-5, 7.629_394_5e-6),
        (MiniFloat::E2M3, 7.5, 1.0, 0.125),
        (MiniFloat::E3M2, 28.0, 0.25, 0.0625),
        (MiniFloat::E2M1, 6.0, 1.0, 0.5),
        (MiniFloat::F16, 65_504.0, 6.103_515_6e-5, 5.960_464_5e-8),
        (MiniFloat::BF16, 3.389_531_4e38, f32::MIN_POSITIVE, 9.183_55e-41),
    ] {
        let found = [float.largest(), float.value(1 << float.mantissa_bits), float.value(1)];
        let expect = [largest, smallest_normal, smallest];
        assert_eq!(found.map(f32::to_bits), expect.map(f32::to_bits), "{float:?}");
        let power = 2.0_f32.powi(float.largest_exponent());
        assert!(power <= largest && largest < 2.0 * power, "{float:?}");
    }
}

#[test]
fn halves_are_those_of_ieee() {
    for bits in 0..=u16::MAX {
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(same(MiniFloat::F16.value(bits), half::f16::from_bits(bits).to_f32()), "{bits}");
        assert!(same(MiniFloat::BF16.value(bits), half::bf16::from_bits(bits).to_f32()), "{bits}");
    }
    // Numbers of every exponent, and those beside ties.
    for bits in (0..=u32::MAX).step_by(9_973) {
        for bits in [bits, bits & !0x1fff, bits | 0x1000, bits & !0xffff | 0x8000] {
            let x = f32::from_bits(bits);
            if x.is_nan() {
                continue;
            }
            let (f16, bf16) = (half::f16::from_f32(x), half::bf16::from_f32(x));
            assert_eq!(code(MiniFloat::F16, false, x), f16.to_bits(), "{x}");
            assert_eq!(code(MiniFloat::BF16, false, x), bf16.to_bits(), "{x}");
        }
    }
}

/// Each number is its own code, and what lies between two goes to the nearer one, of ties to the even one.
#[test]
fn numbers_and_what_lies_between() {
    for float in BYTES {
        for code_of in 0..float.max {
            let [low, high] = [code_of, code_of + 1].map(|code| float.value(code));
            let tie = f32::midpoint(low, high);
            let even = if code_of % 2 == 0 { code_of } else { code_of + 1 };
            for (x, expect) in [(low, code_of), (high, code_of + 1), (tie, even)] {
                assert_eq!(code(float, true, x), expect, "{float:?} {x}");
            }
            assert_eq!(code(float, true, tie.next_down()), code_of, "{float:?} {tie}");
            assert_eq!(code(float, true, tie.next_up()), code_of + 1, "{float:?} {tie}");
            let negative =
                if code_of == 0 && !float.has_negative_zero() { 0 } else { float.sign() };
            assert_eq!(code(float, true, -low), code_of | negative, "{float:?} {low}");
        }
    }
}

/// ONNX `Cast`, the table of what does not fit; of 464 and 61440 the midpoints, numerics of the project.
#[test]
fn what_is_too_large() {
    for (float, x, saturated, other) in [
        (MiniFloat::E4M3, 464.0, 0x7e, 0x7e),
        (MiniFloat::E4M3, 465.0, 0x7e, 0x7f),
        (MiniFloat::E4M3, -465.0, 0xfe, 0xff),
        (MiniFloat::E4M3, f32::INFINITY, 0x7e, 0x7f),
        (MiniFloat::E5M2, 61_439.0, 0x7b, 0x7b),
        (MiniFloat::E5M2, 61_440.0, 0x7b, 0x7c),
        (MiniFloat::E5M2, f32::NEG_INFINITY, 0xfb, 0xfc),
        (MiniFloat::E4M3_FNUZ, 247.0, 0x7f, 0x7f),
        (MiniFloat::E4M3_FNUZ, 248.0, 0x7f, 0x80),
        (MiniFloat::E4M3_FNUZ, -248.0, 0xff, 0x80),
        (MiniFloat::E5M2_FNUZ, -1e9, 0xff, 0x80),
        (MiniFloat::E2M1, 1e9, 7, 7),
        (MiniFloat::F16, 65_520.0, 0x7bff, 0x7c00),
    ] {
        assert_eq!(
            [code(float, true, x), code(float, false, x)],
            [saturated, other],
            "{float:?} {x}"
        );
    }
}

/// Sums as bits; all NaN are one.
fn total(lanes: &LaneSums) -> ([u64; 5], [u64; 3]) {
    let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
    let sums = lanes.total();
    let ErrorSums { restored, cross, rounded, clipped, max_abs, .. } = sums;
    let counts = [sums.clipped_count, sums.zeroed_count, sums.count];
    ([restored, cross, rounded, clipped, max_abs].map(bits), counts)
}

fn check(x: &[f32], params: Params<'_, f32>, spec: FloatSpec) {
    let mut expect = vec![0_u8; x.len()];
    quantize(x, params, spec, &mut expect);
    let mut lanes = LaneSums::default();
    measure(x, params, spec, &mut lanes);
    let expect_lanes = total(&lanes);
    let mut expect_back = vec![0.0; x.len()];
    dequantize(&expect, params, spec.float, &mut expect_back);
    for isa in Isa::available() {
        for (stores, at) in [(Stores::Temporal, 0), (Stores::Streaming, 0), (Stores::Streaming, 1)]
        {
            let at_of = format!("{} {spec:?} {stores:?} {params:?}", isa.name());
            let mut buffer = Buffer::zeroed(at + x.len());
            let codes = &mut buffer.elements_mut::<u8>()[at..];
            let mut lanes = LaneSums::default();
            isa.encode_floats(x, params, FloatSpec { stores, ..spec }, codes, &mut lanes);
            if let Some(i) = (0..x.len()).find(|&i| codes[i] != expect[i]) {
                panic!("{at_of}: {i}: {} is {:#x} and not {:#x}", x[i], codes[i], expect[i]);
            }
            assert_eq!(total(&lanes), expect_lanes, "{at_of}");
            let mut buffer = Buffer::zeroed(4 * (at + x.len()));
            let back = &mut buffer.elements_mut::<f32>()[at..];
            isa.dequantize_floats(&expect, params, spec.float, stores, back);
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(back.iter().zip(&expect_back).all(same), "{at_of}");
        }
        let mut lanes = LaneSums::default();
        isa.measure_floats(x, params, spec, &mut lanes);
        assert_eq!(total(&lanes), expect_lanes, "{} {spec:?} {params:?}", isa.name());
    }
}

fn check_all(x: &[f32], params: Params<'_, f32>) {
    for float in BYTES {
        for (reciprocal, saturate) in [(false, true), (false, false), (true, true)] {
            check(x, params, spec(float, reciprocal, saturate));
        }
    }
}

fn random(seed: u32) -> impl FnMut() -> u32 {
    let mut bits = seed;
    move || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bits.rotate_left(13)
    }
}

/// Numbers of a few exponents, zeros among them.
fn tame(next: &mut impl FnMut() -> u32) -> f32 {
    let bits = next();
    match bits % 17 {
        0 => 0.0,
        1 => -0.0,
        _ => f32::from_bits(bits & 0x807f_ffff | (118 + bits % 12) << 23),
    }
}

/// A sweep over all patterns of bits.
#[test]
fn numbers_of_every_kind() {
    let x: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    for scale in [1.0, 0.037, 1e-12, 3e20, f32::MIN_POSITIVE, 1e-45, f32::MAX] {
        check_all(&x, Params::Same(QuantParams { scale, zero_point: 0 }));
    }
}

#[test]
fn ties_of_many_scales() {
    let mut next = random(7);
    for float in BYTES {
        for _ in 0..20 {
            let scale = f32::from_bits(next() & 0x7f_ffff | (97 + next() % 60) << 23);
            let x: Vec<f32> = (0..=float.max + 1)
                .flat_map(|code| {
                    let tie = f32::midpoint(
                        float.value(code.min(float.max)),
                        float.value(code.saturating_sub(1)),
                    );
                    let tie = tie * scale;
                    [tie.next_down(), tie, tie.next_up(), -tie]
                })
                .collect();
            let params = Params::Same(QuantParams { scale, zero_point: 0 });
            check(&x, params, spec(float, false, true));
            check(&x, params, spec(float, true, true));
        }
    }
}

/// Blocks that are left to the definition, saturated ones and regular ones, in any order and of any length.
#[test]
fn blocks_of_every_kind_in_any_order() {
    let mut next = random(11);
    for len in [0, 1, 15, 63, 64, 65, 127, 1000] {
        let mut x: Vec<f32> = (0..len).map(|_| tame(&mut next)).collect();
        for at in (0..len).step_by(97) {
            x[at] = [f32::NAN, f32::INFINITY, 1e30, -1e30, 1e-42][next() as usize % 5];
        }
        for scale in [0.01, 1.0] {
            check_all(&x, Params::Same(QuantParams { scale, zero_point: 0 }));
        }
    }
}

#[test]
fn slices_of_every_size() {
    let mut next = random(13);
    let x: Vec<f32> = (0..640).map(|_| tame(&mut next)).collect();
    for size in [1_usize, 5, 16, 32, 64, 128, 640] {
        for offset in [0, 16, 3] {
            let offset = offset % size;
            let slices = (offset + x.len()).div_ceil(size);
            let scale = |_| f32::from_bits(next() & 0x7f_ffff | (120 + next() % 8) << 23);
            let affines: Vec<_> =
                (0..slices).map(scale).map(|scale| QuantParams { scale, zero_point: 0 }).collect();
            let table = Table::new(&affines);
            let slices = table.columns(0..table.len());
            if size == 1 {
                check_all(&x, Params::Each(slices));
                // The same ones for each row.
                let slices = table.columns(0..96);
                check_all(&x, Params::Each(slices));
            }
            check_all(&x, Params::Groups(Groups { slices, offset, size }));
            // Of reciprocals of their own.
            let factors: Vec<_> =
                affines.iter().map(|affine| [affine.scale, 1.01 / affine.scale]).collect();
            let table = Table::of_factors(&factors);
            let slices = table.columns(0..table.len());
            check_all(&x, Params::Groups(Groups { slices, offset, size }));
            check_all(&x[..x.len().min(size)], table.same(0));
        }
    }
}

/// Elements of F64 and halves have no kernels, and the same codes.
#[test]
fn other_types_go_by_the_definition() {
    let mut next = random(17);
    let x: Vec<f64> = (0..200).map(|_| f64::from(tame(&mut next)) * 1.000_000_01).collect();
    let params = Params::Same(QuantParams { scale: 0.3_f64, zero_point: 0 });
    for float in [MiniFloat::E4M3, MiniFloat::F16] {
        let spec = spec(float, false, true);
        let mut expect = vec![0_u16; x.len()];
        quantize(&x, params, spec, &mut expect);
        for isa in Isa::available() {
            let (mut codes, mut lanes) = (vec![0_u16; x.len()], LaneSums::default());
            isa.encode_floats(&x, params, spec, &mut codes, &mut lanes);
            assert_eq!(codes, expect);
            assert_eq!(lanes.total().count, 200);
        }
    }
}

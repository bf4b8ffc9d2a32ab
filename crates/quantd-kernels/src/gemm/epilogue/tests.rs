//! Every sum, however large, becomes what its definition says, on every instruction set.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "random low bits, and codes that fit"
)]

use std::sync::atomic::AtomicBool;

use super::super::super::Isa;
use super::super::super::scalar::CodeRange;
use super::super::{
    Codes, Elements, Lhs, Mode, Multiplier, Output, PackedLhs, PackedRhs, Requantize, Rhs, multiply,
};

/// Sums at the ends of 32 bits, around powers of 2 and halves, and in between.
fn sums(seed: u32, n: usize) -> Vec<i32> {
    let mut state = seed;
    let mut found: Vec<i32> =
        vec![i32::MIN, i32::MIN + 1, i32::MAX, i32::MAX - 1, 0, 1, -1, 2, -2, 3, -3, 5, -5];
    while found.len() < n.max(13) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = state.cast_signed() >> (state >> 7 & 31);
        let power = (1_i32 << (state >> 3 & 31)).wrapping_add((state >> 12 & 3).cast_signed() - 1);
        found.push(if state >> 14 & 1 == 0 { random } else { power });
    }
    let shift = seed as usize % found.len();
    found.rotate_left(shift);
    found.truncate(n);
    found
}

/// As `docs/NUMERICS.md` has it, from the sum on.
fn expect(mode: Mode<'_>, to: &Requantize<'_>, sum: i32, scales: [f32; 2], column: usize) -> i32 {
    let own = |all: &[Multiplier]| all[if all.len() == 1 { 0 } else { column }];
    let CodeRange { min, max } = to.range;
    let (zero, low, high) = (to.zero_point, min - to.zero_point, max - to.zero_point);
    match mode {
        Mode::FloatOrt(scale_c) => {
            let x = sum as f32 * ((scales[0] * scales[1]) / scale_c);
            let x = if x.is_nan() { low as f32 } else { x.clamp(low as f32, high as f32) };
            x.round_ties_even() as i32 + zero
        }
        Mode::FloatOnnx(scale_c) => {
            let m = f64::from((scales[0] * scales[1]) / scale_c);
            let x = f64::from(sum) * m + f64::from(zero);
            let x = if x.is_nan() { f64::from(min) } else { x };
            x.clamp(min.into(), max.into()).round_ties_even() as i32
        }
        Mode::Gemmlowp(all) => own(all).twice(sum).clamp(low, high) + zero,
        Mode::SingleRound(all) => own(all).once(sum).clamp(low.into(), high.into()) as i32 + zero,
    }
}

/// Runs a product of depth 0, so that the sums are the bias.
fn run(isa: Isa, rows: &[f32], columns: &[f32], output: Output<'_>) {
    let (m, n) = (rows.len(), columns.len());
    let right = Rhs { codes: Codes::I8(&[]), k: 0, n, zero_points: &[0], scales: columns };
    let elements = Elements::Codes { codes: Codes::U8(&[]), zero_points: &[0], scales: rows };
    let a = PackedLhs::new(isa, Lhs { m, k: 0, elements }, false);
    let stop = AtomicBool::new(false);
    multiply(&a, &PackedRhs::new(isa, right, &stop), output, &stop);
}

/// Scales from the smallest to those whose product is infinite.
const SCALES: [f32; 9] = [0.004, 1.0, 1e-45, 3e38, 0.5, 2.5e-7, 1e-30, 0.25, 4096.0];
const WIDTHS: [usize; 18] = [1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 48, 63, 64, 65, 80, 127, 130];

#[test]
fn codes_equal_their_definition() {
    let rows = [1.0, 1.0, 0.02, 3e38, 1e-40, 0.02, 1.0, 7.5];
    for (seed, &n) in (0_u32..).zip(WIDTHS.iter().cycle().take(3 * WIDTHS.len())) {
        let bias = sums(seed, n);
        let columns: Vec<f32> =
            SCALES.iter().copied().cycle().skip(seed as usize).take(n).collect();
        let exponents = (-34..33).chain([-3, -8, -9, -20]).cycle().skip(5 * seed as usize);
        let exact = |(i, e): (usize, i32)| 2_f64.powi(e) * if i % 3 == 0 { 0.5 } else { 0.777 };
        let multipliers: Vec<Multiplier> =
            exponents.take(n).enumerate().map(|at| Multiplier::new(exact(at))).collect();
        for mode in [
            Mode::FloatOrt(1.0),
            Mode::FloatOrt(0.3),
            Mode::FloatOnnx(0.3),
            Mode::Gemmlowp(&multipliers),
            Mode::Gemmlowp(&multipliers[n - 1..]),
            Mode::SingleRound(&multipliers),
            Mode::SingleRound(&multipliers[n - 1..]),
        ] {
            for (zero_point, min, max) in [
                (0, -128, 127),
                (-128, -128, 127),
                (127, -127, 127),
                (128, 0, 255),
                (255, 255, 255),
            ] {
                let range = CodeRange { min, max };
                let to = Requantize { mode, zero_point, range, bias: Some(&bias) };
                for isa in Isa::available() {
                    let mut out = vec![99_u8; rows.len() * n];
                    if min < 0 {
                        let out = bytemuck::cast_slice_mut(&mut out);
                        run(isa, &rows, &columns, Output::I8(out, to));
                    } else {
                        run(isa, &rows, &columns, Output::U8(&mut out, to));
                    }
                    for (i, &code) in out.iter().enumerate() {
                        let (row, column) = (i / n, i % n);
                        let (sum, scales) = (bias[column], [rows[row], columns[column]]);
                        let expect = expect(mode, &to, sum, scales, column);
                        let name = isa.name();
                        assert_eq!(code, expect as u8, "{name} {n} {mode:?} {sum} {scales:?}");
                    }
                }
            }
        }
    }
}

/// Sums of a depth of 1 with each row's own zero point, so that all corrections come up.
#[test]
fn reals_equal_their_definition() {
    let rows = [1.0, 0.02, 0.02, 3e38, 1e-40, 0.5, 2.0];
    let m = rows.len();
    for (seed, &n) in (0_u32..).zip(&WIDTHS) {
        let columns: Vec<f32> =
            SCALES.iter().copied().cycle().skip(seed as usize).take(n).collect();
        let bias: Vec<f32> = sums(seed, n).iter().map(|&sum| sum as f32 / 65536.0).collect();
        let left: Vec<u8> = sums(seed + 1, m).iter().map(|&x| (x >> 4) as u8).collect();
        let right: Vec<i8> = sums(seed + 2, n).iter().map(|&x| (x >> 3) as i8).collect();
        let a_zeros: Vec<i32> = sums(seed + 3, m).iter().map(|&x| x & 255).collect();
        let b_zeros: Vec<i32> = sums(seed + 4, n).iter().map(|&x| (x & 255) - 128).collect();
        for relu in [false, true] {
            for isa in Isa::available() {
                let codes = Codes::I8(&right);
                let operand = Rhs { codes, k: 1, n, zero_points: &b_zeros, scales: &columns };
                let stop = AtomicBool::new(false);
                let b = PackedRhs::new(isa, operand, &stop);
                let codes = Codes::U8(&left);
                let elements = Elements::Codes { codes, zero_points: &a_zeros, scales: &rows };
                let a = PackedLhs::new(isa, Lhs { m, k: 1, elements }, b.has_zero_points());
                let mut out = vec![f32::NAN; m * n];
                let output = Output::F32 { out: &mut out, bias: Some(&bias), relu };
                multiply(&a, &b, output, &stop);
                for (i, &x) in out.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let (a, b) = (i32::from(left[row]), i32::from(right[column]));
                    let sum = (a - a_zeros[row]) * (b - b_zeros[column]);
                    let expect = sum as f32 * (rows[row] * columns[column]) + bias[column];
                    let expect = if relu && expect < 0.0 { 0.0 } else { expect };
                    let same = x.to_bits() == expect.to_bits() || x.is_nan() && expect.is_nan();
                    assert!(same, "{} {n} {row} {column}: {x} {expect}", isa.name());
                }
            }
        }
    }
}

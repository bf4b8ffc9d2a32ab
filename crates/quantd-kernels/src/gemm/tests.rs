//! Products against their definition.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::Isa;
use super::super::scalar::{CodeRange, Extent, QuantParams, Rounding};
use super::tile::Tile;
use super::*;

/// Reproducible bytes.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Every instruction set of this machine, and the ways that sums of the model of the tile unit become cells.
fn sets() -> impl Iterator<Item = Isa> {
    let models = [Isa::available().next(), Isa::available().last()].into_iter().flatten();
    Isa::available().chain(models.map(Isa::with_tile_model))
}

struct Case<'a> {
    m: usize,
    k: usize,
    n: usize,
    a: Codes<'a>,
    a_zero: &'a [i32],
    b: Codes<'a>,
    b_zero: &'a [i32],
}

impl Case<'_> {
    fn expect(&self) -> Vec<i32> {
        let code = |codes: &Codes<'_>, i: usize| match codes {
            Codes::U8(codes) => i32::from(codes[i]),
            Codes::I8(codes) => i32::from(codes[i]),
        };
        let zero = |zeros: &[i32], i: usize| if zeros.len() == 1 { zeros[0] } else { zeros[i] };
        let mut out = Vec::new();
        for i in 0..self.m {
            for j in 0..self.n {
                let term = |k: usize| {
                    let a = code(&self.a, i * self.k + k) - zero(self.a_zero, i);
                    a * (code(&self.b, k * self.n + j) - zero(self.b_zero, j))
                };
                out.push((0..self.k).map(term).sum());
            }
        }
        out
    }

    fn run(&self, isa: Isa) -> Vec<i32> {
        let Self { m, k, n, a, a_zero, b, b_zero } = *self;
        let right = Rhs { codes: b, k, n, zero_points: b_zero, scales: &[1.0] };
        let b = PackedRhs::new(isa, right, &AtomicBool::new(false));
        let elements = Elements::Codes { codes: a, zero_points: a_zero, scales: &[1.0] };
        let a = PackedLhs::new(isa, Lhs { m, k, elements }, b.has_zero_points());
        let mut out = vec![-1; m * n];
        multiply(&a, &b, Output::I32(&mut out), &AtomicBool::new(false));
        out
    }

    fn check(&self) {
        let expect = self.expect();
        for isa in sets() {
            assert!(self.run(isa) == expect, "{} {}x{}x{}", isa.name(), self.m, self.k, self.n);
        }
    }
}

/// Below, at and above every tile edge, for all sign mixes and kinds of zero points.
#[test]
fn products_equal_their_definition() {
    let sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 33, 63, 64, 65, 129];
    let mut seed = 0;
    for (i, &m) in sizes.iter().enumerate() {
        for (j, &n) in sizes.iter().enumerate() {
            let k = sizes[(3 * i + 7 * j) % sizes.len()];
            seed += 1;
            let (a, b) = (bytes(seed, m * k), bytes(seed + 1000, k * n));
            let zeros = bytes(seed + 2000, m.max(n));
            let unsigned: Vec<i32> = zeros.iter().map(|&zero| i32::from(zero)).collect();
            let signed: Vec<i32> = unsigned.iter().map(|&zero| zero - 128).collect();
            let signed_a = Codes::I8(bytemuck::cast_slice(&a));
            let signed_b = Codes::I8(bytemuck::cast_slice(&b));
            for (a, b, a_zeros, b_zeros) in [
                (Codes::U8(&a), signed_b, &unsigned, &signed),
                (signed_a, signed_b, &signed, &signed),
                (Codes::U8(&a), Codes::U8(&b), &unsigned, &unsigned),
                (signed_a, Codes::U8(&b), &signed, &unsigned),
            ] {
                let kinds: [(&[i32], &[i32]); 4] = [
                    (&[0], &[0]),
                    (&[77], &[0]),
                    (a_zeros.get(..m).unwrap(), &[-5]),
                    (&[3], b_zeros.get(..n).unwrap()),
                ];
                for (a_zero, b_zero) in kinds {
                    if !(a_zero.is_empty() || b_zero.is_empty()) {
                        Case { m, k, n, a, a_zero, b, b_zero }.check();
                    }
                }
            }
        }
    }
}

/// Several blocks of rows, parts of K and panels, odd ones among them, and a right operand beyond a cache.
#[test]
fn products_of_many_blocks_equal_their_definition() {
    let shapes = [
        (33, 1281, 65),
        (200, 2600, 100),
        (70, 9000, 40),
        (513, 64, 70),
        (1100, 65, 40),
        (64, 1300, 1300),
        (16, 700, 161),
        (5, 64, 33),
    ];
    for (seed, (m, k, n)) in (0..).zip(shapes) {
        let (a, b) = (bytes(seed, m * k), bytes(seed + 99, k * n));
        let (a, b) = (Codes::U8(&a), Codes::I8(bytemuck::cast_slice(&b)));
        let zeros: Vec<i32> = bytes(seed, m).iter().map(|&zero| i32::from(zero)).collect();
        let columns: Vec<i32> = bytes(seed, n).iter().map(|&zero| i32::from(zero) - 128).collect();
        let case = Case { m, k, n, a, a_zero: &zeros, b, b_zero: &columns };
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.check());
        }
    }
}

proptest! {
    /// Any shape, parameters and number of threads.
    #[test]
    fn random_products_equal_their_definition(
        (m, k, n) in (0_usize..50, 0_usize..300, 0_usize..200),
        (seed, threads) in (0_u32..10_000, 1_usize..5),
        (a_signed, b_signed, a_each, b_each) in any::<(bool, bool, bool, bool)>(),
    ) {
        let (a, b) = (bytes(seed, m * k), bytes(seed + 1, k * n));
        let zeros = |signed: bool, each: bool, len: usize| -> Vec<i32> {
            let shift = if signed { 128 } else { 0 };
            let len = if each { len } else { 1 };
            bytes(seed + 2, len).iter().map(|&zero| i32::from(zero) - shift).collect()
        };
        let codes = |bytes, signed| match signed {
            true => Codes::I8(bytemuck::cast_slice(bytes)),
            false => Codes::U8(bytes),
        };
        let (a_zero, b_zero) = (zeros(a_signed, a_each, m), zeros(b_signed, b_each, n));
        let (a, b) = (codes(&a, a_signed), codes(&b, b_signed));
        let case = Case { m, k, n, a, a_zero: &a_zero, b, b_zero: &b_zero };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.check());
    }
}

/// All 255 by all -128, and the other extremes, as deep as 32 bits allow.
#[test]
fn nothing_saturates() {
    for (a, b) in [(255_u8, -128_i8), (255, 127), (0, -128), (128, -1)] {
        let k = 65_793;
        let (a, b) = (vec![a; 2 * k], vec![b; k * 2]);
        let codes = [Codes::U8(&a), Codes::I8(bytemuck::cast_slice(&a))];
        let others = [Codes::I8(&b), Codes::U8(bytemuck::cast_slice(&b))];
        for a in codes {
            for b in others {
                let k = k.min(max_depth(a, &[0], b, &[0]));
                let cut = |codes: Codes<'_>| -> Vec<u8> {
                    match codes {
                        Codes::U8(codes) => codes[..2 * k].to_vec(),
                        Codes::I8(codes) => bytemuck::cast_slice(&codes[..2 * k]).to_vec(),
                    }
                };
                let (left, right) = (cut(a), cut(b));
                let again = |codes: Codes<'_>, bytes| match codes {
                    Codes::U8(_) => Codes::U8(bytes),
                    Codes::I8(_) => Codes::I8(bytemuck::cast_slice(bytes)),
                };
                let (a, b) = (again(a, &left), again(b, &right));
                Case { m: 2, k, n: 2, a, a_zero: &[0], b, b_zero: &[0] }.check();
            }
        }
    }
    let (u8s, i8s) = (Codes::U8(&[]), Codes::I8(&[]));
    assert_eq!(max_depth(u8s, &[0], u8s, &[0]), 33_025);
    assert_eq!(max_depth(u8s, &[0], i8s, &[0]), 65_793);
    assert_eq!(max_depth(i8s, &[0], i8s, &[0]), 131_071);
}

/// The product of real numbers in `left` by fixed weights, in every form, on one instruction set.
fn forms(isa: Isa, (m, k, n): (usize, usize, usize), signed: bool) -> Vec<Vec<u8>> {
    let x: Vec<f32> = bytes(7, m * k).iter().map(|&b| f32::from(b) / 31.0 - 4.0).collect();
    let weights = bytes(8, k * n);
    let ints = |seed, scale: i32| -> Vec<i32> {
        bytes(seed, n).iter().map(|&b| (i32::from(b) - 128) * scale).collect()
    };
    let scales: Vec<f32> = bytes(9, n).iter().map(|&b| f32::from(b) / 4096.0 + 1e-4).collect();
    let (bias, zeros) = (ints(10, 999), ints(11, 1));
    let reals: Vec<f32> = bias.iter().map(|&b| b as f32 / 3e4).collect();
    let codes = Codes::I8(bytemuck::cast_slice(&weights));
    let right = Rhs { codes, k, n, zero_points: &zeros, scales: &scales };
    let b = PackedRhs::new(isa, right, &AtomicBool::new(false));
    let range =
        if signed { CodeRange { min: -127, max: 127 } } else { CodeRange { min: 0, max: 255 } };
    let affine = |extent: Extent<f32>| QuantParams {
        scale: ((extent.max - extent.min) / 255.0).max(1e-6),
        zero_point: if signed { 3 } else { 131 },
    };
    let mut made = Vec::new();
    for params in
        [RowParams::Row(&affine), RowParams::Same(QuantParams { scale: 0.03, zero_point: 9 })]
    {
        let dynamic = Dynamic { x: &x, range, rounding: Rounding::DivideEven, params };
        let a = PackedLhs::new(isa, Lhs { m, k, elements: Elements::Real(dynamic) }, true);
        let stop = AtomicBool::new(false);
        for relu in [false, true] {
            let mut out = vec![0.0_f32; m * n];
            let bias = relu.then_some(&*reals);
            multiply(&a, &b, Output::F32 { out: &mut out, bias, relu }, &stop);
            made.push(bytemuck::cast_slice(&out).to_vec());
        }
        let multipliers: Vec<_> = scales.iter().map(|&s| Multiplier::new(f64::from(s))).collect();
        for mode in [
            Mode::FloatOrt(0.5),
            Mode::FloatOnnx(0.5),
            Mode::Gemmlowp(&multipliers),
            Mode::SingleRound(&multipliers[..1]),
        ] {
            let codes = CodeRange { min: -128, max: 127 };
            let requantize = Requantize { mode, zero_point: -7, range: codes, bias: Some(&bias) };
            let mut out = vec![0_i8; m * n];
            multiply(&a, &b, Output::I8(&mut out, requantize), &stop);
            made.push(bytemuck::cast_slice(&out).to_vec());
            let codes = CodeRange { min: 100, max: 255 };
            let requantize = Requantize { mode, zero_point: 100, range: codes, bias: None };
            let mut out = vec![0_u8; m * n];
            multiply(&a, &b, Output::U8(&mut out, requantize), &stop);
            made.push(out);
        }
    }
    made
}

#[test]
fn every_instruction_set_finishes_alike() {
    for shape in [(1, 5, 1), (3, 64, 17), (7, 33, 65), (13, 100, 130), (40, 8, 70)] {
        for signed in [false, true] {
            let mut sets = sets().map(|isa| (isa, forms(isa, shape, signed)));
            let (_, expect) = sets.next().unwrap();
            for (isa, made) in sets {
                assert!(made == expect, "{} {shape:?} {signed}", isa.name());
            }
        }
    }
}

/// The definition of a product of groups, operation by operation.
fn grouped(
    (m, k, n, group): (usize, usize, usize, usize),
    a: (&[i8], &[i32], &[f32]),
    b: (&[i8], &[i32], &[f32]),
) -> Vec<f32> {
    let (mut out, depth) = (Vec::new(), k);
    for i in 0..m {
        for j in 0..n {
            let mut total = 0.0_f32;
            for g in 0..k.div_ceil(group) {
                let of = |k: usize| {
                    let a = i32::from(a.0[i * depth + k]) - a.1[i];
                    a * (i32::from(b.0[k * n + j]) - b.1[g * n + j])
                };
                let sum: i32 = (g * group..k.min((g + 1) * group)).map(of).sum();
                total += sum as f32 * (a.2[i] * b.2[g * n + j]);
            }
            out.push(total);
        }
    }
    out
}

#[test]
fn groups_equal_their_definition() {
    for (m, k, n, group) in [
        (1, 32_usize, 16, 32),
        (2, 70, 65, 32),
        (3, 128, 130, 128),
        (4, 9, 3, 2),
        (7, 40, 64, 20),
        (1, 5, 1, 100),
    ] {
        let groups = k.div_ceil(group);
        let a: Vec<i8> = bytes(1, m * k).iter().map(|b| b.cast_signed()).collect();
        let b: Vec<i8> = bytes(2, k * n).iter().map(|b| (b & 15).cast_signed() - 8).collect();
        let zeros: Vec<i32> = bytes(3, groups * n).iter().map(|b| i32::from(b & 15) - 8).collect();
        let of = |seed, len| -> Vec<f32> {
            bytes(seed, len).iter().map(|&b| f32::from(b) / 999.0 + 0.01).collect()
        };
        let (a_scales, b_scales) = (of(4, m), of(5, groups * n));
        for shifted in [false, true] {
            let a_zeros: Vec<i32> = (-5..).map(|i| if shifted { i } else { 0 }).take(m).collect();
            let expect =
                grouped((m, k, n, group), (&a, &a_zeros, &a_scales), (&b, &zeros, &b_scales));
            for isa in sets() {
                let right = GroupedRhs {
                    codes: Codes::I8(&b),
                    k,
                    n,
                    group,
                    zero_points: &zeros,
                    scales: &b_scales,
                };
                let stop = AtomicBool::new(false);
                let packed = PackedInt4::new(isa, right, &stop);
                let elements = Elements::Codes {
                    codes: Codes::I8(&a),
                    zero_points: &a_zeros,
                    scales: &a_scales,
                };
                let mut out = vec![f32::NAN; m * n];
                multiply_int4(Lhs { m, k, elements }, &packed, &mut out, (None, false), &stop);
                assert!(out == expect, "{} {m}x{k}x{n} by {group} {shifted}", isa.name());
            }
        }
    }
}

/// Packing looks whether to go on before each panel.
#[test]
fn what_is_stopped_packs_nothing() {
    let (k, n) = (64, 256);
    let weights = vec![5_i8; k * n];
    let (codes, stop) = (Codes::I8(&weights), AtomicBool::new(true));
    for isa in sets() {
        let right = Rhs { codes, k, n, zero_points: &[0], scales: &[1.0] };
        let packed = PackedRhs::new(isa, right, &stop);
        let panels = n / Tile::of(isa).columns;
        assert!((0..panels).all(|panel| packed.panel(panel).iter().all(|&byte| byte == 0)));
        let right = GroupedRhs { codes, k, n, group: 32, zero_points: &[0], scales: &[1.0] };
        let packed = PackedInt4::new(isa, right, &stop);
        let left =
            Elements::Codes { codes: Codes::I8(&[1; 64]), zero_points: &[0], scales: &[1.0] };
        let mut out = vec![f32::NAN; n];
        let left = Lhs { m: 1, k, elements: left };
        multiply_int4(left, &packed, &mut out, (None, false), &AtomicBool::new(false));
        assert!(out.iter().all(|&sum| sum == 0.0), "{}", isa.name());
    }
}

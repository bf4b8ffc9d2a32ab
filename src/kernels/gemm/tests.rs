//! Products against their definition.

use std::sync::atomic::AtomicBool;

use super::super::Isa;
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
        let b = PackedB::new(isa, Right { codes: b, k, n, zero_points: b_zero, scales: &[1.0] });
        let elements = Elements::Codes { codes: a, zero_points: a_zero, scales: &[1.0] };
        let a = PackedA::new(isa, Left { m, k, elements }, b.has_zero_points());
        let mut out = vec![-1; m * n];
        multiply(&a, &b, Output::I32(&mut out), &AtomicBool::new(false));
        out
    }

    fn check(&self) {
        let expect = self.expect();
        for isa in Isa::available() {
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

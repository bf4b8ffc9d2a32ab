//! Cases that random ones seldom meet.

use super::*;

/// Every tie of many scales with its neighbours.
#[test]
fn ties_of_many_scales() {
    let mut bits = 0x1234_5678_u32;
    for round in 0..200 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // From 2^-30 to 2^30, any mantissa.
        let scale = f32::from_bits((bits & 0x7f_ffff) | (97 + bits % 61) << 23);
        let x: Vec<f32> = (-400..400).flat_map(|k| neighbours((k as f32 + 0.5) * scale)).collect();
        let zero_point = round % 128;
        let affine = QuantParams { scale, zero_point };
        for rounding in ROUNDINGS {
            check::<f32, i8>(
                &x,
                Params::Same(affine),
                (CodeRange { min: -128, max: 127 }, rounding),
            );
            check::<f32, u8>(&x, Params::Same(affine), (CodeRange { min: 0, max: 255 }, rounding));
        }
    }
}

/// Below half a step, an error of almost a step may need more bits than a float has.
#[test]
fn errors_that_are_not_exact() {
    let scale = 2.0_f32.next_down();
    let mut x = vec![0.5 * scale; 64];
    for (x, i) in x.iter_mut().zip(0_u32..) {
        let less = f32::from_bits(x.to_bits() - i / 2);
        *x = if i % 2 == 0 { less } else { -less };
    }
    for zero_point in [0, 3, 126, 127] {
        for rounding in ROUNDINGS {
            let params = Params::Same(QuantParams { scale, zero_point });
            check::<f32, i8>(&x, params, (CodeRange { min: -128, max: 127 }, rounding));
            check::<f32, u8>(&x, params, (CodeRange { min: 0, max: 255 }, rounding));
        }
    }
}

/// The largest element of a group is to be 127.5 or 7.5 steps, as symmetric ranges have it.
#[test]
fn groups_that_end_at_a_tie() {
    let x: Vec<f32> = (0..1024_i32).map(|i| ((i * 7919) % 1009 - 504) as f32 * 0.37).collect();
    for (min, max) in [(-128, 127), (-8, 7)] {
        for size in [32, 64, 128] {
            let largest = |x: &[f32]| x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let scale = |x| largest(x) / (max as f32 + 0.5);
            let affines: Vec<_> =
                x.chunks(size).map(|x| QuantParams { scale: scale(x), zero_point: 0 }).collect();
            let table = Table::new(&affines);
            let slices = table.columns(0..table.len());
            for rounding in ROUNDINGS {
                let params = Params::Groups(Groups { slices, offset: 0, size });
                check::<f32, i8>(&x, params, (CodeRange { min, max }, rounding));
            }
        }
    }
}

/// A sweep over all patterns of bits.
#[test]
fn numbers_of_every_kind() {
    let x: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    for scale in [1.0, 0.037, 1e-12, 3e20] {
        for rounding in ROUNDINGS {
            let params = Params::Same(QuantParams { scale, zero_point: 3 });
            check::<f32, i8>(&x, params, (CodeRange { min: -127, max: 127 }, rounding));
            check::<f32, u8>(&x, params, (CodeRange { min: 0, max: 255 }, rounding));
        }
    }
}

/// The sums of a block are made after the next one was begun: what is left to
/// `scalar`, and what is saturated, must not change their order.
#[test]
fn blocks_of_every_kind_in_any_order() {
    let mut bits = 0x0bad_cafe_u32;
    let mut next = || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bits >> 8
    };
    let affine = QuantParams { scale: 0.037, zero_point: 7 };
    let mut x = Vec::new();
    for _ in 0..300 {
        let kind = next() % 6;
        let first = x.len();
        x.extend((0..64).map(|_| (next() % 20_000) as f32 / 100.0 * 0.037 - 3.7));
        let odd = first + next() as usize % 64;
        match kind {
            0 => x[odd] = 2.5 * affine.scale,
            1 => x[odd] = 1e3,
            2 => x[odd] = [f32::NAN, f32::INFINITY, -1e30, -0.0][next() as usize % 4],
            3 => x[first..].iter_mut().for_each(|x| *x *= 3.0),
            4 => x[first..].iter_mut().step_by(3).for_each(|x| *x = 0.0),
            _ => {}
        }
    }
    for rounding in ROUNDINGS {
        let params = Params::Same(affine);
        check::<f32, i8>(&x, params, (CodeRange { min: -127, max: 127 }, rounding));
        check::<f32, u8>(&x, params, (CodeRange { min: 0, max: 255 }, rounding));
        check::<f32, i8>(&x, params, (CodeRange { min: -8, max: 7 }, rounding));
        let table = Table::new(&vec![affine; x.len() / 32]);
        let slices = table.columns(0..table.len());
        let groups = Params::Groups(Groups { slices, offset: 0, size: 32 });
        check::<f32, i8>(&x, groups, (CodeRange { min: -127, max: 127 }, rounding));
    }
}

/// Rows of columns beside the widths of tiles: with one zero point and with several, and
/// with elements beside ties, saturated ones and odd ones here and there.
#[test]
fn rows_beside_the_widths_of_tiles() {
    let mut bits = 0x5eed_0001_u32;
    let mut next = || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bits >> 8
    };
    let narrow = [16, 63, 64, 65, 80, 127, 128, 130, 255, 256, 257, 319, 320, 335, 512, 600];
    let widths = narrow.into_iter().chain([1040, 1088, 2100, 2112]);
    for (round, row) in widths.enumerate() {
        for common in [true, false] {
            let affines: Vec<QuantParams<f32>> = (0..)
                .take(row)
                .map(|i| QuantParams {
                    scale: 0.01 + (i % 37) as f32 * 0.003,
                    zero_point: if common { 7 } else { i % 90 },
                })
                .collect();
            let rows = 1 + (round + usize::from(common)) % 9;
            let len = rows * row + next() as usize % row;
            let mut x: Vec<f32> = affines
                .iter()
                .cycle()
                .take(len)
                .map(|affine| ((next() % 40_000) as f32 / 100.0 - 200.0) * affine.scale)
                .collect();
            for _ in 0..len / 50 {
                let at = next() as usize % len;
                let tie = ((next() % 300) as f32 - 149.5) * affines[at % row].scale;
                x[at] = match next() % 4 {
                    0 => ODD[next() as usize % ODD.len()],
                    _ => neighbours(tie)[next() as usize % 3],
                };
            }
            let table = Table::new(&affines);
            let params = Params::Each(table.columns(0..table.len()));
            for rounding in ROUNDINGS {
                check::<f32, i8>(&x, params, (CodeRange { min: -128, max: 127 }, rounding));
                check::<f32, i8>(&x, params, (CodeRange { min: -127, max: 127 }, rounding));
                check::<f32, u8>(&x, params, (CodeRange { min: 0, max: 255 }, rounding));
            }
        }
    }
}

/// The code is the largest one and not saturated, and what it stands for overflows, as twice the number does.
#[test]
fn numbers_whose_restored_values_overflow() {
    let affine = QuantParams { scale: 1.335e36, zero_point: 0 };
    let x: Vec<f32> =
        (0..64).map(|i| if i % 3 == 0 { 3.4003e38 } else { 1e36 * i as f32 }).collect();
    for rounding in ROUNDINGS {
        check::<f32, u8>(&x, Params::Same(affine), (CodeRange { min: 0, max: 255 }, rounding));
    }
}

/// More columns than are restored at a time, and some more than whole vectors.
#[test]
fn rows_of_many_columns() {
    for (width, common) in [(4096, true), (4104, true), (8200, true), (2053, false), (4300, false)]
    {
        let affines: Vec<_> = (0..width)
            .map(|i| QuantParams {
                scale: (i % 13 + 1) as f32 / 8.0,
                zero_point: if common { 3 } else { i % 7 - 3 },
            })
            .collect();
        let table = Table::new(&affines);
        let x: Vec<f32> = (0..2 * width + 5).map(|i| (i % 251 - 125) as f32 / 4.0).collect();
        let params = Params::Each(table.columns(0..affines.len()));
        check::<f32, i8>(&x, params, (CodeRange { min: -128, max: 127 }, Rounding::DivideEven));
    }
}

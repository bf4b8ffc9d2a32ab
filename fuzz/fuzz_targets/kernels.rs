//! Every instruction set gives what the scalar definition gives, bit for bit.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quantd_kernels::scalar::{self, Code, CodeRange, Params, QuantParams, Rounding};
use quantd_kernels::sums::LaneSums;
use quantd_kernels::table::{Groups, Table};
use quantd_kernels::{CodeSpec, Isa, Stores};

#[derive(Arbitrary, Debug)]
struct Input {
    slices: Vec<(f32, u8)>,
    form: u8,
    rounding: u8,
    past: bool,
    signed: bool,
    bits: u8,
    /// Either numbers as they are, or in half steps of the scale, where ties are.
    x: Vec<(bool, f32, i16, i8)>,
}

fn check<C: Code + PartialEq + std::fmt::Debug>(x: &[f32], params: Params<'_, f32>, how: CodeSpec) {
    let mut expect = vec![C::from_code(0); x.len()];
    scalar::quantize(x, params, how.range, how.rounding, &mut expect);
    let mut sums = LaneSums::default();
    scalar::measure(x, params, how.range, how.rounding, &mut sums);
    let mut restored = vec![0.0; x.len()];
    scalar::dequantize(&expect, params, &mut restored);
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for isa in Isa::available() {
        let mut codes = vec![C::from_code(0); x.len()];
        isa.quantize(x, params, how, &mut codes);
        assert_eq!(codes, expect, "{}", isa.name());
        let mut own = LaneSums::default();
        codes.fill(C::from_code(0));
        isa.encode(x, params, how, &mut codes, &mut own);
        assert_eq!(codes, expect, "{}", isa.name());
        // By their text: NaN equals nothing, and restored numbers may overflow.
        assert_eq!(format!("{:?}", own.total()), format!("{:?}", sums.total()), "{}", isa.name());
        let mut own = vec![0.0; x.len()];
        isa.dequantize(&codes, params, how.stores, &mut own);
        assert_eq!(bits(&own), bits(&restored), "{}", isa.name());
    }
}

fuzz_target!(|input: Input| {
    let scale = |scale: f32| if scale.is_finite() && scale > 0.0 { scale } else { 0.1 };
    let zero_point =
        |zero: u8| if input.signed { i32::from(zero.cast_signed()) } else { i32::from(zero) };
    let affines: Vec<QuantParams<f32>> = input
        .slices
        .iter()
        .map(|&(s, zero)| QuantParams { scale: scale(s), zero_point: zero_point(zero) })
        .collect();
    let Some(&first) = affines.first() else { return };
    let number = |&(plain, x, half_steps, ulps): &(bool, f32, i16, i8)| {
        if plain {
            return x;
        }
        let tie = f32::from(half_steps % 600) * 0.5 * first.scale;
        f32::from_bits(tie.to_bits().wrapping_add_signed(i32::from(ulps % 4)))
    };
    let x: Vec<f32> = input.x.iter().map(number).collect();
    let bits = 2 + input.bits % 7;
    let top = 1 << (bits - 1);
    let range = if input.signed {
        CodeRange { min: -top, max: top - 1 }
    } else {
        CodeRange { min: 0, max: 2 * top - 1 }
    };
    let rounding = [
        Rounding::DivideEven,
        Rounding::ReciprocalEven,
        Rounding::ZeroPointFirst,
        Rounding::DivideAway,
    ][usize::from(input.rounding % 4)];
    let stores = if input.past { Stores::Streaming } else { Stores::Temporal };
    let how = CodeSpec { range, rounding, stores };
    let table = Table::new(&affines);
    let (x, params) = match input.form {
        0..=84 => (&x[..], Params::Same(first)),
        85..=169 => {
            let len = x.len().min(affines.len());
            (&x[..len], Params::Each(table.columns(0..len)))
        }
        form => {
            let size = [1, 5, 16, 32, 48, 64, 128][usize::from(form % 7)];
            let offset = usize::from(form) % size / 16 * 16;
            let len = x.len().min(affines.len() * size - offset);
            let slices = table.columns(0..affines.len());
            (&x[..len], Params::Groups(Groups { slices, offset, size }))
        }
    };
    if input.signed {
        check::<i8>(x, params, how);
    } else {
        check::<u8>(x, params, how);
    }
});

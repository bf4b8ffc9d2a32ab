use half::{bf16, f16};
use proptest::prelude::*;

use super::super::read::Element;
use super::*;

/// The number, by way of `T`'s parser, as the bits of an f64.
fn parse<T: Element + Into<f64>>(text: &str) -> Result<f64, Fault> {
    let (value, rest) = T::parse(text.as_bytes())?;
    assert!(rest.is_empty(), "{text}");
    Ok(value.into())
}

fn check_wide(text: &str) {
    let expect: f64 = text.parse().unwrap();
    match parse::<f64>(text) {
        Ok(value) => assert_eq!(value.to_bits(), expect.to_bits(), "{text}"),
        Err(fault) => assert!(fault == Fault::Overflow && expect.is_infinite(), "{text}"),
    }
    let expect: f32 = text.parse().unwrap();
    match f32::parse(text.as_bytes()) {
        Ok((value, _)) => assert_eq!(value.to_bits(), expect.to_bits(), "{text}"),
        Err(fault) => assert!(fault == Fault::Overflow && expect.is_infinite(), "{text}"),
    }
}

#[test]
fn hard_cases_agree_with_std() {
    for text in [
        "0",
        "-0",
        "0.0",
        "1",
        "0.1",
        "-1.5",
        "16777217",
        "16777217.0000000001",
        "1e22",
        "1e23",
        "9007199254740993",
        "9007199254740992.9999",
        "5e-324",
        "2e-324",
        "3e-324",
        "1e-45",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "3.4028235e38",
        "3.4028236e38",
        "3.40282356e38",
        "2.2250738585072011e-308",
        "1.1754943e-38",
        "1e400",
        "1e-400",
        "0e999999999999",
        "0.000000000000000000000000000012345678901234567890",
        "123456789012345678901234567890",
        "8.41e21",
        "9.5e-8",
        "4.656612873077393e-10",
        "7.038531e-26",
        "1e38",
        "1e-64",
        "1e-65",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999e-19",
        "0.00000000012345678901234567",
        "1.00000005960464477539062500000000000000000001",
        "1.000000059604644775390625",
        "1.0000000596046447753906249",
    ] {
        check_wide(text);
        check_wide(&format!("-{}", text.trim_start_matches('-')));
    }
}

#[test]
fn ties_of_narrow_types_use_the_exact_value() {
    let check = |text: &str, half: f64, brain: f64| {
        assert_eq!(parse::<f16>(text), Ok(half), "{text} as f16");
        assert_eq!(parse::<bf16>(text), Ok(brain), "{text} as bf16");
    };
    check("1.00390625", 1.003_906_25, 1.0);
    check("1.003906250000000000000000000001", 1.003_906_25, 1.007_812_5);
    check("1.00390624999999999999999999999", 1.003_906_25, 1.0);
    check("1.01171875", 1.011_718_75, 1.015_625);
    check("2049", 2048.0, 2048.0);
    check("2049.00000000000000000001", 2050.0, 2048.0);
    check("257", 257.0, 256.0);
    check("257.0000000000000000000000001", 257.0, 258.0);
    check("-0.0", -0.0, -0.0);
    check("2.9802322387695312e-8", 0.0, 2.980_232_238_769_531_2e-8);
    check("2.98023223876953125000000000001e-8", 2f64.powi(-24), 2f64.powi(-25));
    check("65519.999999999999999999", 65504.0, 65536.0);
    assert_eq!(parse::<f16>("65520"), Err(Fault::Overflow));
    assert_eq!(parse::<bf16>("1e39"), Err(Fault::Overflow));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn shortest_and_long_forms_agree_with_std(bits in any::<u64>(), narrow in any::<u32>()) {
        let (wide, single) = (f64::from_bits(bits), f32::from_bits(narrow));
        if wide.is_finite() && single.is_finite() {
            check_wide(&format!("{wide:?}"));
            check_wide(&format!("{single:?}"));
            check_wide(&format!("{:?}", f64::from(single)));
            check_wide(&format!("{wide:.25e}"));
        }
    }

    #[test]
    fn decimals_agree_with_std(digits in any::<u64>(), cut in 0_u32..64, exponent in -80_i32..60) {
        check_wide(&format!("{}e{exponent}", digits >> cut));
        let tail = digits.rotate_left(9);
        check_wide(&format!("{}.{tail}", digits >> cut));
    }

    #[test]
    fn float_midpoints_agree_with_std(bits in any::<u32>(), nudge in -1_i64..=1) {
        let value = f32::from_bits(bits & 0x7fff_ffff);
        if value.is_finite() && value.next_up().is_finite() {
            let middle = f64::midpoint(f64::from(value), f64::from(value.next_up()));
            let moved = f64::from_bits(middle.to_bits().saturating_add_signed(nudge));
            check_wide(&format!("{moved:?}"));
            check_wide(&format!("{middle:.60e}"));
        }
    }

    #[test]
    fn narrow_types_round_once(digits in any::<u64>(), cut in 0_u32..64, exponent in -30_i32..8) {
        // Nearest by distance: `half` itself drops bits of an f64 before it rounds.
        let text = format!("{}e{exponent}", (digits >> cut) % 10_000_000_000_000_000);
        let wide: f64 = text.parse().unwrap();
        if let Ok((value, _)) = bf16::parse(text.as_bytes()) {
            for bits in [value.to_bits().saturating_sub(1), value.to_bits() + 1] {
                let other = bf16::from_bits(bits).to_f64();
                prop_assert!((wide - value.to_f64()).abs() <= (wide - other).abs());
            }
        }
        if let Ok((value, _)) = f16::parse(text.as_bytes()) {
            for bits in [value.to_bits().saturating_sub(1), value.to_bits() + 1] {
                let other = f16::from_bits(bits).to_f64();
                prop_assert!((wide - value.to_f64()).abs() <= (wide - other).abs());
            }
        } else {
            prop_assert!(wide >= 65520.0);
        }
    }
}

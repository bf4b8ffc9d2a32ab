//! Numbers from their text, rounded once.

use half::{bf16, f16};

use bytemuck::Pod;

/// Why a text is not a number of the wanted type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not a JSON number at all.
    Syntax,
    /// A number above the largest of the type.
    Overflow,
    /// Not an integer.
    Fraction,
    /// An integer outside of the type.
    Range,
}

/// An element that has a text.
pub(super) trait Element: Pod {
    /// The number at the start of `text`, and the length of its text.
    fn parse(text: &[u8]) -> Result<(Self, usize), Fault>;
    /// The value of `NaN`, `Infinity` or `-Infinity`, if the type has them.
    fn special(value: f64) -> Option<Self>;
}

/// The parts of a JSON number.
struct Parts {
    negative: bool,
    /// All digits as one integer; meaningless when there are more than 19.
    mantissa: u64,
    digits: usize,
    /// Power of ten of the mantissa.
    exponent: i64,
    integer: bool,
    len: usize,
}

/// Digits that any u64 holds.
const EXACT_DIGITS: usize = 19;
/// Powers of ten that f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Splits a number by the grammar of RFC 8259: no plus sign, no leading
/// zeros, digits on both sides of a point.
fn split(text: &[u8]) -> Result<Parts, Fault> {
    let negative = text.first() == Some(&b'-');
    let mut rest = text.get(usize::from(negative)..).unwrap_or_default();
    let mut mantissa = 0_u64;
    let whole = digits(&mut rest, &mut mantissa);
    let leading_zero = text.get(usize::from(negative)) == Some(&b'0');
    if whole == 0 || (leading_zero && whole > 1) {
        return Err(Fault::Syntax);
    }
    let mut fraction = 0;
    let mut integer = true;
    if let [b'.', tail @ ..] = rest {
        rest = tail;
        integer = false;
        fraction = digits(&mut rest, &mut mantissa);
        if fraction == 0 {
            return Err(Fault::Syntax);
        }
    }
    let mut exponent = 0_i64;
    if let [b'e' | b'E', tail @ ..] = rest {
        integer = false;
        rest = tail;
        let minus = rest.first() == Some(&b'-');
        if let [b'+' | b'-', tail @ ..] = rest {
            rest = tail;
        }
        let mut count = 0_usize;
        while let [digit @ b'0'..=b'9', tail @ ..] = rest {
            // Far beyond any float; saturates instead of wrapping around.
            exponent =
                exponent.saturating_mul(10).saturating_add(i64::from(digit.wrapping_sub(b'0')));
            count = count.saturating_add(1);
            rest = tail;
        }
        if count == 0 {
            return Err(Fault::Syntax);
        }
        exponent = if minus { exponent.saturating_neg() } else { exponent };
    }
    Ok(Parts {
        negative,
        mantissa,
        digits: whole.saturating_add(fraction),
        exponent: exponent.saturating_sub(i64::try_from(fraction).unwrap_or(i64::MAX)),
        integer,
        len: text.len().saturating_sub(rest.len()),
    })
}

/// Appends the leading digits of `rest` to `mantissa` and counts them.
fn digits(rest: &mut &[u8], mantissa: &mut u64) -> usize {
    let before = rest.len();
    while let Some((block, tail)) = rest.split_first_chunk::<8>() {
        let Some(value) = eight_digits(u64::from_le_bytes(*block)) else { break };
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(value);
        *rest = tail;
    }
    while let [digit @ b'0'..=b'9', tail @ ..] = *rest {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')));
        *rest = tail;
    }
    before.saturating_sub(rest.len())
}

/// The value of eight ASCII digits, the first in the low byte, or `None`:
/// neighbours are joined to pairs, pairs to fours, fours to the result.
fn eight_digits(block: u64) -> Option<u64> {
    let value = block.wrapping_sub(0x3030_3030_3030_3030);
    let above = block.wrapping_add(0x4646_4646_4646_4646);
    if (value | above) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = value.wrapping_mul(10).wrapping_add(value >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

/// `mantissa * 10^exponent` with at most three roundings, each to nearest:
/// within 2 units in the last place. `None` outside of what that covers.
fn approximate(parts: &Parts) -> Option<f64> {
    if parts.digits > EXACT_DIGITS {
        return None;
    }
    let power = *POWERS.get(usize::try_from(parts.exponent.unsigned_abs()).ok()?)?;
    let mantissa = parts.mantissa as f64;
    Some(if parts.exponent < 0 { mantissa / power } else { mantissa * power })
}

/// Whether f64 holds the mantissa exactly, so that the only rounding is that
/// of the final operation (Clinger's fast path).
const fn is_exact(parts: &Parts) -> bool {
    parts.mantissa <= 1 << 53
}

const fn signed(parts: &Parts, magnitude: f64) -> f64 {
    if parts.negative { -magnitude } else { magnitude }
}

impl Element for f64 {
    fn parse(text: &[u8]) -> Result<(Self, usize), Fault> {
        let parts = split(text)?;
        let exact = approximate(&parts).filter(|_| is_exact(&parts));
        let value = match exact {
            Some(value) => signed(&parts, value),
            None => slow(text, &parts)?,
        };
        if value.is_finite() { Ok((value, parts.len)) } else { Err(Fault::Overflow) }
    }

    fn special(value: f64) -> Option<Self> {
        Some(value)
    }
}

impl Element for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    fn parse(text: &[u8]) -> Result<(Self, usize), Fault> {
        /// Bits of an f64 mantissa that f32 does not have.
        const DROPPED: u64 = 29;
        const MIDDLE: u64 = 1 << (DROPPED - 1);
        let parts = split(text)?;
        if let Some(value) = approximate(&parts) {
            // All numbers between two neighbouring midpoints of f32 round to
            // the same f32; an error of 2 units cannot carry a number that is
            // further than that from every midpoint across one.
            let beyond = value.to_bits() & ((1 << DROPPED) - 1);
            let normal = value >= Self::MIN_POSITIVE.into() && value < Self::MAX.into();
            if parts.mantissa == 0 || (normal && beyond.abs_diff(MIDDLE) > 4) {
                return Ok((signed(&parts, value) as Self, parts.len));
            }
        }
        let value: Self = slow(text, &parts)?;
        if value.is_finite() { Ok((value, parts.len)) } else { Err(Fault::Overflow) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "NaN and infinities stay what they are")]
    fn special(value: f64) -> Option<Self> {
        Some(value as Self)
    }
}

/// Any number, rounded once, by the library.
fn slow<T: fast_float2::FastFloat>(text: &[u8], parts: &Parts) -> Result<T, Fault> {
    let text = text.get(..parts.len).ok_or(Fault::Syntax)?;
    fast_float2::parse(text).map_err(|_| Fault::Syntax)
}

/// Half-precision types round the nearest f64: a second rounding only matters
/// for a text of more than 16 digits next to a midpoint.
macro_rules! half {
    ($($t:ty)*) => {$(impl Element for $t {
        fn parse(text: &[u8]) -> Result<(Self, usize), Fault> {
            let (value, len) = <f64 as Element>::parse(text)?;
            let value = Self::from_f64(value);
            if value.is_finite() { Ok((value, len)) } else { Err(Fault::Overflow) }
        }
        fn special(value: f64) -> Option<Self> {
            Some(Self::from_f64(value))
        }
    })*};
}
half!(f16 bf16);

macro_rules! integer {
    ($($t:ty)*) => {$(impl Element for $t {
        fn parse(text: &[u8]) -> Result<(Self, usize), Fault> {
            let parts = split(text)?;
            if !parts.integer {
                return Err(Fault::Fraction);
            }
            // 20 digits reach beyond u64 and may have wrapped around.
            if parts.digits > EXACT_DIGITS {
                let text = std::str::from_utf8(text.get(..parts.len).unwrap_or_default());
                let value = text.ok().and_then(|text| text.parse().ok());
                return value.map(|value| (value, parts.len)).ok_or(Fault::Range);
            }
            let magnitude = i128::from(parts.mantissa);
            let value = if parts.negative { magnitude.wrapping_neg() } else { magnitude };
            Self::try_from(value).map(|value| (value, parts.len)).map_err(|_| Fault::Range)
        }
        fn special(_: f64) -> Option<Self> {
            None
        }
    })*};
}
integer!(i64 i32 i16 i8 u64 u32 u16 u8);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str) {
        let (single, len) = f32::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (single.to_bits(), len),
            (text.parse::<f32>().unwrap().to_bits(), text.len()),
            "{text}"
        );
        let (double, len) = f64::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (double.to_bits(), len),
            (text.parse::<f64>().unwrap().to_bits(), text.len()),
            "{text}"
        );
    }

    #[test]
    fn hard_cases_round_once() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "0.0000",
            "1e-46",
            "1e-45",
            "7e-46",
            "7.1e-46",
            "1.1754943508222875e-38",
            // Midpoints of f32, and texts a little beside them.
            "16777217",
            "16777217.0000000001",
            "16777216.9999999999",
            "1.00000005960464477539",
            "1.000000059604644775390625",
            "1.0000000596046447753906251",
            "1.0000000596046448",
            "0.1",
            "0.30000001192092896",
            "3.4028234663852886e38",
            "3.4028235e38",
            "9007199254740993",
            "12345678901234567890",
            "123456789012345678901234567890",
            "0.00000000000000000000000123",
            "1e22",
            "1e23",
            "8.5e-23",
            "2.2250738585072011e-308",
        ] {
            if text.parse::<f32>().unwrap().is_finite() {
                check(text);
            }
        }
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for text in [
            "", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "nan", "inf", "Infinity", "NaN",
             "e1",
        ] {
            assert_eq!(f32::parse(text.as_bytes()), Err(Fault::Syntax), "{text}");
        }
        assert_eq!(f32::parse(b"1.5]"), Ok((1.5, 3)));
        assert_eq!(f32::parse(b"1e400"), Err(Fault::Overflow));
        assert_eq!(f32::parse(b"3.5e38"), Err(Fault::Overflow));
        assert_eq!(f64::parse(b"1e99999999999999999999"), Err(Fault::Overflow));
        assert_eq!(f64::parse(b"1e-99999999999999999999"), Ok((0.0, 23)));
        assert_eq!(f16::parse(b"65520"), Err(Fault::Overflow));
        assert_eq!(i8::parse(b"128"), Err(Fault::Range));
        assert_eq!(i8::parse(b"-128,"), Ok((-128, 4)));
        assert_eq!(u8::parse(b"-1"), Err(Fault::Range));
        assert_eq!(u8::parse(b"1.0"), Err(Fault::Fraction));
        assert_eq!(u8::parse(b"1e1"), Err(Fault::Fraction));
        assert_eq!(u64::parse(b"18446744073709551615"), Ok((u64::MAX, 20)));
        assert_eq!(u64::parse(b"18446744073709551616"), Err(Fault::Range));
        assert_eq!(i64::parse(b"-9223372036854775808"), Ok((i64::MIN, 20)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn floats_as_printed(bits: u64, digits in 1..20_usize) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let text = format!("{value:e}");
                let (parsed, _) = f64::parse(text.as_bytes()).unwrap();
                prop_assert_eq!(parsed.to_bits(), bits);
            }
            let single = f32::from_bits(bits as u32);
            if single.is_finite() {
                for text in [format!("{single}"), format!("{single:e}"), format!("{:.digits$e}", f64::from(single)), format!("{:?}", f64::from(single))] {
                    let (parsed, _) = f32::parse(text.as_bytes()).unwrap();
                    prop_assert_eq!(parsed.to_bits(), text.parse::<f32>().unwrap().to_bits(), "{}", text);
                }
            }
        }

        #[test]
        fn decimals_next_to_midpoints(bits: u32, nudge in -3..4_i64, digits in 8..20_usize) {
            let low = f32::from_bits(bits & 0x7fff_ffff);
            let high = f32::from_bits((bits & 0x7fff_ffff).wrapping_add(1));
            if high.is_finite() && low > 1e-30 && high < 1e30 {
                let middle = f64::midpoint(low.into(), high.into());
                let near = f64::from_bits(middle.to_bits().wrapping_add_signed(nudge));
                let text = format!("{near:.digits$e}");
                let (parsed, _) = f32::parse(text.as_bytes()).unwrap();
                prop_assert_eq!(parsed.to_bits(), text.parse::<f32>().unwrap().to_bits(), "{}", text);
            }
        }
    }
}

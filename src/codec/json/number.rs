//! Decimal literals to floating-point numbers, correctly rounded in one step.
//!
//! A literal is read once: its digits become a 64-bit integer `w` and a decimal
//! exponent `e`. `w * 10^e` is then taken from a 128-bit approximation of
//! `5^e`, which bounds the true value from both sides; when both bounds round to
//! the same number, that is the answer (the idea of Eisel and Lemire, with the
//! interval kept explicit). Otherwise (ties, over 19 digits, subnormal or
//! extreme values) a slow exact way decides. There is no rounding to f64
//! in between that a narrower type would have to round again.
//!
//! The grammar is that of RFC 8259 and nothing more.

use std::cmp::Ordering;

use super::read::Fault;

/// A number literal, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literal<'a> {
    /// The literal as it was written.
    pub(super) token: &'a [u8],
    negative: bool,
    /// All digits as one integer, meaningful when there are at most 19.
    digits: u64,
    exponent: i64,
    /// Whether `digits` dropped something.
    long: bool,
}

/// Format of a binary floating-point type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Bits of the significand, the hidden one included.
    pub(super) precision: u32,
    /// Largest exponent of a finite number; the smallest normal one is `1 - max`.
    pub(super) max_exponent: i32,
}

pub(super) const BINARY64: Format = Format { precision: 53, max_exponent: 1023 };
pub(super) const BINARY32: Format = Format { precision: 24, max_exponent: 127 };
pub(super) const BINARY16: Format = Format { precision: 11, max_exponent: 15 };
pub(super) const BFLOAT16: Format = Format { precision: 8, max_exponent: 127 };

/// Digits that a `u64` holds whatever they are.
const MAX_DIGITS: usize = 19;

/// Reads the literal that `text` starts with, and returns what follows it.
#[inline]
pub(super) fn scan(text: &[u8]) -> Result<(Literal<'_>, &[u8]), Fault> {
    let (negative, start) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut digits = 0_u64;
    let mut rest = take_digits(start, &mut digits);
    let whole = start.len().wrapping_sub(rest.len());
    if whole == 0 {
        return Err(Fault::of_non_number(text));
    }
    if whole > 1 && start.first() == Some(&b'0') {
        return Err(Fault::LeadingZero);
    }
    let mut places = 0;
    if let [b'.', fraction @ ..] = rest {
        rest = take_digits(fraction, &mut digits);
        places = fraction.len().wrapping_sub(rest.len());
        if places == 0 {
            return Err(Fault::NoFraction);
        }
    }
    // Lengths of slices fit i64.
    let mut exponent = 0_i64.wrapping_sub_unsigned(places as u64);
    if let [b'e' | b'E', after @ ..] = rest {
        let (value, tail) = take_exponent(after)?;
        exponent = exponent.saturating_add(value);
        rest = tail;
    }
    let long = whole.wrapping_add(places) > MAX_DIGITS && is_long(start);
    let token = text.get(..text.len().wrapping_sub(rest.len())).unwrap_or_default();
    Ok((Literal { token, negative, digits, exponent, long }, rest))
}

/// Appends the leading digits of `text` to `value`, wrapping when they are too
/// many, and returns what follows.
#[inline]
fn take_digits<'a>(mut text: &'a [u8], value: &mut u64) -> &'a [u8] {
    while let Some((chunk, rest)) = text.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        if !eight_digits(word) {
            break;
        }
        *value = value.wrapping_mul(100_000_000).wrapping_add(parse_eight(word));
        text = rest;
    }
    while let [byte @ b'0'..=b'9', rest @ ..] = text {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(byte & 15));
        text = rest;
    }
    text
}

/// Whether all bytes of the word are ASCII digits: adding 0x46 carries into bit
/// 7 above '9', subtracting 0x30 borrows into it below '0'.
#[inline]
const fn eight_digits(word: u64) -> bool {
    let above = word.wrapping_add(0x4646_4646_4646_4646);
    let below = word.wrapping_sub(0x3030_3030_3030_3030);
    (above | below) & 0x8080_8080_8080_8080 == 0
}

/// Value of eight ASCII digits, by pairs, then fours, then all.
#[inline]
const fn parse_eight(word: u64) -> u64 {
    let ones = word.wrapping_sub(0x3030_3030_3030_3030);
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

#[inline]
fn take_exponent(text: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut value = 0_i64;
    let before = rest.len();
    while let [byte @ b'0'..=b'9', tail @ ..] = rest {
        // Saturates far beyond any exponent that makes a difference.
        value = value.saturating_mul(10).saturating_add(i64::from(byte & 15)).min(1 << 40);
        rest = tail;
    }
    if rest.len() == before {
        return Err(Fault::NoExponent);
    }
    Ok((if negative { value.wrapping_neg() } else { value }, rest))
}

/// Whether more than [`MAX_DIGITS`] digits follow the leading zeros.
#[cold]
fn is_long(number: &[u8]) -> bool {
    let mantissa = number.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    mantissa.filter(|&&byte| byte != b'.').skip_while(|&&byte| byte == b'0').count() > MAX_DIGITS
}

impl Literal<'_> {
    /// Sign and, when the fast way is certain, the bits of the magnitude.
    #[inline]
    pub(super) fn round(&self, format: Format) -> (bool, Option<u64>) {
        let bits = if self.long { None } else { fast(self.digits, self.exponent, format) };
        (self.negative, bits)
    }
}

/// Smallest power of ten in [`POWERS`]; the largest is 38.
const MIN_POWER: i64 = -64;
const POWER_COUNT: usize = 103;

/// `5^e` for `e` from [`MIN_POWER`] on, normalised to 128 bits and rounded down.
static POWERS: [u128; POWER_COUNT] = powers();

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where an overflow or a bad index is a build error"
)]
const fn powers() -> [u128; POWER_COUNT] {
    let mut table = [0; POWER_COUNT];
    let mut power = 1_u128;
    let mut i = 64;
    while i < POWER_COUNT {
        table[i] = power << power.leading_zeros();
        power *= 5;
        i += 1;
    }
    // floor(2^383 / 5^k), most significant limb first: dividing a floor by 5
    // again gives the floor of the whole division, so no error builds up.
    let mut limbs = [0_u32; 12];
    limbs[0] = 1 << 31;
    let mut k = 1;
    while k <= 64 {
        let mut rest = 0_u64;
        let mut j = 0;
        while j < 12 {
            let part = (rest << 32) | limbs[j] as u64;
            limbs[j] = (part / 5) as u32;
            rest = part % 5;
            j += 1;
        }
        table[64 - k] = leading_bits(&limbs);
        k += 1;
    }
    table
}

/// The 128 bits from the first set bit on.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where an overflow or a bad index is a build error"
)]
const fn leading_bits(limbs: &[u32; 12]) -> u128 {
    let mut first = 0;
    while limbs[first] == 0 {
        first += 1;
    }
    let mut head = 0_u128;
    let mut j = 0;
    while j < 4 {
        head = (head << 32) | limbs[first + j] as u128;
        j += 1;
    }
    let shift = limbs[first].leading_zeros();
    if shift == 0 { head } else { (head << shift) | (limbs[first + 4] >> (32 - shift)) as u128 }
}

/// Bits of `digits * 10^exponent`, or `None` when a normal number is not certain.
#[inline]
fn fast(digits: u64, exponent: i64, format: Format) -> Option<u64> {
    if digits == 0 {
        return Some(0);
    }
    let index = usize::try_from(exponent.wrapping_sub(MIN_POWER)).ok()?;
    let power = *POWERS.get(index)?;
    let shift = digits.leading_zeros();
    let factor = u128::from(digits.wrapping_shl(shift));
    // Top 128 bits of the 192-bit product. The power is short by less than one
    // unit, so the true value lies within two units above what is kept.
    let low = factor.wrapping_mul(power & u128::from(u64::MAX));
    let top = factor.wrapping_mul(power >> 64).wrapping_add(low >> 64);
    // Normalised, within four.
    let normal = top.leading_zeros() & 1;
    let bits = top.wrapping_shl(normal);
    let cut = 128_u32.wrapping_sub(format.precision);
    let rest = bits & u128::MAX.wrapping_shr(format.precision);
    let half = 1_u128.wrapping_shl(cut.wrapping_sub(1));
    if rest.wrapping_sub(half.wrapping_sub(4)) <= 4 {
        return None;
    }
    // Fits: at most 53 bits, and one more when rounding up carries, which then
    // increments the exponent field by itself below.
    let significand = u64::try_from(bits.wrapping_shr(cut)).ok()?;
    let rounded = significand.wrapping_add(u64::from(rest > half));
    // floor(log2(10^e)) for |e| <= 64.
    let scale = exponent.wrapping_mul(217_706) >> 16;
    let binary = scale.wrapping_add(64).wrapping_sub(i64::from(shift.wrapping_add(normal)));
    let max = i64::from(format.max_exponent);
    // The exponents next to the ends are left to the slow way, so that carries
    // need no thought.
    if binary >= max || binary < 2_i64.wrapping_sub(max) {
        return None;
    }
    let biased = u64::try_from(binary.wrapping_add(max)).ok()?;
    let field = format.precision.wrapping_sub(1);
    Some(biased.wrapping_sub(1).wrapping_shl(field).wrapping_add(rounded))
}

/// The literal as f32, for what [`Literal::round`] leaves open.
#[cold]
pub(super) fn slow_f32(literal: &Literal<'_>) -> Option<f32> {
    fast_float2::parse(literal.token).ok()
}

/// The literal as f64, for what [`Literal::round`] leaves open.
#[cold]
pub(super) fn slow_f64(literal: &Literal<'_>) -> Option<f64> {
    fast_float2::parse(literal.token).ok()
}

/// Bits of the magnitude in a type narrower than f32, for what
/// [`Literal::round`] leaves open; `None` above the largest finite number. The
/// nearest f64 decides unless it lies half way between two narrow numbers: only
/// then can the exact value round differently, and it is compared.
#[cold]
pub(super) fn slow_narrow(literal: &Literal<'_>, format: Format) -> Option<u64> {
    let near = slow_f64(literal).filter(|near| near.is_finite())?.abs();
    let max = i64::from(format.max_exponent);
    let least = 1_i64.wrapping_sub(max);
    let field = near.to_bits() >> 52;
    if field == 0 {
        return Some(0); // far below either narrow type
    }
    let significand = (near.to_bits() & (u64::MAX >> 12)) | (1 << 52);
    let binary = field.cast_signed().wrapping_sub(1023);
    let below = u32::try_from(least.saturating_sub(binary).max(0)).ok()?;
    let cut = 53_u32.wrapping_sub(format.precision).wrapping_add(below);
    if cut > 54 {
        return Some(0);
    }
    let kept = significand.wrapping_shr(cut);
    let rest = significand & u64::MAX.wrapping_shr(64_u32.wrapping_sub(cut));
    let up = match rest.cmp(&1_u64.wrapping_shl(cut.wrapping_sub(1))) {
        Ordering::Equal => compare(literal, near).then(kept.cmp(&(kept & !1))),
        decided => decided,
    };
    let rounded = kept.wrapping_add(u64::from(up == Ordering::Greater));
    let biased = u64::try_from(binary.max(least).wrapping_sub(least)).ok()?;
    let bits = biased.wrapping_shl(format.precision.wrapping_sub(1)).wrapping_add(rounded);
    let infinity = u64::try_from(max).ok()?.wrapping_mul(2).wrapping_add(1);
    (bits < infinity.wrapping_shl(format.precision.wrapping_sub(1))).then_some(bits)
}

/// Compares the magnitude of a literal with a positive number, exactly.
fn compare(literal: &Literal<'_>, value: f64) -> Ordering {
    if !literal.long && literal.digits < 1 << 53 && (-22..=0).contains(&literal.exponent) {
        // All three numbers are exact, and the fused operation rounds once, so
        // the sign of the difference is right.
        let places = u32::try_from(literal.exponent.unsigned_abs()).unwrap_or(0);
        let power = 10_u128.wrapping_pow(places) as f64;
        let excess = value.mul_add(power, -(literal.digits as f64));
        return 0.0.partial_cmp(&excess).unwrap_or(Ordering::Equal);
    }
    // Ties of the narrow types have at most 13 significant bits and exponents
    // from -149 on: 160 digits show them in full.
    let exact = format!("{value:.160e}");
    let (left, left_point) = significant(literal.token);
    let (right, right_point) = significant(exact.as_bytes());
    left_point.cmp(&right_point).then_with(|| left.cmp(&right))
}

/// Digits without zeros at either end, and the decimal exponent of the first.
fn significant(token: &[u8]) -> (Vec<u8>, i64) {
    let token = token.strip_prefix(b"-").unwrap_or(token);
    let end = token.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(token.len());
    let (mantissa, tail) = token.split_at_checked(end).unwrap_or((token, &[]));
    let exponent = tail.get(1..).and_then(|tail| take_exponent(tail).ok()).map_or(0, |(e, _)| e);
    let whole = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(|&byte| byte != b'.').collect();
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    digits.drain(..zeros);
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    let point = i64::try_from(whole).unwrap_or(i64::MAX);
    let zeros = i64::try_from(zeros).unwrap_or(i64::MAX);
    (digits, exponent.saturating_add(point).saturating_sub(zeros))
}

#[cfg(test)]
mod tests {
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
}

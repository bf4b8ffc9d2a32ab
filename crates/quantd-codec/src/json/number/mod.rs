//! Decimal literals to floating-point numbers, correctly rounded in one step.
//!
//! A literal is read once: its digits become a 64-bit integer `w` and a decimal
//! exponent `e`. `w * 10^e` is then taken from a 128-bit approximation of
//! `5^e`, or of its upper half, which bounds the true value from both sides; when both bounds round to
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
#[inline(always)]
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
/// many, and returns what follows. Numbers of one array have digits by the eight and some more, seldom
/// as many as the number before: a loop over the digits would end where nobody foresaw it.
#[inline(always)]
fn take_digits<'a>(mut text: &'a [u8], value: &mut u64) -> &'a [u8] {
    while let Some((chunk, rest)) = text.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let (count, digits) = leading_digits(word);
        let Some(power) = TENS.get(count) else { return text };
        *value = value.wrapping_mul(*power).wrapping_add(digits);
        if count < 8 {
            return text.get(count..).unwrap_or_default();
        }
        text = rest;
    }
    while let [byte @ b'0'..=b'9', rest @ ..] = text {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(byte & 15));
        text = rest;
    }
    text
}

/// Powers of ten.
const TENS: [u64; 9] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many of eight bytes, the lowest first, are ASCII digits before one that is none, and their value.
#[inline(always)]
fn leading_digits(word: u64) -> (usize, u64) {
    let ones = word.wrapping_sub(0x3030_3030_3030_3030);
    // Adding 0x46 carries into bit 7 above '9', subtracting 0x30 borrows into it below '0'. What is carried or
    // borrowed further spoils no byte but those after the first that is no digit.
    let others = (word.wrapping_add(0x4646_4646_4646_4646) | ones) & 0x8080_8080_8080_8080;
    let bits = others.trailing_zeros() & 0x78;
    // Zeros in front, in place of what follows; in two steps, as all 64 bits are too many for one.
    let half = 64_u32.wrapping_sub(bits) >> 1;
    let digits = ones.wrapping_shl(half).wrapping_shl(half);
    ((bits >> 3) as usize, eight(digits))
}

/// Value of eight digits from 0 to 9, the first one in the lowest byte, by pairs, then fours, then all.
#[inline(always)]
const fn eight(ones: u64) -> u64 {
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
    #[inline(always)]
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
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where an overflow or a bad index is a build error; \
              a quotient by 5 of what is below 5 * 2^32 fits 32 bits"
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
#[inline(always)]
fn fast(digits: u64, exponent: i64, format: Format) -> Option<u64> {
    if digits == 0 {
        return Some(0);
    }
    let index = usize::try_from(exponent.wrapping_sub(MIN_POWER)).ok()?;
    let power = *POWERS.get(index)?;
    let shift = digits.leading_zeros();
    let factor = digits.wrapping_shl(shift);
    let short = short_product(factor, power, format.precision);
    let (rounded, normal) = match short {
        Some(found) => found,
        None => long_product(factor, power, format.precision)?,
    };
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

/// The product of a factor and a power, both with their highest bit set, rounded to `precision` bits (at most 53,
/// and one more when that carries, which then increments the exponent field by itself), and by
/// how many bits it was shifted to have its highest bit set. From the upper half of the power: `None` where it does
/// not decide.
#[inline(always)]
fn short_product(factor: u64, power: u128, precision: u32) -> Option<(u64, u32)> {
    let product = u128::from(factor).wrapping_mul(power >> 64);
    // What is cut off, and what the lower half of the power would add, is less than one unit each.
    let top = (product >> 64) as u64;
    let normal = top.leading_zeros() & 1;
    let bits = top.wrapping_shl(normal);
    let rest = bits & u64::MAX.wrapping_shr(precision);
    let cut = 64_u32.wrapping_sub(precision);
    let half = 1_u64.wrapping_shl(cut.wrapping_sub(1));
    // The true value lies within four units above, and a little for the power itself.
    if rest.wrapping_sub(half.wrapping_sub(5)) <= 5 {
        return None;
    }
    Some((bits.wrapping_shr(cut).wrapping_add(u64::from(rest > half)), normal))
}

/// The same from all of the power.
#[cold]
fn long_product(factor: u64, power: u128, precision: u32) -> Option<(u64, u32)> {
    let factor = u128::from(factor);
    // Top 128 bits of the 192-bit product. The power is short by less than one
    // unit, so the true value lies within two units above what is kept.
    let low = factor.wrapping_mul(power & u128::from(u64::MAX));
    let top = factor.wrapping_mul(power >> 64).wrapping_add(low >> 64);
    // Normalised, within four.
    let normal = top.leading_zeros() & 1;
    let bits = top.wrapping_shl(normal);
    let cut = 128_u32.wrapping_sub(precision);
    let rest = bits & u128::MAX.wrapping_shr(precision);
    let half = 1_u128.wrapping_shl(cut.wrapping_sub(1));
    if rest.wrapping_sub(half.wrapping_sub(4)) <= 4 {
        return None;
    }
    let significand = u64::try_from(bits.wrapping_shr(cut)).ok()?;
    Some((significand.wrapping_add(u64::from(rest > half)), normal))
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
        decided @ (Ordering::Less | Ordering::Greater) => decided,
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
mod tests;

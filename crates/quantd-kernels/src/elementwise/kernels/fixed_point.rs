//! Codes in fixed point, where no sums are wanted.
//!
//! With `r = fl(1 / s)`, `z` the zero point, `o` the smallest code (0 where all codes of
//! the type may be used, as their limits are those of narrowing), `e = 2^-16` and
//! `w = 4 e`,
//!
//! ```text
//! v = round(fma(x, r / e, (z - o + 1/2 + w) / e))
//! ```
//!
//! is a 32-bit integer whose upper word is the code, counted from `o`, and whose
//! lower word says how far the quotient is from a tie. Powers of two change no rounding, and the
//! addend is exact: it has no more than 24 bits.
//!
//! # Where that is not exact
//! The code to be found is that of `fl(x / s)` or `fl(x r)`. Let `Q = x / s`. Where the code does
//! not saturate, `|Q| < 256`, because zero points are codes. Then `r` moves the product by no
//! more than `2^-24 |Q| <= e`; the rounding of the multiply-add and that of the integer come to
//! `3 e / 4` together, as a number that is not yet whole has a last bit of `e / 2` or less;
//! the definition rounds its quotient by `e / 2`, and by as much again where it adds the zero
//! point before it rounds. That is less than `3 e` in all, so that quotients beside a
//! tie, and all that may have been moved across it, have lower words of 1 to 7. Elements
//! with lower words of 0 to 7 get their codes from `scalar`, one by one: of random
//! elements, one in 8192.
//!
//! Above and below, `v` is monotonic, and narrowing the upper word saturates. Whatever
//! does not fit 32 bits, infinities and NaN become `2^31`, whose lower word is 0; so
//! does all that a reciprocal whose multiple overflows makes of numbers.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "codes fit a byte: `Bytes` checked their range"
)]

use super::Bytes;

/// `1 / e`.
pub(super) const UNIT: f32 = 65_536.0;
/// `w / e`.
const AWAY: f32 = 4.0;
/// Bits of a lower word that are 0 near a tie.
pub(super) const NEAR_TIE: i32 = 0xfff8;

/// All codes of unsigned types, and of signed ones.
pub(super) const ALL_UNSIGNED: u8 = 0;
pub(super) const ALL_SIGNED: u8 = 1;
/// Other codes.
pub(super) const SOME: u8 = 2;

/// Constants of a range of codes.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// What is added to a product where the zero point is 0.
    pub(super) origin: f32,
    /// The largest code, counted from the smallest, which is `base`.
    pub(super) span: u8,
    pub(super) base: u8,
}

impl Bytes<'_> {
    /// Constants of the codes, and which these are.
    pub(super) const fn fixed_point(&self) -> (Codes, u8) {
        let [min, max] = [self.how.range.min, self.how.range.max];
        let (kind, base) = match (min, max) {
            (0, 255) => (ALL_UNSIGNED, 0),
            (-128, 127) => (ALL_SIGNED, 0),
            _ => (SOME, min),
        };
        let origin = (0.5 - base as f32) * UNIT + AWAY;
        (Codes { origin, span: (max - min) as u8, base: base as u8 }, kind)
    }
}

//! Codes narrower than a byte as one little-endian bit stream.
//!
//! Element `i` occupies the bits `[i * bits, (i + 1) * bits)` of the stream,
//! two's complement when signed. Four bits are therefore low nibble first, as
//! ONNX packs INT4, and two bits are four a byte, lowest first. The last byte is
//! padded with zero bits. The stream carries neither count nor width: whoever
//! unpacks must know both.

use std::borrow::Cow;

use crate::{ErrorKind, QuantError};

/// Codes of one group: eight codes of `n` bits fill exactly `n` bytes, so that
/// every group but the last starts and ends at a byte.
const GROUP: usize = 8;

/// How codes lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    bits: u32,
}

impl Packing {
    /// Codes of so many bits; outside `1..=8` the nearest of those.
    #[must_use]
    pub(super) const fn new(bits: u32) -> Self {
        Self {
            bits: if bits < 1 {
                1
            } else if bits > 8 {
                8
            } else {
                bits
            },
        }
    }

    /// Bits of a code.
    #[must_use]
    pub(super) const fn bits(self) -> u32 {
        self.bits
    }

    /// Packs codes, one a byte, into as many bytes as they take; higher bits are cut off, so `i8` patterns may be
    /// passed as they are.
    pub(super) fn pack(self, codes: &[u8], out: &mut [u8]) {
        debug_assert_eq!(Some(out.len()), packed_len(codes.len(), self.bits));
        let width = usize::try_from(self.bits).unwrap_or(GROUP);
        match self.bits {
            8 => out.copy_from_slice(codes),
            // Simple enough for vectors.
            4 => {
                let (pairs, rest) = codes.as_chunks::<2>();
                let all = out.iter_mut().zip(pairs);
                all.for_each(|(out, [low, high])| *out = (low & 15) | (high << 4));
                if let (Some(out), [low]) = (out.last_mut(), rest) {
                    *out = low & 15;
                }
            }
            bits => {
                for (out, group) in out.chunks_mut(width).zip(codes.chunks(GROUP)) {
                    let word = gather(word_of(group), bits);
                    out.iter_mut().zip(word.to_le_bytes()).for_each(|(out, byte)| *out = byte);
                }
            }
        }
    }

    /// Undoes [`pack`](Self::pack), without signs.
    pub(super) fn unpack(self, packed: &[u8], codes: &mut [u8]) {
        debug_assert_eq!(Some(packed.len()), packed_len(codes.len(), self.bits));
        let width = usize::try_from(self.bits).unwrap_or(GROUP);
        match self.bits {
            8 => codes.copy_from_slice(packed),
            4 => {
                let (pairs, rest) = codes.as_chunks_mut::<2>();
                let all = pairs.iter_mut().zip(packed);
                all.for_each(|(pair, &byte)| *pair = [byte & 15, byte >> 4]);
                if let ([code], Some(&byte)) = (rest, packed.last()) {
                    *code = byte & 15;
                }
            }
            bits => {
                for (codes, part) in codes.chunks_mut(GROUP).zip(packed.chunks(width)) {
                    let word = scatter(word_of(part), bits);
                    codes.iter_mut().zip(word.to_le_bytes()).for_each(|(code, byte)| *code = byte);
                }
            }
        }
    }
}

/// At most eight bytes, the first one lowest, with zeros above.
fn word_of(bytes: &[u8]) -> u64 {
    if let Ok(bytes) = bytes.try_into() {
        return u64::from_le_bytes(bytes);
    }
    bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte))
}

/// The low `bits` of each of eight bytes side by side: neighbours join, then
/// pairs, then fours.
fn gather(word: u64, bits: u32) -> u64 {
    steps(bits)
        .into_iter()
        .fold(word, |word, (own, width, shift)| (word & own) | ((word >> shift) & (own << width)))
}

/// What [`gather`] undoes.
fn scatter(word: u64, bits: u32) -> u64 {
    steps(bits)
        .into_iter()
        .rev()
        .fold(word, |word, (own, width, shift)| (word & own) | ((word & (own << width)) << shift))
}

/// Of each step: the fields that stay, their width, how far those that join them move.
fn steps(bits: u32) -> [(u64, u32, u32); 3] {
    [(0, 8, 0x0001_0001_0001_0001_u64), (1, 16, 0x0000_0001_0000_0001), (2, 32, 1)].map(
        |(doubled, apart, fields): (u32, u32, u64)| {
            let width = bits.wrapping_shl(doubled);
            (fields.wrapping_mul(low(width)), width, apart.saturating_sub(width))
        },
    )
}

/// The lowest `bits` bits; `bits` is in `1..=64`.
fn low(bits: u32) -> u64 {
    u64::MAX.wrapping_shr(64_u32.wrapping_sub(bits))
}

/// Bytes of `count` packed codes, or `None` when that overflows or `bits` is
/// not in `1..=8`.
#[must_use]
pub(super) fn packed_len(count: usize, bits: u32) -> Option<usize> {
    if !(1..=8).contains(&bits) {
        return None;
    }
    // Whole groups first: `count * bits` could overflow where the bytes do not.
    let width = usize::try_from(bits).ok()?;
    let whole = (count / GROUP).checked_mul(width)?;
    let rest = (count % GROUP).checked_mul(width)?.div_ceil(8);
    whole.checked_add(rest)
}

/// Refuses another number of bytes than so many packed codes take.
///
/// # Errors
/// Says how many they take.
pub(super) fn check_len(packed: &[u8], bits: u32, count: usize) -> Result<(), QuantError> {
    let Some(expected) = packed_len(count, bits) else {
        return Err(malformed("the width of packed codes must be 1 to 8 bits"));
    };
    if packed.len() != expected {
        return Err(malformed(format!(
            "{} bytes of packed codes where {count} codes of {bits} bits take {expected}",
            packed.len()
        )));
    }
    Ok(())
}

/// Unpacks `count` codes to one a byte, sign-extended to `i8` patterns when
/// `signed`.
///
/// # Errors
/// The length is not exactly [`packed_len`], or a padding bit is set.
pub(super) fn unpack(
    packed: &[u8],
    bits: u32,
    signed: bool,
    count: usize,
) -> Result<Vec<u8>, QuantError> {
    check(packed, bits, count)?;
    let mut out = vec![0; count];
    Packing::new(bits).unpack(packed, &mut out);
    if signed {
        out.iter_mut().for_each(|code| *code = extend(*code, bits));
    }
    Ok(out)
}

/// Refuses what is not so many packed codes: another number of bytes, or padding that is not zero.
///
/// # Errors
/// Says what is wrong.
pub(super) fn check(packed: &[u8], bits: u32, count: usize) -> Result<(), QuantError> {
    check_len(packed, bits, count)?;
    let width = usize::try_from(bits).unwrap_or(GROUP);
    let last = packed.chunks(width).next_back().map_or(0, word_of);
    let used = u32::try_from(count % GROUP).unwrap_or(0).wrapping_mul(bits);
    if used != 0 && last.wrapping_shr(used) != 0 {
        return Err(malformed("the padding bits of the last packed byte are not zero")
            .cure("zero the bits behind the last code"));
    }
    Ok(())
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> QuantError {
    QuantError::of(ErrorKind::Malformed, "shape", detail)
}

/// Repeats the sign bit of a two's complement code of `bits` bits.
fn extend(code: u8, bits: u32) -> u8 {
    let sign = 1_u8.wrapping_shl(bits.wrapping_sub(1));
    (code ^ sign).wrapping_sub(sign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout_is_low_bits_first() {
        let check = |codes: &[u8], bits, expect: &[u8]| {
            assert_eq!(pack(codes, bits), expect, "{codes:?} at {bits}");
        };
        check(&[1, 2, 3], 4, &[0x21, 0x03]);
        check(&[0xff, 0x08], 4, &[0x8f]);
        check(&[1, 2, 3, 0, 1], 2, &[0b0011_1001, 1]);
        check(&[1, 0, 1, 1, 0, 0, 0, 1, 1], 1, &[0b1000_1101, 1]);
        check(&[7, 0, 7], 3, &[0b1100_0111, 1]);
        check(&[250, 3], 8, &[250, 3]);
        check(&[], 5, &[]);
    }

    #[test]
    fn signs_are_extended() {
        let unpacked = unpack(&[0x8f], 4, true, 2).unwrap();
        assert_eq!(unpacked, [0xff, 0xf8]);
        assert_eq!(unpack(&[0x8f], 4, false, 2).unwrap(), [15, 8]);
        assert_eq!(unpack(&[0b10], 1, true, 2).unwrap(), [0, 0xff]);
    }

    #[test]
    fn lengths_do_not_overflow() {
        assert_eq!(packed_len(usize::MAX, 8), Some(usize::MAX));
        assert_eq!(packed_len(usize::MAX, 4), Some(1 << 63));
        assert_eq!(packed_len(9, 7), Some(8));
        assert_eq!(packed_len(0, 3), Some(0));
        assert_eq!(packed_len(1, 0), None);
        assert_eq!(packed_len(1, 9), None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let check = |packed: &[u8], bits, count, detail: &str| {
            let error = unpack(packed, bits, false, count).unwrap_err();
            assert_eq!(error.detail, detail);
        };
        let long = "2 bytes of packed codes where 2 codes of 4 bits take 1";
        check(&[0, 0], 4, 2, long);
        check(&[], 4, 1, "0 bytes of packed codes where 1 codes of 4 bits take 1");
        check(&[0x10], 4, 1, "the padding bits of the last packed byte are not zero");
        check(&[0], 9, 1, "the width of packed codes must be 1 to 8 bits");
        check(&[0], 0, 1, "the width of packed codes must be 1 to 8 bits");
    }

    fn pack(codes: &[u8], bits: u32) -> Vec<u8> {
        let mut packed = vec![0xaa; packed_len(codes.len(), bits).unwrap()];
        Packing::new(bits).pack(codes, &mut packed);
        packed
    }

    fn mask(bits: u32) -> u8 {
        u8::MAX >> (8 - bits)
    }

    proptest! {
        #[test]
        fn round_trips(codes in prop::collection::vec(any::<u8>(), 0..70), bits in 1_u32..=8) {
            let packed = pack(&codes, bits);
            prop_assert_eq!(Some(packed.len()), packed_len(codes.len(), bits));
            let unsigned = unpack(&packed, bits, false, codes.len()).unwrap();
            let signed = unpack(&packed, bits, true, codes.len()).unwrap();
            for ((&code, &u), &s) in codes.iter().zip(&unsigned).zip(&signed) {
                prop_assert_eq!(u, code & mask(bits));
                let sign = u >> (bits - 1) != 0;
                prop_assert_eq!(i16::from(s.cast_signed()), i16::from(u) - if sign { 1 << bits } else { 0 });
            }
            for (i, &u) in unsigned.iter().enumerate() {
                let bit = i * bits as usize;
                let at = |k: usize| (packed[k / 8] >> (k % 8)) & 1;
                let direct = (0..bits as usize).map(|k| at(bit + k) << k).sum::<u8>();
                prop_assert_eq!(u, direct);
            }
        }
    }
}

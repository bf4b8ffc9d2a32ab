//! Codes below 8 bits as one little-endian bit stream.
//!
//! Element `i` occupies the bits `i * bits .. (i + 1) * bits` of the stream,
//! counted from the low end of the first byte, in two's complement for signed
//! codes. At 4 bits that is ONNX's packing (first element in the low nibble),
//! at 2 bits four codes a byte, low first; the last byte is padded with zeros.

use super::CodecError;

/// Bytes of `count` packed codes, or `None` when that overflows.
#[must_use]
pub fn packed_len(count: usize, bits: u32) -> Option<usize> {
    Some(count.checked_mul(usize::try_from(bits).ok()?)?.div_ceil(8))
}

/// Packs codes that lie one a byte; `bits` is 1 to 8.
#[must_use]
pub fn pack(codes: &[u8], bits: u32) -> Vec<u8> {
    let mask = low_bits(bits);
    let mut packed = Vec::with_capacity(packed_len(codes.len(), bits).unwrap_or(0));
    // Eight codes fill `bits` whole bytes.
    for group in codes.chunks(8) {
        let mut word = 0_u64;
        for &code in group.iter().rev() {
            word = word << bits | u64::from(code & mask);
        }
        let len = packed_len(group.len(), bits).unwrap_or(0);
        packed.extend(word.to_le_bytes().iter().take(len));
    }
    packed
}

/// Unpacks `count` codes to one a byte, sign-extended when `signed`.
///
/// # Errors
/// When there are not as many bytes as `count` codes fill, or padding bits are set.
pub fn unpack(packed: &[u8], bits: u32, signed: bool, count: usize) -> Result<Vec<u8>, CodecError> {
    let expected = packed_len(count, bits)
        .ok_or_else(|| CodecError::malformed("too many packed codes for their shape"))?;
    if packed.len() != expected {
        return Err(CodecError::malformed(format!(
            "{count} codes of {bits} bits fill {expected} bytes, there are {}",
            packed.len()
        )));
    }
    let mask = low_bits(bits);
    let sign = if signed { mask ^ mask >> 1 } else { 0 };
    let group_bytes = usize::try_from(bits).unwrap_or(8);
    let mut codes = Vec::with_capacity(count);
    let mut padding = 0;
    for group in packed.chunks(group_bytes) {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(group).for_each(|(to, from)| *to = *from);
        let mut word = u64::from_le_bytes(bytes);
        for _ in 0..count.saturating_sub(codes.len()).min(8) {
            let [low, ..] = word.to_le_bytes();
            let code = low & mask;
            // Two's complement: (code ^ sign) - sign extends the sign bit.
            codes.push((code ^ sign).wrapping_sub(sign));
            word = word.checked_shr(bits).unwrap_or(0);
        }
        padding |= word;
    }
    if padding != 0 {
        return Err(CodecError::malformed("bits after the last packed code are set"));
    }
    Ok(codes)
}

const fn low_bits(bits: u32) -> u8 {
    match 0xff_u8.checked_shr(8_u32.saturating_sub(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bits_are_low_nibble_first() {
        assert_eq!(pack(&[1, 2, 3], 4), [0x21, 0x03]);
        assert_eq!(pack(&[0xff, 0x80, 0x07], 4), [0x0f, 0x07]);
        assert_eq!(pack(&[1, 2, 3, 0, 1], 2), [0b0011_1001, 1]);
        // compressed-tensors 0.18 packs 3 bits densely: -4..3 offset by 4 is 0..7.
        assert_eq!(pack(&[0, 1, 2, 3, 4, 5, 6, 7], 3), [0x88, 0xc6, 0xfa]);
    }

    #[test]
    fn packing_is_reversible() {
        for bits in 1..=8 {
            for count in 0..40_usize {
                let codes: Vec<u8> =
                    (0..count).map(|i| (i * 37 % 256) as u8 & low_bits(bits)).collect();
                let packed = pack(&codes, bits);
                assert_eq!(Some(packed.len()), packed_len(count, bits));
                assert_eq!(unpack(&packed, bits, false, count).unwrap(), codes);
                let signed = unpack(&packed, bits, true, count).unwrap();
                assert_eq!(pack(&signed, bits), packed, "{bits} {count}");
            }
        }
        assert_eq!(unpack(&[0xf8, 0x01], 4, true, 3).unwrap(), [0xf8, 0xff, 1]);
    }

    #[test]
    fn wrong_lengths_and_padding_are_refused() {
        let text = |packed: &[u8], count| unpack(packed, 4, true, count).unwrap_err().to_string();
        assert_eq!(text(&[1], 3), "3 codes of 4 bits fill 2 bytes, there are 1");
        assert_eq!(text(&[1, 0x10], 3), "bits after the last packed code are set");
        assert_eq!(text(&[], usize::MAX), "too many packed codes for their shape");
    }
}

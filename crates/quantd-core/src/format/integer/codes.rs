//! Which codes may stand where codes are taken.

use rayon::prelude::*;

use crate::tensor::{DType, Tensor};
use quantd_kernels::scalar::CodeRange;

use crate::QuantError;
use crate::partition::CHUNK;

/// What a caller says of codes beside their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Bits of a code: 2 to 8, or 16.
    pub bits: Option<u32>,
    /// Two's complement codes rather than unsigned ones.
    pub signed: Option<bool>,
}

impl Stated {
    /// Refuses codes, and zero points among them, that are not of the stated ones; of types that hold no codes nothing
    /// is said here.
    ///
    /// # Errors
    /// [`QuantError`] about `codes` or `zero_point` names the first element.
    pub fn check(self, codes: &Tensor, zero_points: &[i32]) -> Result<(), QuantError> {
        let Some((signed, width)) = kind(codes.dtype()) else { return Ok(()) };
        if let Some(stated) = self.signed.filter(|&stated| stated != signed) {
            let name = if stated { "a signed" } else { "an unsigned" };
            return Err(QuantError::field(
                "codes",
                format!("{} codes of {name} scheme", codes.dtype()),
            )
            .cure(format!("send codes of the other sign, or signed: {signed}")));
        }
        let bits = self.bits.unwrap_or(width).min(width);
        let range = range(signed, bits);
        let wrong = |field, i: usize| {
            let what = self.bits.map_or_else(String::new, |bits| format!(" of {bits} bits"));
            Err(QuantError::field(field, format!("element {i} is not a code{what}"))
                .cure(format!("use {} to {}", range.min, range.max)))
        };
        if bits < width
            && let Some(i) = first_outside(codes, range)
        {
            return wrong("codes", i);
        }
        match zero_points.iter().position(|zero| !(range.min..=range.max).contains(zero)) {
            Some(i) => wrong("zero_point", i),
            None => Ok(()),
        }
    }
}

/// Whether a type of codes is signed, and its bits.
const fn kind(dtype: DType) -> Option<(bool, u32)> {
    match dtype {
        DType::I8 => Some((true, 8)),
        DType::U8 => Some((false, 8)),
        DType::I16 => Some((true, 16)),
        DType::U16 => Some((false, 16)),
        DType::I32 => Some((true, 32)),
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => None,
        DType::I64 | DType::U64 | DType::U32 => None,
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            None
        }
    }
}

/// All codes of so many bits.
const fn range(signed: bool, bits: u32) -> CodeRange {
    if signed {
        CodeRange { min: i32::MIN >> (32 - bits), max: i32::MAX >> (32 - bits) }
    } else {
        CodeRange { min: 0, max: (1 << bits) - 1 }
    }
}

/// The first of the codes, integers of up to 32 bits, that is outside of `range`, whose ends their type holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low bits of numbers that the type holds"
)]
pub(crate) fn first_outside(codes: &Tensor, range: CodeRange) -> Option<usize> {
    let (low, span) = (range.min as u32, range.max.wrapping_sub(range.min) as u32);
    // Less the smallest code and without a sign, exactly those outside are above all others.
    match codes.dtype().size() {
        1 => first_above(codes.bytes(), |code| code.wrapping_sub(low as u8), span as u8),
        2 => {
            first_above(&codes.elements::<u16>(), |code| code.wrapping_sub(low as u16), span as u16)
        }
        4 => first_above(&codes.elements::<u32>(), |code| code.wrapping_sub(low), span),
        _ => None,
    }
}

/// A pass that looks for nothing but the largest, and a second one only over a part that has what is looked for.
fn first_above<T: Copy + Default + Ord + Send + Sync>(
    codes: &[T],
    map: impl Fn(T) -> T + Sync,
    most: T,
) -> Option<usize> {
    let in_part = |(i, part): (usize, &[T])| {
        let largest = part.iter().fold(T::default(), |largest, &code| largest.max(map(code)));
        let found = (largest > most).then(|| part.iter().position(|&code| map(code) > most));
        found.flatten().map(|at| i * CHUNK + at)
    };
    codes.par_chunks(CHUNK).enumerate().find_map_first(in_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn tensor<T: bytemuck::Pod>(dtype: DType, codes: &[T]) -> Tensor {
        Tensor::from_elements(dtype, Shape::vector(codes.len()).unwrap(), codes).unwrap()
    }

    #[test]
    fn codes_of_all_widths_are_held_against_what_is_stated() {
        fn check<T: bytemuck::Pod>(dtype: DType, bits: u32, code: T, zero_point: i32, good: bool) {
            let mut codes = vec![T::zeroed(); CHUNK + 9];
            codes[CHUNK + 5] = code;
            let stated = Stated { bits: Some(bits), signed: None };
            let found = stated.check(&tensor(dtype, &codes), &[0, zero_point]);
            assert_eq!(found.is_ok(), good, "{dtype} {bits} {found:?}");
            if let Err(error) = found {
                let i = if error.field == "codes" { CHUNK + 5 } else { 1 };
                assert_eq!(error.detail, format!("element {i} is not a code of {bits} bits"));
            }
        }
        for (code, zero_point, good) in [
            (7_i8, -8, true),
            (-8, 7, true),
            (8, 0, false),
            (-9, 0, false),
            (0, 8, false),
            (0, -9, false),
        ] {
            check(DType::I8, 4, code, zero_point, good);
            check(DType::I16, 4, i16::from(code), zero_point, good);
            check(DType::I32, 4, i32::from(code), zero_point, good);
        }
        check(DType::U8, 2, 3_u8, 3, true);
        check(DType::U8, 2, 4_u8, 0, false);
        check(DType::U8, 2, 0_u8, -1, false);
        check(DType::U16, 8, 255_u16, 255, true);
        check(DType::U16, 8, 256_u16, 0, false);
        check(DType::U16, 16, 65_535_u16, 65_535, true);
        check(DType::U16, 16, 0_u16, 65_536, false);
        check(DType::I16, 16, -32_768_i16, -32_768, true);
        check(DType::I16, 8, 128_i16, 0, false);
        // Codes of 8 bits are codes of 16 bits.
        check(DType::I8, 16, -128_i8, 127, true);
        check(DType::U8, 16, 255_u8, 256, false);
    }

    #[test]
    fn the_type_says_what_nobody_states() {
        let check = |codes: Tensor, zero_points: &[i32], signed| {
            Stated { bits: None, signed }.check(&codes, zero_points).map_err(|error| error.field)
        };
        assert_eq!(check(tensor(DType::U8, &[255_u8]), &[255], None), Ok(()));
        assert_eq!(check(tensor(DType::U8, &[255_u8]), &[300], None), Err("zero_point"));
        assert_eq!(check(tensor(DType::U8, &[1_u8]), &[0], Some(true)), Err("codes"));
        assert_eq!(check(tensor(DType::I8, &[1_i8]), &[0], Some(false)), Err("codes"));
        assert_eq!(check(tensor(DType::I32, &[i32::MIN]), &[40_000], Some(true)), Ok(()));
        assert_eq!(check(tensor(DType::I8, &[] as &[i8]), &[-129], None), Err("zero_point"));
    }
}

//! Scales that are powers of two.

use quantd_kernels::eighths::F8E8M0;
use quantd_kernels::minifloat::MiniFloat;

use super::element::Element;
use crate::params::Profile;
use crate::scheme::ScaleRounding;

/// What the exponent of a scale counts from.
const BIAS: i32 = 127;

/// The scale of a block whose largest magnitude is `abs_max`: 0, a number or infinity.
///
/// Sources: OCP Microscaling formats 1.0, 6.3 (`floor`); torchao `prototype/mx_formats/mx_tensor.py`; compressed-tensors
/// `quantization/utils/mxfp_utils.py`.
pub(super) fn scale(
    abs_max: f64,
    element: Element,
    (rounding, profile): (ScaleRounding, Profile),
) -> F8E8M0 {
    if abs_max == 0.0 {
        return F8E8M0(0);
    }
    let exponent = match rounding {
        ScaleRounding::Floor => binade(abs_max).0 - element.largest_exponent(),
        ScaleRounding::Ceil => {
            let (exponent, significand) = binade(abs_max);
            exponent + i32::from(significand > 1.0) - element.largest_exponent()
        }
        ScaleRounding::Even => {
            let bits = match (profile, element) {
                // compressed-tensors takes the threshold of E2M1 for E4M3 too.
                (Profile::CompressedTensors, Element::Float(MiniFloat::E4M3)) => 1,
                _ => element.mantissa_bits(),
            };
            let (exponent, significand) = binade(abs_max);
            // Half of the last bit below 2.
            let threshold = 2.0 - 1.0 / f64::from(2 << bits);
            exponent + i32::from(significand >= threshold) - element.largest_exponent()
        }
        ScaleRounding::Rceil => above(abs_max, element.largest()),
    };
    let [pattern, ..] = (exponent.clamp(-BIAS, BIAS) + BIAS).to_le_bytes();
    F8E8M0(pattern)
}

/// Exponent and significand, from 1 to 2, of a positive number; of infinity those that follow the largest f32.
fn binade(x: f64) -> (i32, f64) {
    /// The bits of a mantissa, and of the exponent of 1.
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    if x.is_infinite() {
        return (128, 1.0);
    }
    if x < f64::MIN_POSITIVE {
        let (significand, exponent) = libm::frexp(x);
        return (exponent - 1, 2.0 * significand);
    }
    let [low, high, ..] = (x.to_bits() >> 52).to_le_bytes();
    let exponent = i32::from(u16::from_le_bytes([low, high])) - 1023;
    (exponent, f64::from_bits(x.to_bits() & MANTISSA | ONE))
}

/// The exponent of the least power of two that is no less than `abs_max / largest`, as torchao finds it: by a logarithm
/// in f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded to f32 as the peer does it; exponents are small"
)]
fn above(abs_max: f64, largest: f64) -> i32 {
    let quotient = (abs_max / largest) as f32;
    let logarithm = libm::log2(quotient.into()) as f32;
    logarithm.ceil().clamp(-BIAS as f32, BIAS as f32) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torchao 0.18 and compressed-tensors 0.20, from the project's numerics study.
    #[test]
    fn exponents_of_each_rounding() {
        use ScaleRounding::{Ceil, Even, Floor, Rceil};
        let pattern = |abs_max: f64, float, rounding, profile| {
            scale(abs_max, Element::Float(float), (rounding, profile)).0
        };
        for (abs_max, expect) in [
            (1.5, [125, 126, 125, 125]),
            (1.6, [125, 126, 125, 126]),
            (1.75, [125, 126, 126, 126]),
            (1.999, [125, 126, 126, 126]),
            (6.0, [127, 128, 127, 127]),
            (6.5, [127, 128, 127, 128]),
            (0.0, [0; 4]),
            (f64::INFINITY, [253, 253, 253, 254]),
        ] {
            let found = [Floor, Ceil, Even, Rceil]
                .map(|rounding| pattern(abs_max, MiniFloat::E2M1, rounding, Profile::Torch));
            assert_eq!(found, expect, "{abs_max}");
        }
        for (abs_max, expect) in [
            (448.0, [127, 128, 127, 127]),
            (449.0, [127, 128, 127, 128]),
            (500.0, [127, 128, 128, 128]),
        ] {
            let found = [Floor, Ceil, Even, Rceil]
                .map(|rounding| pattern(abs_max, MiniFloat::E4M3, rounding, Profile::Torch));
            assert_eq!(found, expect, "{abs_max}");
        }
        for (abs_max, expect) in [(1.5, 125), (1.74, 125), (1.75, 126), (1.9, 126)] {
            assert_eq!(pattern(abs_max, MiniFloat::E2M1, Even, Profile::CompressedTensors), expect);
        }
        assert_eq!(pattern(449.0, MiniFloat::E4M3, Even, Profile::CompressedTensors), 128);
        assert_eq!(pattern(447.0, MiniFloat::E4M3, Even, Profile::CompressedTensors), 127);
    }
}

//! Scales as integers: a mantissa and a shift.

/// `mantissa * 2^(exponent - 31)`, as TFLite's `QuantizeMultiplier` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplier {
    mantissa: i32,
    exponent: i32,
}

impl Multiplier {
    /// The nearest to `real`, which is positive and finite. Below 2^-32 it is
    /// 0; from 2^30 on it is the largest there is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^31, and that is seen to")]
    pub fn new(real: f64) -> Self {
        let (fraction, mut exponent) = libm::frexp(real);
        let mut mantissa = (fraction * f64::from(1_u32 << 31)).round() as i64;
        if mantissa == 1 << 31 {
            mantissa /= 2;
            exponent += 1;
        }
        if exponent < -31 {
            return Self { mantissa: 0, exponent: 0 };
        }
        if exponent > 30 {
            return Self { mantissa: i32::MAX, exponent: 30 };
        }
        Self { mantissa: mantissa as i32, exponent }
    }

    /// That of [`parts`](Self::parts).
    #[inline(always)]
    pub(super) const fn of(mantissa: i32, exponent: i32) -> Self {
        Self { mantissa, exponent }
    }

    /// Mantissa (0, or 2^30 to 2^31 - 1) and exponent (-31 to 30).
    pub(super) const fn parts(self) -> (i32, i32) {
        (self.mantissa, self.exponent)
    }

    /// `SaturatingRoundingDoublingHighMul`, then `RoundingDivideByPOT`. Where a
    /// multiplier above 1 shifts the sum beyond 32 bits, it saturates.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a high half is less than 2^31")]
    pub(super) fn twice(self, sum: i32) -> i32 {
        let left = i64::from(sum) << self.exponent.max(0);
        let left = left.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let product = left * i64::from(self.mantissa);
        let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
        let high = ((product + nudge) / (1 << 31)) as i32;
        let right = (-self.exponent).max(0);
        let mask = ((1_i64 << right) - 1) as i32;
        let threshold = (mask >> 1) + i32::from(high < 0);
        (high >> right) + i32::from((high & mask) > threshold)
    }

    /// One shift to the right, ties up.
    #[inline(always)]
    pub(super) fn once(self, sum: i32) -> i64 {
        let shift = 31 - self.exponent;
        let half = 1_i64 << (shift - 1);
        (i64::from(sum) * i64::from(self.mantissa) + half) >> shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `QuantizeMultiplier` in `tflite/kernels/internal/quantization_util.cc`.
    #[test]
    fn multipliers_are_those_of_tflite() {
        for (real, mantissa, exponent) in [
            (0.25, 1 << 30, -1),
            (0.5, 1 << 30, 0),
            (1.0, 1 << 30, 1),
            (32.0, 1 << 30, 6),
            (123.45 / 128.0, 2_071_147_315, 0),
            (1e-20, 0, 0),
        ] {
            assert_eq!(Multiplier::new(real), Multiplier { mantissa, exponent }, "{real}");
        }
    }

    #[test]
    fn ties_go_where_each_definition_sends_them() {
        let half = Multiplier::new(0.5);
        let quarter = Multiplier::new(0.25);
        let twice = |m: Multiplier, sums: [i32; 6]| sums.map(|sum| m.twice(sum));
        let once = |m: Multiplier, sums: [i32; 6]| sums.map(|sum| m.once(sum));
        // Half away from zero is not what the first step does to negative sums: C truncates.
        assert_eq!(twice(half, [1, 3, 5, -1, -3, -5]), [1, 2, 3, 0, -1, -2]);
        assert_eq!(once(half, [1, 3, 5, -1, -3, -5]), [1, 2, 3, 0, -1, -2]);
        assert_eq!(twice(quarter, [2, 6, 10, -2, -6, -10]), [1, 2, 3, -1, -2, -3]);
        assert_eq!(once(quarter, [2, 6, 10, -2, -6, -10]), [1, 2, 3, 0, -1, -2]);
        assert_eq!(Multiplier::new(1e9).twice(i32::MIN), -2_000_000_000);
    }
}

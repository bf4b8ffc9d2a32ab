//! The operations of [`scalar`] on an instruction set.

use super::Isa;
use super::real::Real;
use super::scalar::{self, Affine, Code, CodeRange, Extent, Params, Rounding};
use super::sums::ErrorSums;

impl Isa {
    /// As [`scalar::quantize`].
    pub fn quantize<T: Real, C: Code>(
        self,
        x: &[T],
        params: Params<'_, T>,
        (range, rounding): (CodeRange, Rounding),
        codes: &mut [C],
    ) {
        scalar::quantize(x, params, range, rounding, codes);
    }

    /// As [`scalar::dequantize`].
    pub fn dequantize<T: Real, C: Code>(self, codes: &[C], params: Params<'_, T>, x: &mut [T]) {
        scalar::dequantize(codes, params, x);
    }

    /// As [`scalar::measure`].
    #[must_use]
    pub fn measure<T: Real>(
        self,
        x: &[T],
        params: Params<'_, T>,
        range: CodeRange,
        rounding: Rounding,
    ) -> ErrorSums {
        scalar::measure(x, params, range, rounding)
    }

    /// As [`scalar::squared_error`].
    #[must_use]
    pub fn squared_error<T: Real>(
        self,
        x: &[T],
        affine: Affine<T>,
        range: CodeRange,
        rounding: Rounding,
    ) -> f64 {
        scalar::squared_error(x, affine, range, rounding)
    }

    /// As [`scalar::extent`].
    #[must_use]
    pub fn extent<T: Real>(self, x: &[T]) -> Extent<T> {
        scalar::extent(x)
    }
}

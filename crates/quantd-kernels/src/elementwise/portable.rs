//! Architectures without kernels of their own: none of these does anything,
//! and says so, which leaves the work to the loops of `scalar`.

use super::super::real::Real;
use super::super::scalar::{Code, Extent, Params, QuantParams};
use super::super::sums::LaneSums;
use super::{CodeSpec, Isa, Stores};

pub(super) fn quantize<T: Real, C: Code>(
    _: Isa,
    _: &[T],
    _: Params<'_, T>,
    _: CodeSpec,
    _: &mut [C],
) -> bool {
    false
}

pub(super) fn encode<T: Real, C: Code>(
    _: Isa,
    _: &[T],
    _: Params<'_, T>,
    _: CodeSpec,
    _: &mut [C],
    _: &mut LaneSums,
) -> bool {
    false
}

pub(super) fn measure<T: Real>(
    _: Isa,
    _: &[T],
    _: Params<'_, T>,
    _: CodeSpec,
    _: &mut LaneSums,
) -> bool {
    false
}

pub(super) fn dequantize<T: Real, C: Code>(
    _: Isa,
    _: &[C],
    _: Params<'_, T>,
    _: Stores,
    _: &mut [T],
) -> bool {
    false
}

pub(super) fn squared_error<T: Real>(
    _: Isa,
    _: &[T],
    _: QuantParams<T>,
    _: CodeSpec,
) -> Option<f64> {
    None
}

pub(super) fn extents<T: Real>(_: Isa, _: &[T], _: usize, _: &mut [Extent<T>]) -> bool {
    false
}

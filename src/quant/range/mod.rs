//! stub
use super::{
    Cancel,
    params::{Numerics, Range},
    scheme::RangeMethod,
};
use crate::kernels::real::Real;
use crate::kernels::scalar::Extent;
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    pub values: &'a [T],
    pub extent: Extent<T>,
    pub line: usize,
}
pub fn find<T: Real>(
    _m: &RangeMethod,
    slice: Slice<'_, T>,
    _n: &Numerics,
    _c: &Cancel,
) -> Range<T> {
    Range::around_zero(slice.extent.min, slice.extent.max)
}

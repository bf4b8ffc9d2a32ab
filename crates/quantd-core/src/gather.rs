//! The elements of one slice side by side.

use std::borrow::Cow;

use ndarray::{ArrayView, Axis, IxDyn};

use quantd_kernels::real::Real;

use super::partition::Partition;

/// The elements of slice `slice` in memory order: borrowed where they lie side by side.
pub(super) fn slice<'a, T: Copy>(x: &'a [T], partition: &Partition, slice: usize) -> Cow<'a, [T]> {
    let runs = partition.runs(slice);
    if runs.count == 1 {
        return Cow::Borrowed(&x[runs.start..runs.start + runs.len]);
    }
    let mut values = Vec::with_capacity(runs.elements());
    if runs.len == 1 && runs.count > 0 {
        values.extend(x[runs.start..].iter().step_by(runs.stride).take(runs.count));
    } else {
        for start in runs.starts() {
            values.extend_from_slice(&x[start..start + runs.len]);
        }
    }
    Cow::Owned(values)
}

/// The elements of a whole tensor with `axis` made the fastest-varying one, so
/// that each line along it is contiguous.
pub(super) fn lines<'a, T: Real>(x: &'a [T], dims: &[usize], axis: usize) -> Cow<'a, [T]> {
    if axis + 1 == dims.len() {
        return Cow::Borrowed(x);
    }
    match ArrayView::from_shape(IxDyn(dims), x) {
        Ok(view) => Cow::Owned(view.lanes(Axis(axis)).into_iter().flatten().copied().collect()),
        Err(_) => Cow::Borrowed(x),
    }
}

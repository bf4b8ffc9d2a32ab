//! The extent of every slice, in one pass over memory.

use rayon::prelude::*;

use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::kernels::scalar::Extent;

use super::Cancel;
use super::layout::{Band, CHUNK, Layout};

/// Elements that are not worth sharing between threads.
const SMALL: usize = 4 * CHUNK;

/// Smallest and largest finite element and the non-finite ones of each slice.
///
/// Extents join in any order to the same result, so threads may share the work
/// as they like: each has slices of its own, or, where slices are long, parts
/// of some.
pub(super) fn extents<T: Real>(x: &[T], layout: &Layout, cancel: &Cancel) -> Vec<Extent<T>> {
    let mut table = vec![Extent::default(); layout.slices()];
    let isa = Isa::current();
    if !x.is_empty() {
        let find = Find { x, isa, cancel };
        let bands = table.par_chunks_mut(layout.slices_per_band());
        bands.enumerate().for_each(|(i, own)| find.band(layout.band(i), own));
    }
    table
}

#[derive(Clone, Copy)]
struct Find<'a, T> {
    x: &'a [T],
    isa: Isa,
    cancel: &'a Cancel,
}

impl<T: Real> Find<'_, T> {
    /// Joins the extents of the slices of `band` to `own`.
    fn band(self, band: Band, own: &mut [Extent<T>]) {
        let Band { start, len, stride, count, size } = band;
        if len * count <= SMALL {
            if !self.cancel.is_cancelled() {
                let pieces = (0..count).map(|i| &self.x[start + i * stride..][..len]);
                self.isa.extents(pieces, size, own);
            }
        } else if count > 1 {
            let half = count / 2;
            let mut other = vec![Extent::default(); own.len()];
            rayon::join(
                || self.band(Band { count: half, ..band }, own),
                || {
                    let start = start + half * stride;
                    self.band(Band { start, count: count - half, ..band }, &mut other);
                },
            );
            own.iter_mut().zip(other).for_each(|(own, other)| *own = own.join(other));
        } else if let [own] = own {
            let parts = self.x[start..start + len].par_chunks(CHUNK);
            let extent = |part: &[T]| {
                if self.cancel.is_cancelled() { Extent::default() } else { self.isa.extent(part) }
            };
            *own = own.join(parts.map(extent).reduce(Extent::default, Extent::join));
        } else {
            let half = own.len() / 2;
            let (first, second) = own.split_at_mut(half);
            let middle = half * size;
            rayon::join(
                || self.band(Band { len: middle, ..band }, first),
                || {
                    let band = Band { start: start + middle, len: len - middle, ..band };
                    self.band(band, second);
                },
            );
        }
    }
}

/// The extent of all of `x`.
pub(super) fn whole<T: Real>(x: &[T], cancel: &Cancel) -> Extent<T> {
    let mut own = Extent::default();
    if !x.is_empty() {
        let band = Band { start: 0, len: x.len(), stride: x.len(), count: 1, size: x.len() };
        Find { x, isa: Isa::current(), cancel }.band(band, std::slice::from_mut(&mut own));
    }
    own
}

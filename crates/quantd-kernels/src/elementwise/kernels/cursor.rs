//! The parameters of one vector after another.

use super::{Columns, EACH, GROUPS, Params, QuantParams, Simd};

/// Parameters of a vector.
#[derive(Clone, Copy)]
pub(super) struct Vector<S: Simd> {
    pub(super) scale: S::F32,
    pub(super) reciprocal: S::F32,
    pub(super) zero_point: S::F32,
}

impl<S: Simd> Vector<S> {
    /// Of one slice.
    #[inline(always)]
    fn of(simd: S, scale: f32, reciprocal: f32, zero_point: i32) -> Self {
        Self {
            scale: simd.splat(scale),
            reciprocal: simd.splat(reciprocal),
            zero_point: simd.splat(zero_point as f32),
        }
    }
}

/// Gives the parameters of one vector after another. With `COMMON`, all have
/// the zero point of the first one.
pub(super) struct Cursor<'a, S: Simd, const FORM: u8, const COMMON: bool> {
    simd: S,
    now: Vector<S>,
    columns: Columns<'a, f32>,
    /// Next element of `EACH`, slice of `GROUPS`.
    at: usize,
    /// Vectors left of the slice, and those of a whole one.
    left: usize,
    every: usize,
}

impl<'a, S: Simd, const FORM: u8, const COMMON: bool> Cursor<'a, S, FORM, COMMON> {
    #[inline(always)]
    pub(super) fn new(simd: S, params: Params<'a, f32>) -> Self {
        let (columns, affine, left, every) = match params {
            Params::Same(affine) => (Columns::default(), affine, 0, 0),
            Params::Each(columns) => (columns, columns.affine(0), 0, 0),
            Params::Groups(groups) => {
                let vectors = [groups.size - groups.offset, groups.size].map(|n| n / S::LANES);
                (groups.slices, groups.slices.affine(0), vectors[0], vectors[1])
            }
        };
        // Which those of the first slice need not be.
        let reciprocal = columns.reciprocals.first().copied().unwrap_or(1.0 / affine.scale);
        let now = Vector::of(simd, affine.scale, reciprocal, affine.zero_point);
        Self { simd, now, columns, at: 0, left, every }
    }

    /// Parameters of the next vector.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Vector<S> {
        let simd = self.simd;
        if FORM == EACH {
            let at = self.at;
            self.at += S::LANES;
            self.now.scale = simd.load(&self.columns.scales[at..]);
            self.now.reciprocal = simd.load(&self.columns.reciprocals[at..]);
            if !COMMON {
                self.now.zero_point = simd.to_f32(simd.load_i32(&self.columns.zero_points[at..]));
            }
        }
        if FORM == GROUPS {
            if self.left == 0 {
                self.at = if self.at + 1 < self.columns.len() { self.at + 1 } else { 0 };
                self.left = self.every;
                let zero_point = self.now.zero_point;
                let QuantParams { scale, zero_point: own } = self.columns.affine(self.at);
                self.now = Vector::of(simd, scale, self.columns.reciprocals[self.at], own);
                if COMMON {
                    self.now.zero_point = zero_point;
                }
            }
            self.left -= 1;
        }
        self.now
    }

    /// Parameters of the vectors of the next block.
    #[inline(always)]
    pub(super) fn block(&mut self) -> [Vector<S>; 4] {
        // One after another, as compilers keep arrays that closures make in memory.
        let [first, second, third] = [self.next(), self.next(), self.next()];
        [first, second, third, self.next()]
    }
}

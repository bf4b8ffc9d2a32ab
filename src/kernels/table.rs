//! Scales and zero points of many slices, one array a field: what a loop over
//! elements of different slices loads is then contiguous, and the reciprocals
//! are found once a slice and not once an element.

use std::ops::Range;

use rayon::prelude::*;

use super::Isa;
use super::isa::Op;
use super::real::Real;
use super::scalar::Affine;

/// Zero points that kernels for 8-bit codes can do with: all 8-bit codes are.
const ZERO_POINTS: Range<i32> = -128..256;

/// Whether fast kernels may multiply by the reciprocal (see `elementwise`).
#[inline(always)]
pub(super) fn is_regular<T: Real>(affine: Affine<T>) -> bool {
    let reciprocal = T::ONE / affine.scale;
    reciprocal >= T::TINY && reciprocal < T::INFINITY && ZERO_POINTS.contains(&affine.zero_point)
}

/// Parameters of slices, in the order of the slices.
#[derive(Clone, Debug)]
pub struct Table<T> {
    scales: Vec<T>,
    reciprocals: Vec<T>,
    zero_points: Vec<i32>,
    regular: bool,
}

/// Parameters of consecutive elements, element by element.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a, T> {
    pub(super) scales: &'a [T],
    pub(super) reciprocals: &'a [T],
    pub(super) zero_points: &'a [i32],
    /// Whether all of them are [regular](is_regular).
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "x86-64 has the kernels"))]
    pub(super) regular: bool,
}

/// Elements of one tile of a [`Spread`].
pub const TILE: usize = 512;
/// Elements that are written at once; the last of them may be too many.
const STEP: usize = 16;

/// Room for the parameters of a tile of elements whose slices change too often
/// for a call a slice.
#[derive(Clone, Debug)]
pub struct Spread<T> {
    scales: Box<[T; TILE + STEP]>,
    reciprocals: Box<[T; TILE + STEP]>,
    zero_points: Box<[i32; TILE + STEP]>,
    len: usize,
}

impl<T: Real> Table<T> {
    /// The table of those slices.
    #[must_use]
    pub fn new(affines: &[Affine<T>]) -> Self {
        /// Slices that are worth handing to another thread.
        const PART: usize = 1 << 12;
        let slices = || affines.par_iter().with_min_len(PART);
        Self {
            scales: slices().map(|affine| affine.scale).collect(),
            reciprocals: slices().map(|affine| T::ONE / affine.scale).collect(),
            zero_points: slices().map(|affine| affine.zero_point).collect(),
            regular: slices().all(|&affine| is_regular(affine)),
        }
    }

    /// Number of slices.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are no slices.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Parameters of one slice.
    #[must_use]
    pub fn affine(&self, slice: usize) -> Affine<T> {
        Affine { scale: self.scales[slice], zero_point: self.zero_points[slice] }
    }

    /// Scales of all slices.
    #[must_use]
    pub fn scales(&self) -> &[T] {
        &self.scales
    }

    /// Zero points of all slices.
    #[must_use]
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// Parameters of consecutive slices that have one element each.
    #[must_use]
    pub fn columns(&self, slices: Range<usize>) -> Columns<'_, T> {
        Columns {
            scales: &self.scales[slices.clone()],
            reciprocals: &self.reciprocals[slices.clone()],
            zero_points: &self.zero_points[slices],
            regular: self.regular,
        }
    }
}

impl<T: Real> Columns<'_, T> {
    /// Parameters of element `i`.
    #[inline(always)]
    pub(super) fn affine(&self, i: usize) -> Affine<T> {
        Affine { scale: self.scales[i], zero_point: self.zero_points[i] }
    }
}

impl<T: Real> Default for Spread<T> {
    fn default() -> Self {
        Self {
            scales: Box::new([T::ONE; TILE + STEP]),
            reciprocals: Box::new([T::ONE; TILE + STEP]),
            zero_points: Box::new([0; TILE + STEP]),
            len: 0,
        }
    }
}

/// Consecutive elements and their slices: element `i` belongs to slice
/// `slice + (offset + i) / size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of elements.
    pub len: usize,
    /// Slice of the first element.
    pub slice: usize,
    /// Elements of that slice before the first one, less than `size`.
    pub offset: usize,
    /// Consecutive elements of one slice, not 0.
    pub size: usize,
}

impl<T: Real> Spread<T> {
    /// Forgets all elements.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Elements put so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was put.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the parameters of the elements of `span`, at most as many as make a [`TILE`].
    pub fn put(&mut self, isa: Isa, table: &Table<T>, span: Span) {
        isa.run(Put { to: self, table, span });
    }

    /// The elements put, parameters element by element.
    #[must_use]
    pub fn columns(&self, table: &Table<T>) -> Columns<'_, T> {
        Columns {
            scales: &self.scales[..self.len],
            reciprocals: &self.reciprocals[..self.len],
            zero_points: &self.zero_points[..self.len],
            regular: table.regular,
        }
    }
}

struct Put<'a, T> {
    to: &'a mut Spread<T>,
    table: &'a Table<T>,
    span: Span,
}

impl<T: Real> Op for Put<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { to, table, span } = self;
        let end = to.len + span.len.min(TILE - to.len);
        if span.size == 1 {
            let (len, from) = (end - to.len, span.slice);
            to.scales[to.len..end].copy_from_slice(&table.scales[from..from + len]);
            to.reciprocals[to.len..end].copy_from_slice(&table.reciprocals[from..from + len]);
            to.zero_points[to.len..end].copy_from_slice(&table.zero_points[from..from + len]);
            to.len = end;
            return;
        }
        let mut next = to.len + span.size - span.offset;
        let mut slice = span.slice;
        while to.len < end {
            let stop = next.min(end);
            let (scale, reciprocal) = (table.scales[slice], table.reciprocals[slice]);
            let zero_point = table.zero_points[slice];
            // Whole steps: what is too much is overwritten by the next slice.
            for at in (to.len..stop).step_by(STEP) {
                to.scales[at..at + STEP].copy_from_slice(&[scale; STEP]);
                to.reciprocals[at..at + STEP].copy_from_slice(&[reciprocal; STEP]);
                to.zero_points[at..at + STEP].copy_from_slice(&[zero_point; STEP]);
            }
            to.len = stop;
            next += span.size;
            slice += 1;
        }
    }
}

//! Scales and zero points of many slices, one array a field: what a loop over
//! elements of different slices loads is then contiguous, and the reciprocals
//! are found once a slice and not once an element.

use std::ops::Range;

use rayon::prelude::*;

use super::Isa;
use super::isa::Op;
use super::real::Real;
use super::scalar::{Params, QuantParams};

/// What kernels must know of parameters before they take a short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether every reciprocal is a normal number.
    pub(super) normal: bool,
    /// Smallest and largest zero point.
    pub(super) zero_points: [i32; 2],
}

impl Facts {
    /// Those of no slices at all.
    const NONE: Self = Self { normal: true, zero_points: [i32::MAX, i32::MIN] };

    /// Those of one slice.
    #[inline(always)]
    pub(super) fn of<T: Real>(affine: QuantParams<T>) -> Self {
        let reciprocal = T::ONE / affine.scale;
        Self {
            normal: reciprocal >= T::TINY && reciprocal < T::INFINITY,
            zero_points: [affine.zero_point; 2],
        }
    }

    fn join(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.zero_points, other.zero_points);
        Self { normal: self.normal && other.normal, zero_points: [a.min(c), b.max(d)] }
    }
}

/// Parameters of slices, in the order of the slices.
#[derive(Clone, Debug)]
pub struct Table<T> {
    scales: Vec<T>,
    reciprocals: Vec<T>,
    zero_points: Vec<i32>,
    facts: Facts,
    /// Whether reciprocals are others than those of the scales.
    own_reciprocals: bool,
}

/// Parameters of consecutive slices.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a, T> {
    pub(super) scales: &'a [T],
    pub(super) reciprocals: &'a [T],
    pub(super) zero_points: &'a [i32],
    /// Of these slices and perhaps others.
    pub(super) facts: Facts,
}

impl<T> Default for Columns<'_, T> {
    fn default() -> Self {
        Self { scales: &[], reciprocals: &[], zero_points: &[], facts: Facts::NONE }
    }
}

/// Parameters of elements of which neighbours share a slice: element `i`
/// belongs to slice `(offset + i) / size` of these. Where they end they begin again: rows
/// of blocks have the same ones.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a, T> {
    /// The slices, at least one.
    pub slices: Columns<'a, T>,
    /// Elements of the slices that come before the first element.
    pub offset: usize,
    /// Elements of a slice, not 0.
    pub size: usize,
}

/// Elements of one tile of a [`Expanded`].
pub const TILE: usize = 512;
/// Elements that are written at once; the last of them may be too many.
const STEP: usize = 16;

/// Room for the parameters of a tile of elements whose slices change too often
/// for a call a slice.
#[derive(Clone, Debug)]
pub struct Expanded<T> {
    /// As long as a tile and a step, or empty where nothing was put yet.
    scales: Vec<T>,
    reciprocals: Vec<T>,
    zero_points: Vec<i32>,
    len: usize,
}

impl<T: Real> Table<T> {
    /// The table of those slices.
    #[must_use]
    pub fn new(affines: &[QuantParams<T>]) -> Self {
        /// Slices that are worth handing to another thread.
        const PART: usize = 1 << 12;
        let slices = || affines.par_iter().with_min_len(PART);
        Self {
            scales: slices().map(|affine| affine.scale).collect(),
            reciprocals: slices().map(|affine| T::ONE / affine.scale).collect(),
            zero_points: slices().map(|affine| affine.zero_point).collect(),
            facts: slices().map(|&affine| Facts::of(affine)).reduce(|| Facts::NONE, Facts::join),
            own_reciprocals: false,
        }
    }

    /// The table of slices without zero points whose reciprocals are given, and may be others than those of their
    /// scales.
    #[must_use]
    pub fn of_factors(factors: &[[T; 2]]) -> Self {
        let scaled = |[scale, _]: [T; 2]| QuantParams { scale, zero_point: 0 };
        let facts = factors.iter().map(|&factors| Facts::of(scaled(factors)));
        Self {
            scales: factors.iter().map(|[scale, _]| *scale).collect(),
            reciprocals: factors.iter().map(|[_, reciprocal]| *reciprocal).collect(),
            zero_points: vec![0; factors.len()],
            facts: facts.fold(Facts::NONE, Facts::join),
            own_reciprocals: true,
        }
    }

    /// The parameters of elements of one slice.
    #[must_use]
    pub fn same(&self, slice: usize) -> Params<'_, T> {
        /// More elements than there are, a multiple of those that kernels take.
        const ENDLESS: usize = 1 << 48;
        if self.own_reciprocals {
            let slices = self.columns(slice..slice + 1);
            return Params::Groups(Groups { slices, offset: 0, size: ENDLESS });
        }
        Params::Same(self.affine(slice))
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
    pub fn affine(&self, slice: usize) -> QuantParams<T> {
        QuantParams { scale: self.scales[slice], zero_point: self.zero_points[slice] }
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

    /// Parameters of consecutive slices.
    #[must_use]
    pub fn columns(&self, slices: Range<usize>) -> Columns<'_, T> {
        Columns {
            scales: &self.scales[slices.clone()],
            reciprocals: &self.reciprocals[slices.clone()],
            zero_points: &self.zero_points[slices],
            facts: self.facts,
        }
    }

    /// Puts the parameters of the elements of `span`, at most as many as make a [`TILE`].
    pub fn put(&self, isa: Isa, span: Span, spread: &mut Expanded<T>) {
        spread.put(isa, self.columns(0..self.len()), span);
    }

    /// The elements that were put, parameters element by element.
    #[must_use]
    pub fn spread<'s>(&self, spread: &'s Expanded<T>) -> Columns<'s, T> {
        spread.columns(self.facts)
    }
}

impl<'a, T: Real> Columns<'a, T> {
    /// Number of slices.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.scales.len().min(self.reciprocals.len()).min(self.zero_points.len())
    }

    /// Parameters of slice `i`.
    #[inline(always)]
    pub(super) fn affine(&self, i: usize) -> QuantParams<T> {
        QuantParams { scale: self.scales[i], zero_point: self.zero_points[i] }
    }

    /// Some of the slices.
    #[inline(always)]
    pub(super) fn part(&self, slices: Range<usize>) -> Self {
        Self {
            scales: &self.scales[slices.clone()],
            reciprocals: &self.reciprocals[slices.clone()],
            zero_points: &self.zero_points[slices],
            facts: self.facts,
        }
    }
}

impl<'a, T: Real> Groups<'a, T> {
    /// Parameters of element `i`.
    #[inline(always)]
    pub(super) fn affine(&self, i: usize) -> QuantParams<T> {
        self.slices.affine(self.slice(i))
    }

    /// The slice of element `i`.
    #[inline(always)]
    pub(super) fn slice(&self, i: usize) -> usize {
        let slice = (self.offset + i) / self.size;
        if slice < self.slices.len() { slice } else { slice % self.slices.len() }
    }

    /// The first element behind `i` that has another slice.
    #[inline(always)]
    pub(super) const fn next(&self, i: usize) -> usize {
        i + self.size - (self.offset + i) % self.size
    }

    /// Whether `len` elements have a slice that begins again.
    #[inline(always)]
    pub(super) fn repeat(&self, len: usize) -> bool {
        (self.offset + len).div_ceil(self.size) > self.slices.len()
    }

    /// Those of the elements from `start` on, as many as `len`.
    #[inline(always)]
    pub(super) fn part(&self, start: usize, len: usize) -> Self {
        let first = self.slice(start);
        let within = Self { offset: (self.offset + start) % self.size, ..*self };
        let end = first + (within.offset + len.max(1)).div_ceil(self.size);
        if end <= self.slices.len() {
            Self { slices: self.slices.part(first..end), ..within }
        } else {
            Self { offset: first * self.size + within.offset, ..within }
        }
    }

    /// Hands out `len` elements: slice by slice where slices are long, else in tiles.
    pub(super) fn parts(
        &self,
        isa: Isa,
        len: usize,
        mut visit: impl FnMut(Range<usize>, Params<'_, T>),
    ) {
        /// Elements from which on a slice is worth a call of its own.
        const LONG: usize = TILE / 2;
        if self.size < LONG {
            return self.tiles(isa, len, |part, columns| visit(part, Params::Each(columns)));
        }
        let mut at = 0;
        while at < len {
            let next = len.min(self.next(at));
            visit(at..next, Params::Same(self.affine(at)));
            at = next;
        }
    }

    /// Hands out `len` elements in tiles, parameters element by element.
    pub(super) fn tiles(
        &self,
        isa: Isa,
        len: usize,
        mut visit: impl FnMut(Range<usize>, Columns<'_, T>),
    ) {
        let mut spread = Expanded::default();
        let mut at = 0;
        while at < len {
            let (slice, offset) = (self.slice(at), (self.offset + at) % self.size);
            let left = (self.slices.len() - slice) * self.size - offset;
            let span = Span { len: TILE.min(len - at).min(left), slice, offset, size: self.size };
            spread.clear();
            spread.put(isa, self.slices, span);
            visit(at..at + span.len, spread.columns(self.slices.facts));
            at += span.len;
        }
    }
}

impl<T: Real> Default for Expanded<T> {
    fn default() -> Self {
        Self { scales: Vec::new(), reciprocals: Vec::new(), zero_points: Vec::new(), len: 0 }
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

impl<T: Real> Expanded<T> {
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

    /// Puts the parameters of the elements of `span`, at most as many as make a
    /// [`TILE`]; its slices are counted from the first of `slices`.
    pub(super) fn put(&mut self, isa: Isa, slices: Columns<'_, T>, span: Span) {
        /// Room for a tile and what is too much of the last step.
        const ROOM: usize = TILE + STEP;
        self.scales.resize(ROOM, T::ONE);
        self.reciprocals.resize(ROOM, T::ONE);
        self.zero_points.resize(ROOM, 0);
        isa.run(Put { to: self, slices, span });
    }

    /// The elements put, parameters element by element.
    pub(super) fn columns(&self, facts: Facts) -> Columns<'_, T> {
        Columns {
            scales: &self.scales[..self.len],
            reciprocals: &self.reciprocals[..self.len],
            zero_points: &self.zero_points[..self.len],
            facts,
        }
    }
}

struct Put<'a, T> {
    to: &'a mut Expanded<T>,
    slices: Columns<'a, T>,
    span: Span,
}

impl<T: Real> Op for Put<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { to, slices, span } = self;
        let end = to.len + span.len.min(TILE - to.len);
        if span.size == 1 {
            let (len, from) = (end - to.len, span.slice);
            to.scales[to.len..end].copy_from_slice(&slices.scales[from..from + len]);
            to.reciprocals[to.len..end].copy_from_slice(&slices.reciprocals[from..from + len]);
            to.zero_points[to.len..end].copy_from_slice(&slices.zero_points[from..from + len]);
            to.len = end;
            return;
        }
        let mut next = to.len + span.size - span.offset;
        let mut slice = span.slice;
        while to.len < end {
            let stop = next.min(end);
            let (scale, reciprocal) = (slices.scales[slice], slices.reciprocals[slice]);
            let zero_point = slices.zero_points[slice];
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

//! f32 to 8-bit codes and back, and extents of f32, over the registers of an instruction set.
//!
//! Each loop is written once, for any [`Simd`]. There are three ways to a code, all of them without the
//! division of the definition, and each finds out where it may be wrong: in fixed point where codes alone
//! are wanted ([`fixed_point`]), by the error where it is wanted too ([`measure`]), and, where searches
//! want the squares of errors alone ([`squares`]), as follows.
//!
//! # A code in one instruction
//! Dividing, rounding, converting and limiting each take as long as the memory
//! that they work on, so the kernels do all of it with one fused multiply-add.
//! With `r = fl(1 / s)`, `z'` the zero point counted from the smallest code of
//! the type, and `w = 2^-14`,
//!
//! ```text
//! u = fma(x, r, 256 + z' + 1/2 + w)
//! ```
//!
//! A `u` in [256, 512) has 8 bits of integer and 15 of fraction behind its
//! exponent. The integer is the code, and the fraction says how far the quotient
//! is from a tie. Shifted right by 15 bits such a number is 0x8700 and the code;
//! smaller `u` give less and larger ones more, so that a subtraction and a
//! narrowing that saturate limit the code to 0..=255 as well.
//!
//! # Where that is not exact
//! The code to be found is that of `fl(x / s)` (or `fl(x r)`), whole steps from
//! `z`. Let `Q = x / s` and `e = 2^-15`, the last bit of `u`. Where the code does not
//! saturate, `|Q| <= 256` because zero points are codes. Then `r` moves the
//! product by less than `2^-24 |Q| <= e / 2`, rounding `u` by `e / 2`, and the rounding of
//! the definition's own quotient by `e / 4`, with another `e / 4` where it adds the zero
//! point before it rounds: less than `3 e / 2` in all. `w = 2 e` puts quotients of less
//! than `e` or just `e` beside a tie, and all that may have been moved across it,
//! at fractions of 0 to `3 e`: if the upper 13 bits of a fraction are 0, the block is
//! left to the loops of `scalar`, as it is when there is a NaN in it. That is
//! one block of 64 random elements in 128. A call whose reciprocals are not normal, or whose
//! zero points are no codes, is left to `scalar` altogether.

use std::any::TypeId;
use std::ops::Range;
use std::slice;

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use super::super::cache::prefetch;
use super::super::isa::Op;
use super::super::minifloat::{FloatSpec, MiniFloat};
use super::super::real::Real;
use super::super::scalar::{self, Code, Extent, Params, QuantParams};
use super::super::simd::{Simd, VectorOp, each};
use super::super::sums::{LANES, LaneSums};
use super::super::table::{Columns, Facts, Groups};
use super::{CodeSpec, Isa, Stores};
use cursor::{Cursor, Vector};

mod cursor;
mod extent;
mod fixed_point;
mod floats;
mod measure;
mod quantize;
mod restore;
mod squares;
mod sums;

/// Elements that have one set of parameters at least: the largest vector.
const VECTOR: usize = 16;
/// Registers of a block.
const PARTS: [usize; 4] = [0, 1, 2, 3];
/// Bytes between what is read and what is asked for: the prefetchers of x86 processors stop at the end
/// of a page.
const AHEAD: usize = 4096;
/// The parameters are the same for all elements, each element's own, or those of groups.
const SAME: u8 = 0;
const EACH: u8 = 1;
const GROUPS: u8 = 2;

/// Elements that become 8-bit codes, and how: what the kernels are made for.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    x: &'a [f32],
    params: Params<'a, f32>,
    how: CodeSpec,
}

impl<'a> Bytes<'a> {
    /// `None` where the kernels do not do.
    fn new<T: Real>(x: &'a [T], params: Params<'a, T>, how: CodeSpec) -> Option<Self> {
        let (x, range) = (same(x)?, how.range);
        let params = vectors(params)?;
        let facts = params.facts();
        let codes = if range.min < 0 { -128..=127 } else { 0..=255 };
        let within = |ends: [i32; 2]| ends.iter().all(|end| codes.contains(end));
        let short_way = facts.normal && within(facts.zero_points) && within([range.min, range.max]);
        short_way.then_some(Self { x, params, how })
    }

    /// 128 where codes are signed: what makes them count from 0.
    const fn shift(&self) -> i32 {
        if self.how.range.min < 0 { 128 } else { 0 }
    }

    /// Whether whole blocks of codes may go past the caches.
    pub(super) fn goes_past<S: Simd>(&self, codes: &[u8]) -> bool {
        self.how.stores == Stores::Streaming && codes.as_ptr().addr().is_multiple_of(S::BLOCK)
    }

    /// Some of the elements.
    #[inline(always)]
    fn part(&self, start: usize, len: usize) -> Self {
        Self { x: &self.x[start..start + len], params: self.params.part(start, len), ..*self }
    }

    /// As [`scalar::quantize`], to codes whose low bytes at least are wanted.
    #[inline(always)]
    fn quantize<C: Code>(&self, codes: &mut [C]) {
        let mut at = 0;
        while at < self.x.len() {
            let (next, params) = self.slice(at);
            let codes = &mut codes[at..next];
            scalar::quantize(&self.x[at..next], params, self.how.range, self.how.rounding, codes);
            at = next;
        }
    }

    /// As [`scalar::measure`].
    #[inline(always)]
    fn measure(&self, lanes: &mut LaneSums) {
        let mut at = 0;
        while at < self.x.len() {
            let (next, params) = self.slice(at);
            scalar::measure(&self.x[at..next], params, self.how.range, self.how.rounding, lanes);
            at = next;
        }
    }

    /// As [`scalar::squared_error`], of elements with common parameters.
    #[inline(always)]
    fn squared_error(&self, affine: QuantParams<f32>) -> f64 {
        scalar::squared_error(self.x, affine, self.how.range, self.how.rounding)
    }

    /// As [`scalar::add_squared_errors`], of the same.
    #[inline(always)]
    fn add_squared_errors(&self, affine: QuantParams<f32>, lanes: &mut [f64; LANES]) {
        let CodeSpec { range, rounding, .. } = self.how;
        scalar::add_squared_errors(self.x, affine, range, rounding, lanes);
    }

    /// The end of the group that begins at `at`, and its parameters: loops over
    /// one group vectorize. Groups are whole vectors, which keeps the lanes of
    /// sums in step. Anything else is taken as it is.
    #[inline(always)]
    fn slice(&self, at: usize) -> (usize, Params<'a, f32>) {
        let Params::Groups(groups) = self.params else { return (self.x.len(), self.params) };
        let next = groups.next(at);
        (next.min(self.x.len()), Params::Same(groups.affine(at)))
    }
}

/// The parameters where they are of f32 and do not change within a vector.
fn vectors<T: Real>(params: Params<'_, T>) -> Option<Params<'_, f32>> {
    match params {
        Params::Same(affine) => {
            let scale = *same::<T, f32>(&[affine.scale])?.first()?;
            Some(Params::Same(QuantParams { scale, zero_point: affine.zero_point }))
        }
        Params::Each(columns) if columns.len() > 0 => Some(Params::Each(columns.of_f32()?)),
        Params::Groups(Groups { slices, offset, size })
            if offset % VECTOR == 0 && size % VECTOR == 0 && offset < size && slices.len() > 0 =>
        {
            Some(Params::Groups(Groups { slices: slices.of_f32()?, offset, size }))
        }
        Params::Each(_) | Params::Groups(_) => None,
    }
}

impl<T: Real> Params<'_, T> {
    /// What is known of all of them.
    fn facts(&self) -> Facts {
        match self {
            Self::Same(affine) => Facts::of(*affine),
            Self::Each(columns) => columns.facts,
            Self::Groups(groups) => groups.slices.facts,
        }
    }

    /// Whether so many elements have a slice that begins again.
    fn repeat(&self, len: usize) -> bool {
        match self {
            Self::Same(_) => false,
            Self::Each(columns) => columns.len() < len,
            Self::Groups(groups) => groups.repeat(len),
        }
    }

    /// Those of some of the elements; of rows, they are within one or begin with one.
    #[inline(always)]
    fn part(&self, start: usize, len: usize) -> Self {
        match self {
            Self::Same(affine) => Self::Same(*affine),
            Self::Each(columns) => {
                let (first, row) = (start % columns.len(), columns.len());
                Self::Each(columns.part(first..row.min(first + len)))
            }
            Self::Groups(groups) => Self::Groups(groups.part(start, len)),
        }
    }
}

impl Facts {
    /// Whether all slices have one zero point.
    const fn is_common(self) -> bool {
        self.zero_points[0] == self.zero_points[1]
    }
}

impl<'a, T: Real> Columns<'a, T> {
    fn of_f32(&self) -> Option<Columns<'a, f32>> {
        let (scales, reciprocals) = (same(self.scales)?, same(self.reciprocals)?);
        Some(Columns { scales, reciprocals, zero_points: self.zero_points, facts: self.facts })
    }
}

/// The slice itself where its type is `U`.
fn same<T: Pod, U: Pod>(x: &[T]) -> Option<&[U]> {
    (TypeId::of::<T>() == TypeId::of::<U>()).then(|| cast_slice(x))
}

/// The slice itself where its type is `U`.
fn same_mut<T: Pod, U: Pod>(x: &mut [T]) -> Option<&mut [U]> {
    (TypeId::of::<T>() == TypeId::of::<U>()).then(|| cast_slice_mut(x))
}

/// Codes of one byte as the bytes they are.
fn bytes<C: Code>(codes: &mut [C]) -> Option<&mut [u8]> {
    (size_of::<C>() == 1).then(|| cast_slice_mut(codes))
}

/// Whether one of four holds.
#[inline(always)]
fn any_of<S: Simd>(simd: S, [a, b, c, d]: [S::Mask; 4]) -> S::Mask {
    simd.or(simd.or(a, b), simd.or(c, d))
}

/// Asks for what is [`AHEAD`] of a block.
#[inline(always)]
fn prefetch_ahead(block: &[f32]) {
    for line in 0..block.len() / 16 {
        prefetch::<false>(block.as_ptr().wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

/// Writes the codes of a block.
#[inline(always)]
fn store_codes<S: Simd>(simd: S, codes: &mut [u8], bytes: S::U8, past: bool) {
    if past {
        simd.store_u8_past(codes, bytes);
    } else {
        simd.store_u8(codes, bytes);
    }
}

/// As [`Isa::quantize`], where there is a kernel for it; says whether there is.
pub(super) fn quantize<T: Real, C: Code>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: CodeSpec,
    codes: &mut [C],
) -> bool {
    match (Bytes::new(x, params, how), bytes(codes)) {
        (Some(work), Some(codes)) => isa.vectorize(quantize::Quantize { work, codes }).is_some(),
        _ => false,
    }
}

/// As [`Isa::encode`], where there is a kernel for it; says whether there is.
pub(super) fn encode<T: Real, C: Code>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: CodeSpec,
    codes: &mut [C],
    lanes: &mut LaneSums,
) -> bool {
    match (Bytes::new(x, params, how), bytes(codes)) {
        (Some(work), Some(codes)) => with_sums(isa, work, Some(codes), lanes),
        _ => false,
    }
}

/// As [`Isa::measure`], where there is a kernel for it; says whether there is.
pub(super) fn measure<T: Real>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: CodeSpec,
    lanes: &mut LaneSums,
) -> bool {
    Bytes::new(x, params, how).is_some_and(|work| with_sums(isa, work, None, lanes))
}

fn with_sums(isa: Isa, work: Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) -> bool {
    !work.params.repeat(work.x.len())
        && isa.vectorize(measure::Encode { work, codes, lanes }).is_some()
}

/// As [`Isa::encode_floats`], where there is a kernel for it; says whether there is.
pub(crate) fn encode_floats<T: Real, C: Code>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    spec: FloatSpec,
    codes: Option<&mut [C]>,
    lanes: &mut LaneSums,
) -> bool {
    let (Some(x), Some(params)) = (same(x), vectors(params)) else { return false };
    let takes = params.facts().normal && !params.repeat(x.len()) && spec.float.bits() <= 8;
    let codes = match codes.map(bytes) {
        Some(None) => return false,
        Some(codes) => codes,
        None => None,
    };
    takes && isa.vectorize(floats::EncodeFloats { x, params, spec, codes, lanes }).is_some()
}

/// As [`Isa::dequantize_floats`], where there is a kernel for it; says whether there is.
pub(crate) fn dequantize_floats<T: Real, C: Code>(
    isa: Isa,
    codes: &[C],
    params: Params<'_, T>,
    float: MiniFloat,
    stores: Stores,
    x: &mut [T],
) -> bool {
    let (Some(codes), Some(params), Some(x)) = (same(codes), vectors(params), same_mut(x)) else {
        return false;
    };
    !params.repeat(codes.len())
        && isa.vectorize(floats::RestoreFloats { codes, params, float, stores, x }).is_some()
}

/// As [`Isa::dequantize`], where there is a kernel for it; says whether there is.
pub(super) fn dequantize<T: Real, C: Code>(
    isa: Isa,
    codes: &[C],
    params: Params<'_, T>,
    stores: Stores,
    x: &mut [T],
) -> bool {
    /// Differences of codes and such zero points are exact in f32.
    const SMALL: Range<i32> = -(1 << 20)..1 << 20;
    let params = vectors(params)
        .filter(|params| params.facts().zero_points.iter().all(|end| SMALL.contains(end)));
    let (Some(params), Some(x)) = (params, same_mut(x)) else { return false };
    if let Some(codes) = same(codes) {
        isa.vectorize(restore::Restore::<false> { codes, params, stores, x }).is_some()
    } else if let Some(codes) = same::<C, i8>(codes) {
        let codes = cast_slice(codes);
        isa.vectorize(restore::Restore::<true> { codes, params, stores, x }).is_some()
    } else {
        false
    }
}

/// As [`Isa::squared_error`], where there is a kernel for it.
pub(super) fn squared_error<T: Real>(
    isa: Isa,
    x: &[T],
    affine: QuantParams<T>,
    how: CodeSpec,
) -> Option<f64> {
    let work = Bytes::new(x, Params::Same(affine), how)?;
    isa.vectorize(squares::SquaredError { work })
}

/// Joins the extents of each `size` elements of `x` to `extents`, where there
/// is a kernel for it; says whether there is.
pub(super) fn extents<T: Real>(isa: Isa, x: &[T], size: usize, extents: &mut [Extent<T>]) -> bool {
    let Some(x) = same::<T, f32>(x) else {
        return false;
    };
    let join = |i: usize, found: Extent<f32>| {
        let Extent { min, max, nan, inf } = found;
        let (min, max) = (T::from_f64(min.into()), T::from_f64(max.into()));
        extents[i] = extents[i].join(Extent { min, max, nan, inf });
    };
    isa.vectorize(extent::Extents { x, size, join }).is_some()
}

/// The slow way to codes.
struct ByScalar<'a, 'w> {
    work: &'w Bytes<'a>,
    codes: &'w mut [u8],
}

impl Op for ByScalar<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.work.quantize(self.codes);
    }
}

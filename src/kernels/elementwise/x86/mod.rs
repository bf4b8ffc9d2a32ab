//! x86-64: f32 to 8-bit codes, and extents of f32.
//!
//! # Division by a reciprocal
//! Dividing takes several times as long as all the rest of quantizing, so the
//! kernels multiply by `r = fl(1 / s)` and look whether that may matter. With
//! `u = 2^-24`, `r` normal and `Q = x / s`: `fl(x r)` and `fl(Q)` differ by less than
//! `(1 + u)^2 - 1 + u < 3.1 u |Q|`, or, where they underflow, by less than 2^-148.
//! Codes and zero points are within -128..=255, so that all quotients that are
//! not saturated either way have `|Q| < 512`. Where the zero point is added
//! before rounding, both sums are below 512 and each is rounded by at most
//! 2^-16 = 256 u (below 256: half of that, and only that matters here, as the
//! codes end at 255). In all, the two numbers to be rounded differ by less than
//! `3.1 u 512 + 256 u < 2048 u = 2^-13`. They then have the same nearest integer
//! unless the computed one is within 2^-13 of a tie, and whether halves go
//! to even or away makes no difference either. A block in which some element is
//! that close to a tie, one in fifty of random ones, is done again by division;
//! a call whose parameters are not [regular](super::table::is_regular) is left
//! to the loops of `scalar`.
#![expect(unsafe_code, reason = "functions with target features are called after their detection")]

use std::any::TypeId;

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use super::super::isa::Level;
use super::super::real::Real;
use super::super::scalar::{self, Affine, Code, CodeRange, Extent, Params, Rounding};
use super::super::sums::LaneSums;
use super::super::table::{Columns, is_regular};
use super::Isa;

mod avx2;
mod avx512;

/// Elements that the kernels quantize at a time.
const BLOCK: usize = 64;
/// How close to a tie a quotient may not be.
const TIE: f32 = 0.5 - 1.0 / 8192.0;
/// Bytes between what is read and what is asked for: the prefetchers of the
/// processors stop at the end of a page.
const AHEAD: usize = 4096;

/// Elements that become 8-bit codes, and how: what the kernels are made for.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    x: &'a [f32],
    params: Params<'a, f32>,
    range: CodeRange,
    rounding: Rounding,
}

impl<'a> Bytes<'a> {
    /// `None` where the kernels do not do.
    fn new<T: Real>(
        x: &'a [T],
        params: Params<'a, T>,
        (range, rounding): (CodeRange, Rounding),
    ) -> Option<Self> {
        let params = match params {
            Params::Same(affine) if is_regular(affine) => {
                let scale = *same::<T, f32>(&[affine.scale])?.first()?;
                Params::Same(Affine { scale, zero_point: affine.zero_point })
            }
            Params::Each(columns) if columns.regular && columns.len() >= x.len() => {
                Params::Each(Columns {
                    scales: same(columns.scales)?,
                    reciprocals: same(columns.reciprocals)?,
                    zero_points: columns.zero_points,
                    regular: true,
                })
            }
            Params::Same(_) | Params::Each(_) => return None,
        };
        let small = range.min >= -128 && range.max <= if range.min < 0 { 127 } else { 255 };
        small.then_some(Self { x: same(x)?, params, range, rounding })
    }

    /// Some of the elements.
    #[inline(always)]
    fn part(&self, start: usize, len: usize) -> Self {
        let params = match self.params {
            Params::Same(affine) => Params::Same(affine),
            Params::Each(columns) => Params::Each(columns.part(start, len)),
        };
        Self { x: &self.x[start..start + len], params, ..*self }
    }

    /// As [`scalar::quantize`], to codes whose low bytes are wanted.
    #[inline(always)]
    fn quantize(&self, codes: &mut [u8]) {
        scalar::quantize(self.x, self.params, self.range, self.rounding, codes);
    }

    /// As [`scalar::measure`].
    #[inline(always)]
    fn measure(&self, lanes: &mut LaneSums) {
        scalar::measure(self.x, self.params, self.range, self.rounding, lanes);
    }
}

impl<T> Columns<'_, T> {
    /// Number of elements.
    fn len(&self) -> usize {
        self.scales.len().min(self.reciprocals.len()).min(self.zero_points.len())
    }

    /// Parameters of some of the elements.
    #[inline(always)]
    fn part(&self, start: usize, len: usize) -> Self {
        Self {
            scales: &self.scales[start..start + len],
            reciprocals: &self.reciprocals[start..start + len],
            zero_points: &self.zero_points[start..start + len],
            regular: self.regular,
        }
    }
}

/// The slice itself where its type is `U`.
fn same<T: Pod, U: Pod>(x: &[T]) -> Option<&[U]> {
    (TypeId::of::<T>() == TypeId::of::<U>()).then(|| cast_slice(x))
}

/// Codes of one byte as the bytes they are.
fn bytes<C: Code>(codes: &mut [C]) -> Option<&mut [u8]> {
    (size_of::<C>() == 1).then(|| cast_slice_mut(codes))
}

/// As [`Isa::quantize`], where there is a kernel for it; says whether there is.
pub(super) fn quantize<T: Real, C: Code>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: (CodeRange, Rounding),
    codes: &mut [C],
) -> bool {
    let (Some(work), Some(codes)) = (Bytes::new(x, params, how), bytes(codes)) else {
        return false;
    };
    match isa.level() {
        Level::Avx2 | Level::AvxVnni => {
            // SAFETY: such a level exists only where AVX2, FMA and F16C were detected.
            unsafe { avx2::quantize(&work, codes) };
        }
        Level::Avx512 | Level::Avx512Vnni => {
            // SAFETY: such a level exists only where AVX-512 F, BW, DQ and VL were detected.
            unsafe { avx512::quantize(&work, codes) };
        }
        Level::Scalar => return false,
    }
    true
}

/// As [`Isa::encode`], where there is a kernel for it; says whether there is.
pub(super) fn encode<T: Real, C: Code>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: (CodeRange, Rounding),
    codes: &mut [C],
    lanes: &mut LaneSums,
) -> bool {
    match (Bytes::new(x, params, how), bytes(codes)) {
        (Some(work), Some(codes)) => with_sums::<true>(isa, &work, codes, lanes),
        _ => false,
    }
}

/// As [`Isa::measure`], where there is a kernel for it; says whether there is.
pub(super) fn measure<T: Real>(
    isa: Isa,
    x: &[T],
    params: Params<'_, T>,
    how: (CodeRange, Rounding),
    lanes: &mut LaneSums,
) -> bool {
    Bytes::new(x, params, how).is_some_and(|work| with_sums::<false>(isa, &work, &mut [], lanes))
}

fn with_sums<const STORE: bool>(
    isa: Isa,
    work: &Bytes<'_>,
    codes: &mut [u8],
    lanes: &mut LaneSums,
) -> bool {
    match isa.level() {
        Level::Avx2 | Level::AvxVnni => {
            // SAFETY: such a level exists only where AVX2, FMA and F16C were detected.
            unsafe { avx2::encode::<STORE>(work, codes, lanes) };
        }
        Level::Avx512 | Level::Avx512Vnni => {
            // SAFETY: such a level exists only where AVX-512 F, BW, DQ and VL were detected.
            unsafe { avx512::encode::<STORE>(work, codes, lanes) };
        }
        Level::Scalar => return false,
    }
    true
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
    match isa.level() {
        Level::Avx2 | Level::AvxVnni => {
            // SAFETY: such a level exists only where AVX2, FMA and F16C were detected.
            unsafe { avx2::extents(x, size, join) };
        }
        Level::Avx512 | Level::Avx512Vnni => {
            // SAFETY: such a level exists only where AVX-512 F, BW, DQ and VL were detected.
            unsafe { avx512::extents(x, size, join) };
        }
        Level::Scalar => return false,
    }
    true
}

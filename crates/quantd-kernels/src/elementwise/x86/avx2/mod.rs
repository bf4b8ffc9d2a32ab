//! AVX2 and FMA.
//!
//! As [`avx512`](super::avx512) with vectors of 8 floats: a block of 64
//! elements is packed in two halves of four vectors, and comparisons stand where
//! AVX-512 tests into masks.

use std::arch::x86_64::*;

use super::{AHEAD, BLOCK, Bytes, EACH, GROUPS, NEAR, SAME, SHIFT};
use crate::scalar::Params;
use crate::table::Columns;

pub(super) use extent::extents;
pub(super) use measure::encode;
pub(super) use quantize::quantize;
pub(super) use restore::dequantize;
pub(super) use squares::squared_error;

mod codes;
mod extent;
mod measure;
mod quantize;
mod restore;
mod squares;

/// Elements of a vector.
const VECTOR: usize = 8;
/// Elements that are packed at a time.
const HALF: usize = BLOCK / 2;
/// Vectors of these.
const PARTS: [usize; 4] = [0, 1, 2, 3];

/// Parameters of a vector.
#[derive(Clone, Copy)]
struct Eight {
    scale: __m256,
    reciprocal: __m256,
    zero_point: __m256,
}

/// Gives the parameters of one vector after another. With `COMMON`, all have
/// the zero point of the first one.
struct Cursor<'a, const FORM: u8, const COMMON: bool> {
    now: Eight,
    columns: Columns<'a, f32>,
    /// Next element of `EACH`, slice of `GROUPS`.
    at: usize,
    /// Vectors left of the slice, and those of a whole one.
    left: usize,
    every: usize,
}

impl<'a, const FORM: u8, const COMMON: bool> Cursor<'a, FORM, COMMON> {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new(params: Params<'a, f32>) -> Self {
        let (columns, affine, left, every) = match params {
            Params::Same(affine) => (Columns::default(), affine, 0, 0),
            Params::Each(columns) => (columns, columns.affine(0), 0, 0),
            Params::Groups(groups) => {
                let vectors = [groups.size - groups.offset, groups.size].map(|n| n / VECTOR);
                (groups.slices, groups.slices.affine(0), vectors[0], vectors[1])
            }
        };
        let now = Eight {
            scale: _mm256_set1_ps(affine.scale),
            reciprocal: _mm256_set1_ps(1.0 / affine.scale),
            zero_point: _mm256_cvtepi32_ps(_mm256_set1_epi32(affine.zero_point)),
        };
        Self { now, columns, at: 0, left, every }
    }

    /// Parameters of the next vector.
    ///
    /// # Safety
    /// `EACH` has at least 8 elements left.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn next(&mut self) -> Eight {
        if FORM == EACH {
            let at = self.at;
            self.at += VECTOR;
            // SAFETY: 8 elements from `at` on are within the columns, says the caller.
            self.now.scale =
                unsafe { _mm256_loadu_ps(self.columns.scales.as_ptr().wrapping_add(at)) };
            let reciprocals = self.columns.reciprocals.as_ptr().wrapping_add(at);
            // SAFETY: as above.
            self.now.reciprocal = unsafe { _mm256_loadu_ps(reciprocals) };
            if !COMMON {
                let zero_points = self.columns.zero_points.as_ptr().wrapping_add(at);
                // SAFETY: as above.
                let zero_points = unsafe { _mm256_loadu_si256(zero_points.cast()) };
                self.now.zero_point = _mm256_cvtepi32_ps(zero_points);
            }
        }
        if FORM == GROUPS {
            if self.left == 0 {
                self.at = if self.at + 1 < self.columns.len() { self.at + 1 } else { 0 };
                self.left = self.every;
                self.now.scale = _mm256_set1_ps(self.columns.scales[self.at]);
                self.now.reciprocal = _mm256_set1_ps(self.columns.reciprocals[self.at]);
                if !COMMON {
                    let zero_point = _mm256_set1_epi32(self.columns.zero_points[self.at]);
                    self.now.zero_point = _mm256_cvtepi32_ps(zero_point);
                }
            }
            self.left -= 1;
        }
        self.now
    }
}

/// Asks for two lines [`AHEAD`] of `x`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn prefetch(x: *const f32) {
    for line in 0..2 {
        // Any address may be asked for; nothing is read.
        _mm_prefetch::<_MM_HINT_T0>(x.wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

//! AVX-512 F, BW, DQ and VL.
//!
//! A block is 64 elements, one cache line of codes: four vectors of 16 floats
//! take one `vfmadd` each (see the parent module), `vpsrad` brings the codes down,
//! `vpackusdw`, `vpsubusw` and `vpackuswb` narrow and limit them, `vpermd` undoes the lanes
//! of the packing, and one store writes the line. Saturation cannot wrap: a
//! negative `u` stays negative when it is shifted and becomes 0, everything
//! above the codes stays above them until `vpackuswb` makes it 255. Codes of
//! both signs are made as 0..=255; those of signed ones have their upper bit flipped.
//!
//! `vptestnmd` finds fractions near a tie, and a `vcmpps` of two vectors looks
//! for NaN in both.

use std::arch::x86_64::*;

use super::{AHEAD, BLOCK, Bytes, EACH, GROUPS, NEAR, SAME, SHIFT, VECTOR};
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

/// Vectors of a block.
const PARTS: [usize; 4] = [0, 1, 2, 3];

/// Parameters of a vector.
#[derive(Clone, Copy)]
struct Sixteen {
    scale: __m512,
    reciprocal: __m512,
    zero_point: __m512,
}

/// Gives the parameters of one vector after another. With `COMMON`, all have
/// the zero point of the first one.
struct Cursor<'a, const FORM: u8, const COMMON: bool> {
    now: Sixteen,
    columns: Columns<'a, f32>,
    /// Next element of `EACH`, slice of `GROUPS`.
    at: usize,
    /// Vectors left of the slice, and those of a whole one.
    left: usize,
    every: usize,
}

impl<'a, const FORM: u8, const COMMON: bool> Cursor<'a, FORM, COMMON> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(params: Params<'a, f32>) -> Self {
        let (columns, affine, left, every) = match params {
            Params::Same(affine) => (Columns::default(), affine, 0, 0),
            Params::Each(columns) => (columns, columns.affine(0), 0, 0),
            Params::Groups(groups) => {
                let vectors = [groups.size - groups.offset, groups.size].map(|n| n / VECTOR);
                (groups.slices, groups.slices.affine(0), vectors[0], vectors[1])
            }
        };
        let now = Sixteen {
            scale: _mm512_set1_ps(affine.scale),
            reciprocal: _mm512_set1_ps(1.0 / affine.scale),
            zero_point: _mm512_cvtepi32_ps(_mm512_set1_epi32(affine.zero_point)),
        };
        Self { now, columns, at: 0, left, every }
    }

    /// Parameters of the next vector.
    ///
    /// # Safety
    /// `EACH` has at least 16 elements left.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn next(&mut self) -> Sixteen {
        if FORM == EACH {
            let at = self.at;
            self.at += VECTOR;
            // SAFETY: 16 elements from `at` on are within the columns, says the caller.
            self.now.scale =
                unsafe { _mm512_loadu_ps(self.columns.scales.as_ptr().wrapping_add(at)) };
            let reciprocals = self.columns.reciprocals.as_ptr().wrapping_add(at);
            // SAFETY: as above.
            self.now.reciprocal = unsafe { _mm512_loadu_ps(reciprocals) };
            if !COMMON {
                let zero_points = self.columns.zero_points.as_ptr().wrapping_add(at);
                // SAFETY: as above.
                let zero_points = unsafe { _mm512_loadu_si512(zero_points.cast()) };
                self.now.zero_point = _mm512_cvtepi32_ps(zero_points);
            }
        }
        if FORM == GROUPS {
            if self.left == 0 {
                self.at = if self.at + 1 < self.columns.len() { self.at + 1 } else { 0 };
                self.left = self.every;
                self.now.scale = _mm512_set1_ps(self.columns.scales[self.at]);
                self.now.reciprocal = _mm512_set1_ps(self.columns.reciprocals[self.at]);
                if !COMMON {
                    let zero_point = _mm512_set1_epi32(self.columns.zero_points[self.at]);
                    self.now.zero_point = _mm512_cvtepi32_ps(zero_point);
                }
            }
            self.left -= 1;
        }
        self.now
    }
}

/// Asks for the block [`AHEAD`] of `x`.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(x: *const f32) {
    for line in 0..4 {
        // Any address may be asked for; nothing is read.
        _mm_prefetch::<_MM_HINT_T0>(x.wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

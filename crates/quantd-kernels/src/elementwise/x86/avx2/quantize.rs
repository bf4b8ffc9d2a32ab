//! Codes alone.
//!
//! Half a block is 32 elements: each of four vectors takes a `vfmadd` and a `vcvtps2dq` to
//! fixed point (see [`fixed`](super::super::fixed)). A `vpsrld` and a `vpblendw` bring the upper words
//! of two vectors together, `vpackuswb` or `vpacksswb` narrows them to bytes and limits them to
//! all codes of the type, `vpshufb` and `vpermd` bring them in order. Three `vpminuw` and a
//! comparison find lower words that are near a tie.
//!
//! Parameters that differ from column to column are those of a tile of 32 columns
//! that is taken row by row.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "codes fit a byte: the parent checked their range"
)]

use super::super::fixed::{ALL_SIGNED, ALL_UNSIGNED, Codes, NEAR, SOME, UNIT};
use super::codes::{goes_past, quantize_slowly, store};
use super::*;
use crate::scalar::QuantParams;
use crate::table::Groups;

/// What makes fixed point of 8 elements.
#[derive(Clone, Copy)]
struct Fixed {
    factor: __m256,
    addend: __m256,
}

/// What makes codes of fixed point.
struct Ends {
    /// The addend of a zero point of 0.
    origin: f32,
    span: __m256i,
    base: __m256i,
    past: bool,
}

impl Ends {
    #[target_feature(enable = "avx2,fma")]
    fn new(codes: Codes, past: bool) -> Self {
        Self {
            origin: codes.origin,
            span: _mm256_set1_epi8(codes.span as u8 as i8),
            base: _mm256_set1_epi8(codes.base as u8 as i8),
            past,
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fixed(&self, reciprocal: __m256, zero_point: __m256i) -> Fixed {
        let unit = _mm256_set1_ps(UNIT);
        Fixed {
            factor: _mm256_mul_ps(reciprocal, unit),
            addend: _mm256_fmadd_ps(
                _mm256_cvtepi32_ps(zero_point),
                unit,
                _mm256_set1_ps(self.origin),
            ),
        }
    }

    /// Of one slice.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn slice(&self, reciprocal: f32, zero_point: i32) -> Fixed {
        self.fixed(_mm256_set1_ps(reciprocal), _mm256_set1_epi32(zero_point))
    }
}

/// Slices one after another, and from the first on again, made ready some at a time.
struct Slices<'a> {
    columns: Columns<'a, f32>,
    factors: [f32; READY],
    addends: [f32; READY],
    /// The next one, how many are ready, and the first of those.
    at: usize,
    ready: usize,
    first: usize,
}

/// Slices that are made ready at a time.
const READY: usize = 64;

impl<'a> Slices<'a> {
    #[target_feature(enable = "avx2,fma")]
    fn new(columns: Columns<'a, f32>, ends: &Ends) -> Self {
        let [factors, addends] = [[0.0; READY]; 2];
        let mut slices = Self { columns, factors, addends, at: 0, ready: 0, first: 0 };
        slices.make(ends);
        slices
    }

    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    fn make(&mut self, ends: &Ends) {
        let columns = self.columns.part(self.first..self.columns.len());
        self.ready = columns.len().min(READY);
        for (factor, reciprocal) in self.factors.iter_mut().zip(columns.reciprocals) {
            *factor = reciprocal * UNIT;
        }
        for (addend, &zero_point) in self.addends.iter_mut().zip(columns.zero_points) {
            *addend = zero_point as f32 * UNIT + ends.origin;
        }
    }

    /// The next slice.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn next(&mut self, ends: &Ends) -> Fixed {
        if self.at == self.ready {
            self.at = 0;
            if self.columns.len() > READY {
                self.first += READY;
                if self.first >= self.columns.len() {
                    self.first = 0;
                }
                self.make(ends);
            }
        }
        let (factor, addend) = (self.factors[self.at], self.addends[self.at]);
        self.at += 1;
        Fixed { factor: _mm256_set1_ps(factor), addend: _mm256_set1_ps(addend) }
    }
}

/// Writes the codes of all elements.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn quantize(work: &Bytes<'_>, codes: &mut [u8]) {
    match work.fixed() {
        (how, ALL_UNSIGNED) => quantize_to::<ALL_UNSIGNED>(work, how, codes),
        (how, ALL_SIGNED) => quantize_to::<ALL_SIGNED>(work, how, codes),
        (how, _) => quantize_to::<SOME>(work, how, codes),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_to<const KIND: u8>(work: &Bytes<'_>, how: Codes, codes: &mut [u8]) {
    let past = goes_past(work, codes);
    let ends = Ends::new(how, past);
    let whole = match work.params {
        Params::Same(affine) => in_slice::<KIND>(work, &ends, affine, codes),
        Params::Groups(groups) => in_groups::<KIND>(work, &ends, groups, codes),
        Params::Each(columns) => in_columns::<KIND>(work, ends, columns, codes),
    };
    if past {
        _mm_sfence();
    }
    if whole < codes.len() {
        quantize_slowly(&work.part(whole, codes.len() - whole), &mut codes[whole..]);
    }
}

/// Writes the codes of whole blocks; says how many elements that are.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn in_slice<const KIND: u8>(
    work: &Bytes<'_>,
    ends: &Ends,
    affine: QuantParams<f32>,
    codes: &mut [u8],
) -> usize {
    let fixed = ends.slice(1.0 / affine.scale, affine.zero_point);
    let whole = codes.len() - codes.len() % HALF;
    for at in (0..whole).step_by(HALF) {
        // SAFETY: the block ends within `x` and `codes`.
        unsafe { block::<KIND>(work, ends, [fixed; 4], codes, at) };
    }
    whole
}

/// Writes the codes of whole blocks; says how many elements that are.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn in_groups<const KIND: u8>(
    work: &Bytes<'_>,
    ends: &Ends,
    groups: Groups<'_, f32>,
    codes: &mut [u8],
) -> usize {
    let Groups { slices, offset, size } = groups;
    let whole = codes.len() - codes.len() % HALF;
    let mut slices = Slices::new(slices, ends);
    if offset % HALF == 0 && size % HALF == 0 {
        let (mut at, mut next) = (0, size - offset);
        while at < whole {
            let fixed = slices.next(ends);
            while at < next.min(whole) {
                // SAFETY: the block ends within `x` and `codes`.
                unsafe { block::<KIND>(work, ends, [fixed; 4], codes, at) };
                at += HALF;
            }
            next += size;
        }
        return whole;
    }
    let (mut left, mut now) = ((size - offset) / VECTOR, slices.next(ends));
    for at in (0..whole).step_by(HALF) {
        let mut next = || {
            if left == 0 {
                left = size / VECTOR;
                now = slices.next(ends);
            }
            left -= 1;
            now
        };
        let fixed = [next(), next(), next(), next()];
        // SAFETY: the block ends within `x` and `codes`.
        unsafe { block::<KIND>(work, ends, fixed, codes, at) };
    }
    whole
}

/// Writes the codes of whole rows, tile by tile; says how many elements that are.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn in_columns<const KIND: u8>(
    work: &Bytes<'_>,
    mut ends: Ends,
    columns: Columns<'_, f32>,
    codes: &mut [u8],
) -> usize {
    let row = columns.len().min(codes.len());
    if row < HALF {
        return 0;
    }
    ends.past &= row.is_multiple_of(HALF);
    let rows = codes.len() / row;
    for first in (0..row).step_by(HALF) {
        // The last tile is a whole one too: codes of columns of two tiles are written twice.
        let first = first.min(row - HALF);
        let fixed = PARTS.map(|i| {
            let at = first + VECTOR * i;
            // SAFETY: the columns have 8 elements from there on: the tile ends within them.
            let reciprocal =
                unsafe { _mm256_loadu_ps(columns.reciprocals.as_ptr().wrapping_add(at)) };
            // SAFETY: as above.
            let zero_point =
                unsafe { _mm256_loadu_si256(columns.zero_points.as_ptr().wrapping_add(at).cast()) };
            ends.fixed(reciprocal, zero_point)
        });
        for i in 0..rows {
            // SAFETY: the block ends within row `i`.
            unsafe { block::<KIND>(work, &ends, fixed, codes, i * row + first) };
        }
    }
    rows * row
}

/// Writes the codes of 32 elements from `at` on.
///
/// # Safety
/// There are as many of `x` and of `codes`, and if they go past the caches the
/// first code is at a multiple of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<const KIND: u8>(
    work: &Bytes<'_>,
    ends: &Ends,
    fixed: [Fixed; 4],
    codes: &mut [u8],
    at: usize,
) {
    let [a, b, c, d] = PARTS.map(|i| {
        // SAFETY: 8 elements from `at + 8 i` on are within `x`, says the caller.
        let x = unsafe { _mm256_loadu_ps(work.x.as_ptr().wrapping_add(at + 8 * i)) };
        _mm256_cvtps_epi32(_mm256_fmadd_ps(x, fixed[i].factor, fixed[i].addend))
    });
    let least = _mm256_min_epu16(_mm256_min_epu16(a, b), _mm256_min_epu16(c, d));
    let fraction = _mm256_and_si256(least, _mm256_set1_epi32(NEAR));
    let near = _mm256_cmpeq_epi32(fraction, _mm256_setzero_si256());
    let near = _mm256_movemask_ps(_mm256_castsi256_ps(near)) as u16;
    let first = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(a), b);
    let second = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(c), d);
    let bytes = if KIND == ALL_SIGNED {
        _mm256_packs_epi16(first, second)
    } else {
        _mm256_packus_epi16(first, second)
    };
    // In each part of 128 bits four codes of two vectors alternate, and then those of the others.
    let order = _mm256_setr_epi8(
        0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, //
        0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
    );
    let bytes = _mm256_shuffle_epi8(bytes, order);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut bytes = _mm256_permutevar8x32_epi32(bytes, order);
    if KIND == SOME {
        bytes = _mm256_add_epi8(_mm256_min_epu8(bytes, ends.span), ends.base);
    }
    if near != 0 {
        bytes = again(work, near, bytes, at);
    }
    // SAFETY: the block ends within `codes`, and is aligned, says the caller.
    unsafe { store(codes, at, bytes, ends.past) };
}

/// The codes of a block from `at` on once more, of elements `i` with bit `i % 8` of
/// `near` at least. What goes past the caches is not to be written twice.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn again(work: &Bytes<'_>, near: u16, bytes: __m256i, at: usize) -> __m256i {
    let mut codes = [0; HALF];
    // SAFETY: a block has 32 codes.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    work.again::<8>(near, &mut codes, at);
    // SAFETY: as above.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

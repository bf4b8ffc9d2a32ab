//! Codes alone.
//!
//! A block is 64 elements, one cache line of codes: each of four vectors takes a
//! `vfmadd` and a `vcvtps2dq` to fixed point (see [`fixed`](super::super::fixed)). Two
//! `vpermt2w` bring the upper words together, `vpackuswb` or `vpacksswb` narrows them to
//! bytes and limits them to all codes of the type, and `vpermd` undoes the lanes of the
//! packing. Three `vpminuw` and a `vptestnmd` find lower words that are near a tie.
//! Of the pipes this takes as much as a loop that multiplies, converts and narrows
//! without looking for ties, so that memory is what it waits for. Nothing is fetched
//! beforehand: what that takes of a cache's time is more than it saves.
//!
//! It is the vector pipes that codes in a cache wait for, so that whatever is done
//! for a slice beside the blocks counts: the parameters of groups are made ready many at
//! a time, an addend that all slices have in common is made once, and the usual sizes of groups
//! have loops of their own that take a slice, or two, in a step.
//!
//! Parameters that differ from column to column stay in registers while a tile
//! of columns is taken row by row: loading them again for each row would take
//! as long as loading the elements. In a cache, longer parts of a row are the better
//! tile; from memory, more rows between two parts of one are, as more lines of
//! different rows are then under way. Best from memory is one row after another, as the
//! prefetchers of the processor follow that: so it is done with so few columns that their
//! factors stay in the first-level cache beside the elements.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "codes fit a byte: the parent checked their range"
)]

use std::ops::Range;

use super::super::super::Stores;
use super::super::fixed::{ALL_SIGNED, ALL_UNSIGNED, Codes, NEAR, SOME, UNIT};
use super::codes::{goes_past, quantize_slowly, store};
use super::*;
use crate::scalar::QuantParams;
use crate::table::Groups;

/// What makes fixed point of 16 elements.
#[derive(Clone, Copy)]
struct Fixed {
    factor: __m512,
    addend: __m512,
}

/// What makes codes of fixed point.
struct Ends {
    /// The addend of a zero point of 0.
    origin: f32,
    span: __m512i,
    base: __m512i,
    past: bool,
}

impl Ends {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(codes: Codes, past: bool) -> Self {
        Self {
            origin: codes.origin,
            span: _mm512_set1_epi8(codes.span as u8 as i8),
            base: _mm512_set1_epi8(codes.base as u8 as i8),
            past,
        }
    }

    /// The addend of a zero point.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn addend(&self, zero_point: __m512i) -> __m512 {
        let origin = _mm512_set1_ps(self.origin);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(zero_point), _mm512_set1_ps(UNIT), origin)
    }

    /// The addend of slices that have one zero point.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn common(&self, slices: Columns<'_, f32>) -> __m512 {
        self.addend(_mm512_set1_epi32(slices.facts.zero_points[0]))
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn factor(reciprocal: __m512) -> __m512 {
    _mm512_mul_ps(reciprocal, _mm512_set1_ps(UNIT))
}

/// Slices one after another, and from the first on again, made ready some at a time. With
/// `COMMON`, all have the addend of the first one.
struct Slices<'a, const COMMON: bool> {
    columns: Columns<'a, f32>,
    common: __m512,
    factors: [f32; READY],
    addends: [f32; READY],
    /// The next one, and the first of those that are ready.
    at: usize,
    first: usize,
}

/// Slices that are made ready at a time.
const READY: usize = 64;

impl<'a, const COMMON: bool> Slices<'a, COMMON> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(columns: Columns<'a, f32>, ends: &Ends) -> Self {
        let [factors, addends] = [[0.0; READY]; 2];
        let common = ends.common(columns);
        let mut slices = Self { columns, common, factors, addends, at: 0, first: 0 };
        slices.make(ends);
        slices
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn make(&mut self, ends: &Ends) {
        let columns = self.columns.part(self.first..self.columns.len());
        for (factor, reciprocal) in self.factors.iter_mut().zip(columns.reciprocals) {
            *factor = reciprocal * UNIT;
        }
        if !COMMON {
            for (addend, &zero_point) in self.addends.iter_mut().zip(columns.zero_points) {
                *addend = zero_point as f32 * UNIT + ends.origin;
            }
        }
    }

    /// Slices that are ready.
    #[inline]
    fn ready(&self) -> usize {
        READY.min(self.columns.len() - self.first)
    }

    /// Makes those ready that come after the ones that are.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn advance(&mut self, ends: &Ends) {
        self.at = 0;
        if self.columns.len() > READY {
            self.first += READY;
            if self.first >= self.columns.len() {
                self.first = 0;
            }
            self.make(ends);
        }
    }

    /// Slice `i` of those that are ready.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn get(&self, i: usize) -> Fixed {
        let addend = if COMMON { self.common } else { _mm512_set1_ps(self.addends[i]) };
        Fixed { factor: _mm512_set1_ps(self.factors[i]), addend }
    }

    /// The next slice.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn next(&mut self, ends: &Ends) -> Fixed {
        if self.at == self.ready() {
            self.advance(ends);
        }
        self.at += 1;
        self.get(self.at - 1)
    }
}

/// Writes the codes of all elements.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn quantize(work: &Bytes<'_>, codes: &mut [u8]) {
    match work.fixed() {
        (how, ALL_UNSIGNED) => quantize_to::<ALL_UNSIGNED>(work, how, codes),
        (how, ALL_SIGNED) => quantize_to::<ALL_SIGNED>(work, how, codes),
        (how, _) => quantize_to::<SOME>(work, how, codes),
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_to<const KIND: u8>(work: &Bytes<'_>, how: Codes, codes: &mut [u8]) {
    let past = goes_past(work, codes);
    let ends = Ends::new(how, past);
    let whole = match (work.params, work.params.facts().is_common()) {
        (Params::Same(affine), _) => in_slice::<KIND>(work, &ends, affine, codes),
        (Params::Groups(groups), false) => in_groups::<KIND, false>(work, &ends, groups, codes),
        (Params::Groups(groups), true) => in_groups::<KIND, true>(work, &ends, groups, codes),
        (Params::Each(columns), false) => in_columns::<KIND, false>(work, ends, columns, codes),
        (Params::Each(columns), true) => in_columns::<KIND, true>(work, ends, columns, codes),
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
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn in_slice<const KIND: u8>(
    work: &Bytes<'_>,
    ends: &Ends,
    affine: QuantParams<f32>,
    codes: &mut [u8],
) -> usize {
    let fixed = Fixed {
        factor: factor(_mm512_set1_ps(1.0 / affine.scale)),
        addend: ends.addend(_mm512_set1_epi32(affine.zero_point)),
    };
    let whole = codes.len() - codes.len() % BLOCK;
    for at in (0..whole).step_by(BLOCK) {
        // SAFETY: the block ends within `x` and `codes`.
        unsafe { block::<KIND>(work, ends, [fixed; 4], codes, at) };
    }
    whole
}

/// Writes the codes of whole blocks; says how many elements that are. With `COMMON`,
/// all slices have one zero point.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn in_groups<const KIND: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    ends: &Ends,
    groups: Groups<'_, f32>,
    codes: &mut [u8],
) -> usize {
    let Groups { slices, offset, size } = groups;
    let whole = codes.len() - codes.len() % BLOCK;
    let pairs = slices.len().is_multiple_of(2) || !groups.repeat(codes.len());
    let mut slices = Slices::<COMMON>::new(slices, ends);
    match (offset, size) {
        (0, HALF) if pairs => return step_by::<KIND, COMMON, 2, 1>(work, ends, slices, codes),
        (0, BLOCK) => return step_by::<KIND, COMMON, 1, 1>(work, ends, slices, codes),
        (0, TWICE) => return step_by::<KIND, COMMON, 1, 2>(work, ends, slices, codes),
        _ => {}
    }
    if offset % BLOCK == 0 && size % BLOCK == 0 {
        let (mut at, mut next) = (0, size - offset);
        while at < whole {
            let fixed = slices.next(ends);
            while at < next.min(whole) {
                // SAFETY: the block ends within `x` and `codes`.
                unsafe { block::<KIND>(work, ends, [fixed; 4], codes, at) };
                at += BLOCK;
            }
            next += size;
        }
        return whole;
    }
    let (mut left, mut now) = ((size - offset) / VECTOR, slices.next(ends));
    for at in (0..whole).step_by(BLOCK) {
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

/// Slices that are half a block, and two.
const HALF: usize = BLOCK / 2;
const TWICE: usize = 2 * BLOCK;

/// Writes the codes of whole steps; says how many elements that are. A step is
/// `SLICES` slices (1 or 2) in one block, or `BLOCKS` blocks of one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn step_by<const KIND: u8, const COMMON: bool, const SLICES: usize, const BLOCKS: usize>(
    work: &Bytes<'_>,
    ends: &Ends,
    mut slices: Slices<'_, COMMON>,
    codes: &mut [u8],
) -> usize {
    let whole = codes.len() - codes.len() % (BLOCKS * BLOCK);
    let mut at = 0;
    while at < whole {
        let steps = (slices.ready() / SLICES).min((whole - at) / (BLOCKS * BLOCK));
        for i in 0..steps {
            let (first, last) = (slices.get(SLICES * i), slices.get(SLICES * i + SLICES - 1));
            for _ in 0..BLOCKS {
                // SAFETY: the block ends within `x` and `codes`.
                unsafe { block::<KIND>(work, ends, [first, first, last, last], codes, at) };
                at += BLOCK;
            }
        }
        if at < whole {
            slices.advance(ends);
        }
    }
    whole
}

/// Blocks of a row in a wide tile: their parameters fill half of the registers.
const WIDE: usize = 4;

/// Writes the codes of whole rows, tile by tile; says how many elements that are. With
/// `COMMON`, all columns have one zero point.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn in_columns<const KIND: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    mut ends: Ends,
    columns: Columns<'_, f32>,
    codes: &mut [u8],
) -> usize {
    let row = columns.len().min(codes.len());
    if row < BLOCK {
        return 0;
    }
    ends.past &= row.is_multiple_of(BLOCK);
    let cached = work.how.stores == Stores::Temporal;
    if !cached && row <= if COMMON { NARROW } else { NARROW / 2 } {
        let whole = codes.len() - codes.len() % row;
        for at in (0..whole).step_by(row) {
            in_row::<KIND, COMMON>(work, &ends, columns, codes, at..at + row);
        }
        return whole;
    }
    let mut first = 0;
    if COMMON && cached {
        while first + WIDE * BLOCK <= row {
            tile::<KIND, COMMON, WIDE>(work, &ends, columns, codes, first);
            first += WIDE * BLOCK;
        }
    }
    for first in (first..row).step_by(BLOCK) {
        // The last tile is a whole one too: codes of columns of two tiles are written twice.
        tile::<KIND, COMMON, 1>(work, &ends, columns, codes, first.min(row - BLOCK));
    }
    codes.len() - codes.len() % row
}

/// Columns whose factors stay in a first-level cache while elements stream through it:
/// a quarter of it.
const NARROW: usize = 2048;

/// Writes the codes of a row, which is at least a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn in_row<const KIND: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    ends: &Ends,
    columns: Columns<'_, f32>,
    codes: &mut [u8],
    row: Range<usize>,
) {
    assert!(row.len() >= BLOCK && row.end <= codes.len(), "a row has its codes");
    let common = ends.common(columns);
    for first in (0..row.len()).step_by(BLOCK) {
        let first = first.min(row.len() - BLOCK);
        let fixed = PARTS.map(|i| column::<COMMON>(ends, common, columns, first + VECTOR * i));
        // SAFETY: the block ends within the row, which ends within `codes`.
        unsafe { block::<KIND>(work, ends, fixed, codes, row.start + first) };
    }
}

/// What makes fixed point in 16 columns from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn column<const COMMON: bool>(
    ends: &Ends,
    common: __m512,
    columns: Columns<'_, f32>,
    at: usize,
) -> Fixed {
    assert!(at + VECTOR <= columns.len(), "a vector is within its row");
    // SAFETY: the columns have 16 elements from there on.
    let reciprocals = unsafe { _mm512_loadu_ps(columns.reciprocals.as_ptr().wrapping_add(at)) };
    let zero_points = columns.zero_points.as_ptr().wrapping_add(at).cast();
    // SAFETY: as above.
    let addend = || ends.addend(unsafe { _mm512_loadu_si512(zero_points) });
    Fixed { factor: factor(reciprocals), addend: if COMMON { common } else { addend() } }
}

/// Writes the codes of `BLOCKS` blocks of each whole row, from column `first` on, which
/// are all within the row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn tile<const KIND: u8, const COMMON: bool, const BLOCKS: usize>(
    work: &Bytes<'_>,
    ends: &Ends,
    columns: Columns<'_, f32>,
    codes: &mut [u8],
    first: usize,
) {
    let row = columns.len().min(codes.len());
    assert!(first + BLOCKS * BLOCK <= row, "a tile is within its rows");
    let common = ends.common(columns);
    let mut fixed = [[Fixed { factor: common, addend: common }; 4]; BLOCKS];
    for (i, fixed) in fixed.as_flattened_mut().iter_mut().enumerate() {
        *fixed = column::<COMMON>(ends, common, columns, first + VECTOR * i);
    }
    for i in 0..codes.len() / row {
        for (k, &fixed) in fixed.iter().enumerate() {
            // SAFETY: the block ends within row `i`.
            unsafe { block::<KIND>(work, ends, fixed, codes, i * row + first + BLOCK * k) };
        }
    }
}

/// Writes the codes of 64 elements from `at` on.
///
/// # Safety
/// There are as many of `x` and of `codes`, and if they go past the caches the
/// first code begins a cache line.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn block<const KIND: u8>(
    work: &Bytes<'_>,
    ends: &Ends,
    fixed: [Fixed; 4],
    codes: &mut [u8],
    at: usize,
) {
    let [a, b, c, d] = PARTS.map(|i| {
        // SAFETY: 16 elements from `at + 16 i` on are within `x`, says the caller.
        let x = unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at + 16 * i)) };
        _mm512_cvtps_epi32(_mm512_fmadd_ps(x, fixed[i].factor, fixed[i].addend))
    });
    let least = _mm512_min_epu16(_mm512_min_epu16(a, b), _mm512_min_epu16(c, d));
    let near = _mm512_testn_epi32_mask(least, _mm512_set1_epi32(NEAR));
    let upper = _mm512_set_epi16(
        63, 61, 59, 57, 31, 29, 27, 25, 55, 53, 51, 49, 23, 21, 19, 17, //
        47, 45, 43, 41, 15, 13, 11, 9, 39, 37, 35, 33, 7, 5, 3, 1,
    );
    let words = [_mm512_permutex2var_epi16(a, upper, b), _mm512_permutex2var_epi16(c, upper, d)];
    let bytes = if KIND == ALL_SIGNED {
        _mm512_packs_epi16(words[0], words[1])
    } else {
        _mm512_packus_epi16(words[0], words[1])
    };
    // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut bytes = _mm512_permutexvar_epi32(order, bytes);
    if KIND == SOME {
        bytes = _mm512_add_epi8(_mm512_min_epu8(bytes, ends.span), ends.base);
    }
    if near != 0 {
        bytes = again(work, near, bytes, at);
    }
    // SAFETY: the block ends within `codes`, and is aligned, says the caller.
    unsafe { store(codes, at, bytes, ends.past) };
}

/// The codes of a block from `at` on once more, of elements `i` with bit `i % 16` of
/// `near` at least. What goes past the caches is not to be written twice.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn again(work: &Bytes<'_>, near: u16, bytes: __m512i, at: usize) -> __m512i {
    let mut codes = [0; BLOCK];
    // SAFETY: a block has 64 codes.
    unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), bytes) };
    work.again::<16>(near, &mut codes, at);
    // SAFETY: as above.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

//! Codes with the sums of a report, or the sums alone.
//!
//! The error of an element whose code is not saturated is exact in f32, as
//! numbers within a factor of 2 of one another have exact differences (Sterbenz)
//! and anything else is restored as 0. Where some element is near a tie, codes are made as
//! `scalar` defines them; where one of them says otherwise, or elements are not finite, the whole block is
//! left to its loops.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::super::super::CodeSpec;
use super::super::sums::{Restored, Sums, add_clipped};
use super::codes::{Constants, Grid, constants, goes_past, grid, pack, quantize_slowly, store};
use super::*;
use crate::scalar::Rounding;
use crate::sums::LaneSums;

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn encode(work: &Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) {
    match (work.params, work.params.facts().is_common()) {
        (Params::Same(_), _) => encode_from::<SAME, true>(work, codes, lanes),
        (Params::Each(_), false) => encode_from::<EACH, false>(work, codes, lanes),
        (Params::Each(_), true) => encode_from::<EACH, true>(work, codes, lanes),
        (Params::Groups(_), false) => encode_from::<GROUPS, false>(work, codes, lanes),
        (Params::Groups(_), true) => encode_from::<GROUPS, true>(work, codes, lanes),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn encode_from<const FORM: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    codes: Option<&mut [u8]>,
    lanes: &mut LaneSums,
) {
    let (stores, codes) = (codes.is_some(), codes.unwrap_or_default());
    let past = stores && goes_past(work, codes);
    let len = if stores { work.x.len().min(codes.len()) } else { work.x.len() };
    let whole = len - len % BLOCK;
    if whole > 0 {
        let constants = constants(work);
        let mut cursor = Cursor::<FORM, COMMON>::new(work.params);
        let mut sums = Sums::load(lanes);
        let mut restored = Restored::default();
        for (i, x) in work.x[..whole].as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = BLOCK * i;
            let (mut saturated, mut exact) = (0, true);
            for first in [0, HALF] {
                let from = at + first;
                // SAFETY: the elements end within `x`; `Bytes` has seen to the columns.
                let mut grid =
                    unsafe { grid::<FORM, COMMON, 1>(work, &mut cursor, &constants, from) };
                if grid.is_near {
                    exact &= settle(&mut grid, &x[first..], work.how, &constants);
                }
                let limited =
                    grid.u.map(|u| _mm256_min_ps(_mm256_max_ps(u, constants.low), constants.high));
                if stores {
                    let bytes = pack(limited, &constants);
                    // SAFETY: they end within `codes`, whose alignment the caller checked.
                    unsafe { store(codes, from, bytes, past) };
                }
                let half = put(&mut restored, x, first, &grid, limited, &constants);
                saturated |= u64::from(half) << first;
            }
            if !exact || (saturated != 0 && x.iter().fold(0.0, |odd, x| odd + x * 0.0) != 0.0) {
                sums.store(lanes);
                measure_slowly(&work.part(at, BLOCK), lanes);
                sums = Sums::load(lanes);
                continue;
            }
            if saturated != 0 {
                add_clipped(x, &restored.x, saturated, lanes);
            }
            note(x, &restored, lanes);
            sums.add(&mut restored);
        }
        sums.store(lanes);
    }
    if past {
        _mm_sfence();
    }
    if whole < len {
        let part = work.part(whole, len - whole);
        if stores {
            quantize_slowly(&part, &mut codes[whole..len]);
        }
        measure_slowly(&part, lanes);
    }
}

/// Takes the codes of the definition, limited to one beyond either end; says whether
/// the errors are exact then.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn settle(grid: &mut Grid, x: &[f32], how: CodeSpec, constants: &Constants) -> bool {
    let end = |code: i32| _mm256_set1_ps(code as f32);
    let ends = [end(how.range.min - 1), end(how.range.max + 1)];
    let mut inexact = _mm256_setzero_ps();
    for i in PARTS {
        let Eight { scale, reciprocal, zero_point } = grid.params[i];
        let x = &x[VECTOR * i..][..VECTOR];
        // SAFETY: the slice has 8 elements.
        let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
        let codes = match how.rounding {
            Rounding::DivideEven => _mm256_add_ps(even(_mm256_div_ps(x, scale)), zero_point),
            Rounding::ReciprocalEven => {
                _mm256_add_ps(even(_mm256_mul_ps(x, reciprocal)), zero_point)
            }
            Rounding::ZeroPointFirst => even(_mm256_add_ps(_mm256_div_ps(x, scale), zero_point)),
            Rounding::DivideAway => _mm256_add_ps(away(_mm256_div_ps(x, scale)), zero_point),
        };
        // NaN becomes the lower end.
        let codes = _mm256_min_ps(_mm256_max_ps(codes, ends[0]), ends[1]);
        let middle = _mm256_add_ps(constants.middle, _mm256_set1_ps(0.5));
        grid.u[i] = _mm256_add_ps(codes, middle);
        let restored = _mm256_mul_ps(_mm256_sub_ps(codes, zero_point), scale);
        let magnitude = |x| _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
        let twice = magnitude(_mm256_add_ps(x, x));
        let less = _mm256_cmp_ps::<_CMP_LT_OQ>(twice, magnitude(restored));
        inexact = _mm256_or_ps(inexact, less);
    }
    _mm256_movemask_ps(inexact) == 0
}

/// The nearest integer, the even one of two, where that is small; else something that is not small either.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn even(steps: __m256) -> __m256 {
    let magic = _mm256_set1_ps(12_582_912.0); // 1.5 * 2^23
    _mm256_sub_ps(_mm256_add_ps(steps, magic), magic)
}

/// The same, of two the one that is further from 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn away(steps: __m256) -> __m256 {
    let even = even(steps);
    // Exact: the difference of neighbours needs no more bits than they have.
    let rest = _mm256_sub_ps(steps, even);
    let sign = _mm256_and_ps(steps, _mm256_set1_ps(-0.0));
    let half = _mm256_or_ps(_mm256_set1_ps(0.5), sign);
    let tie = _mm256_cmp_ps::<_CMP_EQ_OQ>(rest, half);
    _mm256_add_ps(even, _mm256_and_ps(tie, _mm256_add_ps(half, half)))
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn measure_slowly(work: &Bytes<'_>, lanes: &mut LaneSums) {
    work.measure(lanes);
}

/// Puts what half a block is restored to; says which codes are saturated.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn put(
    restored: &mut Restored,
    x: &[f32; BLOCK],
    first: usize,
    grid: &Grid,
    limited: [__m256; 4],
    constants: &Constants,
) -> u32 {
    let mut saturated = 0;
    for i in PARTS {
        let changed = _mm256_cmp_ps::<_CMP_NEQ_UQ>(limited[i], grid.u[i]);
        saturated |= _mm256_movemask_ps(changed).cast_unsigned() << (VECTOR * i);
        let Eight { scale, zero_point, .. } = grid.params[i];
        // The fraction is cut off.
        let whole = _mm256_and_si256(_mm256_castps_si256(limited[i]), _mm256_set1_epi32(!0x7fff));
        let middle = _mm256_add_ps(zero_point, constants.middle);
        let back = _mm256_mul_ps(_mm256_sub_ps(_mm256_castsi256_ps(whole), middle), scale);
        let at = first + VECTOR * i;
        let error = _mm256_andnot_ps(changed, _mm256_sub_ps(load(x, at), back));
        let (of_x, of_errors) = (&mut restored.x[at..][..8], &mut restored.errors[at..][..8]);
        // SAFETY: the slice has 8 elements.
        unsafe { _mm256_storeu_ps(of_x.as_mut_ptr(), back) };
        // SAFETY: the slice has 8 elements.
        unsafe { _mm256_storeu_ps(of_errors.as_mut_ptr(), error) };
    }
    saturated
}

/// Notes what there is beside the sums: counts, and the largest error of codes
/// that are not saturated.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn note(x: &[f32; BLOCK], restored: &Restored, lanes: &mut LaneSums) {
    let zero = _mm256_setzero_ps();
    let (mut zeroed, mut largest) = (0, zero);
    for at in (0..BLOCK).step_by(VECTOR) {
        let some = _mm256_cmp_ps::<_CMP_NEQ_OQ>(load(x, at), zero);
        let none = _mm256_cmp_ps::<_CMP_EQ_OQ>(load(&restored.x, at), zero);
        zeroed += _mm256_movemask_ps(_mm256_and_ps(some, none)).count_ones();
        let error = _mm256_andnot_ps(_mm256_set1_ps(-0.0), load(&restored.errors, at));
        largest = _mm256_max_ps(error, largest);
    }
    let half = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
    let largest = _mm256_cvtps_pd(half);
    // SAFETY: there are more than 4 lanes.
    let own = unsafe { _mm256_loadu_pd(lanes.max_abs.as_ptr()) };
    let largest = _mm256_max_pd(largest, own);
    // SAFETY: as above.
    unsafe { _mm256_storeu_pd(lanes.max_abs.as_mut_ptr(), largest) };
    lanes.zeroed_count += u64::from(zeroed);
    lanes.count += BLOCK as u64;
}

/// Eight elements from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(x: &[f32; BLOCK], at: usize) -> __m256 {
    let eight = &x[at..at + VECTOR];
    // SAFETY: the slice has 8 elements.
    unsafe { _mm256_loadu_ps(eight.as_ptr()) }
}

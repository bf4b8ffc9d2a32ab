//! Codes with the sums of a report, or the sums alone.
//!
//! # Codes
//! `fma(x, r, 1.5 * 2^23 + z)` has the code in its low bits, and less a constant
//! it is the number of steps, from which what is restored and the error follow.
//! The error tells whether the code is right: let it be at most `s (1/2 - 2^-14)`.
//! In steps, and with `|x / s| <= 256` as zero points are codes, rounding what is
//! restored moves the error by less than 2^-16 and the rounding of the definition's own
//! quotient by as much, with another 2^-16 where it multiplies by a reciprocal or
//! adds the zero point first: the definition rounds to the same code. If some
//! error is larger, which is so in one block of 64 random elements in 128 and wherever the largest
//! element of a group is to be 127.5 steps, the codes of the block are made as `scalar` defines them,
//! by divisions, in the registers where the elements are: in short groups that is every block.
//! Codes are limited to 16 bits first, and those
//! beyond their range found there, where NaN and infinities are as well.
//!
//! # Sums
//! The error of an element whose code is not saturated is exact in f32, as
//! numbers within a factor of 2 of one another have exact differences (Sterbenz)
//! and anything else is restored as 0; where a code of `scalar` says otherwise, or elements
//! are not finite, the whole block is left to its loops. The sums of a block are made while the next one is
//! restored, which does not wait for them: they take half of the time.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "codes fit a byte: the parent checked their range"
)]

use std::arch::x86_64::*;
use std::mem::swap;

use super::super::sums::{Restored, Sums, add_clipped};
use super::codes::{goes_past, quantize_slowly, store};
use super::*;
use crate::scalar::{CodeRange, Rounding};
use crate::sums::LaneSums;

/// Added to a small number, leaves the nearest integer in the low bits: 1.5 * 2^23.
const MAGIC: f32 = 12_582_912.0;
/// Part of a step that an error may be at most.
const CERTAIN: f32 = 0.5 - 1.0 / 16_384.0;
/// `vrange`: the larger magnitude, without its sign.
const LARGER: i32 = 0b1011;

/// Constants of a call.
struct Constants {
    /// Numbers of the codes that do not saturate: [`MAGIC`] and their ends.
    low: __m512,
    high: __m512,
    /// How many codes there are after the smallest one.
    others: __m512i,
    /// The smallest code.
    first: __m512i,
    /// The zero point, where there is but one.
    zero: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn constants(work: &Bytes<'_>) -> Constants {
    let CodeRange { min, max } = work.how.range;
    Constants {
        low: _mm512_set1_ps(MAGIC + min as f32),
        high: _mm512_set1_ps(MAGIC + max as f32),
        others: _mm512_set1_epi16((max - min) as i16),
        first: _mm512_set1_epi8(min as i8),
        zero: _mm512_set1_epi8(work.params.facts().zero_points[0] as i8),
    }
}

/// 64 elements, their codes and what they are restored to.
struct Block {
    x: [__m512; 4],
    params: [Sixteen; 4],
    /// [`MAGIC`] and the codes.
    u: [__m512; 4],
    /// Codes from the smallest one on, in parts of 128 bits.
    words: [__m512i; 2],
    restored: [__m512; 4],
    errors: [__m512; 4],
    /// The largest of the errors in each lane.
    largest: __m512,
    /// Whether some code is not certain.
    is_near: bool,
    /// Whether that is so, or some code is saturated, or NaN.
    is_odd: bool,
}

/// Takes 64 elements from `at` on.
///
/// # Safety
/// `x` and, with `EACH`, the columns have at least `at + 64` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn block<const FORM: u8, const COMMON: bool>(
    work: &Bytes<'_>,
    cursor: &mut Cursor<'_, FORM, COMMON>,
    constants: &Constants,
    at: usize,
) -> Block {
    prefetch(work.x.as_ptr().wrapping_add(at));
    // One after another, as the compiler keeps arrays that closures make in memory.
    // SAFETY: the columns have 16 elements for each of the vectors, says the caller.
    let first = unsafe { cursor.next() };
    // SAFETY: as above.
    let second = unsafe { cursor.next() };
    // SAFETY: as above.
    let third = unsafe { cursor.next() };
    // SAFETY: as above.
    let params = [first, second, third, unsafe { cursor.next() }];
    // SAFETY: 16 elements from `at + 16 i` on are within `x`, says the caller.
    let x = PARTS.map(|i| unsafe { _mm512_loadu_ps(work.x.as_ptr().wrapping_add(at + 16 * i)) });
    let u = PARTS.map(|i| _mm512_fmadd_ps(x[i], params[i].reciprocal, magic(params[i])));
    let restored = PARTS.map(|i| restore(u[i], params[i]));
    let errors = PARTS.map(|i| _mm512_sub_ps(x[i], restored[i]));
    let largest = largest(errors);
    let certain = |params: Sixteen| _mm512_mul_ps(params.scale, _mm512_set1_ps(CERTAIN));
    let near = if FORM == SAME {
        _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(largest, certain(first))
    } else {
        let near = PARTS.map(|i| {
            _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(_mm512_abs_ps(errors[i]), certain(params[i]))
        });
        near[0] | near[1] | near[2] | near[3]
    };
    let low = _mm512_castps_si512(constants.low);
    let [a, b, c, d] = u.map(|u| _mm512_sub_epi32(_mm512_castps_si512(u), low));
    let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
    let beyond = _mm512_cmpgt_epu16_mask(_mm512_max_epu16(words[0], words[1]), constants.others);
    let (is_near, is_odd) = (near != 0, u32::from(near) | beyond != 0);
    Block { x, params, u, words, restored, errors, largest, is_near, is_odd }
}

/// [`MAGIC`] and the zero point.
#[inline]
#[target_feature(enable = "avx512f")]
fn magic(params: Sixteen) -> __m512 {
    _mm512_add_ps(params.zero_point, _mm512_set1_ps(MAGIC))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn restore(u: __m512, params: Sixteen) -> __m512 {
    _mm512_mul_ps(_mm512_sub_ps(u, magic(params)), params.scale)
}

/// [`MAGIC`] and the nearest integer, the even one of two, where that is small.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_even(steps: __m512) -> __m512 {
    _mm512_add_ps(steps, _mm512_set1_ps(MAGIC))
}

/// The same, of two the one that is further from 0.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn away(steps: __m512) -> __m512 {
    let even = to_even(steps);
    // Exact: the difference of neighbours needs no more bits than they have.
    let rest = _mm512_sub_ps(steps, _mm512_sub_ps(even, _mm512_set1_ps(MAGIC)));
    let sign = _mm512_and_ps(steps, _mm512_set1_ps(-0.0));
    let half = _mm512_or_ps(_mm512_set1_ps(0.5), sign);
    let tie = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(rest, half);
    _mm512_mask_add_ps(even, tie, even, _mm512_add_ps(half, half))
}

/// The largest magnitude in each lane; NaN counts for nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn largest([a, b, c, d]: [__m512; 4]) -> __m512 {
    let larger = |a, b| _mm512_range_ps::<LARGER>(a, b);
    larger(larger(a, b), larger(c, d))
}

impl Block {
    /// Whether all elements are finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn is_finite(&self) -> bool {
        let infinity = _mm512_set1_ps(f32::INFINITY);
        let finite = self.x.map(|x| _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x), infinity));
        finite == [__mmask16::MAX; 4]
    }

    /// Takes the codes of the definition, limited to one beyond either end; says whether
    /// the errors are exact then.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn settle(&mut self, rounding: Rounding, constants: &Constants) -> bool {
        self.u = match rounding {
            Rounding::DivideEven => PARTS.map(|i| {
                let steps = _mm512_div_ps(self.x[i], self.params[i].scale);
                _mm512_add_ps(to_even(steps), self.params[i].zero_point)
            }),
            Rounding::ReciprocalEven => PARTS.map(|i| {
                let steps = _mm512_mul_ps(self.x[i], self.params[i].reciprocal);
                _mm512_add_ps(to_even(steps), self.params[i].zero_point)
            }),
            Rounding::ZeroPointFirst => PARTS.map(|i| {
                let steps = _mm512_div_ps(self.x[i], self.params[i].scale);
                to_even(_mm512_add_ps(steps, self.params[i].zero_point))
            }),
            Rounding::DivideAway => PARTS.map(|i| {
                let steps = _mm512_div_ps(self.x[i], self.params[i].scale);
                _mm512_add_ps(away(steps), self.params[i].zero_point)
            }),
        };
        let one = _mm512_set1_ps(1.0);
        let ends = [_mm512_sub_ps(constants.low, one), _mm512_add_ps(constants.high, one)];
        let mut inexact = 0;
        for i in PARTS {
            // NaN becomes the lower end.
            self.u[i] = _mm512_min_ps(_mm512_max_ps(self.u[i], ends[0]), ends[1]);
            let restored = _mm512_abs_ps(restore(self.u[i], self.params[i]));
            let twice = _mm512_abs_ps(_mm512_add_ps(self.x[i], self.x[i]));
            inexact |= _mm512_cmp_ps_mask::<_CMP_LT_OQ>(twice, restored);
        }
        inexact == 0
    }

    /// Limits the codes and leaves out the errors of those that are saturated:
    /// says which.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn limit(&mut self, constants: &Constants) -> __mmask64 {
        let mut saturated = [0; 4];
        for i in PARTS {
            let u = self.u[i];
            let limited = _mm512_min_ps(_mm512_max_ps(u, constants.low), constants.high);
            saturated[i] = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(limited, u);
            self.u[i] = limited;
            self.restored[i] = restore(limited, self.params[i]);
            self.errors[i] = _mm512_maskz_sub_ps(!saturated[i], self.x[i], self.restored[i]);
        }
        self.largest = largest(self.errors);
        let low = _mm512_castps_si512(constants.low);
        let [a, b, c, d] = self.u.map(|u| _mm512_sub_epi32(_mm512_castps_si512(u), low));
        self.words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
        join(saturated)
    }

    /// The codes in their order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn codes(&self, constants: &Constants) -> __m512i {
        let bytes = _mm512_packus_epi16(self.words[0], self.words[1]);
        // Packing works in parts of 128 bits: dword 4 i + j holds elements 4 i.. of vector j.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_add_epi8(_mm512_permutexvar_epi32(order, bytes), constants.first)
    }

    /// How many elements other than 0 have the code of 0.
    #[inline]
    #[target_feature(enable = "popcnt,avx512f,avx512bw,avx512dq")]
    fn zeroed<const COMMON: bool>(&self, codes: __m512i, constants: &Constants) -> u64 {
        let none = |x| _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, _mm512_setzero_ps());
        let gone = if COMMON {
            _mm512_cmpeq_epi8_mask(codes, constants.zero)
        } else {
            join(self.restored.map(none))
        };
        u64::from((gone & !join(self.x.map(none))).count_ones())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(&self, to: &mut Restored) {
        for i in PARTS {
            let (x, errors) = (&mut to.x[16 * i..][..16], &mut to.errors[16 * i..][..16]);
            // SAFETY: the slice has 16 elements.
            unsafe { _mm512_storeu_ps(x.as_mut_ptr(), self.restored[i]) };
            // SAFETY: the slice has 16 elements.
            unsafe { _mm512_storeu_ps(errors.as_mut_ptr(), self.errors[i]) };
        }
    }
}

/// One mask of four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join([a, b, c, d]: [__mmask16; 4]) -> __mmask64 {
    let [low, high] = [_mm512_kunpackw(b.into(), a.into()), _mm512_kunpackw(d.into(), c.into())];
    _mm512_kunpackd(high.into(), low.into())
}

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
pub(in super::super) fn encode(work: &Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) {
    match (work.params, work.params.facts().is_common()) {
        (Params::Same(_), _) => encode_from::<SAME, true>(work, codes, lanes),
        (Params::Each(_), false) => encode_from::<EACH, false>(work, codes, lanes),
        (Params::Each(_), true) => encode_from::<EACH, true>(work, codes, lanes),
        (Params::Groups(_), false) => encode_from::<GROUPS, false>(work, codes, lanes),
        (Params::Groups(_), true) => encode_from::<GROUPS, true>(work, codes, lanes),
    }
}

#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
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
        let [mut before, mut now] = [&mut Restored::default(), &mut Restored::default()];
        let mut largest = _mm512_setzero_ps();
        let [mut count, mut zeroed] = [0; 2];
        for (i, x) in work.x[..whole].as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = BLOCK * i;
            // SAFETY: the block ends within `x`; `Bytes` has seen to the columns.
            let mut block = unsafe { block::<FORM, COMMON>(work, &mut cursor, &constants, at) };
            let mut saturated = 0;
            if block.is_odd {
                let exact = !block.is_near || block.settle(work.how.rounding, &constants);
                if !exact || !block.is_finite() {
                    sums.add(before);
                    // Which adds nothing a second time.
                    *before = Restored::default();
                    sums.store(lanes);
                    let codes = if stores { Some(&mut codes[at..at + BLOCK]) } else { None };
                    encode_slowly(&work.part(at, BLOCK), codes, lanes);
                    sums = Sums::load(lanes);
                    continue;
                }
                saturated = block.limit(&constants);
            }
            let bytes = block.codes(&constants);
            if stores {
                // SAFETY: the block ends within `codes`, whose alignment the caller checked.
                unsafe { store(codes, at, bytes, past) };
            }
            count += BLOCK as u64;
            zeroed += block.zeroed::<COMMON>(bytes, &constants);
            largest = _mm512_range_ps::<LARGER>(largest, block.largest);
            block.store(now);
            if saturated != 0 {
                add_clipped(x, &now.x, saturated, lanes);
            }
            sums.add(before);
            swap(&mut before, &mut now);
        }
        sums.add(before);
        sums.store(lanes);
        lanes.count += count;
        lanes.zeroed_count += zeroed;
        let largest = f64::from(_mm512_reduce_max_ps(largest));
        lanes.max_abs[0] = lanes.max_abs[0].max(largest);
    }
    if past {
        _mm_sfence();
    }
    if whole < len {
        let codes = if stores { Some(&mut codes[whole..len]) } else { None };
        encode_slowly(&work.part(whole, len - whole), codes, lanes);
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn encode_slowly(work: &Bytes<'_>, codes: Option<&mut [u8]>, lanes: &mut LaneSums) {
    if let Some(codes) = codes {
        quantize_slowly(work, codes);
    }
    work.measure(lanes);
}

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

use std::mem::swap;

use super::sums::{Restored, Sums, add_clipped};
use super::*;
use crate::scalar::{CodeRange, Rounding};

/// Added to a small number, leaves the nearest integer in the low bits: 1.5 * 2^23.
const MAGIC: f32 = 12_582_912.0;
/// Part of a step that an error may be at most.
const CERTAIN: f32 = 0.5 - 1.0 / 16_384.0;

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
pub(super) struct Encode<'a, 'c> {
    pub(super) work: Bytes<'a>,
    pub(super) codes: Option<&'c mut [u8]>,
    pub(super) lanes: &'c mut LaneSums,
}

impl VectorOp for Encode<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (self.work.params, self.work.params.facts().is_common()) {
            (Params::Same(_), _) => self.blocks::<S, SAME, true>(simd),
            (Params::Each(_), false) => self.blocks::<S, EACH, false>(simd),
            (Params::Each(_), true) => self.blocks::<S, EACH, true>(simd),
            (Params::Groups(_), false) => self.blocks::<S, GROUPS, false>(simd),
            (Params::Groups(_), true) => self.blocks::<S, GROUPS, true>(simd),
        }
    }
}

impl Encode<'_, '_> {
    #[inline(always)]
    fn blocks<S: Simd, const FORM: u8, const COMMON: bool>(self, simd: S) {
        let Self { work, codes, lanes } = self;
        let (stores, codes) = (codes.is_some(), codes.unwrap_or_default());
        let past = stores && work.goes_past::<S>(codes);
        let len = if stores { work.x.len().min(codes.len()) } else { work.x.len() };
        let whole = len - len % S::BLOCK;
        if whole > 0 {
            let constants = Constants::new(simd, &work);
            let mut cursor = Cursor::<S, FORM, COMMON>::new(simd, work.params);
            let mut sums = Sums::load(simd, lanes);
            let [mut before, mut now] = [&mut Restored::default(), &mut Restored::default()];
            let mut largest = simd.splat(0.0);
            let [mut count, mut zeroed] = [0; 2];
            for (i, x) in work.x[..whole].chunks_exact(S::BLOCK).enumerate() {
                let at = S::BLOCK * i;
                let mut block = Block::new::<FORM>(simd, x, cursor.block(), &constants);
                let Some(saturated) = block.saturated(work.how.rounding, &constants) else {
                    sums.add(before);
                    // Which adds nothing a second time.
                    *before = Restored::default();
                    sums.store(lanes);
                    let codes = if stores { Some(&mut codes[at..at + S::BLOCK]) } else { None };
                    let work = work.part(at, S::BLOCK);
                    simd.apart(EncodeByScalar { work, codes, lanes: &mut *lanes });
                    sums = Sums::load(simd, lanes);
                    continue;
                };
                let bytes = block.codes(&constants);
                if stores {
                    store_codes(simd, &mut codes[at..at + S::BLOCK], bytes, past);
                }
                count += S::BLOCK as u64;
                zeroed += block.zeroed::<COMMON>(bytes, &constants);
                largest = simd.max(block.largest, largest);
                block.store(now);
                if saturated != 0 {
                    add_clipped(simd, x, now, saturated, lanes);
                }
                sums.add(before);
                swap(&mut before, &mut now);
            }
            sums.add(before);
            sums.store(lanes);
            lanes.count += count;
            lanes.zeroed_count += zeroed;
            lanes.max_abs[0] = lanes.max_abs[0].max(f64::from(simd.reduce_max(largest)));
        }
        if past {
            simd.fence();
        }
        if whole < len {
            let codes = if stores { Some(&mut codes[whole..len]) } else { None };
            let work = work.part(whole, len - whole);
            simd.apart(EncodeByScalar { work, codes, lanes });
        }
    }
}

/// The slow way.
struct EncodeByScalar<'a, 'c> {
    work: Bytes<'a>,
    codes: Option<&'c mut [u8]>,
    lanes: &'c mut LaneSums,
}

impl Op for EncodeByScalar<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if let Some(codes) = self.codes {
            self.work.quantize(codes);
        }
        self.work.measure(self.lanes);
    }
}

/// Constants of a call.
struct Constants<S: Simd> {
    /// Numbers of the codes that do not saturate: [`MAGIC`] and their ends.
    low: S::F32,
    high: S::F32,
    /// How many codes there are after the smallest one.
    others: u16,
    /// The smallest code.
    first: S::U8,
    /// The zero point, where there is but one.
    zero: S::U8,
}

impl<S: Simd> Constants<S> {
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "codes fit a byte: `Bytes` checked their range"
    )]
    fn new(simd: S, work: &Bytes<'_>) -> Self {
        let CodeRange { min, max } = work.how.range;
        Self {
            low: simd.splat(MAGIC + min as f32),
            high: simd.splat(MAGIC + max as f32),
            others: (max - min) as u16,
            first: simd.splat_u8(min as u8),
            zero: simd.splat_u8(work.params.facts().zero_points[0] as u8),
        }
    }
}

/// Elements, their codes and what they are restored to.
struct Block<S: Simd> {
    simd: S,
    x: [S::F32; 4],
    params: [Vector<S>; 4],
    /// [`MAGIC`] and the codes.
    u: [S::F32; 4],
    /// Codes from the smallest one on.
    words: S::Words,
    restored: [S::F32; 4],
    errors: [S::F32; 4],
    /// The largest of the errors in each lane.
    largest: S::F32,
    /// Whether some code is not certain.
    is_uncertain: bool,
    /// Whether that is so, or some code is saturated, or NaN.
    is_irregular: bool,
}

/// [`MAGIC`] and the zero point.
#[inline(always)]
fn magic<S: Simd>(simd: S, params: Vector<S>) -> S::F32 {
    simd.add(params.zero_point, simd.splat(MAGIC))
}

#[inline(always)]
fn restore<S: Simd>(simd: S, u: S::F32, params: Vector<S>) -> S::F32 {
    simd.mul(simd.sub(u, magic(simd, params)), params.scale)
}

/// What an error may be at most.
#[inline(always)]
fn certain<S: Simd>(simd: S, params: Vector<S>) -> S::F32 {
    simd.mul(params.scale, simd.splat(CERTAIN))
}

/// One bit for each 0.
#[inline(always)]
fn zeros<S: Simd>(simd: S, x: [S::F32; 4]) -> u64 {
    simd.bits(each(
        x,
        #[inline(always)]
        |x| simd.eq(x, simd.splat(0.0)),
    ))
}

/// [`MAGIC`] and the nearest integer, the even one of two, where that is small.
#[inline(always)]
fn to_even<S: Simd>(simd: S, steps: S::F32) -> S::F32 {
    simd.add(steps, simd.splat(MAGIC))
}

/// The same, of two the one that is further from 0.
#[inline(always)]
fn away<S: Simd>(simd: S, steps: S::F32) -> S::F32 {
    let even = to_even(simd, steps);
    // Exact: the difference of neighbours needs no more bits than they have.
    let rest = simd.sub(steps, simd.sub(even, simd.splat(MAGIC)));
    let half = simd.copysign(simd.splat(0.5), steps);
    simd.add(even, simd.keep(simd.eq(rest, half), simd.add(half, half)))
}

impl<S: Simd> Block<S> {
    /// Takes the elements of a block.
    #[inline(always)]
    fn new<const FORM: u8>(
        simd: S,
        x: &[f32],
        params: [Vector<S>; 4],
        constants: &Constants<S>,
    ) -> Self {
        prefetch_ahead(x);
        let x = each(
            PARTS,
            #[inline(always)]
            |i| simd.load(&x[S::LANES * i..]),
        );
        let u = each(
            PARTS,
            #[inline(always)]
            |i| simd.mul_add(x[i], params[i].reciprocal, magic(simd, params[i])),
        );
        let restored = each(
            PARTS,
            #[inline(always)]
            |i| restore(simd, u[i], params[i]),
        );
        let errors = each(
            PARTS,
            #[inline(always)]
            |i| simd.sub(x[i], restored[i]),
        );
        let largest = simd.max_magnitude(errors);
        let uncertain = if FORM == SAME {
            simd.not_le(largest, certain(simd, params[0]))
        } else {
            let uncertain = each(
                PARTS,
                #[inline(always)]
                |i| simd.not_le(simd.abs(errors[i]), certain(simd, params[i])),
            );
            any_of(simd, uncertain)
        };
        let words = words(simd, u, constants);
        let is_uncertain = simd.any(uncertain);
        let is_irregular = is_uncertain | simd.any_above(words, constants.others);
        Self { simd, x, params, u, words, restored, errors, largest, is_uncertain, is_irregular }
    }

    /// Whether all elements are finite.
    #[inline(always)]
    fn is_finite(&self) -> bool {
        let simd = self.simd;
        let infinity = simd.splat(f32::INFINITY);
        let finite = each(
            self.x,
            #[inline(always)]
            |x| simd.lt(simd.abs(x), infinity),
        );
        simd.bits(finite).count_ones() as usize == S::BLOCK
    }

    /// Which codes are saturated, after those that are not certain are settled; nothing where the block is
    /// to be left to the loops of `scalar`.
    #[inline(always)]
    fn saturated(&mut self, rounding: Rounding, constants: &Constants<S>) -> Option<u64> {
        if !self.is_irregular {
            return Some(0);
        }
        let exact = !self.is_uncertain || self.settle(rounding, constants);
        if exact && self.is_finite() { Some(self.limit(constants)) } else { None }
    }

    /// The codes of the definition, before they are limited: [`MAGIC`] and integers, where these are small.
    #[inline(always)]
    fn by_definition(&self, rounding: Rounding, i: usize) -> S::F32 {
        let (simd, x) = (self.simd, self.x[i]);
        let Vector { scale, reciprocal, zero_point } = self.params[i];
        match rounding {
            Rounding::DivideEven => simd.add(to_even(simd, simd.div(x, scale)), zero_point),
            Rounding::ReciprocalEven => {
                simd.add(to_even(simd, simd.mul(x, reciprocal)), zero_point)
            }
            Rounding::ZeroPointFirst => to_even(simd, simd.add(simd.div(x, scale), zero_point)),
            Rounding::DivideAway => simd.add(away(simd, simd.div(x, scale)), zero_point),
        }
    }

    /// Takes the codes of the definition, limited to one beyond either end; says whether
    /// the errors are exact then.
    #[inline(always)]
    fn settle(&mut self, rounding: Rounding, constants: &Constants<S>) -> bool {
        let simd = self.simd;
        let [one, infinity] = [simd.splat(1.0), simd.splat(f32::INFINITY)];
        let ends = [simd.sub(constants.low, one), simd.add(constants.high, one)];
        let inexact = each(
            PARTS,
            #[inline(always)]
            |i| {
                // NaN becomes the lower end.
                let u = simd.max(self.by_definition(rounding, i), ends[0]);
                self.u[i] = simd.min(u, ends[1]);
                let restored = simd.abs(restore(simd, self.u[i], self.params[i]));
                let twice = simd.abs(simd.add(self.x[i], self.x[i]));
                // Of twice a number that overflows nothing is known.
                simd.or(simd.lt(twice, restored), simd.eq(restored, infinity))
            },
        );
        !simd.any(any_of(simd, inexact))
    }

    /// Limits the codes and leaves out the errors of those that are saturated:
    /// says which.
    #[inline(always)]
    fn limit(&mut self, constants: &Constants<S>) -> u64 {
        let simd = self.simd;
        let saturated = each(
            PARTS,
            #[inline(always)]
            |i| {
                let u = self.u[i];
                let limited = simd.min(simd.max(u, constants.low), constants.high);
                let saturated = simd.ne(limited, u);
                self.u[i] = limited;
                self.restored[i] = restore(simd, limited, self.params[i]);
                self.errors[i] = simd.clear(saturated, simd.sub(self.x[i], self.restored[i]));
                saturated
            },
        );
        self.largest = simd.max_magnitude(self.errors);
        self.words = words(simd, self.u, constants);
        simd.bits(saturated)
    }

    /// The codes in their order.
    #[inline(always)]
    fn codes(&self, constants: &Constants<S>) -> S::U8 {
        self.simd.add_u8(self.simd.bytes(self.words), constants.first)
    }

    /// How many elements other than 0 have the code of 0.
    #[inline(always)]
    fn zeroed<const COMMON: bool>(&self, codes: S::U8, constants: &Constants<S>) -> u64 {
        let simd = self.simd;
        let gone = if COMMON {
            simd.bits_eq_u8(codes, constants.zero)
        } else {
            zeros(simd, self.restored)
        };
        u64::from((gone & !zeros(simd, self.x)).count_ones())
    }

    #[inline(always)]
    fn store(&self, to: &mut Restored) {
        for i in PARTS {
            self.simd.store(&mut to.x[S::LANES * i..], self.restored[i]);
            self.simd.store(&mut to.errors[S::LANES * i..], self.errors[i]);
        }
    }
}

/// Codes from the smallest one on.
#[inline(always)]
fn words<S: Simd>(simd: S, u: [S::F32; 4], constants: &Constants<S>) -> S::Words {
    let low = simd.as_i32(constants.low);
    simd.words(each(
        u,
        #[inline(always)]
        |u| simd.sub_i32(simd.as_i32(u), low),
    ))
}

//! f32 to floats of one byte with the sums of a report, and back.
//!
//! # Codes
//! Let `2^e` be the power of two below a magnitude, or that of the smallest normal number. Added to `2^(e + 23 - m)`,
//! `m` being the bits of the mantissa, the magnitude is rounded as wanted, and stands as an integer in the low bits of
//! the sum. How far `e` is above the smallest exponent, times `2^m`, is the rest of the code.
//!
//! # Sums
//! They are made as those of integers are ([`measure`](super::measure)): what is restored is no more than twice the
//! element, or less than it, so that the error is exact in f32 (Sterbenz); where that is not so, or an element is not
//! finite, the block is left to the loops of the definition.

use std::mem::swap;

use super::sums::{Restored, Sums, add_clipped};
use super::*;
use crate::minifloat::{self, FloatSpec, MiniFloat};

/// Bits of the mantissa of an f32, and what its exponents count from.
const MANTISSA: i32 = 23;
const BIAS: i32 = 127;

/// Adds all elements to `lanes` and writes their codes, where there is room for them.
pub(super) struct EncodeFloats<'a, 'c> {
    pub(super) x: &'a [f32],
    pub(super) params: Params<'a, f32>,
    pub(super) spec: FloatSpec,
    pub(super) codes: Option<&'c mut [u8]>,
    pub(super) lanes: &'c mut LaneSums,
}

impl VectorOp for EncodeFloats<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (self.params, self.spec.reciprocal) {
            (Params::Same(_), false) => self.blocks::<S, SAME, true>(simd),
            (Params::Each(_), false) => self.blocks::<S, EACH, true>(simd),
            (Params::Groups(_), false) => self.blocks::<S, GROUPS, true>(simd),
            (Params::Same(_), true) => self.blocks::<S, SAME, false>(simd),
            (Params::Each(_), true) => self.blocks::<S, EACH, false>(simd),
            (Params::Groups(_), true) => self.blocks::<S, GROUPS, false>(simd),
        }
    }
}

impl EncodeFloats<'_, '_> {
    #[inline(always)]
    fn blocks<S: Simd, const FORM: u8, const DIVIDE: bool>(self, simd: S) {
        let Self { x, params, spec, codes, lanes } = self;
        let (stores, codes) = (codes.is_some(), codes.unwrap_or_default());
        let past = stores
            && spec.stores == Stores::Streaming
            && codes.as_ptr().addr().is_multiple_of(S::BLOCK);
        let len = if stores { x.len().min(codes.len()) } else { x.len() };
        let whole = len - len % S::BLOCK;
        if whole > 0 {
            let constants = Constants::new(simd, spec);
            let mut cursor = Cursor::<S, FORM, true>::new(simd, params);
            let mut sums = Sums::load(simd, lanes);
            let [mut before, mut now] = [&mut Restored::default(), &mut Restored::default()];
            let mut largest = simd.splat(0.0);
            let [mut count, mut zeroed] = [0; 2];
            for (i, part) in x[..whole].chunks_exact(S::BLOCK).enumerate() {
                let at = S::BLOCK * i;
                let mut block = FloatBlock::new::<DIVIDE>(simd, part, cursor.block(), &constants);
                if block.is_irregular {
                    sums.add(before);
                    // Which adds nothing a second time.
                    *before = Restored::default();
                    sums.store(lanes);
                    let codes = if stores { Some(&mut codes[at..at + S::BLOCK]) } else { None };
                    let params = params.part(at, S::BLOCK);
                    simd.apart(ByDefinition { x: part, params, spec, codes, lanes: &mut *lanes });
                    sums = Sums::load(simd, lanes);
                    continue;
                }
                let saturated = block.saturated();
                let bytes = simd.bytes(simd.words(block.codes));
                if stores {
                    store_codes(simd, &mut codes[at..at + S::BLOCK], bytes, past);
                }
                count += S::BLOCK as u64;
                zeroed += block.zeroed(bytes, &constants);
                largest = simd.max(simd.max_magnitude(block.errors), largest);
                block.store(now);
                if saturated != 0 {
                    add_clipped(simd, part, now, saturated, lanes);
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
            let (x, params) = (&x[whole..len], params.part(whole, len - whole));
            simd.apart(ByDefinition { x, params, spec, codes, lanes });
        }
    }
}

/// The slow way.
struct ByDefinition<'a, 'c> {
    x: &'a [f32],
    params: Params<'a, f32>,
    spec: FloatSpec,
    codes: Option<&'c mut [u8]>,
    lanes: &'c mut LaneSums,
}

impl Op for ByDefinition<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if let Some(codes) = self.codes {
            minifloat::quantize(self.x, self.params, self.spec, codes);
        }
        minifloat::measure(self.x, self.params, self.spec, self.lanes);
    }
}

/// Constants of a call.
#[derive(Clone, Copy)]
struct Constants<S: Simd> {
    /// What is as large has a code above the largest number's.
    limit: S::F32,
    /// The bits of an exponent, and those of the smallest one.
    exponents: S::I32,
    least: S::I32,
    /// From an exponent to that of what is added to round.
    to_unit: S::I32,
    /// From the place of an exponent here to that in a code.
    to_code: S::I32,
    /// The largest number's code, and what is larger is restored to.
    max: S::I32,
    largest: S::F32,
    /// From the place of a sign here to that in a code, and the bits of signs there: copies of it.
    to_sign: S::I32,
    sign: S::I32,
    /// Codes above it have signs.
    unsigned: S::I32,
    /// Added to a quotient, leaves its sign, or that of all but -0.
    zero: S::F32,
    /// The two codes of 0.
    zeros: [S::U8; 2],
}

impl<S: Simd> Constants<S> {
    #[inline(always)]
    fn new(simd: S, spec: FloatSpec) -> Self {
        let FloatSpec { float, saturate, .. } = spec;
        let mantissa = float.mantissa_bits.cast_signed();
        // Blocks in which something becomes infinite are left to the definition.
        let largest = if saturate { float.largest() } else { f32::INFINITY };
        let [sign, _] = float.sign().to_le_bytes();
        Self {
            limit: simd.splat(2.0 * float.largest()),
            exponents: simd.splat_i32(0xff << MANTISSA),
            least: simd.splat_i32((float.least_exponent() + BIAS) << MANTISSA),
            to_unit: simd.splat_i32((MANTISSA - mantissa) << MANTISSA),
            to_code: simd.splat_i32(MANTISSA - mantissa),
            max: simd.splat_i32(float.max.into()),
            largest: simd.splat(largest),
            to_sign: simd.splat_i32(32 - float.bits().cast_signed()),
            sign: simd.splat_i32(float.sign().into()),
            unsigned: simd.splat_i32(if float.has_negative_zero() { -1 } else { 0 }),
            zero: simd.splat(if spec.unsigned_zero { 0.0 } else { -0.0 }),
            zeros: [simd.splat_u8(0), simd.splat_u8(sign)],
        }
    }
}

/// Elements, their codes and what they are restored to.
struct FloatBlock<S: Simd> {
    simd: S,
    x: [S::F32; 4],
    codes: [S::I32; 4],
    saturated: [S::Mask; 4],
    restored: [S::F32; 4],
    errors: [S::F32; 4],
    /// Whether an element is not finite, or its error may not be exact.
    is_irregular: bool,
}

/// A code without sign, whether it is saturated, and what it stands for without a sign.
#[inline(always)]
fn round<S: Simd>(
    simd: S,
    magnitude: S::F32,
    constants: &Constants<S>,
) -> (S::I32, S::Mask, S::F32) {
    // NaN becomes the limit.
    let magnitude = simd.min(magnitude, constants.limit);
    let exponent = simd.and_i32(simd.as_i32(magnitude), constants.exponents);
    let exponent = simd.max_i32(exponent, constants.least);
    let unit = simd.add_i32(exponent, constants.to_unit);
    let sum = simd.add(magnitude, simd.as_f32(unit));
    let steps = simd.sub_i32(simd.as_i32(sum), unit);
    let binades = simd.shr_i32(simd.sub_i32(exponent, constants.least), constants.to_code);
    let code = simd.add_i32(steps, binades);
    let value = simd.sub(sum, simd.as_f32(unit));
    (code, simd.gt_i32(code, constants.max), value)
}

/// A code, which may be above the largest number's, with the sign of a number.
#[inline(always)]
fn with_sign<S: Simd>(simd: S, code: S::I32, sign: S::F32, constants: &Constants<S>) -> S::I32 {
    let code = simd.min_i32(code, constants.max);
    let sign = simd.shr_i32(simd.as_i32(sign), constants.to_sign);
    let signed = simd.add_i32(code, simd.and_i32(sign, constants.sign));
    simd.select_i32(simd.gt_i32(code, constants.unsigned), signed, code)
}

impl<S: Simd> FloatBlock<S> {
    #[inline(always)]
    fn new<const DIVIDE: bool>(
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
        let [mut codes, none] = [[constants.max; 4], [constants.max; 4]];
        let mut saturated = each(
            none,
            #[inline(always)]
            |none| simd.gt_i32(none, none),
        );
        let restored = each(
            PARTS,
            #[inline(always)]
            |i| {
                let Vector { scale, reciprocal, .. } = params[i];
                let quotient =
                    if DIVIDE { simd.div(x[i], scale) } else { simd.mul(x[i], reciprocal) };
                let (code, beyond, value) = round(simd, simd.abs(quotient), constants);
                codes[i] = with_sign(simd, code, simd.add(quotient, constants.zero), constants);
                saturated[i] = beyond;
                let largest = simd.as_i32(constants.largest);
                let value = simd.as_f32(simd.select_i32(beyond, largest, simd.as_i32(value)));
                simd.mul(simd.copysign(value, x[i]), scale)
            },
        );
        let errors = each(
            PARTS,
            #[inline(always)]
            |i| simd.sub(x[i], restored[i]),
        );
        let irregular = each(
            PARTS,
            #[inline(always)]
            |i| {
                let (own, back) = (simd.abs(x[i]), simd.abs(restored[i]));
                let inexact = simd.not_le(back, simd.add(own, own));
                // Of numbers near the largest one the sum overflows as well, which does no harm.
                simd.or(inexact, simd.not_le(simd.add(own, back), simd.splat(f32::MAX)))
            },
        );
        let is_irregular = simd.any(any_of(simd, irregular));
        Self { simd, x, codes, saturated, restored, errors, is_irregular }
    }

    /// Leaves out the errors of saturated codes: says which they are.
    #[inline(always)]
    fn saturated(&mut self) -> u64 {
        let simd = self.simd;
        if !simd.any(any_of(simd, self.saturated)) {
            return 0;
        }
        for i in PARTS {
            self.errors[i] = simd.clear(self.saturated[i], self.errors[i]);
        }
        simd.bits(self.saturated)
    }

    /// How many elements other than 0 have a code of 0.
    #[inline(always)]
    fn zeroed(&self, codes: S::U8, constants: &Constants<S>) -> u64 {
        let simd = self.simd;
        let [positive, negative] = constants.zeros;
        let gone = simd.bits_eq_u8(codes, positive) | simd.bits_eq_u8(codes, negative);
        if gone == 0 {
            return 0;
        }
        let zeros = simd.bits(each(
            self.x,
            #[inline(always)]
            |x| simd.eq(x, simd.splat(0.0)),
        ));
        u64::from((gone & !zeros).count_ones())
    }

    #[inline(always)]
    fn store(&self, to: &mut Restored) {
        for i in PARTS {
            self.simd.store(&mut to.x[S::LANES * i..], self.restored[i]);
            self.simd.store(&mut to.errors[S::LANES * i..], self.errors[i]);
        }
    }
}

/// As [`minifloat::dequantize`].
pub(super) struct RestoreFloats<'a> {
    pub(super) codes: &'a [u8],
    pub(super) params: Params<'a, f32>,
    pub(super) float: MiniFloat,
    pub(super) stores: Stores,
    pub(super) x: &'a mut [f32],
}

impl VectorOp for RestoreFloats<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let past = self.stores == Stores::Streaming
            && self.x.as_ptr().addr().is_multiple_of(size_of::<f32>() * S::LANES);
        match (self.params, past) {
            (Params::Same(_), false) => self.vectors::<S, SAME, false>(simd),
            (Params::Each(_), false) => self.vectors::<S, EACH, false>(simd),
            (Params::Groups(_), false) => self.vectors::<S, GROUPS, false>(simd),
            (Params::Same(_), true) => self.vectors::<S, SAME, true>(simd),
            (Params::Each(_), true) => self.vectors::<S, EACH, true>(simd),
            (Params::Groups(_), true) => self.vectors::<S, GROUPS, true>(simd),
        }
    }
}

/// Constants of the way back.
#[derive(Clone, Copy)]
struct Decoder<S: Simd> {
    simd: S,
    magnitude: S::I32,
    /// Codes above are infinite or NaN.
    max: S::I32,
    /// A magnitude that is NaN with a sign: 0, or none.
    no_sign: S::I32,
    /// Magnitudes up to it are not normal: so many steps of the smallest number.
    subnormal: S::I32,
    step: S::F32,
    /// From a code to the bits of its number.
    to_mantissa: S::I32,
    to_exponent: S::I32,
    to_sign: S::I32,
    sign: S::I32,
}

impl<S: Simd> Decoder<S> {
    #[inline(always)]
    fn new(simd: S, float: MiniFloat) -> Self {
        let mantissa = float.mantissa_bits.cast_signed();
        Self {
            simd,
            magnitude: simd.splat_i32(i32::from(float.sign()) - 1),
            max: simd.splat_i32(float.max.into()),
            no_sign: simd.splat_i32(if float.has_negative_zero() {
                -1
            } else {
                float.sign().into()
            }),
            subnormal: simd.splat_i32((1 << mantissa) - 1),
            step: simd.splat(float.value(1)),
            to_mantissa: simd.splat_i32(MANTISSA - mantissa),
            to_exponent: simd.splat_i32((BIAS - float.bias) << MANTISSA),
            to_sign: simd.splat_i32(32 - float.bits().cast_signed()),
            sign: simd.splat_i32(i32::MIN),
        }
    }

    /// The numbers of codes, and which are none.
    #[inline(always)]
    fn decode(&self, codes: S::I32) -> (S::F32, S::Mask) {
        let simd = self.simd;
        let magnitude = simd.and_i32(codes, self.magnitude);
        let normal = simd.add_i32(simd.shl_i32(magnitude, self.to_mantissa), self.to_exponent);
        let small = simd.mul(simd.to_f32(magnitude), self.step);
        let is_normal = simd.gt_i32(magnitude, self.subnormal);
        let number = simd.select_i32(is_normal, normal, simd.as_i32(small));
        let sign = simd.and_i32(simd.shl_i32(codes, self.to_sign), self.sign);
        let none = simd.or(simd.gt_i32(magnitude, self.max), simd.eq_i32(codes, self.no_sign));
        (simd.copysign(simd.as_f32(number), simd.as_f32(sign)), none)
    }
}

impl RestoreFloats<'_> {
    #[inline(always)]
    fn vectors<S: Simd, const FORM: u8, const PAST: bool>(self, simd: S) {
        let Self { codes, params, float, x, .. } = self;
        let decoder = Decoder::new(simd, float);
        let mut cursor = Cursor::<S, FORM, true>::new(simd, params);
        let whole = codes.len() - codes.len() % S::LANES;
        let mut at = 0;
        while at < whole {
            let Vector { scale, .. } = cursor.next();
            let own = &codes[at..at + S::LANES];
            let (number, none) = decoder.decode(simd.load_codes::<false>(own));
            if simd.any(none) {
                let params = params.part(at, S::LANES);
                let x = &mut x[at..at + S::LANES];
                simd.apart(RestoreByDefinition { codes: own, params, float, x });
            } else if PAST {
                simd.store_past(&mut x[at..], simd.mul(number, scale));
            } else {
                simd.store(&mut x[at..], simd.mul(number, scale));
            }
            at += S::LANES;
        }
        if PAST {
            simd.fence();
        }
        if whole < codes.len() {
            let params = params.part(whole, codes.len() - whole);
            let (codes, x) = (&codes[whole..], &mut x[whole..]);
            simd.apart(RestoreByDefinition { codes, params, float, x });
        }
    }
}

/// The slow way back.
struct RestoreByDefinition<'a> {
    codes: &'a [u8],
    params: Params<'a, f32>,
    float: MiniFloat,
    x: &'a mut [f32],
}

impl Op for RestoreByDefinition<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        minifloat::dequantize(self.codes, self.params, self.float, self.x);
    }
}

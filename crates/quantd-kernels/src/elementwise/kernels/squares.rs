//! The sum of squared errors, for searches that want nothing else.
//!
//! The error of an element whose code is not saturated is exact in f32, as
//! numbers within a factor of 2 of one another have exact differences
//! (Sterbenz): only blocks with saturated codes subtract in f64.

use super::*;
use crate::scalar::CodeRange;

/// What is added to a quotient and its zero point: see the parent module.
const SHIFT: f32 = 256.0 + 0.5 + 2.0 / 32_768.0;
/// Bits of a fraction that are 0 near a tie.
const NEAR_TIE: i32 = 0x7ffc;

/// As [`scalar::squared_error`], in its sixteen lanes.
pub(super) struct SquaredError<'a> {
    pub(super) work: Bytes<'a>,
}

impl VectorOp for SquaredError<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let Self { work } = self;
        let Params::Same(affine) = work.params else { return f64::NAN };
        let grid = Grid::new(simd, &work, affine);
        let len = work.x.len();
        let whole = len - len % S::BLOCK;
        let mut lanes = [simd.splat_f64(0.0); LANES / 2];
        for at in (0..whole).step_by(S::BLOCK) {
            let x = &work.x[at..at + S::BLOCK];
            if !grid.add(x, &mut lanes) {
                lanes = add_by_scalar(simd, work.part(at, S::BLOCK), affine, lanes);
            }
        }
        let end = len - len % LANES;
        let lanes = add_by_scalar(simd, work.part(whole, end - whole), affine, lanes);
        let tail = work.part(end, len - end).squared_error(affine);
        spill(simd, lanes).iter().sum::<f64>() + tail
    }
}

/// Sixteen sums, in as many registers as it takes.
type Lanes<S> = [<S as Simd>::F64; LANES / 2];

/// Constants of a call.
struct Grid<S: Simd> {
    simd: S,
    reciprocal: S::F32,
    scale: S::F32,
    /// What is added to a product.
    shift: S::F32,
    /// What is subtracted from a whole `u` to give steps.
    middle: S::F32,
    /// Ends of the `u` that do not saturate.
    low: S::F32,
    high: S::F32,
}

impl<S: Simd> Grid<S> {
    #[inline(always)]
    fn new(simd: S, work: &Bytes<'_>, affine: QuantParams<f32>) -> Self {
        let CodeRange { min, max } = work.how.range;
        let (shift, zero_point) = (work.shift(), affine.zero_point as f32);
        let [low, high] = [min + shift, max + shift];
        Self {
            simd,
            reciprocal: simd.splat(1.0 / affine.scale),
            scale: simd.splat(affine.scale),
            shift: simd.splat(zero_point + (SHIFT + shift as f32)),
            middle: simd.splat(zero_point + (256 + shift) as f32),
            low: simd.splat((256 + low) as f32),
            high: simd.splat(((256 + high + 1) as f32).next_down()),
        }
    }

    /// Adds a block; says whether it did, which it does not where some element is near a tie, or NaN.
    #[inline(always)]
    fn add(&self, x: &[f32], lanes: &mut Lanes<S>) -> bool {
        let simd = self.simd;
        prefetch_ahead(x);
        let [a, b, c, d] = each(
            PARTS,
            #[inline(always)]
            |i| simd.mul_add(simd.load(&x[S::LANES * i..]), self.reciprocal, self.shift),
        );
        let near = each(
            [a, b, c, d],
            #[inline(always)]
            |u| simd.test_none(simd.as_i32(u), NEAR_TIE),
        );
        let nan = simd.or(simd.unordered(a, b), simd.unordered(c, d));
        if simd.any(simd.or(any_of(simd, near), nan)) {
            return false;
        }
        let outside = each(
            [a, b, c, d],
            #[inline(always)]
            |u| simd.or(simd.lt(u, self.low), simd.lt(self.high, u)),
        );
        let is_saturated = simd.any(any_of(simd, outside));
        for (i, u) in [a, b, c, d].into_iter().enumerate() {
            let limited = if is_saturated { simd.min(simd.max(u, self.low), self.high) } else { u };
            // The fraction is cut off.
            let whole = simd.and_i32(simd.as_i32(limited), simd.splat_i32(!0x7fff));
            let steps = simd.sub(simd.as_f32(whole), self.middle);
            let (x, restored) = (simd.load(&x[S::LANES * i..]), simd.mul(steps, self.scale));
            let errors = if is_saturated {
                let (x, restored) = (simd.widen(x), simd.widen(restored));
                [simd.sub_f64(x[0], restored[0]), simd.sub_f64(x[1], restored[1])]
            } else {
                simd.widen(simd.sub(x, restored))
            };
            for (half, error) in errors.into_iter().enumerate() {
                let lane = &mut lanes[(2 * i + half) % (2 * LANES / S::LANES)];
                *lane = simd.add_f64(*lane, simd.mul_f64(error, error));
            }
        }
        true
    }
}

#[inline(always)]
fn spill<S: Simd>(simd: S, lanes: Lanes<S>) -> [f64; LANES] {
    let mut spilled = [0.0; LANES];
    for (to, lane) in spilled.chunks_exact_mut(S::LANES / 2).zip(lanes) {
        simd.store_f64(to, lane);
    }
    spilled
}

/// Adds elements that are near a tie, not finite, or too few.
#[inline(always)]
fn add_by_scalar<S: Simd>(
    simd: S,
    work: Bytes<'_>,
    affine: QuantParams<f32>,
    mut lanes: Lanes<S>,
) -> Lanes<S> {
    let mut spilled = spill(simd, lanes);
    simd.apart(ByScalar { work, affine, lanes: &mut spilled });
    for (lane, from) in lanes.iter_mut().zip(spilled.chunks_exact(S::LANES / 2)) {
        *lane = simd.load_f64(from);
    }
    lanes
}

struct ByScalar<'a, 'l> {
    work: Bytes<'a>,
    affine: QuantParams<f32>,
    lanes: &'l mut [f64; LANES],
}

impl Op for ByScalar<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.work.add_squared_errors(self.affine, self.lanes);
    }
}

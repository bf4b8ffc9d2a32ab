//! The sums of a report in registers.
//!
//! Half of what it costs to widen floats is to bring them to where they are
//! widened, which a load does for nothing. What a block is restored to is
//! therefore written down and read again.

use std::hint::black_box;

use super::Simd;
use crate::sums::{LANES, LaneSums};

/// Elements of the largest block.
const ROOM: usize = 64;

/// What a block was restored to, and what that loses.
#[repr(align(64))]
pub(super) struct Restored {
    pub(super) x: [f32; ROOM],
    /// The differences, which are exact; 0 where the code is saturated.
    pub(super) errors: [f32; ROOM],
}

impl Default for Restored {
    fn default() -> Self {
        Self { x: [0.0; ROOM], errors: [0.0; ROOM] }
    }
}

/// One of the sums: `LANES / wide::<S>()` registers, and no more are used.
type Lanes<S> = [<S as Simd>::F64; LANES / 2];

/// Lanes of a register of f64.
const fn wide<S: Simd>() -> usize {
    S::LANES / 2
}

/// The sums that every block adds to.
pub(super) struct Sums<S: Simd> {
    simd: S,
    restored: Lanes<S>,
    cross: Lanes<S>,
    rounded: Lanes<S>,
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    pub(super) fn load(simd: S, lanes: &LaneSums) -> Self {
        let [restored, cross, rounded] = [[simd.splat_f64(0.0); LANES / 2]; 3];
        let mut sums = Self { simd, restored, cross, rounded };
        for i in 0..LANES / wide::<S>() {
            let at = i * wide::<S>();
            sums.restored[i] = simd.load_f64(&lanes.restored[at..]);
            sums.cross[i] = simd.load_f64(&lanes.cross[at..]);
            sums.rounded[i] = simd.load_f64(&lanes.rounded[at..]);
        }
        sums
    }

    #[inline(always)]
    pub(super) fn store(&self, lanes: &mut LaneSums) {
        for i in 0..LANES / wide::<S>() {
            let at = i * wide::<S>();
            self.simd.store_f64(&mut lanes.restored[at..], self.restored[i]);
            self.simd.store_f64(&mut lanes.cross[at..], self.cross[i]);
            self.simd.store_f64(&mut lanes.rounded[at..], self.rounded[i]);
        }
    }

    /// Adds a block. All products are those of two floats and so exact: a fused
    /// multiply-add rounds as two operations do.
    #[inline(always)]
    pub(super) fn add(&mut self, block: &mut Restored) {
        let simd = self.simd;
        // Else the compiler takes from registers what is to be loaded.
        let block = black_box(block);
        for i in 0..LANES / wide::<S>() {
            for at in (i * wide::<S>()..S::BLOCK).step_by(LANES) {
                let x = simd.load_wide(&block.x[at..]);
                let error = simd.load_wide(&block.errors[at..]);
                self.restored[i] = simd.mul_add_f64(x, x, self.restored[i]);
                self.cross[i] = simd.mul_add_f64(x, error, self.cross[i]);
                self.rounded[i] = simd.mul_add_f64(error, error, self.rounded[i]);
            }
        }
    }
}

/// Adds the elements of a block whose codes are saturated: one bit each. Their
/// errors may need more bits than a float has.
#[inline(always)]
pub(super) fn add_clipped<S: Simd>(
    simd: S,
    x: &[f32],
    restored: &Restored,
    saturated: u64,
    lanes: &mut LaneSums,
) {
    let mut rest = saturated;
    while rest != 0 {
        let at = rest.trailing_zeros() as usize / wide::<S>() * wide::<S>();
        let bits = rest >> at & ((1 << wide::<S>()) - 1);
        rest ^= bits << at;
        let restored = simd.load_wide(&restored.x[at..]);
        let [bits, ..] = bits.to_le_bytes();
        let error = simd.keep_f64(bits, simd.sub_f64(simd.load_wide(&x[at..]), restored));
        let lane = at % LANES;
        let clipped = simd.load_f64(&lanes.clipped[lane..]);
        let clipped = simd.add_f64(clipped, simd.mul_f64(error, error));
        simd.store_f64(&mut lanes.clipped[lane..], clipped);
        let cross = simd.load_f64(&lanes.clipped_cross[lane..]);
        let cross = simd.add_f64(cross, simd.mul_f64(restored, error));
        simd.store_f64(&mut lanes.clipped_cross[lane..], cross);
        let largest = simd.max_magnitude_f64(error, simd.load_f64(&lanes.max_abs[lane..]));
        simd.store_f64(&mut lanes.max_abs[lane..], largest);
    }
    lanes.clipped_count += u64::from(saturated.count_ones());
}

//! The sums of a report, four lanes at a time.
#![expect(unsafe_code, reason = "loads and stores by pointer, within arrays of known length")]

use std::arch::x86_64::*;

use super::BLOCK;
use crate::kernels::sums::{LANES, LaneSums};

/// What elements of a block were restored to, and whether they were saturated.
pub(super) struct Restored {
    pub(super) x: [f32; BLOCK],
    /// All bits set where the code was saturated.
    pub(super) saturated: [i32; BLOCK],
}

/// Adds a block of finite elements; with `CLIP`, some codes are saturated.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add<const CLIP: bool>(x: &[f32], restored: &Restored, lanes: &mut LaneSums) {
    assert!(x.len() == BLOCK, "a whole block");
    for lane in (0..LANES).step_by(4) {
        let mut sums = Sums::load(lanes, lane);
        for at in (lane..BLOCK).step_by(LANES) {
            // SAFETY: 4 elements from `at` on are within a block.
            let x = unsafe { _mm_loadu_ps(x.as_ptr().wrapping_add(at)) };
            // SAFETY: as above.
            let back = unsafe { _mm_loadu_ps(restored.x.as_ptr().wrapping_add(at)) };
            // SAFETY: as above.
            let saturated =
                unsafe { _mm_loadu_si128(restored.saturated.as_ptr().wrapping_add(at).cast()) };
            sums.add::<CLIP>(x, back, saturated);
        }
        sums.store(lanes, lane);
    }
    let mut zeroed = 0;
    for at in (0..BLOCK).step_by(8) {
        // SAFETY: 8 elements from `at` on are within a block.
        let x = unsafe { _mm256_loadu_ps(x.as_ptr().wrapping_add(at)) };
        // SAFETY: as above.
        let back = unsafe { _mm256_loadu_ps(restored.x.as_ptr().wrapping_add(at)) };
        let zero = _mm256_setzero_ps();
        let some = _mm256_cmp_ps::<_CMP_NEQ_OQ>(x, zero);
        let none = _mm256_cmp_ps::<_CMP_EQ_OQ>(back, zero);
        zeroed += _mm256_movemask_ps(_mm256_and_ps(some, none)).count_ones();
    }
    lanes.zeroed_count += u64::from(zeroed);
    if CLIP {
        let count: i32 = restored.saturated.iter().sum();
        lanes.clipped_count += u64::from(count.unsigned_abs());
    }
    lanes.count += BLOCK as u64;
}

/// Four lanes of every sum.
struct Sums {
    signal: __m256d,
    restored: __m256d,
    product: __m256d,
    rounded: __m256d,
    clipped: __m256d,
    max_abs: __m256d,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(lanes: &LaneSums, lane: usize) -> Self {
        Self {
            signal: load(&lanes.signal, lane),
            restored: load(&lanes.restored, lane),
            product: load(&lanes.product, lane),
            rounded: load(&lanes.rounded, lane),
            clipped: load(&lanes.clipped, lane),
            max_abs: load(&lanes.max_abs, lane),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(&self, lanes: &mut LaneSums, lane: usize) {
        store(self.signal, &mut lanes.signal, lane);
        store(self.restored, &mut lanes.restored, lane);
        store(self.product, &mut lanes.product, lane);
        store(self.rounded, &mut lanes.rounded, lane);
        store(self.clipped, &mut lanes.clipped, lane);
        store(self.max_abs, &mut lanes.max_abs, lane);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add<const CLIP: bool>(&mut self, x: __m128, restored: __m128, saturated: __m128i) {
        let (x, restored) = (_mm256_cvtps_pd(x), _mm256_cvtps_pd(restored));
        self.signal = _mm256_fmadd_pd(x, x, self.signal);
        self.restored = _mm256_fmadd_pd(restored, restored, self.restored);
        self.product = _mm256_fmadd_pd(x, restored, self.product);
        let error = _mm256_sub_pd(x, restored);
        let square = _mm256_mul_pd(error, error);
        self.max_abs = _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), error), self.max_abs);
        if CLIP {
            let saturated = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(saturated));
            self.clipped = _mm256_add_pd(self.clipped, _mm256_and_pd(saturated, square));
            self.rounded = _mm256_add_pd(self.rounded, _mm256_andnot_pd(saturated, square));
        } else {
            self.rounded = _mm256_add_pd(self.rounded, square);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(lanes: &[f64; LANES], lane: usize) -> __m256d {
    let four = &lanes[lane..lane + 4];
    // SAFETY: the slice has 4 elements.
    unsafe { _mm256_loadu_pd(four.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(sum: __m256d, lanes: &mut [f64; LANES], lane: usize) {
    let four = &mut lanes[lane..lane + 4];
    // SAFETY: the slice has 4 elements.
    unsafe { _mm256_storeu_pd(four.as_mut_ptr(), sum) };
}

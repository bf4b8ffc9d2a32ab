//! The sums of a report in registers, four lanes at a time: AVX2 and FMA, for
//! the kernels of AVX-512 as well.
//!
//! Half of what it costs to widen floats is to bring them to where they are
//! widened, which a load does for nothing. What a block is restored to is
//! therefore written down and read again.
#![expect(unsafe_code, reason = "loads and stores by pointer, within arrays of known length")]

use std::arch::x86_64::*;
use std::hint::black_box;

use super::BLOCK;
use crate::sums::{LANES, LaneSums};

/// Elements of a register.
const FOUR: usize = 4;
/// Registers of a sum.
const PARTS: [usize; LANES / FOUR] = [0, 1, 2, 3];

/// What a block was restored to, and what that loses.
#[repr(align(64))]
pub(super) struct Restored {
    pub(super) x: [f32; BLOCK],
    /// The differences, which are exact; 0 where the code is saturated.
    pub(super) errors: [f32; BLOCK],
}

impl Default for Restored {
    fn default() -> Self {
        Self { x: [0.0; BLOCK], errors: [0.0; BLOCK] }
    }
}

/// The sums that every block adds to.
pub(super) struct Sums {
    restored: [__m256d; 4],
    cross: [__m256d; 4],
    rounded: [__m256d; 4],
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn load(lanes: &LaneSums) -> Self {
        Self {
            restored: PARTS.map(|i| load(&lanes.restored, i)),
            cross: PARTS.map(|i| load(&lanes.cross, i)),
            rounded: PARTS.map(|i| load(&lanes.rounded, i)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn store(&self, lanes: &mut LaneSums) {
        for i in PARTS {
            store(self.restored[i], &mut lanes.restored, i);
            store(self.cross[i], &mut lanes.cross, i);
            store(self.rounded[i], &mut lanes.rounded, i);
        }
    }

    /// Adds a block. All products are those of two floats and so exact: a fused
    /// multiply-add rounds as two operations do.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn add(&mut self, block: &mut Restored) {
        // Else the compiler takes from registers what is to be loaded.
        let block = black_box(block);
        for i in PARTS {
            for at in (FOUR * i..BLOCK).step_by(LANES) {
                let (x, error) = (widen(&block.x, at), widen(&block.errors, at));
                self.restored[i] = _mm256_fmadd_pd(x, x, self.restored[i]);
                self.cross[i] = _mm256_fmadd_pd(x, error, self.cross[i]);
                self.rounded[i] = _mm256_fmadd_pd(error, error, self.rounded[i]);
            }
        }
    }
}

/// Adds the elements of a block whose codes are saturated: one bit each. Their
/// errors may need more bits than a float has.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_clipped(
    x: &[f32; BLOCK],
    restored: &[f32; BLOCK],
    saturated: u64,
    lanes: &mut LaneSums,
) {
    let ones = _mm256_setr_epi64x(1, 2, 4, 8);
    let mut rest = saturated;
    while rest != 0 {
        let at = rest.trailing_zeros() as usize / FOUR * FOUR;
        let bits = rest >> at & 0xf;
        rest ^= bits << at;
        let bits = _mm256_and_si256(_mm256_set1_epi64x(bits.cast_signed()), ones);
        let saturated = _mm256_castsi256_pd(_mm256_cmpeq_epi64(bits, ones));
        let restored = widen(restored, at);
        let error = _mm256_and_pd(_mm256_sub_pd(widen(x, at), restored), saturated);
        let part = at % LANES / FOUR;
        let clipped = _mm256_add_pd(load(&lanes.clipped, part), _mm256_mul_pd(error, error));
        store(clipped, &mut lanes.clipped, part);
        let cross = _mm256_mul_pd(restored, error);
        let cross = _mm256_add_pd(load(&lanes.clipped_cross, part), cross);
        store(cross, &mut lanes.clipped_cross, part);
        let error = _mm256_andnot_pd(_mm256_set1_pd(-0.0), error);
        store(_mm256_max_pd(error, load(&lanes.max_abs, part)), &mut lanes.max_abs, part);
    }
    lanes.clipped_count += u64::from(saturated.count_ones());
}

/// Four elements from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(x: &[f32; BLOCK], at: usize) -> __m256d {
    let four = &x[at..at + FOUR];
    // SAFETY: the slice has 4 elements.
    _mm256_cvtps_pd(unsafe { _mm_loadu_ps(four.as_ptr()) })
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(lanes: &[f64; LANES], part: usize) -> __m256d {
    let four = &lanes[FOUR * part..][..FOUR];
    // SAFETY: the slice has 4 elements.
    unsafe { _mm256_loadu_pd(four.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(sum: __m256d, lanes: &mut [f64; LANES], part: usize) {
    let four = &mut lanes[FOUR * part..][..FOUR];
    // SAFETY: the slice has 4 elements.
    unsafe { _mm256_storeu_pd(four.as_mut_ptr(), sum) };
}

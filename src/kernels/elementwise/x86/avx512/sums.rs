//! The sums of a report in registers.
#![expect(unsafe_code, reason = "loads and stores by pointer, within arrays of known length")]

use std::arch::x86_64::*;

use crate::kernels::sums::{LANES, LaneSums};

/// `vrange`: the larger magnitude, without its sign.
const LARGER: i32 = 0b1011;

/// The lanes of the sums, in registers.
pub(super) struct Sums {
    signal: [__m512d; 2],
    restored: [__m512d; 2],
    product: [__m512d; 2],
    rounded: [__m512d; 2],
    clipped: [__m512d; 2],
    max_abs: [__m512d; 2],
    /// How many came back as 0, in 32-bit lanes.
    zeroed: __m512i,
    /// How many codes are saturated.
    clipped_count: u64,
    /// How many there are in all.
    pub(super) count: u64,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn load(lanes: &LaneSums) -> Self {
        Self {
            signal: load(&lanes.signal),
            restored: load(&lanes.restored),
            product: load(&lanes.product),
            rounded: load(&lanes.rounded),
            clipped: load(&lanes.clipped),
            max_abs: load(&lanes.max_abs),
            zeroed: _mm512_setzero_si512(),
            clipped_count: 0,
            count: 0,
        }
    }

    /// Takes the sums of `lanes` and keeps the counts.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn reload(&mut self, lanes: &LaneSums) {
        let Self { zeroed, clipped_count, count, .. } = *self;
        *self = Self { zeroed, clipped_count, count, ..Self::load(lanes) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn store(&self, lanes: &mut LaneSums) {
        store(self.signal, &mut lanes.signal);
        store(self.restored, &mut lanes.restored);
        store(self.product, &mut lanes.product);
        store(self.rounded, &mut lanes.rounded);
        store(self.clipped, &mut lanes.clipped);
        store(self.max_abs, &mut lanes.max_abs);
    }

    /// Stores the sums and adds the counts.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn finish(&self, lanes: &mut LaneSums) {
        self.store(lanes);
        lanes.count += self.count;
        lanes.clipped_count += self.clipped_count;
        lanes.zeroed_count += u64::from(_mm512_reduce_add_epi32(self.zeroed).cast_unsigned());
    }

    /// Adds 16 finite elements; with `CLIP`, some codes are saturated.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn add<const CLIP: bool, const FORM: u8, const COMMON: bool>(
        &mut self,
        x: __m512,
        restored: __m512,
        saturated: __mmask16,
    ) {
        let zero = _mm512_setzero_ps();
        let gone = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(restored, zero);
        let gone = _mm512_mask_cmp_ps_mask::<_CMP_NEQ_OQ>(gone, x, zero);
        self.zeroed = _mm512_mask_add_epi32(self.zeroed, gone, self.zeroed, _mm512_set1_epi32(1));
        if CLIP {
            self.clipped_count += u64::from(saturated.count_ones());
        }
        let (x, restored) = (widen(x), widen(restored));
        for i in 0..2 {
            let (x, restored) = (x[i], restored[i]);
            self.signal[i] = _mm512_fmadd_pd(x, x, self.signal[i]);
            self.restored[i] = _mm512_fmadd_pd(restored, restored, self.restored[i]);
            self.product[i] = _mm512_fmadd_pd(x, restored, self.product[i]);
            let error = _mm512_sub_pd(x, restored);
            let square = _mm512_mul_pd(error, error);
            self.max_abs[i] = _mm512_range_pd::<LARGER>(self.max_abs[i], error);
            let (rounded, clipped) = (self.rounded[i], self.clipped[i]);
            if CLIP {
                let saturated = saturated.to_le_bytes()[i];
                self.rounded[i] = _mm512_mask_add_pd(rounded, !saturated, rounded, square);
                self.clipped[i] = _mm512_mask_add_pd(clipped, saturated, clipped, square);
            } else {
                self.rounded[i] = _mm512_add_pd(rounded, square);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen(x: __m512) -> [__m512d; 2] {
    let high = _mm512_extractf32x8_ps::<1>(x);
    [_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(high)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[f64; LANES]) -> [__m512d; 2] {
    // SAFETY: the array has 16 elements.
    let first = unsafe { _mm512_loadu_pd(lanes.as_ptr()) };
    // SAFETY: of which these are the last 8.
    let last = unsafe { _mm512_loadu_pd(lanes.as_ptr().wrapping_add(8)) };
    [first, last]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(sums: [__m512d; 2], lanes: &mut [f64; LANES]) {
    // SAFETY: the array has 16 elements.
    unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), sums[0]) };
    // SAFETY: of which these are the last 8.
    unsafe { _mm512_storeu_pd(lanes.as_mut_ptr().wrapping_add(8), sums[1]) };
}

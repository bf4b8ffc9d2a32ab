//! Where codes are written, and how where nothing is faster.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer, within slices whose length was checked"
)]

use std::arch::x86_64::*;

use super::super::super::Stores;
use super::*;

/// Writes 64 codes from `at` on, past the caches if `past`.
///
/// # Safety
/// There are as many, and if `past` the first of them begins a cache line.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(codes: &mut [u8], at: usize, bytes: __m512i, past: bool) {
    let to = codes.as_mut_ptr().wrapping_add(at).cast();
    if past {
        // SAFETY: within `codes` and aligned, says the caller.
        unsafe { _mm512_stream_si512(to, bytes) };
    } else {
        // SAFETY: within `codes`, says the caller.
        unsafe { _mm512_storeu_si512(to.cast(), bytes) };
    }
}

/// Whether what is written from there on may go past the caches, block by block.
pub(super) fn goes_past(work: &Bytes<'_>, codes: &[u8]) -> bool {
    work.how.stores == Stores::Streaming && codes.as_ptr().addr().is_multiple_of(BLOCK)
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize_slowly(work: &Bytes<'_>, codes: &mut [u8]) {
    work.quantize(codes);
}

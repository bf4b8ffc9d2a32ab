//! Cache lines, and asking for them ahead of their use.

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Asks for a cache line, into the second-level cache only if it is `FAR` in the future.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "prefetches are intrinsics"))]
pub(super) fn prefetch<const FAR: bool>(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if FAR {
            // SAFETY: SSE is part of the target, and a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
        } else {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

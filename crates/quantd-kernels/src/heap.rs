//! The heap of the process: mimalloc, where the binary has chosen it.
#![expect(unsafe_code, reason = "options of the heap are set by a function in C")]

use std::time::Duration;

/// `mi_option_purge_delay` of mimalloc.h, which the binding leaves out; its place is the same since 2.0.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// From now on, memory that nobody uses goes back to the system after that time; by itself the heap
/// keeps it for a second, beside what other requests have taken by then. What the environment says
/// (`MIMALLOC_PURGE_DELAY`) comes first.
///
/// To be called before there are threads that use the heap much: it is told without a lock.
pub fn give_back_after(delay: Duration) {
    let milliseconds = i32::try_from(delay.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the number is that of an option, and any value is allowed; it is one store of a word.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds.into()) }
}

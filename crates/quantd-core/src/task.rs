//! How a computation is made, and how long it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quantd_kernels::Isa;

/// One computation: the instruction set that it uses, and a request to stop that is shared with
/// whoever waits for the result.
///
/// Loops over a tensor look at it once per block of elements and then return early with whatever
/// they have; the caller that asked them to stop, or that sees
/// [`is_cancelled`](Self::is_cancelled) afterwards, drops the result.
#[derive(Clone, Debug)]
pub struct Task {
    isa: Isa,
    stop: Arc<AtomicBool>,
}

impl Task {
    /// One that nobody asked to stop yet.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        Self { isa, stop: Arc::default() }
    }

    /// The instruction set that it uses.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Asks all holders to stop.
    pub fn cancel(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What the kernels look at.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.stop
    }
}

/// That of a test: with the instruction set that the environment forces on it, or the fastest.
#[cfg(test)]
impl Default for Task {
    #[expect(clippy::disallowed_methods, reason = "unit tests have no configuration")]
    fn default() -> Self {
        let isa = std::env::var("TEST_ISA").ok().map(|name| {
            Isa::by_name(&name).unwrap_or_else(|| panic!("this machine has no {name}"))
        });
        Self::new(isa.unwrap_or_else(Isa::best))
    }
}

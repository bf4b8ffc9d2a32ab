//! How long the work of a request may be, by the estimates of [`cost`](quantd_core::cost).

use quantd_core::cost::Cost;

use super::error::{Error, Kind};

/// What a request may cost, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Time that it may take.
    allowed: Option<f64>,
    /// Threads that share the work.
    threads: usize,
    /// Time of one thread beyond which it is to be run elsewhere.
    short: Option<f64>,
    spent: Cost,
    outgrown: bool,
    committed: bool,
}

impl Effort {
    /// No bound.
    pub const UNBOUNDED: Self = Self {
        allowed: None,
        threads: 1,
        short: None,
        spent: Cost::NONE,
        outgrown: false,
        committed: false,
    };

    /// Up to so many seconds for all of so many threads together.
    #[must_use]
    pub const fn within(seconds: Option<f64>, threads: usize) -> Self {
        Self { allowed: seconds, threads, ..Self::UNBOUNDED }
    }

    /// The same where only work of up to so many seconds of one thread is done, and longer work
    /// goes [elsewhere](Self::is_outgrown).
    #[must_use]
    pub const fn short(self, seconds: f64) -> Self {
        Self { short: Some(seconds), ..self }
    }

    /// Whether nothing was done because the work is longer than what is done here.
    #[must_use]
    pub const fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// Most bytes that may be decompressed, of `most`: how long that takes is not known before.
    pub(super) fn inflatable(&self, most: usize) -> usize {
        /// Takes no longer than other short work.
        const SHORT: usize = 1 << 20;
        if self.short.is_some() { most.min(SHORT) } else { most }
    }

    /// An error for whoever does the work; the request is not answered with it.
    pub(super) fn outgrow(&mut self) -> Error {
        self.outgrown = true;
        Error::new(Kind::Overloaded, "the work is longer than what is done here")
    }

    /// From here on nothing is refused, stopped or left to others: what was changed must not be changed twice.
    pub const fn commit(&mut self) {
        (self.allowed, self.short, self.committed) = (None, None, true);
    }

    /// Whether that was said.
    pub(super) const fn is_committed(&self) -> bool {
        self.committed
    }

    /// Takes up work of that cost.
    ///
    /// # Errors
    /// [`Kind::TooMuchWork`] when it cannot end in time, or when it is to be done elsewhere.
    pub fn take(&mut self, cost: Cost) -> Result<(), Error> {
        self.spent = self.spent + cost;
        let spent = self.spent.seconds();
        let least = spent / self.threads.max(1) as f64;
        if let Some(allowed) = self.allowed.filter(|allowed| least > *allowed) {
            let digits = if least < 10.0 { 3 } else { 0 };
            let detail = format!(
                "the work takes at least {least:.digits$} s here, and {allowed} s are allowed"
            );
            return Err(Error::new(Kind::TooMuchWork, detail).cure(
                "choose a coarser granularity or another range method, send less, or raise --max-compute-ms",
            ));
        }
        if self.short.is_some_and(|short| spent > short) {
            return Err(self.outgrow());
        }
        Ok(())
    }
}

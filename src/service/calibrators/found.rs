//! Ranges that were searched for, kept until the calibrator learns more.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::calibrators::Ranges;
use quantd_core::params::{Numerics, Range};

/// Kinds of codes that ranges are kept for; the one asked for longest ago goes first.
const KINDS: usize = 4;

/// Ranges for the kinds of codes that were asked for last, in f64 or not.
#[derive(Debug, Default)]
pub(super) struct Found {
    kinds: VecDeque<(Numerics, bool, Arc<Ranges>)>,
}

impl Found {
    /// Most bytes that are kept for so many slices.
    pub(super) const fn bytes(slices: usize) -> usize {
        slices.saturating_mul(KINDS * size_of::<Range<f64>>())
    }

    /// Those for such codes, if they are known.
    pub(super) fn get(&self, (numerics, wide): (&Numerics, bool)) -> Option<Arc<Ranges>> {
        let same = |(own, own_wide, _): &&(Numerics, bool, _)| own == numerics && *own_wide == wide;
        self.kinds.iter().find(same).map(|(_, _, ranges)| Arc::clone(ranges))
    }

    /// Keeps those for such codes.
    pub(super) fn keep(&mut self, (numerics, wide): (&Numerics, bool), ranges: Arc<Ranges>) {
        if self.get((numerics, wide)).is_some() {
            return;
        }
        if self.kinds.len() >= KINDS {
            self.kinds.pop_front();
        }
        self.kinds.push_back((*numerics, wide, ranges));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantd_core::params::Profile;

    fn numerics(bits: u32) -> Numerics {
        let profile = Profile::Onnx;
        Numerics { profile, bits, signed: true, symmetric: true, restricted: true }
    }

    #[test]
    fn the_last_few_kinds_are_kept() {
        let mut found = Found::default();
        let ranges = Arc::new(Ranges::F32(Vec::new()));
        for bits in 2..8 {
            found.keep((&numerics(bits), false), Arc::clone(&ranges));
        }
        let known = |bits, wide| found.get((&numerics(bits), wide)).is_some();
        assert_eq!(
            [2, 3, 4, 5, 6, 7].map(|bits| known(bits, false)),
            [false, false, true, true, true, true]
        );
        assert!(!known(7, true));
    }
}

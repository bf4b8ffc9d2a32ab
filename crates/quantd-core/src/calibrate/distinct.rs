//! The distinct values of a slice, as long as there are few.
//!
//! A mask, a class number or the codes of an earlier quantizer are a few
//! values, each seen very often. Bins that widen by powers of two say where
//! such a value is to within a bin only, and the searches for least entropy
//! tell a bin that is full from its empty neighbour. So few values are kept as
//! they are, with the number of times that each was seen; once there are more,
//! they are forgotten for good, as which of them came first must not matter.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicBool};

use rayon::prelude::*;

use crate::Task;
use crate::range::BLOCK;
use quantd_kernels::real::Real;

/// Most values that are kept.
pub(super) const MOST: usize = 512;

/// Distinct finite values in ascending order, and how often each was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distinct(Vec<(f64, u64)>);

impl Distinct {
    /// The finite elements of a slice; none where they are too many.
    pub(super) fn of<T: Real>(values: &[T], task: &Task) -> Option<Self> {
        let many = AtomicBool::new(false);
        let of_block = |block: &[T]| {
            let stop = task.is_cancelled() || many.load(atomic::Ordering::Relaxed);
            let found = if stop { None } else { Self::of_block(block) };
            if found.is_none() {
                many.store(true, atomic::Ordering::Relaxed);
            }
            found
        };
        values.par_chunks(BLOCK).map(of_block).reduce(|| Some(Self::default()), Self::join_some)
    }

    fn of_block<T: Real>(block: &[T]) -> Option<Self> {
        let mut found = Self::default();
        let mut last = 0;
        for x in block.iter().filter(|x| x.is_finite()) {
            // Zero has one sign here.
            let x = x.to_f64() + 0.0;
            if let Some((known, count)) = found.0.get_mut(last)
                && order(known, &x) == Ordering::Equal
            {
                *count += 1;
                continue;
            }
            match found.0.binary_search_by(|(known, _)| order(known, &x)) {
                Ok(place) => {
                    found.0[place].1 += 1;
                    last = place;
                }
                Err(_) if found.0.len() == MOST => return None,
                Err(place) => {
                    found.0.insert(place, (x, 1));
                    last = place;
                }
            }
        }
        Some(found)
    }

    fn join_some(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        a?.join(&b?)
    }

    /// What both have seen; none where that is too much.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        let mut all: Vec<(f64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_by(|(a, _), (b, _)| order(a, b));
        all.dedup_by(|(next, count), (x, sum)| {
            let is_same = order(next, x) == Ordering::Equal;
            if is_same {
                *sum += *count;
            }
            is_same
        });
        (all.len() <= MOST).then_some(Self(all))
    }

    /// Values that are as they say: as many counts, none of them 0, in
    /// ascending order.
    pub(super) fn checked(values: &[f64], counts: &[u64]) -> Option<Self> {
        let ascending = values.is_sorted_by(|a, b| a < b);
        let finite = values.iter().all(|x| x.is_finite() && !(*x == 0.0 && x.is_sign_negative()));
        let fits = values.len() == counts.len() && values.len() <= MOST && !counts.contains(&0);
        let pairs = || values.iter().copied().zip(counts.iter().copied()).collect();
        (ascending && finite && fits).then(|| Self(pairs()))
    }

    /// The values, and how often each was seen.
    pub(super) fn pairs(&self) -> &[(f64, u64)] {
        &self.0
    }

    /// The smallest and the largest value.
    pub(super) fn ends(&self) -> Option<[f64; 2]> {
        Some([self.0.first()?.0, self.0.last()?.0])
    }
}

fn order(a: &f64, b: &f64) -> Ordering {
    a.total_cmp(b)
}

//! Counts of magnitudes on a fixed grid that widens by powers of two.
//!
//! A histogram has as many bins for positive as for negative numbers. Bin k
//! holds the magnitudes in `[k w, (k + 1) w)`, where `w = 2^top / bins` and
//! `2^top` is the smallest power of two above the largest magnitude. A larger
//! one doubles w as often as needed, and bin k becomes bin k / 2: no count is
//! lost or moved to where it does not belong, since the edges of wide bins are
//! edges of narrow ones. So a histogram depends on what was counted, not on the
//! order, and those of two parts add up to that of the whole.
//!
//! Zeros are in no bin: what is missing to the number of elements.

use crate::Task;
use crate::range::histogram::histogram;
use quantd_kernels::real::Real;

/// Least exponent of the top: magnitudes below 2^-1000 share a bin, so that
/// `2^-top` is a number.
const LEAST_TOP: i32 = -1000;

/// Counts of positive and of negative elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// All magnitudes are below 2^top.
    pub(super) top: i32,
    /// Counts of positive elements, from 0 on.
    pub(super) positive: Vec<u64>,
    /// Counts of negative elements, from 0 on.
    pub(super) negative: Vec<u64>,
}

/// Elements of one bin: `count` in `low .. low + width`, in units of 2^top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) low: f64,
    pub(super) width: f64,
    pub(super) count: u64,
}

/// The exponent of the smallest power of two above a finite magnitude, within bounds.
pub(super) fn top_of(magnitude: f64) -> i32 {
    // The exponent field of 1 is 1023, and the power above it is 2^1.
    let field = (magnitude.to_bits() >> 52) & 0x7ff;
    (i32::try_from(field).unwrap_or(0) - 1022).max(LEAST_TOP)
}

/// The larger magnitude of the two ends.
pub(super) fn magnitude([min, max]: [f64; 2]) -> f64 {
    min.abs().max(max.abs())
}

impl Histogram {
    /// Counts elements of that extent in `bins` bins, a power of two, for each sign.
    pub(super) fn of<T: Real>(values: &[T], extent: [f64; 2], bins: usize, task: &Task) -> Self {
        let top = top_of(magnitude(extent));
        // Exact, as are the bins then: a power of two, and what gets subnormal is in the first.
        let factor = libm::ldexp(1.0, -top);
        let side = |sign: T, any: bool| {
            let map = |x: T| {
                let x = x * sign;
                if x > T::ZERO { x.to_f64() * factor } else { f64::NAN }
            };
            if any { histogram(values, map, bins, [0.0, 1.0], task).counts } else { vec![0; bins] }
        };
        let [min, max] = extent;
        Self { top, positive: side(T::ONE, max > 0.0), negative: side(-T::ONE, min < 0.0) }
    }

    /// Whether its counts are those of these values, none of which is beyond its last bin.
    pub(super) fn is_of(&self, values: &[(f64, u64)]) -> bool {
        let mut rest = self.clone();
        let bins = rest.positive.len() as f64;
        for &(x, count) in values.iter().filter(|(x, _)| *x != 0.0) {
            let side = if x > 0.0 { &mut rest.positive } else { &mut rest.negative };
            let bin = <f64 as Real>::truncate(libm::ldexp(x.abs(), -self.top) * bins);
            let place = usize::try_from(bin).ok().and_then(|bin| side.get_mut(bin));
            match place.and_then(|own| own.checked_sub(count).map(|less| (own, less))) {
                Some((own, less)) => *own = less,
                None => return false,
            }
        }
        rest.counted() == 0
    }

    /// Adds the counts of another with as many bins.
    pub(super) fn join(&mut self, other: &Self) {
        let top = self.top.max(other.top);
        let own_shift = top.abs_diff(self.top);
        let shift = top.abs_diff(other.top);
        for (own, other) in
            [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)]
        {
            if own_shift > 0 {
                widen(own, own_shift);
            }
            for (bin, &count) in other.iter().enumerate() {
                own[wider(bin, shift)] += count;
            }
        }
        self.top = top;
    }

    /// Elements in some bin.
    pub(super) fn counted(&self) -> u64 {
        self.positive.iter().chain(&self.negative).sum()
    }

    /// Bins up to the last occupied one, of either sign.
    pub(super) fn used(&self) -> usize {
        let used = |side: &[u64]| side.iter().rposition(|&count| count > 0).map_or(0, |k| k + 1);
        used(&self.positive).max(used(&self.negative))
    }

    /// The occupied bins in the order of their numbers, with `zeros` among them.
    pub(super) fn cells(&self, zeros: u64) -> Vec<Cell> {
        let width = self.width();
        let cell = |low: f64, count: u64| Cell { low, width, count };
        let negative = self.negative.iter().enumerate().rev();
        let negative = negative.map(|(k, &count)| cell(-(k as f64 + 1.0) * width, count));
        let zero = std::iter::once(Cell { low: 0.0, width: 0.0, count: zeros });
        let positive = self.positive.iter().enumerate();
        let positive = positive.map(|(k, &count)| cell(k as f64 * width, count));
        negative.chain(zero).chain(positive).filter(|cell| cell.count > 0).collect()
    }

    /// The occupied bins of magnitudes in their order, with `zeros` before them.
    pub(super) fn magnitudes(&self, zeros: u64) -> Vec<Cell> {
        let width = self.width();
        let zero = std::iter::once(Cell { low: 0.0, width: 0.0, count: zeros });
        let sides = self.positive.iter().zip(&self.negative).enumerate();
        let bins = sides.map(|(k, (a, b))| Cell { low: k as f64 * width, width, count: a + b });
        zero.chain(bins).filter(|cell| cell.count > 0).collect()
    }

    /// Width of a bin in units of 2^top.
    fn width(&self) -> f64 {
        1.0 / self.positive.len() as f64
    }

    /// The edge between bins `k - 1` and `k`.
    pub(super) fn edge(&self, k: usize) -> f64 {
        libm::ldexp(k as f64 * self.width(), self.top)
    }
}

/// The bin that `bin` is part of after so many doublings.
fn wider(bin: usize, doublings: u32) -> usize {
    bin.checked_shr(doublings).unwrap_or(0)
}

fn widen(counts: &mut [u64], doublings: u32) {
    for bin in 0..counts.len() {
        // The target is not behind the source, and what was there has moved on.
        let count = std::mem::take(&mut counts[bin]);
        counts[wider(bin, doublings)] += count;
    }
}

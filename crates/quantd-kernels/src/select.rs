//! Elements between two bounds, and how many lie before and after them.
//!
//! One pass over memory: of a run of elements it is counted, by comparisons that
//! vectorize, how many are below and above. Only a run that has others is counted
//! at each bound, and only one that has some inside is looked at one by one.

use super::Isa;
use super::isa::Op;
use super::real::Real;

/// Elements counted before it is known whether to look at each: few enough
/// that most runs have none inside, enough to fill several vectors.
const RUN: usize = 128;
/// Elements of a run at its bounds or between them that leave the next run likely to
/// have none.
const FEW: usize = 8;

/// Bounds that an order statistic is believed to lie in; `low <= high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket<T> {
    /// Lower bound, or minus infinity.
    pub low: T,
    /// Upper bound, or infinity.
    pub high: T,
}

/// Where elements lie to the bounds of a [`Bracket`]. NaN lies nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Less than the lower bound.
    pub below_low: usize,
    /// At most the lower bound.
    pub to_low: usize,
    /// Less than the upper bound.
    pub below_high: usize,
    /// At most the upper bound.
    pub to_high: usize,
}

impl Counts {
    /// The counts of both.
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self {
            below_low: self.below_low + other.below_low,
            to_low: self.to_low + other.to_low,
            below_high: self.below_high + other.below_high,
            to_high: self.to_high + other.to_high,
        }
    }

    /// Elements strictly between the bounds, which overlap where they are equal.
    const fn inside(self) -> usize {
        self.below_high.saturating_sub(self.to_low)
    }
}

impl Isa {
    /// Counts `map` of the elements of `x`, and appends those strictly between
    /// the bounds to `inside`.
    pub fn bracket<T: Real>(
        self,
        x: &[T],
        map: impl Fn(T) -> T,
        bracket: Bracket<T>,
        inside: &mut Vec<T>,
    ) -> Counts {
        self.run(Gather { x, map, bracket, inside })
    }
}

struct Gather<'a, T, F> {
    x: &'a [T],
    map: F,
    bracket: Bracket<T>,
    inside: &'a mut Vec<T>,
}

impl<T: Real, F: Fn(T) -> T> Op for Gather<'_, T, F> {
    type Output = Counts;

    #[inline(always)]
    fn run(self) -> Counts {
        let Bracket { low, high } = self.bracket;
        let mut all = Counts::default();
        // Elements below both bounds, in runs without any between or at them.
        let mut outside = 0;
        // That the next run is such a one. It is not where many are equal to a bound,
        // nor where none is in the way but NaN.
        let mut is_likely = true;
        for run in self.x.chunks(RUN) {
            if is_likely {
                let (mut below, mut above) = (0_u32, 0_u32);
                for &x in run {
                    let x = (self.map)(x);
                    below += u32::from(x < low);
                    above += u32::from(x > high);
                }
                if (below + above) as usize == run.len() {
                    outside += below as usize;
                    continue;
                }
            }
            let mut counts = [0_u32; 4];
            for &x in run {
                let x = (self.map)(x);
                counts[0] += u32::from(x < low);
                counts[1] += u32::from(x <= low);
                counts[2] += u32::from(x < high);
                counts[3] += u32::from(x <= high);
            }
            let [below_low, to_low, below_high, to_high] = counts.map(|count| count as usize);
            let counts = Counts { below_low, to_low, below_high, to_high };
            if counts.inside() > 0 {
                // Each is written; the next one overwrites what is not inside.
                let mut between = [T::ZERO; RUN + 1];
                let mut len = 0;
                for &x in run {
                    let x = (self.map)(x);
                    between[len] = x;
                    len += usize::from((x > low) & (x < high));
                }
                self.inside.extend_from_slice(&between[..len]);
            }
            is_likely = (1..=FEW).contains(&(counts.to_high - counts.below_low));
            all = all.join(counts);
        }
        all.join(Counts {
            below_low: outside,
            to_low: outside,
            below_high: outside,
            to_high: outside,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_counts_alike() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 1.0, -1.0, 2.0];
        let x: Vec<f32> = (0..1003_u16)
            .map(|i| if i % 5 == 0 { odd[usize::from(i) % 8] } else { f32::from(i % 97) })
            .collect();
        // Runs with nothing at the bounds or between them, but elements on both sides.
        let plain: Vec<f32> = (0..1003_u16).map(|i| f32::from(i % 97)).collect();
        let bounds =
            [(3.0, 9.0), (0.0, 0.0), (-1.0, 1.0), (f32::NEG_INFINITY, f32::INFINITY), (40.5, 40.7)];
        for ((low, high), x) in bounds.into_iter().flat_map(|b| [(b, &x), (b, &plain)]) {
            for len in [0, 1, 127, 128, 129, 257, 1003] {
                let x = &x[..len];
                let count = |is: fn(f32, f32) -> bool, bound: f32| {
                    x.iter().filter(|x| is(**x, bound)).count()
                };
                let expected = Counts {
                    below_low: count(|x, bound| x < bound, low),
                    to_low: count(|x, bound| x <= bound, low),
                    below_high: count(|x, bound| x < bound, high),
                    to_high: count(|x, bound| x <= bound, high),
                };
                let between: Vec<f32> =
                    x.iter().copied().filter(|&x| x > low && x < high).collect();
                for isa in Isa::available() {
                    let mut inside = Vec::new();
                    let counts = isa.bracket(x, |x| x, Bracket { low, high }, &mut inside);
                    assert_eq!(
                        (counts, &inside),
                        (expected, &between),
                        "{isa:?} {len} {low} {high}"
                    );
                }
            }
        }
    }
}

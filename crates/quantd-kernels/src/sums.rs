//! Sums over elements and what they were restored to.

use super::real::Real;

/// Sums that run side by side: so many registers that an addition need not wait
/// for the one before.
pub(super) const LANES: usize = 16;

/// Sums over elements and their reconstructions, from which a report is made.
///
/// With e = x - x̂ the sums of x^2 and x x̂ follow from those of x̂^2, x̂ e and e^2,
/// of which the first is the largest: where no code is saturated, |e| is at most
/// half of |x̂| or x̂ is 0, so that nothing cancels. That saves two sums, and e is
/// needed anyway.
///
/// Elements that are infinite or NaN are left out of every sum and count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorSums {
    /// Sum of x̂^2.
    pub restored: f64,
    /// Sum of x̂ (x - x̂).
    pub cross: f64,
    /// Sum of (x - x̂)^2 over elements whose code was not saturated.
    pub rounded: f64,
    /// Sum of (x - x̂)^2 over elements whose code was saturated.
    pub clipped: f64,
    /// Largest |x - x̂|.
    pub max_abs: f64,
    /// Elements whose code was saturated.
    pub clipped_count: u64,
    /// Elements other than 0 that came back as 0.
    pub zeroed_count: u64,
    /// Elements in the sums.
    pub count: u64,
}

impl ErrorSums {
    /// Sum of (x - x̂)^2.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.rounded + self.clipped
    }

    /// Sum of x^2.
    #[must_use]
    pub fn signal(&self) -> f64 {
        // Not below 0 where squares are so small that they have lost most of their bits.
        (self.restored + 2.0 * self.cross + self.error()).max(0.0)
    }

    /// Sum of x x̂.
    #[must_use]
    pub fn product(&self) -> f64 {
        self.restored + self.cross
    }

    /// The sums over elements and what they were restored to, by a format in which no code is saturated.
    #[must_use]
    pub fn of<T: Real>(x: &[T], restored: &[T]) -> Self {
        let (mut lanes, mut block) = (LaneSums::default(), Block::default());
        for (x, restored) in x.chunks(BLOCK).zip(restored.chunks(BLOCK)) {
            for (i, (&x, &restored)) in x.iter().zip(restored).enumerate() {
                block.set(i, x, restored, false);
            }
            lanes.add(&mut block, x.len());
        }
        lanes.total()
    }

    /// Adds `other`, which covers the elements after those of `self`.
    pub fn merge(&mut self, other: &Self) {
        self.restored += other.restored;
        self.cross += other.cross;
        self.rounded += other.rounded;
        self.clipped += other.clipped;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.clipped_count += other.clipped_count;
        self.zeroed_count += other.zeroed_count;
        self.count += other.count;
    }
}

/// Elements that are restored before they are summed: two simple loops
/// vectorize where one does not.
pub(super) const BLOCK: usize = 64;

/// Elements and what was restored of them; 0 and 0 where not finite.
pub(super) struct Block<T> {
    x: [T; BLOCK],
    restored: [T; BLOCK],
    clipped: [i32; BLOCK],
    zeroed: [i32; BLOCK],
    finite: [i32; BLOCK],
}

impl<T: Real> Default for Block<T> {
    fn default() -> Self {
        let (zeros, none) = ([T::ZERO; BLOCK], [0; BLOCK]);
        Self { x: zeros, restored: zeros, clipped: none, zeroed: none, finite: none }
    }
}

impl<T: Real> Block<T> {
    /// Puts an element, what it was restored to and whether its code was saturated.
    #[inline(always)]
    pub(super) fn set(&mut self, i: usize, x: T, restored: T, saturated: bool) {
        // Selects instead of branches: the loop stays straight.
        let finite = x.is_finite();
        let (x, restored) = if finite { (x, restored) } else { (T::ZERO, T::ZERO) };
        self.x[i] = x;
        self.restored[i] = restored;
        self.clipped[i] = i32::from(finite & saturated);
        self.zeroed[i] = i32::from((x != T::ZERO) & (restored == T::ZERO));
        self.finite[i] = i32::from(finite);
    }
}

/// Independent sums: element i of a sequence goes to lane i % `LANES`. A
/// sequence may come in several calls, all but the last of a multiple of
/// `LANES` elements.
#[derive(Clone, Debug, Default)]
pub struct LaneSums {
    pub(super) restored: [f64; LANES],
    /// Of elements whose code was not saturated; of the others.
    pub(super) cross: [f64; LANES],
    pub(super) clipped_cross: [f64; LANES],
    pub(super) rounded: [f64; LANES],
    pub(super) clipped: [f64; LANES],
    pub(super) max_abs: [f64; LANES],
    pub(super) clipped_count: u64,
    pub(super) zeroed_count: u64,
    pub(super) count: u64,
}

impl LaneSums {
    /// Adds the first `len` elements of the block.
    #[inline(always)]
    pub(super) fn add<T: Real>(&mut self, block: &mut Block<T>, len: usize) {
        let last = len.next_multiple_of(LANES);
        // Zeros change no sum.
        block.x[len..last].fill(T::ZERO);
        block.restored[len..last].fill(T::ZERO);
        let groups = block.x[..last].chunks_exact(LANES).zip(block.restored.chunks_exact(LANES));
        for ((x, restored), clipped) in groups.zip(block.clipped.chunks_exact(LANES)) {
            for i in 0..LANES {
                let (x, restored) = (x[i].to_f64(), restored[i].to_f64());
                let error = x - restored;
                let (rounded, cut) = if clipped[i] == 0 { (error, 0.0) } else { (0.0, error) };
                self.restored[i] += restored * restored;
                self.cross[i] += restored * rounded;
                self.clipped_cross[i] += restored * cut;
                self.rounded[i] += rounded * rounded;
                self.clipped[i] += cut * cut;
                let error = error.abs();
                self.max_abs[i] = if error > self.max_abs[i] { error } else { self.max_abs[i] };
            }
        }
        self.clipped_count += count(&block.clipped[..len]);
        self.zeroed_count += count(&block.zeroed[..len]);
        self.count += count(&block.finite[..len]);
    }

    /// The sums of all lanes, in the order of the lanes.
    #[must_use]
    pub fn total(&self) -> ErrorSums {
        ErrorSums {
            restored: self.restored.iter().sum(),
            cross: self.cross.iter().sum::<f64>() + self.clipped_cross.iter().sum::<f64>(),
            rounded: self.rounded.iter().sum(),
            clipped: self.clipped.iter().sum(),
            max_abs: self.max_abs.iter().copied().fold(0.0, f64::max),
            clipped_count: self.clipped_count,
            zeroed_count: self.zeroed_count,
            count: self.count,
        }
    }
}

#[inline(always)]
fn count(flags: &[i32]) -> u64 {
    u64::from(flags.iter().sum::<i32>().unsigned_abs())
}

//! Counts in bins of equal width, exactly as `numpy.histogram` has them.
//!
//! A run of elements first becomes a run of bin numbers, by arithmetic that
//! vectorizes; these are then counted one by one. Neighbouring elements are
//! counted in different tables: a count that was just written takes several
//! cycles to be read again, and equal neighbours would wait for it.

use super::Isa;
use super::isa::Op;
use super::real::Real;

/// Tables of counts.
const TABLES: usize = 4;
/// Elements whose bin numbers are found at a time.
const RUN: usize = 512;

/// Bins of equal width between two ends. A bin contains its lower edge; the
/// last contains its upper one too.
#[derive(Clone, Copy, Debug)]
pub struct Bins<T> {
    first: T,
    last: T,
    width: T,
    step: T,
    count: T,
    top: i32,
}

impl<T: Real> Bins<T> {
    /// `count` bins, at least 1 and at most 2^24, from `first` to `last` > `first`.
    #[must_use]
    pub fn new(count: i32, first: T, last: T) -> Self {
        let width = last - first;
        let real = T::from_i32(count);
        Self { first, last, width, step: width / real, count: real, top: count - 1 }
    }

    /// `numpy.linspace(first, last, bins + 1)` in the type of the ends.
    #[must_use]
    pub fn edges(&self) -> Vec<T> {
        (0..=self.len()).map(|bin| self.lower_edge(bin)).collect()
    }

    /// Number of bins.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.top.unsigned_abs() as usize + 1
    }

    /// The edge below bin `bin`; that of the number of bins is the last.
    #[must_use]
    pub fn lower_edge(&self, bin: usize) -> T {
        match i32::try_from(bin) {
            Ok(bin) if bin > self.top => self.last,
            Ok(bin) if self.underflows() => self.edge::<true>(bin),
            Ok(bin) => self.edge::<false>(bin),
            Err(_) => self.last,
        }
    }

    /// The bin of `x`, if it lies in one.
    #[must_use]
    pub fn number(&self, x: T) -> Option<usize> {
        let bin = if self.underflows() { self.bin::<true>(x) } else { self.bin::<false>(x) };
        (bin <= self.top.unsigned_abs()).then_some(bin as usize)
    }

    /// A step that underflows would lose the width.
    fn underflows(&self) -> bool {
        self.step == T::ZERO
    }

    /// The lower edge of a bin.
    #[inline(always)]
    fn edge<const UNDERFLOW: bool>(&self, bin: i32) -> T {
        let bin = T::from_i32(bin);
        if UNDERFLOW {
            bin / self.count * self.width + self.first
        } else {
            bin * self.step + self.first
        }
    }

    /// The bin of `x`, or the number of bins for what lies in none. All is
    /// computed in the type of the ends, as NumPy does; what lands beside its
    /// bin for rounding is put right by the edges.
    #[inline(always)]
    fn bin<const UNDERFLOW: bool>(&self, x: T) -> u32 {
        let bin = ((x - self.first) / self.width * self.count).truncate();
        let bin = if bin < self.top { bin } else { self.top };
        let bin = bin - i32::from((x < self.edge::<UNDERFLOW>(bin)) & (bin > 0));
        let above = x >= self.edge::<UNDERFLOW>(bin + 1);
        let bin = bin + i32::from(above & (bin < self.top));
        // NaN is in none.
        let inside = (x >= self.first) & (x <= self.last);
        (if inside { bin } else { self.top + 1 }).cast_unsigned()
    }
}

/// Counts of one thread, to be added up at the end.
#[derive(Clone, Debug)]
pub struct Table {
    counts: [Vec<u64>; TABLES],
}

impl Table {
    /// Zeros.
    #[must_use]
    pub fn new<T>(bins: &Bins<T>) -> Self {
        // One more for what lies in no bin.
        let zeros = vec![0; bins.top.unsigned_abs() as usize + 2];
        Self { counts: [zeros.clone(), zeros.clone(), zeros.clone(), zeros] }
    }

    /// The counts of both.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
        self
    }

    /// The count of each bin.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let [a, b, c, d] = &self.counts;
        (0..a.len() - 1).map(|i| a[i] + b[i] + c[i] + d[i]).collect()
    }
}

impl Isa {
    /// Counts `map` of the elements of `x`; what lies in no bin (NaN among it) is left out.
    pub fn count<T: Real, U: Real>(
        self,
        x: &[T],
        map: impl Fn(T) -> U,
        bins: &Bins<U>,
        table: &mut Table,
    ) {
        if bins.underflows() {
            self.run(Count::<_, _, _, true> { x, map, bins, table });
        } else {
            self.run(Count::<_, _, _, false> { x, map, bins, table });
        }
    }
}

struct Count<'a, T, U, F, const UNDERFLOW: bool> {
    x: &'a [T],
    map: F,
    bins: &'a Bins<U>,
    table: &'a mut Table,
}

impl<T: Real, U: Real, F: Fn(T) -> U, const UNDERFLOW: bool> Op for Count<'_, T, U, F, UNDERFLOW> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let bins = *self.bins;
        let [a, b, c, d] = &mut self.table.counts;
        let mut numbers = [0_u32; RUN];
        for run in self.x.chunks(RUN) {
            for (number, &x) in numbers.iter_mut().zip(run) {
                *number = bins.bin::<UNDERFLOW>((self.map)(x));
            }
            let groups = numbers[..run.len()].chunks_exact(TABLES);
            for &number in groups.remainder() {
                a[number as usize] += 1;
            }
            for group in groups {
                a[group[0] as usize] += 1;
                b[group[1] as usize] += 1;
                c[group[2] as usize] += 1;
                d[group[3] as usize] += 1;
            }
        }
    }
}

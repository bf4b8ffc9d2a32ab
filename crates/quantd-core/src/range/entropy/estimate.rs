//! What a candidate of [`ort`](super::ort) diverges by, in real numbers and without going through
//! its bins.
//!
//! With `p` the counts and `q` the quantized ones, both smoothed, a divergence is
//! `sum(p ln p - p ln q) / sum(p) + ln(sum(q) / sum(p))`; smoothing changes no sum. All occupied
//! bins of a group have one `q`, and groups of the same mean have the same. Candidates whose groups
//! have a size are side by side, and some of them have the same groups but for those at their ends:
//! these are made once. `sum(p ln p)` grows with the candidate; what smoothing takes from a count
//! is the same for all counts, and differs from candidate to candidate.

use std::ops::Range;

use super::QUANTIZED;
use super::ort::EPSILON;

/// Counts, and means, below this are numbered; they are most of what short slices have.
const SMALL: usize = u32::BITS as usize;

/// Estimates candidates of ascending widths about the middle.
pub(super) struct Estimate<'a> {
    counts: &'a [u64],
    /// Of the counts before each bin.
    sums: &'a [u64],
    /// Occupied bins before each bin.
    places: Vec<usize>,
    /// Bins of a group of the last candidate.
    merged: usize,
    /// Groups of so many, by the bin that the first begins at, modulo their size.
    groups: Vec<Option<Groups>>,
    /// Bins of the last candidate, without its ends.
    inside: Range<usize>,
    tally: Tally,
    shares: Shares,
    log_epsilon: f64,
}

impl<'a> Estimate<'a> {
    /// Of counts, and of the sums of those before each bin and of all.
    pub(super) fn new(counts: &'a [u64], sums: &'a [u64]) -> Self {
        let mut occupied = 0;
        let mut places = Vec::with_capacity(sums.len());
        places.push(0);
        places.extend(counts.iter().map(|&count| {
            occupied += usize::from(count > 0);
            occupied
        }));
        let middle = counts.len() / 2;
        Self {
            counts,
            sums,
            places,
            merged: 0,
            groups: Vec::new(),
            inside: middle..middle,
            tally: Tally::default(),
            shares: Shares::default(),
            log_epsilon: libm::log(EPSILON),
        }
    }

    /// The divergence of bins `start..end`, at least [`QUANTIZED`], around those asked for before.
    pub(super) fn of(&mut self, (start, end): (usize, usize)) -> f64 {
        let (counts, sums) = (self.counts, self.sums);
        let whole = sums[counts.len()];
        let merged = (end - start) / QUANTIZED;
        // With what lies beyond them.
        let ends = [sums[start + 1], whole - sums[end - 1]];
        let opened = [(start, ends[0]), (end - 1, ends[1])]
            .map(|(bin, all)| usize::from(all > 0 && counts[bin] == 0));
        let places = self.places[end] - self.places[start] + opened[0] + opened[1];
        self.share(start, end, merged, opened);
        let all = self.shares.total(merged);
        if all.quantized == 0 || places == 0 {
            return f64::INFINITY;
        }
        let empty = |occupied: usize| EPSILON * (end - start - occupied) as f64 / occupied as f64;
        let (p_take, q_take) = (empty(places), empty(all.groups * merged));
        self.include(start + 1..end - 1);
        let term = |all: u64| if all > 0 { x_ln_x(all as f64 - p_take) } else { 0.0 };
        let p_ln_p = self.tally.sum(p_take) + term(ends[0]) + term(ends[1]);
        // Where `q` is of no group it is the least there is: occupied bins weigh what they have, and
        // empty ones, equal to `p`, nothing; those within groups, in turn, have the least of `p`.
        let beyond = (whole - all.count) as f64 - p_take * (places - all.occupied) as f64;
        let vacant = EPSILON * (all.groups * merged - all.occupied) as f64;
        let p_ln_q = self.shares.sum(merged, p_take, q_take) + (beyond - vacant) * self.log_epsilon;
        let whole = whole as f64;
        (p_ln_p - p_ln_q) / whole + libm::log(all.quantized as f64 / whole)
    }

    /// Shares the bins out to groups of `merged`, what fills none to the last; `opened` of the
    /// ends are occupied by what lies beyond alone.
    fn share(&mut self, start: usize, end: usize, merged: usize, opened: [usize; 2]) {
        if self.merged != merged {
            self.merged = merged;
            self.groups.clear();
            self.groups.resize_with(merged, || None);
        }
        let (sums, places, shares) = (self.sums, &self.places[..], &mut self.shares);
        let groups = self.groups[start % merged].get_or_insert_with(|| {
            // As far as candidates of such groups reach.
            let (middle, reach) = (self.counts.len() / 2, (merged + 1) * QUANTIZED / 2);
            let first = start - (start - middle.saturating_sub(reach)) / merged * merged;
            let bins = first..self.counts.len().min(middle + reach);
            Groups::new(bins, merged, (sums, places))
        });
        let rest = start + QUANTIZED * merged;
        let [second, last] = [start + merged, rest - merged];
        shares.clear();
        let occupied = places[second] - places[start] + opened[0];
        let first = Share { groups: 1, occupied, count: sums[second] };
        shares.add(mean(sums[second] - sums[start], occupied), first);
        let (occupied, count) = (places[last] - places[second], sums[last] - sums[second]);
        let all = Share { groups: 0, occupied, count };
        groups.share((second - groups.first) / merged..(last - groups.first) / merged, all, shares);
        let (mut occupied, mut count) = (places[rest] - places[last], sums[rest] - sums[last]);
        if end == rest {
            occupied += opened[1];
            count += sums[self.counts.len()] - sums[end];
        }
        shares.add(mean(sums[end] - sums[last], occupied), Share { groups: 1, occupied, count });
    }

    /// Takes in what a wider candidate has between its ends.
    fn include(&mut self, bins: Range<usize>) {
        let Range { start, end } = self.inside;
        let new = self.counts[bins.start..start].iter().chain(&self.counts[end..bins.end]);
        new.filter(|count| **count > 0).for_each(|&count| self.tally.add(count));
        self.inside = bins;
    }
}

/// Groups of one mean.
#[derive(Clone, Copy, Default)]
struct Share {
    groups: usize,
    /// Occupied bins.
    occupied: usize,
    /// What was counted in these, with what lies beyond an end.
    count: u64,
}

/// What each of so many bins gets of a count.
fn mean(count: u64, occupied: usize) -> u64 {
    count.checked_div(occupied as u64).unwrap_or(0)
}

/// Groups of bins side by side.
struct Groups {
    /// The bin that they begin at.
    first: usize,
    /// Before each group: how many are occupied, and how many of these have another mean than 1.
    before: Vec<[usize; 2]>,
    /// The latter, with their means.
    others: Vec<(u64, Share)>,
}

impl Groups {
    fn new(bins: Range<usize>, merged: usize, (sums, places): (&[u64], &[usize])) -> Self {
        let mut groups = Self {
            first: bins.start,
            before: Vec::with_capacity(bins.len() / merged + 1),
            others: Vec::new(),
        };
        let mut all = 0;
        groups.before.push([0, 0]);
        let (mut sum, mut place) = (sums[bins.start], places[bins.start]);
        for end in (bins.start + merged..=bins.end).step_by(merged) {
            let (count, occupied) = (sums[end] - sum, places[end] - place);
            (sum, place) = (sums[end], places[end]);
            all += usize::from(occupied > 0);
            // As many elements as occupied bins or more, mostly not twice as many.
            if count >= 2 * occupied.max(1) as u64 {
                groups.others.push((mean(count, occupied), Share { groups: 1, occupied, count }));
            }
            groups.before.push([all, groups.others.len()]);
        }
        groups
    }

    /// Adds groups that have `all` together.
    fn share(&self, range: Range<usize>, all: Share, shares: &mut Shares) {
        let ([start, first], [end, last]) = (self.before[range.start], self.before[range.end]);
        let mut plain = Share { groups: end - start, ..all };
        for &(mean, share) in &self.others[first..last] {
            shares.add(mean, share);
            plain.groups -= share.groups;
            plain.occupied -= share.occupied;
            plain.count -= share.count;
        }
        if plain.groups > 0 {
            shares.add(1, plain);
        }
    }
}

/// All groups of a candidate.
#[derive(Default)]
struct Shares {
    /// By their mean, the first of which does not occur.
    small: [Share; SMALL],
    /// Which of these there are.
    known: u32,
    /// With larger means.
    large: Vec<(u64, Share)>,
}

/// What all groups have together.
struct Total {
    groups: usize,
    occupied: usize,
    count: u64,
    /// The sum of all quantized counts.
    quantized: u64,
}

impl Shares {
    fn clear(&mut self) {
        self.known = 0;
        self.large.clear();
    }

    /// Adds groups; those whose bins get nothing are none.
    fn add(&mut self, mean: u64, share: Share) {
        match usize::try_from(mean) {
            Ok(0) => {}
            Ok(mean @ ..SMALL) => {
                let own = &mut self.small[mean];
                if self.known & 1 << mean == 0 {
                    *own = share;
                    self.known |= 1 << mean;
                } else {
                    own.groups += share.groups;
                    own.occupied += share.occupied;
                    own.count += share.count;
                }
            }
            _ => self.large.push((mean, share)),
        }
    }

    /// Means and their groups.
    fn all(&self) -> impl Iterator<Item = (u64, &Share)> {
        let small = ones(self.known).map(|mean| (mean as u64, &self.small[mean]));
        small.chain(self.large.iter().map(|(mean, share)| (*mean, share)))
    }

    fn total(&self, merged: usize) -> Total {
        let mut total = Total { groups: 0, occupied: 0, count: 0, quantized: 0 };
        for (mean, share) in self.all() {
            total.groups += share.groups;
            total.occupied += share.occupied;
            total.count += share.count;
            total.quantized += mean * (share.groups * merged) as u64;
        }
        total
    }

    /// The sum of `p ln q` over their bins.
    fn sum(&self, merged: usize, p_take: f64, q_take: f64) -> f64 {
        let term = |(mean, share): (u64, &Share)| {
            let Share { groups, occupied, count } = *share;
            let empty = EPSILON * (groups * merged - occupied) as f64;
            let p = count as f64 - p_take * occupied as f64 + empty;
            p * libm::log(mean as f64 - q_take)
        };
        self.all().map(term).sum()
    }
}

/// Occupied bins.
#[derive(Default)]
struct Tally {
    /// How many have each small count.
    small: [u32; SMALL],
    /// Which small counts there are.
    known: u32,
    /// Sums over all others: of `c ln c`, and its first derivative and half of its second.
    large: [f64; 3],
}

impl Tally {
    fn add(&mut self, count: u64) {
        match usize::try_from(count) {
            Ok(count @ ..SMALL) => {
                self.small[count] += 1;
                self.known |= 1 << count;
            }
            _ => {
                let count = count as f64;
                let log = libm::log(count);
                let terms = [count * log, log + 1.0, 0.5 / count];
                self.large.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
    }

    /// The sum of `x ln x` over all counts less `take`, which is below 0.21. What the large ones
    /// lack is `take^3 / 6c^2` each, less than `c / 2^24`.
    fn sum(&self, take: f64) -> f64 {
        let [value, first, second] = self.large;
        let mut sum = value - take * (first - take * second);
        for count in ones(self.known) {
            sum += f64::from(self.small[count]) * x_ln_x(count as f64 - take);
        }
        sum
    }
}

fn x_ln_x(x: f64) -> f64 {
    x * libm::log(x)
}

/// The numbers of the bits that are set.
fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (bits > 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        next
    })
}

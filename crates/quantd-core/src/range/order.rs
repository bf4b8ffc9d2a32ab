//! Order statistics: elements by their rank.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::Task;
use quantd_kernels::real::Real;
use quantd_kernels::select::{Bracket, Counts};

use super::BLOCK;

/// Shorter slices are copied and selected from.
const SHORT: usize = 1 << 13;
/// Elements that a thread takes at a time.
const CHUNK: usize = 8 * BLOCK;
/// One element in so many may be gathered before counting digits is cheaper.
const GATHERED: usize = 4;
/// Bits of the key that one pass resolves.
const DIGIT: u32 = 16;

/// For each of the ranks, ascending from 0, the element of that rank among the
/// `finite` finite ones, as `map` gives them, and the next one (the same at
/// the last rank).
///
/// A sample of a long slice tells between which elements each rank should be;
/// one pass over memory counts what is outside these bounds and gathers what
/// is inside. The counts say whether the guess was right: where it was not,
/// digits are counted instead.
pub(super) fn statistics<T: Real, const N: usize>(
    values: &[T],
    finite: usize,
    ranks: [usize; N],
    map: impl Fn(T) -> T + Sync,
    task: &Task,
) -> Vec<[T; 2]> {
    if values.len() < SHORT {
        let mut all: Vec<T> =
            values.iter().filter(|x| x.is_finite()).map(|&x| canonical(map(x))).collect();
        return ranks.iter().map(|&rank| neighbours(&mut all, rank)).collect();
    }
    let brackets = guess(values, &ranks, finite, &map);
    let gathered = gather(values, &brackets, &map, task);
    // Infinities of `map` sort before all others, but have no rank.
    let skipped = if finite == values.len() {
        0
    } else {
        values.iter().filter(|&&x| map(x) == -T::INFINITY).count()
    };
    let found: Option<Vec<[T; 2]>> = gathered.and_then(|parts| {
        let look_up = |((&bracket, part), rank): ((&Bracket<T>, _), &usize)| {
            let pair = [*rank, (rank + 1).min(finite - 1)];
            look_up(bracket, part, pair.map(|rank| rank + skipped)).map(|pair| pair.map(canonical))
        };
        brackets.iter().zip(parts).zip(&ranks).map(look_up).collect()
    });
    found.unwrap_or_else(|| counted(values, &ranks, finite, &map, task))
}

/// Zero has two signs but one place in the order of numbers.
fn canonical<T: Real>(x: T) -> T {
    if x == T::ZERO { T::ZERO } else { x }
}

/// The element of that rank and the next one, if there is one.
fn neighbours<T: Real>(all: &mut [T], rank: usize) -> [T; 2] {
    let smaller = |a: &T, b: &T| a.order_key().cmp(&b.order_key());
    let (_, &mut low, above) = all.select_nth_unstable_by(rank, smaller);
    [low, above.iter().copied().min_by(smaller).unwrap_or(low)]
}

/// Bounds that the elements of each rank, and the next ones, should lie in, by a sample.
fn guess<T: Real, const N: usize>(
    values: &[T],
    ranks: &[usize; N],
    finite: usize,
    map: &impl Fn(T) -> T,
) -> [Bracket<T>; N] {
    // Enough for narrow bounds, few enough to cost little beside the pass.
    let wanted = (values.len() / 8).min(1 << 14);
    // Expanded as fractions of the golden ratio are, which no period of a tensor follows.
    let place = |i: usize| {
        let fraction = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(fraction) * values.len() as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    };
    let picked = (0..wanted).map(|i| values[place(i)]).filter(|x| x.is_finite());
    let mut keys: Vec<u64> = picked.map(|x| map(x).order_key()).collect();
    let sampled = keys.len();
    let mut key = |i: Option<usize>, beyond: T| match i {
        Some(i) if i < sampled => T::from_order_key(*keys.select_nth_unstable(i).1),
        _ => beyond,
    };
    ranks.map(|rank| {
        // Where the rank is in the sample, give or take four standard deviations and some.
        let i = rank * sampled / finite;
        let margin = 4 * ((i * (finite - rank) / finite).isqrt() + 1);
        Bracket {
            low: key(i.checked_sub(margin), -T::INFINITY),
            high: key(i.checked_add(margin), T::INFINITY),
        }
    })
}

/// Where elements lie to each bracket, and those between its bounds; `None`
/// where they are too many.
fn gather<T: Real, const N: usize>(
    values: &[T],
    brackets: &[Bracket<T>; N],
    map: &(impl Fn(T) -> T + Sync),
    task: &Task,
) -> Option<[(Counts, Vec<T>); N]> {
    let isa = task.isa();
    let most = values.len() / GATHERED;
    let gathered = AtomicUsize::new(0);
    let empty = || brackets.map(|_| (Counts::default(), Vec::new()));
    let add = |mut all: [(Counts, Vec<T>); N], chunk: &[T]| {
        // All brackets while a block is in the first cache.
        for block in chunk.chunks(BLOCK / 8) {
            if task.is_cancelled() || gathered.load(Ordering::Relaxed) > most {
                return all;
            }
            for ((counts, inside), &bracket) in all.iter_mut().zip(brackets) {
                let before = inside.len();
                *counts = counts.join(isa.bracket(block, map, bracket, inside));
                if inside.len() > before {
                    gathered.fetch_add(inside.len() - before, Ordering::Relaxed);
                }
            }
        }
        all
    };
    let join = |mut all: [(Counts, Vec<T>); N], other: [(Counts, Vec<T>); N]| {
        for ((counts, inside), (other_counts, other_inside)) in all.iter_mut().zip(other) {
            *counts = counts.join(other_counts);
            inside.extend(other_inside);
        }
        all
    };
    // The other way than the pass for the extent, whose last elements may still be in a cache.
    let all = values.par_chunks(CHUNK).rev().fold(empty, add).reduce(empty, join);
    (gathered.into_inner() <= most).then_some(all)
}

/// The elements of two neighbouring ranks (or twice the same), if what was
/// counted and gathered tells them.
fn look_up<T: Real>(
    bracket: Bracket<T>,
    (counts, mut inside): (Counts, Vec<T>),
    [rank, next]: [usize; 2],
) -> Option<[T; 2]> {
    let Counts { below_low, to_low, below_high, to_high } = counts;
    if rank < below_low || next >= to_high {
        return None;
    }
    let mut at = |rank: usize| {
        if rank < to_low {
            bracket.low
        } else if rank >= below_high {
            bracket.high
        } else {
            neighbours(&mut inside, rank - to_low)[0]
        }
    };
    Some([at(rank), at(next)])
}

/// Finds the keys of the ranks and of the next ones digit by digit: a
/// histogram of the next digit over the elements that share the digits found
/// so far tells the next one.
fn counted<T: Real, const N: usize>(
    values: &[T],
    ranks: &[usize; N],
    finite: usize,
    map: &(impl Fn(T) -> T + Sync),
    task: &Task,
) -> Vec<[T; 2]> {
    // Digits found so far, and the rank among the elements that share them.
    let mut found: Vec<(u64, usize)> =
        ranks.iter().flat_map(|&rank| [(0, rank), (0, (rank + 1).min(finite - 1))]).collect();
    let mut shift = T::BITS;
    while shift > 0 {
        shift -= DIGIT;
        let mut prefixes: Vec<u64> = found.iter().map(|&(prefix, _)| prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let tables = digit_counts(values, &prefixes, shift, map, task);
        for (prefix, rank) in &mut found {
            let table = prefixes.binary_search(prefix).unwrap_or(0) << DIGIT;
            let mut digit = 0;
            while digit < (1 << DIGIT) - 1 && *rank >= tables[table + digit] {
                *rank -= tables[table + digit];
                digit += 1;
            }
            *prefix = *prefix << DIGIT | digit as u64;
        }
    }
    let pair = |pair: &[(u64, usize)]| [pair[0].0, pair[1].0].map(T::from_order_key);
    found.chunks_exact(2).map(pair).collect()
}

/// How often each next digit follows each prefix.
fn digit_counts<T: Real>(
    values: &[T],
    prefixes: &[u64],
    shift: u32,
    map: &(impl Fn(T) -> T + Sync),
    task: &Task,
) -> Vec<usize> {
    let empty = || vec![0_usize; prefixes.len() << DIGIT];
    let is_first = shift + DIGIT == T::BITS;
    let add = |mut table: Vec<usize>, block: &[T]| {
        if task.is_cancelled() {
            return table;
        }
        for &x in block.iter().filter(|x| x.is_finite()) {
            let key = canonical(map(x)).order_key() >> shift;
            let which = if is_first { Ok(0) } else { prefixes.binary_search(&(key >> DIGIT)) };
            if let Ok(which) = which {
                let digit = usize::try_from(key & ((1 << DIGIT) - 1)).unwrap_or(0);
                table[(which << DIGIT) + digit] += 1;
            }
        }
        table
    };
    let sum = |mut a: Vec<usize>, b: Vec<usize>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    values.par_chunks(CHUNK).fold(empty, add).reduce(empty, sum)
}

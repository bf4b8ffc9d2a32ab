//! Percentiles, exact and interpolated as `numpy.percentile` does by default.
//!
//! `percentile: p` clips both tails: symmetric codes get the p-th percentile of
//! the magnitudes on either side, asymmetric ones the percentiles 100 - p and p.

use rayon::prelude::*;

use crate::kernels::real::Real;
use crate::kernels::scalar::Extent;
use crate::quant::Cancel;
use crate::quant::params::{Numerics, Range};

use super::BLOCK;

/// From here on, order statistics are counted out instead of copied and selected.
const COUNTED: usize = 1 << 16;
/// Bits of the key that one pass resolves.
const DIGIT: u32 = 16;

pub(super) fn range<T: Real>(
    values: &[T],
    extent: Extent<T>,
    p: f64,
    numerics: &Numerics,
    cancel: &Cancel,
) -> Range<T> {
    let finite = values.len() - usize::try_from(extent.nan + extent.inf).unwrap_or(0);
    if numerics.symmetric {
        let [amax] = percentiles(values, finite, [p], T::abs, cancel);
        return Range { min: -amax, max: amax };
    }
    let [min, max] = percentiles(values, finite, [100.0 - p, p], |x| x, cancel);
    Range::around_zero(min, max)
}

/// The percentiles of `map` of the finite elements, of which there are `finite` > 0.
pub(in crate::quant) fn percentiles<T: Real, const N: usize>(
    values: &[T],
    finite: usize,
    wanted: [f64; N],
    map: impl Fn(T) -> T + Sync,
    cancel: &Cancel,
) -> [T; N] {
    let places = wanted.map(|p| place(p, finite));
    let ranks: Vec<usize> = places.iter().flat_map(|&(low, high, _)| [low, high]).collect();
    let found = order_statistics(values, &ranks, map, cancel);
    let mut i = 0;
    places.map(|(_, _, weight)| {
        let value = interpolate(found[i], found[i + 1], weight);
        i += 2;
        value
    })
}

/// The neighbours of a percentile among `n` sorted elements, and its place between them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index below n, rounded down"
)]
fn place(p: f64, n: usize) -> (usize, usize, f64) {
    let index = (n - 1) as f64 * (p / 100.0);
    if index >= (n - 1) as f64 {
        return (n - 1, n - 1, 0.0);
    }
    let low = index.floor();
    (low as usize, low as usize + 1, index - low)
}

/// `numpy`'s `_lerp`: from the nearer end, the weight in the type of the array.
fn interpolate<T: Real>(low: T, high: T, weight: f64) -> T {
    let width = high - low;
    if !width.is_finite() {
        // NumPy overflows here.
        return low * T::from_f64(1.0 - weight) + high * T::from_f64(weight);
    }
    if weight < 0.5 {
        low + width * T::from_f64(weight)
    } else {
        high - width * T::from_f64(1.0 - weight)
    }
}

/// The elements of those ranks among the finite ones, as `map` gives them.
fn order_statistics<T: Real>(
    values: &[T],
    ranks: &[usize],
    map: impl Fn(T) -> T + Sync,
    cancel: &Cancel,
) -> Vec<T> {
    if values.len() >= COUNTED {
        return counted(values, ranks, map, cancel);
    }
    let mut keys: Vec<u64> =
        values.iter().filter(|x| x.is_finite()).map(|&x| canonical(map(x)).order_key()).collect();
    let mut select = |rank: usize| *keys.select_nth_unstable(rank).1;
    ranks.iter().map(|&rank| T::from_order_key(select(rank))).collect()
}

/// Zero has two keys but one place in the order of numbers.
fn canonical<T: Real>(x: T) -> T {
    if x == T::ZERO { T::ZERO } else { x }
}

/// Finds the keys of the ranks digit by digit: a histogram of the next digit
/// over the elements that share the digits found so far tells the next one.
fn counted<T: Real>(
    values: &[T],
    ranks: &[usize],
    map: impl Fn(T) -> T + Sync,
    cancel: &Cancel,
) -> Vec<T> {
    // Digits found so far, and the rank among the elements that share them.
    let mut found: Vec<(u64, usize)> = ranks.iter().map(|&rank| (0, rank)).collect();
    let mut shift = T::BITS;
    while shift > 0 {
        shift -= DIGIT;
        let mut prefixes: Vec<u64> = found.iter().map(|&(prefix, _)| prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let tables = digit_counts(values, &prefixes, shift, &map, cancel);
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
    found.into_iter().map(|(key, _)| T::from_order_key(key)).collect()
}

/// How often each next digit follows each prefix.
fn digit_counts<T: Real>(
    values: &[T],
    prefixes: &[u64],
    shift: u32,
    map: &(impl Fn(T) -> T + Sync),
    cancel: &Cancel,
) -> Vec<usize> {
    let empty = || vec![0_usize; prefixes.len() << DIGIT];
    let is_first = shift + DIGIT == T::BITS;
    let add = |mut table: Vec<usize>, block: &[T]| {
        if cancel.is_cancelled() {
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
    values.par_chunks(16 * BLOCK).fold(empty, add).reduce(empty, sum)
}

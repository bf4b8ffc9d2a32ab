//! Lines of a softmax: a sample that does not depend on the order of batches.
//!
//! Each distinct line has a hash of its bits; the lines of the smallest hashes
//! are kept, each with the number of times that it was seen. A line that is
//! among them in the end was among them from its first time on, so its number
//! is exact, and the sample of two parts joined is that of the whole.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::QuantError;
use crate::partition::resolve_axis;
use quantd_kernels::real::Real;

/// Elements of all lines that are kept.
pub(super) const MOST_ELEMENTS: usize = 1 << 18;
/// Lines that are kept.
pub(super) const MOST_LINES: usize = 1024;
/// Bytes of a sample: its elements, and for each line its place in the tree.
pub(super) const MOST_BYTES: usize = MOST_ELEMENTS * 8 + MOST_LINES * 128;

/// The lines of the smallest hashes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    line: usize,
    /// Hash and bits of each line, and how often it was seen.
    lines: BTreeMap<(u64, Box<[u64]>), u64>,
}

/// Mixes 64-bit words: a multiplication carries upwards, the shift downwards.
fn hash(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    })
}

impl Sample {
    /// Without lines yet, for lines of `line` elements.
    ///
    /// # Errors
    /// [`QuantError`] when one line is more than a sample may hold.
    pub(super) fn new(line: usize) -> Result<Self, QuantError> {
        if line > MOST_ELEMENTS {
            let text = format!("{line} elements along the axis of the softmax");
            return Err(QuantError::field("shape", text)
                .cure(format!("cross_entropy takes lines of up to {MOST_ELEMENTS}")));
        }
        Ok(Self { line, lines: BTreeMap::new() })
    }

    /// The lines of a tensor along an axis.
    ///
    /// # Errors
    /// [`QuantError`] when there is no such axis, or its lines are too long.
    pub(super) fn of<T: Real>(x: &[T], dims: &[usize], axis: i64) -> Result<Self, QuantError> {
        let axis = resolve_axis(axis, dims.len())?;
        let mut sample = Self::new(dims[axis])?;
        let lines = crate::gather::lines(x, dims, axis);
        let bits = |line: &[T]| line.iter().map(|x| x.to_f64().to_bits()).collect::<Box<[u64]>>();
        let hashes: Vec<u64> = lines
            .par_chunks(sample.line)
            .map(|line| hash(line.iter().map(|x| x.to_f64().to_bits())))
            .collect();
        for (hash, line) in hashes.into_iter().zip(lines.chunks(sample.line)) {
            if sample.may_hold(hash) {
                sample.add(hash, bits(line), 1);
            }
        }
        Ok(sample)
    }

    /// Elements of a line.
    pub(super) const fn line(&self) -> usize {
        self.line
    }

    /// Lines that are kept at most.
    pub(super) fn capacity(&self) -> usize {
        (MOST_ELEMENTS / self.line.max(1)).clamp(1, MOST_LINES)
    }

    fn may_hold(&self, hash: u64) -> bool {
        let largest = self.lines.last_key_value().map(|((hash, _), _)| *hash);
        self.lines.len() < self.capacity() || largest.is_some_and(|largest| hash <= largest)
    }

    fn add(&mut self, hash: u64, bits: Box<[u64]>, count: u64) {
        *self.lines.entry((hash, bits)).or_insert(0) += count;
        if self.lines.len() > self.capacity() {
            self.lines.pop_last();
        }
    }

    /// Adds a line that was seen `count` times.
    pub(super) fn insert(&mut self, line: &[f64], count: u64) {
        let bits: Box<[u64]> = line.iter().map(|x| x.to_bits()).collect();
        self.add(hash(bits.iter().copied()), bits, count);
    }

    /// Adds the lines of another.
    pub(super) fn join(&mut self, other: &Self) {
        for ((hash, bits), &count) in &other.lines {
            if self.may_hold(*hash) {
                self.add(*hash, bits.clone(), count);
            }
        }
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// All elements, line by line.
    pub(super) fn elements(&self) -> impl Iterator<Item = f64> {
        self.lines.keys().flat_map(|(_, bits)| bits.iter().map(|&bits| f64::from_bits(bits)))
    }

    /// How often each line was seen.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.lines.values().copied().collect()
    }
}

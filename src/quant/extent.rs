//! The extent of every slice, in one pass over memory.

use rayon::prelude::*;

use crate::kernels::real::Real;
use crate::kernels::scalar::{self, Extent};

use super::Cancel;
use super::layout::{Chunk, Layout};

/// Smallest and largest finite element and the non-finite ones of each slice.
///
/// Extents join in any order to the same result, so threads may share the work
/// as they like.
pub(super) fn extents<T: Real>(x: &[T], layout: &Layout, cancel: &Cancel) -> Vec<Extent<T>> {
    let slices = layout.slices();
    let empty = || vec![Extent::default(); slices];
    let chunks: Vec<_> = layout.chunks().collect();
    // A thread may hold a full table of slices only where that is little beside the tensor.
    if slices.saturating_mul(64) <= x.len() {
        return chunks
            .into_par_iter()
            .fold(empty, |mut table, chunk| {
                if !cancel.is_cancelled() {
                    add_chunk(x, chunk, |slice, extent| {
                        table[slice] = table[slice].join(extent);
                    });
                }
                table
            })
            .reduce(empty, |mut table, other| {
                for (own, other) in table.iter_mut().zip(other) {
                    *own = own.join(other);
                }
                table
            });
    }
    let mut table = empty();
    for batch in chunks.chunks(64) {
        if cancel.is_cancelled() {
            break;
        }
        let parts: Vec<Vec<(usize, Extent<T>)>> = batch
            .par_iter()
            .map(|&chunk| {
                let mut found = Vec::new();
                add_chunk(x, chunk, |slice, extent| found.push((slice, extent)));
                found
            })
            .collect();
        for (slice, extent) in parts.into_iter().flatten() {
            table[slice] = table[slice].join(extent);
        }
    }
    table
}

fn add_chunk<T: Real>(x: &[T], chunk: Chunk<'_>, mut add: impl FnMut(usize, Extent<T>)) {
    for run in chunk.runs() {
        let x = &x[run.start..run.start + run.len];
        if run.each {
            for (i, &x) in x.iter().enumerate() {
                let mut one = Extent::default();
                one.add(x);
                add(run.slice + i, one);
            }
        } else {
            add(run.slice, scalar::extent(x));
        }
    }
}

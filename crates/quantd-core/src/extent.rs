//! The extent of every slice, in one pass over memory.

use rayon::prelude::*;

use quantd_kernels::Isa;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::Extent;

use super::Task;
use super::partition::{CHUNK, Partition, Tile};
use super::source::Source;

/// Elements that are not worth sharing between threads.
const SMALL: usize = 4 * CHUNK;
/// Parts that a thread may have of tiles that are shared: few, as each has extents of its own for all slices of the tile,
/// and enough to share evenly.
const PARTS: usize = 4;
/// Elements that are looked at without a look at whether to stop, at most.
const LARGE: usize = 1 << 22;

/// Smallest and largest finite element and the non-finite ones of each slice.
///
/// Extents join in any order to the same result, so threads may share the work
/// as they like: each has slices of its own, or, where slices are long, parts
/// of some.
pub(super) fn extents<T: Real>(
    x: &Source<'_, T>,
    partition: &Partition,
    task: &Task,
) -> Vec<Extent<T>> {
    let mut table = vec![Extent::default(); partition.slices()];
    let isa = task.isa();
    if !x.is_empty() {
        let small = (x.len() / (PARTS * rayon::current_num_threads())).clamp(SMALL, LARGE);
        let find = Find { x, isa, task, small };
        let bands = table.par_chunks_mut(partition.slices_per_band());
        bands
            .enumerate()
            .for_each_init(Vec::new, |room, (i, own)| find.tile(partition.tile(i), own, room));
    }
    table
}

#[derive(Clone, Copy)]
struct Find<'a, T: Real> {
    x: &'a Source<'a, T>,
    isa: Isa,
    task: &'a Task,
    /// Elements that are not worth sharing in pieces.
    small: usize,
}

impl<T: Real> Find<'_, T> {
    /// Joins the extents of the slices of `tile` to `own`; `room` is for elements that have to be made.
    fn tile(self, tile: Tile, own: &mut [Extent<T>], room: &mut Vec<T>) {
        let Tile { start, len, stride, count, size } = tile;
        let room_of_other = &mut Vec::new();
        if len * count <= if count > 1 { self.small } else { SMALL } {
            if !self.task.is_cancelled() {
                self.runs(tile, own, room);
            }
        } else if count > 1 {
            let half = count / 2;
            let mut other = vec![Extent::default(); own.len()];
            rayon::join(
                || self.tile(Tile { count: half, ..tile }, own, room),
                || {
                    let start = start + half * stride;
                    let tile = Tile { start, count: count - half, ..tile };
                    self.tile(tile, &mut other, room_of_other);
                },
            );
            own.iter_mut().zip(other).for_each(|(own, other)| *own = own.join(other));
        } else if let [own] = own {
            let extent = |room: &mut Vec<T>, i| {
                if self.task.is_cancelled() {
                    return Extent::default();
                }
                let at = i * CHUNK;
                self.isa.extent(self.x.part(start + at, CHUNK.min(len - at), room))
            };
            let parts = (0..len.div_ceil(CHUNK)).into_par_iter().map_init(Vec::new, extent);
            *own = own.join(parts.reduce(Extent::default, Extent::join));
        } else {
            let half = own.len() / 2;
            let (first, second) = own.split_at_mut(half);
            let middle = half * size;
            rayon::join(
                || self.tile(Tile { len: middle, ..tile }, first, room),
                || {
                    let tile = Tile { start: start + middle, len: len - middle, ..tile };
                    self.tile(tile, second, room_of_other);
                },
            );
        }
    }

    fn runs(
        self,
        Tile { start, len, stride, count, size }: Tile,
        own: &mut [Extent<T>],
        room: &mut Vec<T>,
    ) {
        match self.x {
            Source::Borrowed(x) => {
                let pieces = (0..count).map(|i| &x[start + i * stride..][..len]);
                self.isa.extents(pieces, size, own);
            }
            Source::Converted(made) => {
                // As many at a time as make a chunk, which is then still in a cache.
                let together = (CHUNK / len.max(1)).clamp(1, count.max(1));
                room.resize(room.len().max(together * len), T::ZERO);
                for first in (0..count).step_by(together) {
                    let pieces = first..count.min(first + together);
                    for (to, i) in room.chunks_mut(len).zip(pieces.clone()) {
                        made.fill(start + i * stride, to);
                    }
                    self.isa.extents(room.chunks(len).take(pieces.len()), size, own);
                }
            }
        }
    }
}

/// The extent of all of `x`.
pub(super) fn whole<T: Real>(x: &[T], task: &Task) -> Extent<T> {
    let mut own = Extent::default();
    if !x.is_empty() {
        let tile = Tile { start: 0, len: x.len(), stride: x.len(), count: 1, size: x.len() };
        let find = Find { x: &x.into(), isa: task.isa(), task, small: SMALL };
        find.tile(tile, std::slice::from_mut(&mut own), &mut Vec::new());
    }
    own
}

//! Matrices the other way round.

use std::borrow::Cow;

use bytemuck::Pod;
use rayon::prelude::*;

use super::Task;

/// Side of the squares in which elements are moved: so many lines of the source and of the
/// target stay in the cache.
const SQUARE: usize = 32;

/// `[rows, columns]` as `[columns, rows]`; a single value stays what it is. On the rayon pool it
/// is called in; once `task` is cancelled it ends early, with a useless result.
#[must_use]
pub fn transposed<'a, T: Pod + Send + Sync>(
    values: &'a [T],
    [rows, columns]: [usize; 2],
    task: &Task,
) -> Cow<'a, [T]> {
    if values.len() <= 1 || rows == 1 || columns == 1 {
        return Cow::Borrowed(values);
    }
    let mut out: Vec<T> = bytemuck::zeroed_vec(values.len());
    out.par_chunks_mut(SQUARE * rows).enumerate().for_each(|(band, out)| {
        let left = band * SQUARE;
        for top in (0..rows).step_by(SQUARE) {
            if task.is_cancelled() {
                return;
            }
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                for (row, cell) in (top..rows).zip(&mut out[top..rows.min(top + SQUARE)]) {
                    *cell = values[row * columns + left + column];
                }
            }
        }
    });
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_change_places() {
        for [rows, columns] in [[1, 1], [1, 7], [7, 1], [2, 3], [31, 33], [32, 64], [65, 97]] {
            let values: Vec<usize> = (0..rows * columns).collect();
            let out = transposed(&values, [rows, columns], &Task::default());
            assert_eq!(out.len(), values.len());
            let is_moved = |i: usize| out[i % columns * rows + i / columns] == i;
            assert!((0..values.len()).all(is_moved), "{rows} x {columns}");
        }
        assert_eq!(transposed(&[5], [3, 4], &Task::default())[..], [5]);
    }
}

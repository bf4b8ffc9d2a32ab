//! The walk over a grid, as many candidates at a time as a kernel looks at side by side.

use crate::Task;
use crate::params::Numerics;
use quantd_kernels::real::Real;
use quantd_kernels::rough::{Candidates, Lanes, SIDE};

use super::grid::Grid;

/// A search that rules candidates out.
pub(super) trait Search {
    /// Whether all candidates of a row, and of every later one, are worse than another one.
    fn is_hopeless_row(&self, row: usize) -> bool;
    /// The same of a candidate and those after it in its row.
    fn is_hopeless(&self, row: usize, column: usize) -> bool;
    /// Looks at up to [`SIDE`] candidates, given by their numbers.
    fn look(&mut self, candidates: &[usize]);
}

/// Shows the candidates that are not hopeless, in the order of their numbers.
pub(super) fn walk<T: Real>(grid: &Grid<T>, search: &mut impl Search, task: &Task) {
    let mut batch = [0; SIDE];
    let mut len = 0;
    for row in 0..grid.rows() {
        if search.is_hopeless_row(row) {
            break;
        }
        for column in 0..grid.columns() {
            if search.is_hopeless(row, column) || task.is_cancelled() {
                break;
            }
            batch[len] = row * grid.columns() + column;
            len += 1;
            if len == SIDE {
                search.look(&batch);
                len = 0;
            }
        }
    }
    if len > 0 {
        search.look(&batch[..len]);
    }
}

/// A number of some places of an axis of a grid; of places between the one before.
/// It grows with its place: what it says of one holds for all after it.
#[derive(Debug)]
pub(super) struct Marks {
    values: Lanes<f64>,
    /// From one of these places to the next.
    stride: usize,
}

impl Marks {
    /// Of the ends at these places.
    pub(super) fn new<T: Real>(
        count: usize,
        end: impl Fn(usize) -> T,
        of: impl FnOnce(&Lanes<T>) -> Lanes<f64>,
    ) -> Self {
        let stride = count.div_ceil(SIDE);
        let ends = std::array::from_fn(|i| end((i * stride).min(count - 1)));
        Self { values: of(&ends), stride }
    }

    /// That say nothing.
    pub(super) const NONE: Self = Self { values: [0.0; SIDE], stride: usize::MAX };

    pub(super) fn at(&self, place: usize) -> f64 {
        self.values[place / self.stride]
    }
}

/// Parameters of some candidates; lanes to spare have those of the first. `usual` says that the
/// grid has [a scale](Grid::scale).
pub(super) fn parameters<T: Real>(
    grid: &Grid<T>,
    candidates: &[usize],
    numerics: &Numerics,
    usual: bool,
) -> Candidates<T> {
    let mut numbers = [candidates[0]; SIDE];
    numbers[..candidates.len()].copy_from_slice(candidates);
    if usual && numerics.symmetric {
        let ends = numbers.map(|i| grid.upper(i));
        let scales = ends.map(|end| numerics.symmetric_step(end));
        return Candidates { scales, zero_points: [numerics.middle(); SIDE] };
    }
    let mut made = [numerics.affine(grid.get(candidates[0])); SIDE];
    for (made, &i) in made.iter_mut().zip(candidates).skip(1) {
        *made = numerics.affine(grid.get(i));
    }
    Candidates {
        scales: made.map(|affine| affine.scale),
        zero_points: made.map(|affine| affine.zero_point),
    }
}

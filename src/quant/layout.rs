//! Which elements share a scale: the geometry of a granularity over a shape.
//!
//! A *slice* is the set of elements with one scale and zero point. In memory
//! order a tensor is a sequence of *runs*: a run either belongs to one slice
//! or touches consecutive slices, one element each (when the axis of the
//! scales is the fastest-varying one). Everything that walks a tensor walks
//! runs, so it is written once for all granularities.

use crate::tensor::Shape;

use super::QuantError;
use super::scheme::Granularity;

/// Geometry of a granularity over one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: Kind,
    len: usize,
    scale_dims: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Slice `c` is `[.., c, ..]`: `outer x axis x inner` elements. A whole
    /// tensor is one channel; a token is a channel with `outer` 1.
    Channel { outer: usize, axis: usize, inner: usize },
    /// `size` neighbours along the axis share a slice; the last group may be short.
    Group { outer: usize, axis: usize, inner: usize, size: usize },
    /// Tiles of the last two axes; the tiles at the ends may be smaller.
    Block { lead: usize, rows: usize, columns: usize, tile: [usize; 2] },
}

/// Consecutive elements and the slices they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
    /// Slice of the first element.
    pub slice: usize,
    /// Whether element `i` belongs to slice `slice + i` rather than all to `slice`.
    pub each: bool,
}

/// The elements of one slice: `count` pieces of `len` consecutive elements,
/// `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Index of the first element.
    pub start: usize,
    /// Elements of a piece.
    pub len: usize,
    /// Distance between the starts of two pieces.
    pub stride: usize,
    /// Number of pieces.
    pub count: usize,
}

impl Pieces {
    /// Number of elements.
    #[must_use]
    pub const fn elements(&self) -> usize {
        self.len * self.count
    }

    /// Start of each piece.
    pub fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |i| self.start + i * self.stride)
    }
}

impl Layout {
    /// Lays `granularity` over `shape`.
    ///
    /// # Errors
    /// [`QuantError`] when an axis is not one of the shape's, or a block has
    /// no two axes to lie on.
    pub fn new(granularity: Granularity, shape: &Shape) -> Result<Self, QuantError> {
        let dims = shape.dims();
        let (kind, scale_dims) = match granularity {
            Granularity::Tensor => {
                (Kind::Channel { outer: 1, axis: 1, inner: shape.len() }, Vec::new())
            }
            Granularity::Channel { axis } => {
                let axis = resolve_axis(axis, dims.len())?;
                let [outer, extent, inner] = around(dims, axis);
                (Kind::Channel { outer, axis: extent, inner }, vec![extent])
            }
            Granularity::Token => {
                let axis = resolve_axis(-1, dims.len())?;
                let mut scale_dims = dims.to_vec();
                scale_dims[axis] = 1;
                let rows = dims[..axis].iter().product();
                (Kind::Channel { outer: 1, axis: rows, inner: dims[axis] }, scale_dims)
            }
            Granularity::Group { axis, size } => {
                let axis = resolve_axis(axis, dims.len())?;
                let [outer, extent, inner] = around(dims, axis);
                let mut scale_dims = dims.to_vec();
                scale_dims[axis] = extent.div_ceil(size);
                (Kind::Group { outer, axis: extent, inner, size }, scale_dims)
            }
            Granularity::Block { shape: tile } => {
                let &[ref lead @ .., rows, columns] = dims else {
                    return Err(QuantError::field("block_shape", "a block needs two axes or more")
                        .cure("reshape the tensor or use group"));
                };
                let mut scale_dims = lead.to_vec();
                scale_dims.extend([rows.div_ceil(tile[0]), columns.div_ceil(tile[1])]);
                (Kind::Block { lead: lead.iter().product(), rows, columns, tile }, scale_dims)
            }
        };
        Ok(Self { kind, len: shape.len(), scale_dims })
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shape of the scales as ONNX has it: `[]` for a tensor, 1-D for
    /// channels, the rank of the tensor for tokens, groups and blocks.
    #[must_use]
    pub fn scale_dims(&self) -> &[usize] {
        &self.scale_dims
    }

    /// Number of slices.
    #[must_use]
    pub fn slices(&self) -> usize {
        self.scale_dims.iter().product()
    }

    /// Number of runs.
    #[must_use]
    pub const fn runs(&self) -> usize {
        if self.len == 0 {
            return 0;
        }
        match self.kind {
            Kind::Channel { outer, axis: 1, .. } => outer,
            Kind::Channel { outer, inner: 1, .. } => outer,
            Kind::Channel { outer, axis, .. } => outer * axis,
            Kind::Group { outer, axis, inner: 1, size } => outer * axis.div_ceil(size),
            Kind::Group { outer, axis, .. } => outer * axis,
            Kind::Block { lead, rows, columns, tile } => lead * rows * columns.div_ceil(tile[1]),
        }
    }

    /// Elements of the longest run.
    #[must_use]
    pub const fn run_len(&self) -> usize {
        match self.kind {
            Kind::Channel { inner: 1, axis, .. } => axis,
            Kind::Group { inner: 1, axis, size, .. } => {
                if size < axis {
                    size
                } else {
                    axis
                }
            }
            Kind::Channel { inner, .. } | Kind::Group { inner, .. } => inner,
            Kind::Block { columns, tile, .. } => {
                if tile[1] < columns {
                    tile[1]
                } else {
                    columns
                }
            }
        }
    }

    /// Run `i` in memory order.
    #[must_use]
    pub fn run(&self, i: usize) -> Run {
        match self.kind {
            Kind::Channel { axis: 1, inner, .. } => {
                Run { start: i * inner, len: inner, slice: 0, each: false }
            }
            Kind::Channel { axis, inner: 1, .. } => {
                Run { start: i * axis, len: axis, slice: 0, each: true }
            }
            Kind::Channel { axis, inner, .. } => {
                Run { start: i * inner, len: inner, slice: i % axis, each: false }
            }
            Kind::Group { axis, inner: 1, size, .. } => {
                let groups = axis.div_ceil(size);
                let first = i % groups * size;
                let start = i / groups * axis + first;
                Run { start, len: size.min(axis - first), slice: i, each: false }
            }
            Kind::Group { axis, inner, size, .. } => {
                let group = i / axis * axis.div_ceil(size) + i % axis / size;
                Run { start: i * inner, len: inner, slice: group * inner, each: true }
            }
            Kind::Block { rows, columns, tile, .. } => {
                let across = columns.div_ceil(tile[1]);
                let (row, tile_column) = (i / across, i % across);
                let first = tile_column * tile[1];
                let tile_row = row / rows * rows.div_ceil(tile[0]) + row % rows / tile[0];
                Run {
                    start: row * columns + first,
                    len: tile[1].min(columns - first),
                    slice: tile_row * across + tile_column,
                    each: false,
                }
            }
        }
    }

    /// The elements of slice `slice`, in memory order.
    #[must_use]
    pub fn pieces(&self, slice: usize) -> Pieces {
        match self.kind {
            Kind::Channel { outer, axis, inner } => {
                Pieces { start: slice * inner, len: inner, stride: axis * inner, count: outer }
                    .joined()
            }
            Kind::Group { axis, inner, size, .. } => {
                let (group, i) = (slice / inner, slice % inner);
                let groups = axis.div_ceil(size);
                let first = group % groups * size;
                let start = (group / groups * axis + first) * inner + i;
                Pieces { start, len: 1, stride: inner, count: size.min(axis - first) }.joined()
            }
            Kind::Block { rows, columns, tile, .. } => {
                let [down, across] = [rows.div_ceil(tile[0]), columns.div_ceil(tile[1])];
                let (tile_row, tile_column) = (slice / across, slice % across);
                let (row, column) = (tile_row % down * tile[0], tile_column * tile[1]);
                Pieces {
                    start: (tile_row / down * rows + row) * columns + column,
                    len: tile[1].min(columns - column),
                    stride: columns,
                    count: tile[0].min(rows - row),
                }
                .joined()
            }
        }
    }

    /// Whether slices lie across the fastest axis, element by element.
    #[must_use]
    pub fn is_interleaved(&self) -> bool {
        self.runs() > 0 && self.run(0).each
    }
}

/// Elements of a chunk: large enough to be worth handing to another thread,
/// small enough that its input and codes stay in the second-level cache
/// between quantizing and measuring.
const CHUNK: usize = 1 << 15;

/// A part of a tensor that one thread works on at a time. Chunks depend on
/// the layout only, never on the number of threads: sums over them are added
/// in their order and so come out the same everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    layout: &'a Layout,
    index: usize,
}

impl Layout {
    /// The chunks of the tensor, in memory order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        let count = if self.run_len() >= CHUNK {
            self.runs() * self.run_len().div_ceil(CHUNK)
        } else {
            self.runs().div_ceil(CHUNK / self.run_len().max(1))
        };
        (0..count).map(|index| Chunk { layout: self, index })
    }
}

impl Chunk<'_> {
    /// The runs of the chunk; a long run is cut at the chunk's ends.
    pub fn runs(self) -> impl Iterator<Item = Run> {
        let Self { layout, index } = self;
        let (runs, cut) = if layout.run_len() >= CHUNK {
            let parts = layout.run_len().div_ceil(CHUNK);
            let run = index / parts;
            (run..run + 1, index % parts * CHUNK)
        } else {
            let runs = CHUNK / layout.run_len().max(1);
            (index * runs..((index + 1) * runs).min(layout.runs()), 0)
        };
        runs.map(move |i| {
            let run = layout.run(i);
            // The last run of a row may be shorter than the longest.
            let offset = cut.min(run.len);
            Run {
                start: run.start + offset,
                len: (run.len - offset).min(CHUNK),
                slice: run.slice + if run.each { offset } else { 0 },
                each: run.each,
            }
        })
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(self) -> usize {
        self.runs().map(|run| run.len).sum()
    }
}

impl Pieces {
    /// One piece where the pieces touch.
    fn joined(self) -> Self {
        if self.len == self.stride || self.count == 1 {
            let len = self.len * self.count;
            Self { start: self.start, len, stride: len, count: 1 }
        } else {
            self
        }
    }
}

/// Extent before, at and after `axis`.
fn around(dims: &[usize], axis: usize) -> [usize; 3] {
    [dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()]
}

/// The axis counted from the front.
///
/// # Errors
/// [`QuantError`] when it is not within `-rank..rank`.
pub fn resolve_axis(axis: i64, rank: usize) -> Result<usize, QuantError> {
    let from_front = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
    from_front.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < rank).ok_or_else(
        || {
            let text = if rank == 0 {
                "a tensor without dimensions has no axis".to_owned()
            } else {
                format!("not an axis of a tensor with {rank} dimensions")
            };
            QuantError::field("axis", text).cure(if rank == 0 {
                "use granularity tensor".to_owned()
            } else {
                format!("use {} to {}", -(rank as i64), rank as i64 - 1)
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For every element the slice, by runs and by pieces, against the definition.
    fn check(granularity: Granularity, dims: &[usize], define: impl Fn(&[usize]) -> usize) {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let layout = Layout::new(granularity, &shape).unwrap();
        let mut expect = Vec::new();
        for mut i in 0..shape.len() {
            let mut index = vec![0; dims.len()];
            for (index, dim) in index.iter_mut().zip(dims).rev() {
                *index = i % dim;
                i /= dim;
            }
            expect.push(define(&index));
        }
        let mut by_runs = Vec::new();
        for run in (0..layout.runs()).map(|i| layout.run(i)) {
            assert_eq!(run.start, by_runs.len(), "{granularity:?} {dims:?}");
            by_runs.extend((0..run.len).map(|i| run.slice + if run.each { i } else { 0 }));
            assert!(run.len <= layout.run_len());
        }
        assert_eq!(by_runs, expect, "{granularity:?} {dims:?}");
        let mut by_chunks = Vec::new();
        for run in layout.chunks().flat_map(Chunk::runs) {
            assert_eq!(run.start, by_chunks.len(), "{granularity:?} {dims:?}");
            by_chunks.extend((0..run.len).map(|i| run.slice + if run.each { i } else { 0 }));
        }
        assert_eq!(by_chunks, expect, "{granularity:?} {dims:?}");
        let mut by_pieces = vec![usize::MAX; shape.len()];
        for slice in 0..layout.slices() {
            let pieces = layout.pieces(slice);
            for start in pieces.starts() {
                by_pieces[start..start + pieces.len].fill(slice);
            }
        }
        assert_eq!(by_pieces, expect, "{granularity:?} {dims:?}");
        assert_eq!(layout.slices(), layout.scale_dims().iter().product::<usize>());
    }

    #[test]
    fn every_element_has_its_slice() {
        for dims in
            [&[5][..], &[2, 3], &[3, 1], &[1, 4], &[2, 3, 4], &[0], &[2, 0, 3], &[1], &[2, 1, 5]]
        {
            check(Granularity::Tensor, dims, |_| 0);
            for axis in 0..dims.len() {
                check(Granularity::Channel { axis: axis as i64 }, dims, |index| index[axis]);
                let negative = axis as i64 - dims.len() as i64;
                check(Granularity::Channel { axis: negative }, dims, |index| index[axis]);
                for size in [1, 2, 3, 100] {
                    check(Granularity::Group { axis: negative, size }, dims, |index| {
                        let mut slice = 0;
                        for (i, (&index, &dim)) in index.iter().zip(dims).enumerate() {
                            let grouped = i == axis;
                            slice *= if grouped { dim.div_ceil(size) } else { dim };
                            slice += if grouped { index / size } else { index };
                        }
                        slice
                    });
                }
            }
            check(Granularity::Token, dims, |index| {
                let rows = index[..dims.len() - 1].iter().zip(dims);
                rows.fold(0, |slice, (index, dim)| slice * dim + index)
            });
        }
        for (dims, tile) in
            [(&[5, 7][..], [2, 3]), (&[2, 4, 6], [2, 3]), (&[3, 3], [128, 128]), (&[1, 5], [1, 1])]
        {
            check(Granularity::Block { shape: tile }, dims, |index| {
                let lead = if dims.len() == 3 { index[0] } else { 0 };
                let [r, c] = [index.len() - 2, index.len() - 1];
                let [down, across] = [dims[r].div_ceil(tile[0]), dims[c].div_ceil(tile[1])];
                (lead * down + index[r] / tile[0]) * across + index[c] / tile[1]
            });
        }
    }

    #[test]
    fn long_runs_are_cut_into_chunks() {
        check(Granularity::Tensor, &[3, CHUNK], |_| 0);
        check(Granularity::Token, &[2, 2 * CHUNK + 1], |index| index[0]);
        check(Granularity::Channel { axis: 1 }, &[2, CHUNK + 1], |index| index[1]);
        check(Granularity::Group { axis: 1, size: CHUNK }, &[2, CHUNK + 5], |index| {
            index[0] * 2 + index[1] / CHUNK
        });
        check(Granularity::Channel { axis: 0 }, &[3, CHUNK / 2 + 1], |index| index[0]);
    }

    #[test]
    fn axes_outside_the_shape_are_named() {
        let check = |axis, rank, expect: &str| {
            assert_eq!(resolve_axis(axis, rank).unwrap_err().to_string(), expect);
        };
        check(2, 2, "axis: not an axis of a tensor with 2 dimensions");
        check(-3, 2, "axis: not an axis of a tensor with 2 dimensions");
        check(i64::MIN, 2, "axis: not an axis of a tensor with 2 dimensions");
        check(0, 0, "axis: a tensor without dimensions has no axis");
        assert_eq!(resolve_axis(-2, 2), Ok(0));
    }
}

//! Which elements share a scale: the geometry of a granularity over a shape.
//!
//! A *slice* is the set of elements with one scale and zero point. In memory
//! order a tensor is a sequence of rows of one length, in each of which
//! consecutive slices take turns, a fixed number of elements each: a
//! [`Span`] says which. Everything that walks a tensor walks spans, so it is
//! written once for all granularities.

use crate::tensor::Shape;
use quantd_kernels::table::Span;

use super::QuantError;
use super::scheme::Granularity;

/// Geometry of a granularity over one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
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

/// The elements of one slice: `count` pieces of `len` consecutive elements,
/// `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Index of the first element.
    pub start: usize,
    /// Elements of a piece.
    pub len: usize,
    /// Distance between the starts of two pieces.
    pub stride: usize,
    /// Number of pieces.
    pub count: usize,
}

/// Consecutive slices, and where their elements lie: `count` pieces of `len`
/// consecutive elements, `stride` apart; element `i` of a piece belongs to
/// slice `i / size` of the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Index of the first element.
    pub start: usize,
    /// Elements of a piece.
    pub len: usize,
    /// Distance between the starts of two pieces.
    pub stride: usize,
    /// Number of pieces.
    pub count: usize,
    /// Consecutive elements of one slice, not 0.
    pub size: usize,
}

impl Runs {
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

impl Partition {
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
                let kind = match extent {
                    1 => Kind::Channel { outer: 1, axis: 1, inner: shape.len() },
                    _ => Kind::Channel { outer, axis: extent, inner },
                };
                (kind, vec![extent])
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

    /// The elements from `at`, one of the tensor's, to the end of its row.
    #[must_use]
    pub const fn span(&self, at: usize) -> Span {
        match self.kind {
            Kind::Channel { axis, inner, .. } => {
                let within = at % (axis * inner);
                let (slice, offset) = (within / inner, within % inner);
                Span { len: axis * inner - within, slice, offset, size: inner }
            }
            // Rows of whole groups are one row.
            Kind::Group { axis, inner: 1, size, .. } if axis % size == 0 => {
                Span { len: self.len - at, slice: at / size, offset: at % size, size }
            }
            Kind::Group { axis, inner: 1, size, .. } => {
                let (row, within) = (at / axis, at % axis);
                let slice = row * axis.div_ceil(size) + within / size;
                Span { len: axis - within, slice, offset: within % size, size }
            }
            Kind::Group { axis, inner, size, .. } => {
                let (row, within) = (at / inner, at % inner);
                let group = row / axis * axis.div_ceil(size) + row % axis / size;
                Span { len: inner - within, slice: group * inner + within, offset: 0, size: 1 }
            }
            Kind::Block { rows, columns, tile, .. } => {
                let (row, within) = (at / columns, at % columns);
                let tile_row = row / rows * rows.div_ceil(tile[0]) + row % rows / tile[0];
                let slice = tile_row * columns.div_ceil(tile[1]) + within / tile[1];
                Span { len: columns - within, slice, offset: within % tile[1], size: tile[1] }
            }
        }
    }

    /// Whole rows from `at`, the beginning of one, on that have the slices of
    /// the first of them; 0 where no row begins.
    #[must_use]
    pub const fn rows(&self, at: usize) -> usize {
        let (row, repeat) = match self.kind {
            Kind::Channel { axis, inner, .. } => (axis * inner, usize::MAX),
            Kind::Group { inner: 1, .. } => return 0,
            Kind::Group { axis, inner, size, .. } => {
                let within = at / inner % axis;
                let (group, left) = (size - within % size, axis - within);
                (inner, if group < left { group } else { left })
            }
            Kind::Block { rows, columns, tile, .. } => {
                let within = at / columns % rows;
                let (block, left) = (tile[0] - within % tile[0], rows - within);
                (columns, if block < left { block } else { left })
            }
        };
        let rest = (self.len - at) / row;
        if !at.is_multiple_of(row) {
            0
        } else if repeat < rest {
            repeat
        } else {
            rest
        }
    }

    /// Slices of a [`tile`](Self::tile), not 0; the last tile may have fewer.
    #[must_use]
    pub fn slices_per_band(&self) -> usize {
        let slices = match self.kind {
            // About a chunk, in pieces that are worth going to memory for.
            Kind::Channel { outer, axis, inner } => {
                let elements = (CHUNK / outer.max(1)).max(PIECE);
                (elements / inner.max(1)).clamp(1, axis.max(1))
            }
            Kind::Group { axis, inner: 1, size, .. } if axis % size == 0 => CHUNK.div_ceil(size),
            Kind::Group { axis, inner: 1, size, .. } => axis.div_ceil(size),
            Kind::Group { inner, .. } => inner,
            Kind::Block { columns, tile, .. } => columns.div_ceil(tile[1]),
        };
        slices.max(1)
    }

    /// Tile `i` of those that have all slices in their order.
    #[must_use]
    pub fn tile(&self, i: usize) -> Tile {
        let slices = self.slices_per_band();
        match self.kind {
            Kind::Channel { outer, axis, inner } => {
                let first = i * slices;
                let len = slices.min(axis - first) * inner;
                Tile { start: first * inner, len, stride: axis * inner, count: outer, size: inner }
            }
            Kind::Group { axis, inner: 1, size, .. } if axis % size == 0 => {
                let start = i * slices * size;
                let len = (slices * size).min(self.len - start);
                Tile { start, len, stride: len, count: 1, size }
            }
            Kind::Group { axis, inner: 1, size, .. } => {
                Tile { start: i * axis, len: axis, stride: axis, count: 1, size }
            }
            Kind::Group { axis, inner, size, .. } => {
                let groups = axis.div_ceil(size);
                let first = i % groups * size;
                let start = (i / groups * axis + first) * inner;
                Tile { start, len: inner, stride: inner, count: size.min(axis - first), size: 1 }
            }
            Kind::Block { rows, columns, tile, .. } => {
                let down = rows.div_ceil(tile[0]);
                let first = i % down * tile[0];
                let start = (i / down * rows + first) * columns;
                let count = tile[0].min(rows - first);
                Tile { start, len: columns, stride: columns, count, size: tile[1] }
            }
        }
    }

    /// The elements of slice `slice`, in memory order.
    #[must_use]
    pub fn runs(&self, slice: usize) -> Runs {
        match self.kind {
            Kind::Channel { outer, axis, inner } => {
                Runs { start: slice * inner, len: inner, stride: axis * inner, count: outer }
                    .joined()
            }
            Kind::Group { axis, inner, size, .. } => {
                let (group, i) = (slice / inner, slice % inner);
                let groups = axis.div_ceil(size);
                let first = group % groups * size;
                let start = (group / groups * axis + first) * inner + i;
                Runs { start, len: 1, stride: inner, count: size.min(axis - first) }.joined()
            }
            Kind::Block { rows, columns, tile, .. } => {
                let [down, across] = [rows.div_ceil(tile[0]), columns.div_ceil(tile[1])];
                let (tile_row, tile_column) = (slice / across, slice % across);
                let (row, column) = (tile_row % down * tile[0], tile_column * tile[1]);
                Runs {
                    start: (tile_row / down * rows + row) * columns + column,
                    len: tile[1].min(columns - column),
                    stride: columns,
                    count: tile[0].min(rows - row),
                }
                .joined()
            }
        }
    }
}

/// Elements that one thread works on at a time: enough to be worth handing to
/// another thread, few enough to stay in its second-level cache. The sums of a
/// report are made chunk by chunk and added in the order of the chunks, so that
/// they depend on neither threads nor granularity.
pub const CHUNK: usize = 1 << 15;

/// Elements of a piece of a tile that is worth going to memory for.
const PIECE: usize = 1 << 12;

impl Runs {
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
        let partition = Partition::new(granularity, &shape).unwrap();
        let mut expect = Vec::new();
        for mut i in 0..shape.len() {
            let mut index = vec![0; dims.len()];
            for (index, dim) in index.iter_mut().zip(dims).rev() {
                *index = i % dim;
                i /= dim;
            }
            expect.push(define(&index));
        }
        for start in [0, 1, 2, 3, 7, shape.len() / 2] {
            let mut by_spans = expect[..start.min(shape.len())].to_vec();
            while by_spans.len() < shape.len() {
                let span = partition.span(by_spans.len());
                assert!(span.len > 0 && span.offset < span.size, "{granularity:?} {dims:?}");
                by_spans.extend((0..span.len).map(|i| span.slice + (span.offset + i) / span.size));
            }
            assert_eq!(by_spans, expect, "{granularity:?} {dims:?}");
            let mut by_rows = expect[..start.min(shape.len())].to_vec();
            while by_rows.len() < shape.len() {
                let at = by_rows.len();
                let (span, rows) = (partition.span(at), partition.rows(at).max(1));
                for i in 0..rows * span.len {
                    by_rows.push(span.slice + (span.offset + i % span.len) / span.size);
                }
            }
            assert_eq!(by_rows, expect, "{granularity:?} {dims:?}");
        }
        let mut by_bands = vec![usize::MAX; shape.len()];
        let slices = partition.slices_per_band();
        let bands = if shape.is_empty() { 0 } else { partition.slices().div_ceil(slices) };
        for i in 0..bands {
            let Tile { start, len, stride, count, size } = partition.tile(i);
            for (k, j) in (0..count).flat_map(|k| (0..len).map(move |j| (k, j))) {
                assert!(j / size < slices, "{granularity:?} {dims:?}");
                by_bands[start + k * stride + j] = i * slices + j / size;
            }
        }
        assert_eq!(by_bands, expect, "{granularity:?} {dims:?}");
        let mut by_pieces = vec![usize::MAX; shape.len()];
        for slice in 0..partition.slices() {
            let pieces = partition.runs(slice);
            for start in pieces.starts() {
                by_pieces[start..start + pieces.len].fill(slice);
            }
        }
        assert_eq!(by_pieces, expect, "{granularity:?} {dims:?}");
        assert_eq!(partition.slices(), partition.scale_dims().iter().product::<usize>());
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
    fn many_slices_make_several_bands() {
        check(Granularity::Channel { axis: 1 }, &[2, 3 * PIECE + 5], |index| index[1]);
        check(Granularity::Channel { axis: 1 }, &[20, 1000, 9], |index| index[1]);
        check(Granularity::Group { axis: 1, size: 7 }, &[40, 7 * 131], |index| {
            index[0] * 131 + index[1] / 7
        });
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

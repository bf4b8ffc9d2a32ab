//! The elements of a chunk with their parameters, in pieces that kernels take.

use rayon::prelude::*;

use crate::tensor::Buffer;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::table::{Expanded, Groups, Span, TILE, Table};
use quantd_kernels::{Filling, Isa};

use super::Task;
use super::params::{CodeType, Numerics};
use super::partition::{CHUNK, Partition};

/// Elements from which on those of one slice, or of one row of columns, get a
/// call of their own.
const LONG: usize = TILE / 2;
/// Pieces are multiples of this, which keeps the lanes of sums and the blocks
/// of kernels in step.
const STEP: usize = 64;

/// Slices that kernels take many of at a time have a multiple of so many elements in a row.
const VECTOR: usize = 16;

/// A partition and the parameters of its slices.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a, T> {
    /// What the kernels may use.
    pub isa: Isa,
    /// Where the slices are.
    pub partition: &'a Partition,
    /// Their parameters, as many as the partition has slices.
    pub table: &'a Table<T>,
}

impl<T: Real> Walk<'_, T> {
    /// Calls `visit` with the elements from `start` to `end`, as indices from
    /// `start` on, and their parameters: once where slices are long, slice by
    /// slice where rows are, and element by element where neither is.
    pub fn pieces(
        &self,
        [start, end]: [usize; 2],
        spread: &mut Expanded<T>,
        mut visit: impl FnMut([usize; 2], Params<'_, T>),
    ) {
        let mut at = start;
        while at < end {
            let len = self.piece([at, end], spread, |len, params| {
                visit([at - start, at - start + len], params);
            });
            at += len;
        }
    }

    /// As [`pieces`](Self::pieces), and rows of columns, of blocks and of long slices together, as many
    /// as there are: for those who do not add up what they find, as the lanes of sums would be out of step.
    pub fn spans(
        &self,
        [start, end]: [usize; 2],
        spread: &mut Expanded<T>,
        mut visit: impl FnMut([usize; 2], Params<'_, T>),
    ) {
        let mut at = start;
        while at < end {
            let span = self.partition.span(at);
            let rows = self.partition.rows(at).min((end - at) / span.len);
            let whole = span.size.is_multiple_of(VECTOR) && span.len.is_multiple_of(span.size);
            let across = span.len / span.size;
            let len = if rows > 1 && span.size == 1 && span.len >= STEP {
                let params = self.table.columns(span.slice..span.slice + span.len);
                visit([at - start, at - start + rows * span.len], Params::Each(params));
                rows * span.len
            } else if rows > 1 && whole {
                let slices = self.table.columns(span.slice..span.slice + across);
                let params = Params::Groups(Groups { slices, offset: 0, size: span.size });
                visit([at - start, at - start + rows * span.len], params);
                rows * span.len
            } else if rows > 1 && span.size < LONG && span.len <= TILE {
                let together = rows.min(TILE / span.len);
                let rows = rows - rows % together;
                self.spread([at, at + together * span.len], spread);
                let params = Params::Each(self.table.spread(spread));
                visit([at - start, at - start + rows * span.len], params);
                rows * span.len
            } else if span.size.is_multiple_of(STEP) && span.len >= LONG {
                let len = in_step(span.len.min(end - at), end - at);
                visit([at - start, at - start + len], self.row(span, len));
                len
            } else {
                self.piece([at, end], spread, |len, params| {
                    visit([at - start, at - start + len], params);
                })
            };
            at += len;
        }
    }

    /// Calls `visit` with as many elements from `at` on as are taken together, and says
    /// how many that are.
    fn piece(
        &self,
        [at, end]: [usize; 2],
        spread: &mut Expanded<T>,
        visit: impl FnOnce(usize, Params<'_, T>),
    ) -> usize {
        let rest = end - at;
        let span = self.partition.span(at);
        let own = (span.size - span.offset).min(span.len).min(rest);
        let row = span.len.min(rest);
        if own >= LONG || own == rest {
            let len = in_step(own, rest);
            visit(len, self.table.same(span.slice));
            len
        } else if row >= LONG || row == rest {
            let len = in_step(row, rest);
            visit(len, self.row(span, len));
            len
        } else {
            let len = self.spread([at, end], spread);
            visit(len, Params::Each(self.table.spread(spread)));
            len
        }
    }

    /// The parameters of the first `len` elements of a span.
    fn row(&self, span: Span, len: usize) -> Params<'_, T> {
        let Span { slice, offset, size, .. } = span;
        let slices = self.table.columns(slice..slice + (offset + len).div_ceil(size));
        match size {
            1 => Params::Each(slices),
            _ if offset + len <= size => self.table.same(slice),
            _ => Params::Groups(Groups { slices, offset, size }),
        }
    }

    /// The codes of `x`, without a report.
    pub fn codes(&self, x: &[T], numerics: &Numerics, task: &Task) -> Buffer {
        match numerics.code_type() {
            CodeType::I8 => self.quantize::<i8>(x, numerics, task),
            CodeType::U8 => self.quantize::<u8>(x, numerics, task),
            CodeType::I16 => self.quantize::<i16>(x, numerics, task),
            CodeType::U16 => self.quantize::<u16>(x, numerics, task),
        }
    }

    fn quantize<C: Code>(&self, x: &[T], numerics: &Numerics, task: &Task) -> Buffer {
        let how = numerics.how();
        let mut filling = Filling::of::<C>(x.len());
        let (parts, written) = filling.parts::<C>(CHUNK);
        x.par_chunks(CHUNK).zip(parts).enumerate().for_each_init(
            Expanded::default,
            |spread, (i, (x, codes))| {
                let start = i * CHUNK;
                if !task.is_cancelled() {
                    self.spans([start, start + x.len()], spread, |[from, to], params| {
                        self.isa.quantize(&x[from..to], params, how, &mut codes[from..to]);
                    });
                    written.whole(codes);
                }
            },
        );
        filling.finish()
    }

    /// Fills a tile, or what is left; says how many elements that are.
    fn spread(&self, [start, end]: [usize; 2], spread: &mut Expanded<T>) -> usize {
        let len = TILE.min(end - start);
        spread.clear();
        while spread.len() < len {
            let mut span = self.partition.span(start + spread.len());
            span.len = span.len.min(len - spread.len());
            self.table.put(self.isa, span, spread);
        }
        len
    }
}

/// The largest multiple of [`STEP`] in `len`, unless that is all there is.
const fn in_step(len: usize, rest: usize) -> usize {
    if len == rest { len } else { len - len % STEP }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Granularity;
    use crate::tensor::Shape;
    use quantd_kernels::scalar::QuantParams;

    /// Elements in their order, once each, with the parameters of their slices,
    /// by pieces and by areas, from chunks of several lengths.
    #[test]
    fn each_element_has_the_parameters_of_its_slice() {
        let channel = |axis| Granularity::Channel { axis };
        let group = |axis, size| Granularity::Group { axis, size };
        let block = |rows, columns| Granularity::Block { shape: [rows, columns] };
        let cases: [(&[usize], Granularity); 18] = [
            (&[40, 70], channel(1)),
            (&[40, 7], channel(1)),
            (&[9, 600], channel(1)),
            (&[6, 5, 7, 7], channel(1)),
            (&[6, 20, 7, 7], channel(1)),
            (&[3, 2, 1000], channel(1)),
            (&[3000], Granularity::Tensor),
            (&[20, 100], group(1, 32)),
            (&[50, 70], group(0, 32)),
            (&[2, 50, 9], group(1, 16)),
            (&[40, 100], block(16, 16)),
            (&[2, 40, 700], block(16, 32)),
            (&[2, 40, 704], block(16, 32)),
            (&[40, 96], block(32, 48)),
            (&[9, 640], block(4, 320)),
            (&[9, 640], channel(0)),
            (&[5, 600], channel(0)),
            (&[3, 5, 320], channel(1)),
        ];
        for (dims, granularity) in cases {
            let partition =
                Partition::new(granularity, &Shape::new(dims.to_vec()).unwrap()).unwrap();
            let affine = |i| QuantParams { scale: 1.0_f32, zero_point: i };
            let table = Table::new(
                &(0..i32::try_from(partition.slices()).unwrap()).map(affine).collect::<Vec<_>>(),
            );
            let walk = Walk { isa: Isa::best(), partition: &partition, table: &table };
            let mut expect = vec![0; partition.len()];
            for slice in 0..partition.slices() {
                let pieces = partition.runs(slice);
                let zero_point = i32::try_from(slice).unwrap();
                pieces.starts().for_each(|at| expect[at..at + pieces.len].fill(zero_point));
            }
            for chunk in [1, 64, 1000, 1 << 15] {
                let (mut by_pieces, mut by_areas) = (Vec::new(), Vec::new());
                let mut spread = Expanded::default();
                for start in (0..partition.len()).step_by(chunk) {
                    let part = [start, partition.len().min(start + chunk)];
                    walk.pieces(part, &mut spread, |[from, to], params| {
                        assert_eq!(start + from, by_pieces.len());
                        by_pieces.extend((0..to - from).map(|i| params.zero_point(i)));
                    });
                    walk.spans(part, &mut spread, |[from, to], params| {
                        assert_eq!(start + from, by_areas.len());
                        by_areas.extend((0..to - from).map(|i| params.zero_point(i)));
                    });
                }
                assert!(by_pieces == expect, "pieces of {chunk}: {dims:?} {granularity:?}");
                assert!(by_areas == expect, "areas of {chunk}: {dims:?} {granularity:?}");
            }
        }
    }
}

//! The elements of a chunk with their parameters, in pieces that kernels take.

use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::kernels::scalar::Params;
use crate::kernels::table::{Spread, TILE, Table};

use super::layout::Layout;

/// Elements from which on those of one slice, or of one row of columns, get a
/// call of their own.
const LONG: usize = TILE / 2;
/// Pieces are multiples of this, which keeps the lanes of sums and the blocks
/// of kernels in step.
const STEP: usize = 64;

/// A layout and the parameters of its slices.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a, T> {
    /// What the kernels may use.
    pub isa: Isa,
    /// Where the slices are.
    pub layout: &'a Layout,
    /// Their parameters, as many as the layout has slices.
    pub table: &'a Table<T>,
}

impl<T: Real> Walk<'_, T> {
    /// Calls `visit` with the elements from `start` to `end`, as indices from
    /// `start` on, and their parameters. Where slices are long, their
    /// parameters are given once; where they are short or cut, element by element.
    pub fn pieces(
        &self,
        [start, end]: [usize; 2],
        spread: &mut Spread<T>,
        mut visit: impl FnMut([usize; 2], Params<'_, T>),
    ) {
        let mut at = start;
        while at < end {
            let rest = end - at;
            let span = self.layout.span(at);
            let own = (span.size - span.offset).min(span.len).min(rest);
            let row = span.len.min(rest);
            let len = if own >= LONG || own == rest {
                let len = in_step(own, rest);
                visit([at - start, at - start + len], Params::Same(self.table.affine(span.slice)));
                len
            } else if span.size == 1 && (row >= LONG || row == rest) {
                let len = in_step(row, rest);
                let columns = self.table.columns(span.slice..span.slice + len);
                visit([at - start, at - start + len], Params::Each(columns));
                len
            } else {
                let len = self.spread([at, end], spread);
                let columns = spread.columns(self.table);
                visit([at - start, at - start + len], Params::Each(columns));
                len
            };
            at += len;
        }
    }

    /// Fills a tile, or what is left; says how many elements that are.
    fn spread(&self, [start, end]: [usize; 2], spread: &mut Spread<T>) -> usize {
        let len = TILE.min(end - start);
        spread.clear();
        while spread.len() < len {
            let mut span = self.layout.span(start + spread.len());
            span.len = span.len.min(len - spread.len());
            spread.put(self.isa, self.table, span);
        }
        len
    }
}

/// The largest multiple of [`STEP`] in `len`, unless that is all there is.
const fn in_step(len: usize, rest: usize) -> usize {
    if len == rest { len } else { len - len % STEP }
}

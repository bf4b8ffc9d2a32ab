//! The elements of a chunk with their parameters, in pieces that kernels take.

use rayon::prelude::*;

use crate::kernels::Isa;
use crate::kernels::real::Real;
use crate::kernels::scalar::{Code, Params};
use crate::kernels::table::{Groups, Spread, TILE, Table};
use crate::tensor::Buffer;

use super::Cancel;
use super::layout::{CHUNK, Layout};
use super::params::{CodeType, Numerics};

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
    /// `start` on, and their parameters: once where slices are long, slice by
    /// slice where rows are, and element by element where neither is.
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
            } else if row >= LONG || row == rest {
                let len = in_step(row, rest);
                let slices = span.slice + (span.offset + len).div_ceil(span.size);
                let slices = self.table.columns(span.slice..slices);
                let params = match span.size {
                    1 => Params::Each(slices),
                    size => Params::Groups(Groups { slices, offset: span.offset, size }),
                };
                visit([at - start, at - start + len], params);
                len
            } else {
                let len = self.spread([at, end], spread);
                visit([at - start, at - start + len], Params::Each(self.table.spread(spread)));
                len
            };
            at += len;
        }
    }

    /// The codes of `x`, without a report.
    pub fn codes(&self, x: &[T], numerics: &Numerics, cancel: &Cancel) -> Buffer {
        let code_type = numerics.code_type();
        let mut codes = Buffer::to_fill(x.len() * code_type.dtype().size());
        match code_type {
            CodeType::I8 => self.quantize::<i8>(x, numerics, codes.elements_mut(), cancel),
            CodeType::U8 => self.quantize::<u8>(x, numerics, codes.elements_mut(), cancel),
            CodeType::I16 => self.quantize::<i16>(x, numerics, codes.elements_mut(), cancel),
            CodeType::U16 => self.quantize::<u16>(x, numerics, codes.elements_mut(), cancel),
        }
        codes
    }

    fn quantize<C: Code>(&self, x: &[T], numerics: &Numerics, codes: &mut [C], cancel: &Cancel) {
        let how = numerics.how();
        let chunks = x.par_chunks(CHUNK).zip(codes.par_chunks_mut(CHUNK)).enumerate();
        chunks.for_each_init(Spread::default, |spread, (i, (x, codes))| {
            let start = i * CHUNK;
            if !cancel.is_cancelled() {
                self.pieces([start, start + x.len()], spread, |[from, to], params| {
                    self.isa.quantize(&x[from..to], params, how, &mut codes[from..to]);
                });
            }
        });
    }

    /// Fills a tile, or what is left; says how many elements that are.
    fn spread(&self, [start, end]: [usize; 2], spread: &mut Spread<T>) -> usize {
        let len = TILE.min(end - start);
        spread.clear();
        while spread.len() < len {
            let mut span = self.layout.span(start + spread.len());
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

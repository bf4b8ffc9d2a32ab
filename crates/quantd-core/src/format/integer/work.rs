//! The walk over a tensor once the parameters of its slices are known.

use rayon::prelude::*;

use crate::Task;
use crate::partition::CHUNK;
use crate::report::Report;
use crate::scheme::{NanPolicy, Scheme};
use crate::tensor::Buffer;
use crate::walk::Walk;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::sums::{ErrorSums, LaneSums};
use quantd_kernels::table::{Expanded, Table};
use quantd_kernels::{CodeSpec, Filling, Stores};

use super::quantize::Prepared;

/// What a thread works in.
struct Rooms<T> {
    elements: Vec<T>,
    spread: Expanded<T>,
}

impl<T: Real> Default for Rooms<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), spread: Expanded::default() }
    }
}

/// The walk over a tensor once the parameters of its slices are known.
pub(super) struct Work<'a, T: Real> {
    pub(super) prepared: &'a Prepared<'a, T>,
    pub(super) table: &'a Table<T>,
    pub(super) scheme: &'a Scheme,
    pub(super) task: &'a Task,
}

impl<T: Real> Work<'_, T> {
    /// Writes all codes and, `with_sums`, measures what they lose, in one pass.
    pub(super) fn encode<C: Code>(&self, with_sums: bool) -> (Buffer, ErrorSums) {
        let mut filling = Filling::of::<C>(self.prepared.x.len());
        let (parts, written) = filling.parts::<C>(CHUNK);
        let sums = sum(parts.enumerate().map_init(
            Rooms::default,
            |Rooms { elements, spread }, (i, codes)| {
                let mut lanes = LaneSums::default();
                if !self.task.is_cancelled() {
                    self.prepared.x.parts_of_chunk(i, elements, |part, x| {
                        let (start, codes) = (i * CHUNK + part.start, &mut codes[part]);
                        let lanes = with_sums.then_some(&mut lanes);
                        self.encode_part(start, (x, codes), spread, lanes);
                    });
                    written.whole(codes);
                }
                lanes.total()
            },
        ));
        (filling.finish(), sums)
    }

    fn encode_part<C: Code>(
        &self,
        start: usize,
        (x, codes): (&[T], &mut [C]),
        spread: &mut Expanded<T>,
        mut lanes: Option<&mut LaneSums>,
    ) {
        let stores = Stores::of(size_of::<C>() * self.prepared.x.len());
        let (walk, how) = (self.walk(), CodeSpec { stores, ..self.how() });
        let with_sums = lanes.is_some();
        let visit = |[from, to]: [usize; 2], params: Params<'_, T>| {
            let (x, codes) = (&x[from..to], &mut codes[from..to]);
            match &mut lanes {
                Some(lanes) => walk.isa.encode(x, params, how, codes, lanes),
                None => walk.isa.quantize(x, params, how, codes),
            }
            if self.prepared.total.nan > 0 {
                let nan = x.iter().zip(codes).enumerate().filter(|(_, (x, _))| x.is_nan());
                nan.for_each(|(i, (_, code))| *code = C::from_code(self.nan_code(&params, i)));
            }
        };
        if with_sums {
            walk.pieces([start, start + x.len()], spread, visit);
        } else {
            walk.spans([start, start + x.len()], spread, visit);
        }
    }

    pub(super) fn measure(&self) -> ErrorSums {
        let chunks = (0..self.prepared.x.chunks()).into_par_iter();
        let (walk, how) = (self.walk(), self.how());
        sum(chunks.map_init(Rooms::default, |Rooms { elements, spread }, i| {
            let mut lanes = LaneSums::default();
            if !self.task.is_cancelled() {
                self.prepared.x.parts_of_chunk(i, elements, |part, x| {
                    let (start, end) = (i * CHUNK + part.start, i * CHUNK + part.end);
                    walk.pieces([start, end], spread, |[from, to], params| {
                        walk.isa.measure(&x[from..to], params, how, &mut lanes);
                    });
                });
            }
            lanes.total()
        }))
    }

    fn walk(&self) -> Walk<'_, T> {
        Walk { isa: self.task.isa(), partition: &self.prepared.partition, table: self.table }
    }

    fn how(&self) -> CodeSpec {
        self.scheme.numerics.how()
    }

    fn nan_code(&self, params: &Params<'_, T>, i: usize) -> i32 {
        let codes = self.scheme.numerics.code_range();
        match self.scheme.nan {
            NanPolicy::Refuse | NanPolicy::Min => codes.min,
            NanPolicy::Zero => params.zero_point(i),
            NanPolicy::Max => codes.max,
        }
    }

    pub(super) fn slice_reports(&self) -> Vec<Report> {
        let (isa, how) = (self.task.isa(), self.how());
        (0..self.table.len())
            .into_par_iter()
            .map_init(Vec::new, |elements, slice| {
                let Prepared { x, partition, .. } = self.prepared;
                let (pieces, params) =
                    (partition.runs(slice), Params::Same(self.table.affine(slice)));
                let mut lanes = LaneSums::default();
                if pieces.count == 1 {
                    for at in (0..pieces.len).step_by(CHUNK) {
                        let len = CHUNK.min(pieces.len - at);
                        let x = x.part(pieces.start + at, len, elements);
                        isa.measure(x, params, how, &mut lanes);
                    }
                } else {
                    isa.measure(&x.slice(partition, slice), params, how, &mut lanes);
                }
                let extent = self.prepared.extents[slice];
                let size = self.prepared.size(self.scheme, pieces.elements(), 1);
                Report::new(&lanes.total(), extent.nan, extent.inf, size)
            })
            .collect()
    }
}

/// Adds the sums of chunks in their order, whichever thread made them.
fn sum(chunks: impl IndexedParallelIterator<Item = ErrorSums>) -> ErrorSums {
    let parts: Vec<ErrorSums> = chunks.collect();
    parts.iter().fold(ErrorSums::default(), |mut total, part| {
        total.merge(part);
        total
    })
}

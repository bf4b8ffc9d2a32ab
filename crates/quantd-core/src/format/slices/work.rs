//! The walk over a tensor once the scales of its slices are known.

use bytemuck::cast_slice;
use rayon::prelude::*;

use crate::Task;
use crate::format::pack::{self, Packing};
use crate::partition::CHUNK;
use crate::report::{Report, Size};
use crate::tensor::Buffer;
use crate::walk::Walk;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params};
use quantd_kernels::sums::{ErrorSums, LaneSums};
use quantd_kernels::table::{Expanded, Table};
use quantd_kernels::{Filling, Isa, Stores};

use super::Prepared;

/// What elements are rounded to, counted in their scales.
pub(crate) trait Grid<T: Real>: Copy + Send + Sync {
    /// What stores a code.
    type Code: Code;

    /// Writes codes and, where there are `lanes`, adds what they lose.
    fn encode(
        self,
        piece: Piece<'_, T>,
        stores: Stores,
        codes: &mut [Self::Code],
        lanes: Option<&mut LaneSums>,
    );

    /// Adds what codes would lose.
    fn measure(self, piece: Piece<'_, T>, lanes: &mut LaneSums);

    /// The code of NaN at element `i`.
    fn nan(self, params: &Params<'_, T>, i: usize) -> i32;
}

/// Elements and their scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a, T> {
    /// What kernels may use.
    pub(crate) isa: Isa,
    /// The elements.
    pub(crate) x: &'a [T],
    /// Their scales.
    pub(crate) params: Params<'a, T>,
}

/// Bits that are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    /// Of an element.
    pub(crate) element: u32,
    /// Of what its slices have each.
    pub(crate) slice: u32,
    /// Of what the tensor has beside them.
    pub(crate) tensor: u32,
}

impl Bits {
    /// The size of so many elements in so many slices.
    pub(crate) fn size(self, [elements, slices]: [usize; 2], source_bits: usize) -> Size {
        let bits = elements as f64 * f64::from(self.element)
            + slices as f64 * f64::from(self.slice)
            + f64::from(self.tensor);
        Size { elements, bits, source_bits }
    }
}

/// What a thread works in.
struct Rooms<T, C> {
    elements: Vec<T>,
    spread: Expanded<T>,
    codes: Vec<C>,
}

impl<T: Real, C> Default for Rooms<T, C> {
    fn default() -> Self {
        Self { elements: Vec::new(), spread: Expanded::default(), codes: Vec::new() }
    }
}

/// The walk over a tensor once the scales of its slices are known.
pub(crate) struct Work<'a, T: Real, G> {
    pub(crate) prepared: &'a Prepared<'a, T>,
    pub(crate) table: &'a Table<T>,
    pub(crate) grid: G,
    pub(crate) bits: Bits,
    pub(crate) task: &'a Task,
}

impl<T: Real, G: Grid<T>> Work<'_, T, G> {
    /// Writes all codes, one an element, and, `with_sums`, measures what they lose, in one pass.
    pub(crate) fn encode(&self, with_sums: bool) -> (Buffer, ErrorSums) {
        let mut filling = Filling::of::<G::Code>(self.prepared.x.len());
        let stores = Stores::of(filling.len());
        let (parts, written) = filling.parts::<G::Code>(CHUNK);
        let sums =
            sum(parts.enumerate().map_init(Rooms::<T, G::Code>::default, |rooms, (i, codes)| {
                let Rooms { elements, spread, .. } = rooms;
                let sums = self.encode_chunk(i, (elements, spread), stores, codes, with_sums);
                if !self.task.is_cancelled() {
                    written.whole(codes);
                }
                sums
            }));
        (filling.finish(), sums)
    }

    /// Writes all codes, of one byte each, `packed`, and measures what they lose, in one pass.
    pub(crate) fn encode_packed(&self, packing: Packing) -> (Buffer, ErrorSums) {
        let len = self.prepared.x.len();
        let mut filling = Filling::of::<u8>(pack::packed_len(len, packing.bits()).unwrap_or(0));
        let part = pack::packed_len(CHUNK, packing.bits()).unwrap_or(0);
        let (parts, written) = filling.parts::<u8>(part);
        let sums =
            sum(parts.enumerate().map_init(Rooms::<T, G::Code>::default, |rooms, (i, packed)| {
                let Rooms { elements, spread, codes } = rooms;
                codes.resize(CHUNK.min(len - i * CHUNK), G::Code::from_code(0));
                let sums = self.encode_chunk(i, (elements, spread), Stores::Temporal, codes, true);
                if !self.task.is_cancelled() {
                    packing.pack(cast_slice(codes), packed);
                    written.whole(packed);
                }
                sums
            }));
        (filling.finish(), sums)
    }

    /// Codes, packed where that is asked for, and what they lose: over the whole tensor and, `per_slice`, slice by slice.
    pub(crate) fn quantized(
        &self,
        packing: Option<Packing>,
        per_slice: bool,
    ) -> (Buffer, Report, Vec<Report>) {
        let (codes, sums) = match packing {
            Some(packing) => self.encode_packed(packing),
            None => self.encode(true),
        };
        let slices = if per_slice { self.slice_reports() } else { Vec::new() };
        (codes, self.report(&sums), slices)
    }

    fn encode_chunk(
        &self,
        i: usize,
        (elements, spread): (&mut Vec<T>, &mut Expanded<T>),
        stores: Stores,
        codes: &mut [G::Code],
        with_sums: bool,
    ) -> ErrorSums {
        let mut lanes = LaneSums::default();
        if !self.task.is_cancelled() {
            self.prepared.x.parts_of_chunk(i, elements, |part, x| {
                let (start, codes) = (i * CHUNK + part.start, &mut codes[part]);
                let lanes = with_sums.then_some(&mut lanes);
                self.encode_part(start, (x, codes), spread, stores, lanes);
            });
        }
        lanes.total()
    }

    fn encode_part(
        &self,
        start: usize,
        (x, codes): (&[T], &mut [G::Code]),
        spread: &mut Expanded<T>,
        stores: Stores,
        mut lanes: Option<&mut LaneSums>,
    ) {
        let walk = self.walk();
        let with_sums = lanes.is_some();
        let visit = |[from, to]: [usize; 2], params: Params<'_, T>| {
            let (x, codes) = (&x[from..to], &mut codes[from..to]);
            self.grid.encode(
                Piece { isa: walk.isa, x, params },
                stores,
                codes,
                lanes.as_deref_mut(),
            );
            if self.prepared.total.nan > 0 {
                let nan = x.iter().zip(codes).enumerate().filter(|(_, (x, _))| x.is_nan());
                nan.for_each(|(i, (_, code))| {
                    *code = G::Code::from_code(self.grid.nan(&params, i));
                });
            }
        };
        if with_sums {
            walk.pieces([start, start + x.len()], spread, visit);
        } else {
            walk.spans([start, start + x.len()], spread, visit);
        }
    }

    /// What the codes would lose.
    pub(crate) fn measure(&self) -> ErrorSums {
        let chunks = (0..self.prepared.x.chunks()).into_par_iter();
        let walk = self.walk();
        sum(chunks.map_init(Rooms::<T, G::Code>::default, |Rooms { elements, spread, .. }, i| {
            let mut lanes = LaneSums::default();
            if !self.task.is_cancelled() {
                self.prepared.x.parts_of_chunk(i, elements, |part, x| {
                    let (start, end) = (i * CHUNK + part.start, i * CHUNK + part.end);
                    walk.pieces([start, end], spread, |[from, to], params| {
                        let piece = Piece { isa: walk.isa, x: &x[from..to], params };
                        self.grid.measure(piece, &mut lanes);
                    });
                });
            }
            lanes.total()
        }))
    }

    fn walk(&self) -> Walk<'_, T> {
        Walk { isa: self.task.isa(), partition: &self.prepared.partition, table: self.table }
    }

    /// The report of those sums.
    pub(crate) fn report(&self, sums: &ErrorSums) -> Report {
        let Prepared { x, partition, total, source_bits, .. } = self.prepared;
        let size = self.bits.size([x.len(), partition.slices()], *source_bits);
        Report::new(sums, total.nan, total.inf, size)
    }

    /// What each slice loses.
    pub(crate) fn slice_reports(&self) -> Vec<Report> {
        let isa = self.task.isa();
        (0..self.table.len())
            .into_par_iter()
            .map_init(Vec::new, |elements, slice| {
                let Prepared { x, partition, .. } = self.prepared;
                let (pieces, params) = (partition.runs(slice), self.table.same(slice));
                let mut lanes = LaneSums::default();
                if pieces.count == 1 {
                    for at in (0..pieces.len).step_by(CHUNK) {
                        let len = CHUNK.min(pieces.len - at);
                        let x = x.part(pieces.start + at, len, elements);
                        self.grid.measure(Piece { isa, x, params }, &mut lanes);
                    }
                } else {
                    let x = &x.slice(partition, slice);
                    self.grid.measure(Piece { isa, x, params }, &mut lanes);
                }
                let extent = self.prepared.extents[slice];
                let size = self.bits.size([pieces.elements(), 1], self.prepared.source_bits);
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

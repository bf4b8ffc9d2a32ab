//! Codes alone.
//!
//! Each of the four vectors of a block takes a multiply-add and a conversion to fixed point (see
//! [`fixed_point`](super::fixed_point)). The upper halves are narrowed to bytes, which limits them to
//! all codes of the type, and minima of the lower halves find those that are near a tie.
//! Of the pipes this takes as much as a loop that multiplies, converts and narrows
//! without looking for ties, so that memory is what it waits for. Nothing is fetched
//! beforehand: what that takes of a cache's time is more than it saves.
//!
//! It is the vector pipes that codes in a cache wait for, so that whatever is done
//! for a slice beside the blocks counts: the parameters of groups are made ready many at
//! a time, an addend that all slices have in common is made once, and the usual sizes of groups
//! have loops of their own that take a slice, or two, in a step.
//!
//! Parameters that differ from column to column stay in registers while a tile
//! of columns is taken row by row: loading them again for each row would take
//! as long as loading the elements. In a cache, longer parts of a row are the better
//! tile; from memory, more rows between two parts of one are, as more lines of
//! different rows are then under way. Best from memory is one row after another, as the
//! prefetchers of the processor follow that: so it is done with so few columns that their
//! factors stay in the first-level cache beside the elements.

use super::fixed_point::{ALL_SIGNED, ALL_UNSIGNED, Codes, NEAR_TIE, SOME, UNIT};
use super::*;

/// Columns whose factors stay in a first-level cache while elements stream through it:
/// a quarter of it.
const NARROW: usize = 2048;
/// Blocks of a row in a wide tile: their parameters fill half of 32 registers.
const WIDE: usize = 4;

/// Writes the codes of all elements.
pub(super) struct Quantize<'a, 'c> {
    pub(super) work: Bytes<'a>,
    pub(super) codes: &'c mut [u8],
}

impl VectorOp for Quantize<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { work, codes } = self;
        match work.fixed_point() {
            (range, ALL_UNSIGNED) => {
                Blocks::<S, ALL_UNSIGNED>::new(simd, &work, range, codes).quantize(codes);
            }
            (range, ALL_SIGNED) => {
                Blocks::<S, ALL_SIGNED>::new(simd, &work, range, codes).quantize(codes);
            }
            (range, _) => Blocks::<S, SOME>::new(simd, &work, range, codes).quantize(codes),
        }
    }
}

/// What makes fixed point of a vector.
#[derive(Clone, Copy)]
struct ToFixed<S: Simd> {
    factor: S::F32,
    addend: S::F32,
}

/// What makes codes of blocks of elements.
struct Blocks<'a, 'w, S: Simd, const KIND: u8> {
    simd: S,
    work: &'w Bytes<'a>,
    /// The elements, beside `work`, which the slow ways are shown and compilers therefore read again.
    x: &'a [f32],
    /// The addend of a zero point of 0.
    origin: f32,
    /// What codes of `SOME` are limited to, and begin with.
    span: S::U8,
    base: S::U8,
    /// Whether they go past the caches.
    past: bool,
}

impl<'a, 'w, S: Simd, const KIND: u8> Blocks<'a, 'w, S, KIND> {
    #[inline(always)]
    fn new(simd: S, work: &'w Bytes<'a>, range: Codes, codes: &[u8]) -> Self {
        let Codes { origin, span, base } = range;
        let past = work.goes_past::<S>(codes);
        let [span, base] = [simd.splat_u8(span), simd.splat_u8(base)];
        Self { simd, work, x: work.x, origin, span, base, past }
    }

    #[inline(always)]
    fn quantize(&mut self, codes: &mut [u8]) {
        let (work, past) = (self.work, self.past);
        let whole = match (work.params, work.params.facts().is_common()) {
            (Params::Same(affine), _) => self.in_slice(affine, codes),
            (Params::Groups(groups), false) => self.in_groups::<false>(groups, codes),
            (Params::Groups(groups), true) => self.in_groups::<true>(groups, codes),
            (Params::Each(columns), false) => self.in_columns::<false>(columns, codes),
            (Params::Each(columns), true) => self.in_columns::<true>(columns, codes),
        };
        if past {
            self.simd.fence();
        }
        let codes = &mut codes[whole..];
        if !codes.is_empty() {
            self.simd.apart(ByScalar { work: &work.part(whole, codes.len()), codes });
        }
    }

    /// The addend of zero points.
    #[inline(always)]
    fn addend(&self, zero_point: S::F32) -> S::F32 {
        let simd = self.simd;
        simd.mul_add(zero_point, simd.splat(UNIT), simd.splat(self.origin))
    }

    /// The addend of slices that have one zero point.
    #[inline(always)]
    fn common(&self, slices: Columns<'_, f32>) -> S::F32 {
        self.addend(self.simd.splat(slices.facts.zero_points[0] as f32))
    }

    /// Writes the codes of whole blocks; says how many elements that are.
    #[inline(always)]
    fn in_slice(&self, affine: QuantParams<f32>, codes: &mut [u8]) -> usize {
        let factor = self.simd.splat(1.0 / affine.scale * UNIT);
        let addend = self.addend(self.simd.splat(affine.zero_point as f32));
        let whole = codes.len() - codes.len() % S::BLOCK;
        self.blocks(ToFixed { factor, addend }, codes, 0..whole);
        whole
    }

    /// Writes the codes of whole blocks; says how many elements that are. With `COMMON`,
    /// all slices have one zero point.
    #[inline(always)]
    fn in_groups<const COMMON: bool>(&self, groups: Groups<'_, f32>, codes: &mut [u8]) -> usize {
        let Groups { slices, offset, size } = groups;
        let pairs = slices.len().is_multiple_of(2) || !groups.repeat(codes.len());
        let mut slices = Slices::<S, COMMON>::new(self, slices);
        if offset == 0 && 2 * size == S::BLOCK && pairs {
            return self.step_by::<COMMON, 2, 1>(slices, codes);
        } else if offset == 0 && size == S::BLOCK {
            return self.step_by::<COMMON, 1, 1>(slices, codes);
        } else if offset == 0 && size == 2 * S::BLOCK {
            return self.step_by::<COMMON, 1, 2>(slices, codes);
        }
        let whole = codes.len() - codes.len() % S::BLOCK;
        if offset % S::BLOCK == 0 && size % S::BLOCK == 0 {
            let mut at = 0;
            while at < whole {
                let next = if at == 0 { size - offset } else { at + size };
                self.blocks(slices.next(), codes, at..next.min(whole));
                at = next;
            }
            return whole;
        }
        let (mut left, mut now) = ((size - offset) / S::LANES, slices.next());
        for at in (0..whole).step_by(S::BLOCK) {
            let to_fixed = each(
                PARTS,
                #[inline(always)]
                |_| {
                    if left == 0 {
                        left = size / S::LANES;
                        now = slices.next();
                    }
                    left -= 1;
                    now
                },
            );
            self.block(to_fixed, codes, at);
        }
        whole
    }

    /// Writes the codes of whole steps; says how many elements that are. A step is
    /// `SLICES` slices (1 or 2) in one block, or `BLOCKS` blocks of one.
    #[inline(always)]
    fn step_by<const COMMON: bool, const SLICES: usize, const BLOCKS: usize>(
        &self,
        mut slices: Slices<'_, S, COMMON>,
        codes: &mut [u8],
    ) -> usize {
        let step = BLOCKS * S::BLOCK;
        let whole = codes.len() - codes.len() % step;
        let mut at = 0;
        while at < whole {
            let steps = (slices.ready() / SLICES).min((whole - at) / step);
            for i in 0..steps {
                let (first, last) = (slices.get(SLICES * i), slices.get(SLICES * i + SLICES - 1));
                for _ in 0..BLOCKS {
                    self.block([first, first, last, last], codes, at);
                    at += S::BLOCK;
                }
            }
            if at < whole {
                slices.advance();
            }
        }
        whole
    }

    /// Writes the codes of whole rows, tile by tile; says how many elements that are. With
    /// `COMMON`, all columns have one zero point.
    #[inline(always)]
    fn in_columns<const COMMON: bool>(
        &mut self,
        columns: Columns<'_, f32>,
        codes: &mut [u8],
    ) -> usize {
        let (row, len) = (columns.len().min(codes.len()), codes.len());
        if row < S::BLOCK {
            return 0;
        }
        self.past &= row.is_multiple_of(S::BLOCK);
        let cached = self.work.how.stores == Stores::Temporal;
        if !cached && row <= if COMMON { NARROW } else { NARROW / 2 } {
            for start in (0..len - len % row).step_by(row) {
                self.row::<COMMON>(columns, codes, start..start + row);
            }
            return len - len % row;
        }
        let (mut first, wide) = (0, WIDE * S::BLOCK);
        if S::REGISTERS >= 2 * 4 * WIDE && COMMON && cached {
            while first + wide <= row {
                self.tile::<COMMON, WIDE>(columns, codes, first, row);
                first += wide;
            }
        }
        for first in (first..row).step_by(S::BLOCK) {
            // The last tile is a whole one too: codes of columns of two tiles are written twice.
            self.tile::<COMMON, 1>(columns, codes, first.min(row - S::BLOCK), row);
        }
        len - len % row
    }

    /// Writes the codes of a row, which is at least a block.
    #[inline(always)]
    fn row<const COMMON: bool>(
        &self,
        columns: Columns<'_, f32>,
        codes: &mut [u8],
        row: Range<usize>,
    ) {
        let common = self.common(columns);
        for first in (0..row.len()).step_by(S::BLOCK) {
            let first = first.min(row.len() - S::BLOCK);
            let to_fixed = each(
                PARTS,
                #[inline(always)]
                |i| self.column::<COMMON>(common, columns, first + S::LANES * i),
            );
            self.block(to_fixed, codes, row.start + first);
        }
    }

    /// What makes fixed point in the columns of a vector from `at` on.
    #[inline(always)]
    fn column<const COMMON: bool>(
        &self,
        common: S::F32,
        columns: Columns<'_, f32>,
        at: usize,
    ) -> ToFixed<S> {
        let simd = self.simd;
        let factor = simd.mul(simd.load(&columns.reciprocals[at..]), simd.splat(UNIT));
        if COMMON {
            return ToFixed { factor, addend: common };
        }
        let zero_points = simd.load_i32(&columns.zero_points[at..]);
        ToFixed { factor, addend: self.addend(simd.to_f32(zero_points)) }
    }

    /// Writes the codes of `BLOCKS` blocks of each whole row, of `row` columns, from column `first` on, which
    /// are all within the row.
    #[inline(always)]
    fn tile<const COMMON: bool, const BLOCKS: usize>(
        &self,
        columns: Columns<'_, f32>,
        codes: &mut [u8],
        first: usize,
        row: usize,
    ) {
        let common = self.common(columns);
        let mut to_fixed = [[ToFixed { factor: common, addend: common }; 4]; BLOCKS];
        for (i, to_fixed) in to_fixed.as_flattened_mut().iter_mut().enumerate() {
            *to_fixed = self.column::<COMMON>(common, columns, first + S::LANES * i);
        }
        let rows = self.x.chunks_exact(row).zip(codes.chunks_exact_mut(row)).enumerate();
        for (i, (x, codes)) in rows {
            let x = &x[first..first + BLOCKS * S::BLOCK];
            let codes = &mut codes[first..first + BLOCKS * S::BLOCK];
            for (k, &to_fixed) in to_fixed.iter().enumerate() {
                let at = S::BLOCK * k;
                let bytes = self.codes(to_fixed, &x[at..], i * row + first + at);
                store_codes(self.simd, &mut codes[at..], bytes, self.past);
            }
        }
    }

    /// Writes the codes of the whole blocks of a slice.
    #[inline(always)]
    fn blocks(&self, to_fixed: ToFixed<S>, codes: &mut [u8], slice: Range<usize>) {
        let (mut x, mut codes) = (&self.x[slice.clone()], &mut codes[slice.clone()]);
        let mut at = slice.start;
        // Iterators of chunks divide by their size first, which short slices notice.
        while x.len() >= S::BLOCK && codes.len() >= S::BLOCK {
            let (block, others) = x.split_at(S::BLOCK);
            let (own, rest) = codes.split_at_mut(S::BLOCK);
            store_codes(self.simd, own, self.codes([to_fixed; 4], block, at), self.past);
            (x, codes) = (others, rest);
            at += S::BLOCK;
        }
    }

    /// Writes the codes of the block from `at` on.
    #[inline(always)]
    fn block(&self, to_fixed: [ToFixed<S>; 4], codes: &mut [u8], at: usize) {
        let bytes = self.codes(to_fixed, &self.x[at..at + S::BLOCK], at);
        store_codes(self.simd, &mut codes[at..at + S::BLOCK], bytes, self.past);
    }

    /// The codes of a block, `x`, which is the one from `at` on.
    #[inline(always)]
    fn codes(&self, to_fixed: [ToFixed<S>; 4], x: &[f32], at: usize) -> S::U8 {
        let simd = self.simd;
        let fixed = each(
            PARTS,
            #[inline(always)]
            |i| {
                let ToFixed { factor, addend } = to_fixed[i];
                simd.round(simd.mul_add(simd.load(&x[S::LANES * i..]), factor, addend))
            },
        );
        let near_ties = simd.low_halves_without(fixed, NEAR_TIE);
        let mut bytes = if KIND == ALL_SIGNED {
            simd.high_halves::<true>(fixed)
        } else {
            simd.high_halves::<false>(fixed)
        };
        if KIND == SOME {
            bytes = simd.add_u8(simd.min_u8(bytes, self.span), self.base);
        }
        if near_ties == 0 { bytes } else { self.settle(near_ties, bytes, at) }
    }

    /// The codes of a block from `at` on once more, of elements in the lanes of `near_ties` at least.
    /// What goes past the caches is not to be written twice.
    #[inline(always)]
    fn settle(&self, near_ties: u32, bytes: S::U8, at: usize) -> S::U8 {
        let (simd, work) = (self.simd, self.work);
        let mut codes = [0; 64];
        simd.store_u8(&mut codes, bytes);
        let (lanes, settled) = (S::LANES, &mut codes[..S::BLOCK]);
        simd.apart(Settle { work, near_ties, lanes, codes: settled, at });
        simd.load_u8(&codes)
    }
}

/// Writes the codes of a block from `at` on again, of elements `i` with bit `i % lanes` of
/// `near_ties` at least.
struct Settle<'a, 'w> {
    work: &'w Bytes<'a>,
    near_ties: u32,
    lanes: usize,
    codes: &'w mut [u8],
    at: usize,
}

impl Op for Settle<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        /// Lanes up to which one element after another is the faster way.
        const FEW: u32 = 2;
        let Self { work, near_ties, lanes, codes, at } = self;
        if near_ties.count_ones() > FEW {
            return work.part(at, codes.len()).quantize(codes);
        }
        let mut rest = near_ties;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            for i in (lane..codes.len()).step_by(lanes) {
                let params = Params::Same(work.params.affine(at + i));
                let (x, code) = (&[work.x[at + i]], slice::from_mut(&mut codes[i]));
                scalar::quantize(x, params, work.how.range, work.how.rounding, code);
            }
        }
    }
}

/// Slices that are made ready at a time.
const READY: usize = 64;

/// Slices one after another, and from the first on again, made ready some at a time. With
/// `COMMON`, all have the addend of the first one.
struct Slices<'a, S: Simd, const COMMON: bool> {
    simd: S,
    columns: Columns<'a, f32>,
    common: S::F32,
    /// The addend of a zero point of 0.
    origin: f32,
    factors: [f32; READY],
    addends: [f32; READY],
    /// The next one, and the first of those that are ready.
    at: usize,
    first: usize,
}

impl<'a, S: Simd, const COMMON: bool> Slices<'a, S, COMMON> {
    #[inline(always)]
    fn new<const KIND: u8>(blocks: &Blocks<'_, '_, S, KIND>, columns: Columns<'a, f32>) -> Self {
        let (simd, origin, common) = (blocks.simd, blocks.origin, blocks.common(columns));
        let [factors, addends] = [[0.0; READY]; 2];
        let mut slices = Self { simd, columns, common, origin, factors, addends, at: 0, first: 0 };
        slices.make();
        slices
    }

    #[inline(always)]
    fn make(&mut self) {
        let Self { simd, origin, factors, addends, .. } = self;
        let columns = self.columns.part(self.first..self.columns.len());
        simd.apart(Make::<COMMON> { columns, origin: *origin, factors, addends });
    }

    /// Slices that are ready.
    #[inline(always)]
    fn ready(&self) -> usize {
        READY.min(self.columns.len() - self.first)
    }

    /// Makes those ready that come after the ones that are.
    #[inline(always)]
    fn advance(&mut self) {
        self.at = 0;
        if self.columns.len() > READY {
            self.first += READY;
            if self.first >= self.columns.len() {
                self.first = 0;
            }
            self.make();
        }
    }

    /// Slice `i` of those that are ready.
    #[inline(always)]
    fn get(&self, i: usize) -> ToFixed<S> {
        let addend = if COMMON { self.common } else { self.simd.splat(self.addends[i]) };
        ToFixed { factor: self.simd.splat(self.factors[i]), addend }
    }

    /// The next slice.
    #[inline(always)]
    fn next(&mut self) -> ToFixed<S> {
        if self.at == self.ready() {
            self.advance();
        }
        self.at += 1;
        self.get(self.at - 1)
    }
}

/// Makes factors and addends of the first of some slices.
struct Make<'a, const COMMON: bool> {
    columns: Columns<'a, f32>,
    origin: f32,
    factors: &'a mut [f32; READY],
    addends: &'a mut [f32; READY],
}

impl<const COMMON: bool> Op for Make<'_, COMMON> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (factor, reciprocal) in self.factors.iter_mut().zip(self.columns.reciprocals) {
            *factor = reciprocal * UNIT;
        }
        if !COMMON {
            for (addend, &zero_point) in self.addends.iter_mut().zip(self.columns.zero_points) {
                *addend = zero_point as f32 * UNIT + self.origin;
            }
        }
    }
}

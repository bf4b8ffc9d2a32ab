//! Codes to numbers.
//!
//! Codes are widened as they are loaded, and take a conversion, a subtraction
//! (exact: both are small integers) and a multiplication. Writing four bytes for
//! each that is read is what takes the time; stores past the caches save reading
//! what they overwrite. Parameters of columns stay in registers while a tile is taken
//! row by row: one of 16 vectors in a cache, where there are registers for it, as longer parts of a
//! row are fetched better, and one of four from memory, which more rows at a time serve better.

use super::*;

/// Vectors of a row in a tile.
const NARROW: usize = 4;
/// Vectors of a row in a wide tile: their parameters fill half of 32 registers.
const WIDE: usize = 16;

/// As [`scalar::dequantize`], from codes that are `SIGNED` or not.
pub(super) struct Restore<'a, const SIGNED: bool> {
    pub(super) codes: &'a [u8],
    pub(super) params: Params<'a, f32>,
    pub(super) stores: Stores,
    pub(super) x: &'a mut [f32],
}

impl<const SIGNED: bool> VectorOp for Restore<'_, SIGNED> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let past = self.stores == Stores::Streaming
            && self.x.as_ptr().addr().is_multiple_of(size_of::<f32>() * S::LANES);
        let whole = match (self.params, past) {
            (Params::Each(columns), past) => self.in_columns(simd, columns, past),
            (_, true) => self.in_slices::<S, true>(simd),
            (_, false) => self.in_slices::<S, false>(simd),
        };
        if past {
            simd.fence();
        }
        if whole < self.codes.len() {
            let params = self.params.part(whole, self.codes.len() - whole);
            let (codes, x) = (&self.codes[whole..], &mut self.x[whole..]);
            simd.apart(Rest::<SIGNED> { codes, params, x });
        }
    }
}

impl<const SIGNED: bool> Restore<'_, SIGNED> {
    /// Restores whole vectors; says how many elements that are.
    #[inline(always)]
    fn in_slices<S: Simd, const PAST: bool>(&mut self, simd: S) -> usize {
        match (self.params, self.params.facts().is_common()) {
            (Params::Groups(_), false) => self.vectors::<S, GROUPS, false, PAST>(simd),
            (Params::Groups(_), true) => self.vectors::<S, GROUPS, true, PAST>(simd),
            _ => self.vectors::<S, SAME, true, PAST>(simd),
        }
    }

    /// The same.
    #[inline(always)]
    fn vectors<S: Simd, const FORM: u8, const COMMON: bool, const PAST: bool>(
        &mut self,
        simd: S,
    ) -> usize {
        let mut cursor = Cursor::<S, FORM, COMMON>::new(simd, self.params);
        let whole = self.codes.len() - self.codes.len() % S::LANES;
        let (mut codes, mut x) = (&self.codes[..whole], &mut self.x[..whole]);
        while codes.len() >= S::LANES && x.len() >= S::LANES {
            let Vector { scale, zero_point, .. } = cursor.next();
            vector::<S, SIGNED>(simd, codes, [scale, zero_point], PAST, x);
            (codes, x) = (&codes[S::LANES..], &mut x[S::LANES..]);
        }
        whole
    }

    /// Restores whole rows of columns, tile by tile, where a row has as many; says
    /// how many elements that are.
    #[inline(always)]
    fn in_columns<S: Simd>(&mut self, simd: S, columns: Columns<'_, f32>, past: bool) -> usize {
        let row = columns.len().min(self.codes.len());
        let [narrow, wide] = [NARROW, WIDE].map(|vectors| vectors * S::LANES);
        if row < narrow {
            return 0;
        }
        let past = past && row.is_multiple_of(S::LANES);
        let mut first = 0;
        if S::REGISTERS >= 2 * WIDE && columns.facts.is_common() && !past {
            while first + wide <= row {
                self.tile::<S, true, WIDE>(simd, columns, false, first);
                first += wide;
            }
        }
        for first in (first..row).step_by(narrow) {
            // The last tile is a whole one too: elements of two tiles are written twice.
            self.tile::<S, false, NARROW>(simd, columns, past, first.min(row - narrow));
        }
        self.codes.len() - self.codes.len() % row
    }

    /// Restores `VECTORS` vectors of each whole row, from column `first` on, which are all
    /// within the row. With `COMMON`, all columns have one zero point.
    #[inline(always)]
    fn tile<S: Simd, const COMMON: bool, const VECTORS: usize>(
        &mut self,
        simd: S,
        columns: Columns<'_, f32>,
        past: bool,
        first: usize,
    ) {
        let row = columns.len().min(self.codes.len());
        let common = simd.splat(columns.facts.zero_points[0] as f32);
        let mut params = [[common; 2]; VECTORS];
        for (i, [scale, zero_point]) in params.iter_mut().enumerate() {
            let at = first + S::LANES * i;
            *scale = simd.load(&columns.scales[at..]);
            if !COMMON {
                *zero_point = simd.to_f32(simd.load_i32(&columns.zero_points[at..]));
            }
        }
        for (codes, x) in self.codes.chunks_exact(row).zip(self.x.chunks_exact_mut(row)) {
            let codes = &codes[first..first + VECTORS * S::LANES];
            let x = &mut x[first..first + VECTORS * S::LANES];
            for (k, &params) in params.iter().enumerate() {
                let at = S::LANES * k;
                // Where the first row is aligned, all are.
                vector::<S, SIGNED>(simd, &codes[at..], params, past, &mut x[at..]);
            }
        }
    }
}

/// Restores a vector.
#[inline(always)]
fn vector<S: Simd, const SIGNED: bool>(
    simd: S,
    codes: &[u8],
    [scale, zero_point]: [S::F32; 2],
    past: bool,
    x: &mut [f32],
) {
    let codes = simd.to_f32(simd.load_codes::<SIGNED>(codes));
    let restored = simd.mul(simd.sub(codes, zero_point), scale);
    if past {
        simd.store_past(x, restored);
    } else {
        simd.store(x, restored);
    }
}

/// What makes no whole vector.
struct Rest<'a, const SIGNED: bool> {
    codes: &'a [u8],
    params: Params<'a, f32>,
    x: &'a mut [f32],
}

impl<const SIGNED: bool> Op for Rest<'_, SIGNED> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if SIGNED {
            scalar::dequantize(cast_slice::<_, i8>(self.codes), self.params, self.x);
        } else {
            scalar::dequantize(self.codes, self.params, self.x);
        }
    }
}

//! Codes to numbers.
//!
//! Codes are widened as they are loaded, and take a conversion, a subtraction
//! (exact: both are small integers) and a multiplication. Writing four bytes for
//! each that is read is what takes the time; stores past the caches save reading
//! what they overwrite. Parameters of columns are loaded again for each row, which loads have time for.

use super::*;

/// Columns whose scales and zero points stay in a first-level cache while a part of each row is restored:
/// long parts are fetched better than short ones whose parameters are in registers.
const COLUMNS: usize = 4096;

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
            let steps = simd.sub(simd.to_f32(simd.load_codes::<SIGNED>(codes)), zero_point);
            store::<S, PAST>(simd, x, steps, scale);
            (codes, x) = (&codes[S::LANES..], &mut x[S::LANES..]);
        }
        whole
    }

    /// Restores whole rows of columns, where a row has a vector at least; says how many elements
    /// that are.
    #[inline(always)]
    fn in_columns<S: Simd>(&mut self, simd: S, columns: Columns<'_, f32>, past: bool) -> usize {
        let row = columns.len().min(self.codes.len());
        if row < S::LANES {
            return 0;
        }
        let past = past && row.is_multiple_of(S::LANES);
        let is_common = columns.facts.is_common();
        let columns_of_part = if is_common { COLUMNS } else { COLUMNS / 2 };
        for first in (0..row).step_by(columns_of_part) {
            let part = first..row.min(first + columns_of_part);
            match (is_common, past) {
                (false, false) => self.rows::<S, false, false>(simd, columns, part),
                (false, true) => self.rows::<S, false, true>(simd, columns, part),
                (true, false) => self.rows::<S, true, false>(simd, columns, part),
                (true, true) => self.rows::<S, true, true>(simd, columns, part),
            }
        }
        self.codes.len() - self.codes.len() % row
    }

    /// Restores a part of each whole row. With `COMMON`, all columns have one zero point.
    #[inline(always)]
    fn rows<S: Simd, const COMMON: bool, const PAST: bool>(
        &mut self,
        simd: S,
        columns: Columns<'_, f32>,
        part: Range<usize>,
    ) {
        let row = columns.len().min(self.codes.len());
        // The last vector is a whole one too: some elements are written twice.
        let end = part.end.max(S::LANES);
        let common = simd.splat_i32(columns.facts.zero_points[0]);
        let mut start = 0;
        while start + row <= self.codes.len() {
            let codes = &self.codes[start..start + row];
            let x = &mut self.x[start..start + row];
            let mut at = part.start;
            while at < end {
                let own = at.min(end - S::LANES);
                let scale = simd.load(&columns.scales[own..]);
                let zero_point =
                    if COMMON { common } else { simd.load_i32(&columns.zero_points[own..]) };
                let codes = simd.load_codes::<SIGNED>(&codes[own..]);
                let steps = simd.to_f32(simd.sub_i32(codes, zero_point));
                // Where the first row is aligned, all are.
                store::<S, PAST>(simd, &mut x[own..], steps, scale);
                at += S::LANES;
            }
            start += row;
        }
    }
}

/// Writes what a vector of steps is restored to.
#[inline(always)]
fn store<S: Simd, const PAST: bool>(simd: S, x: &mut [f32], steps: S::F32, scale: S::F32) {
    let restored = simd.mul(steps, scale);
    if PAST {
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

//! The operations of [`scalar`] on an instruction set.
//!
//! All of them can be run as the loops of `scalar`, compiled for the
//! instruction set ([`Isa::run`]). What a request spends its time in, f32 to
//! 8-bit codes and back, and extents of f32, has kernels over registers ([`kernels`]).

use super::Isa;
use super::isa::Op;
use super::real::Real;
use super::scalar::{self, Code, CodeRange, Extent, Params, QuantParams, Rounding};
use super::sums::LaneSums;

pub(super) mod kernels;
#[cfg(test)]
mod tests;

/// How results are written. They are the same either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Into the caches: for what is read again soon.
    Temporal,
    /// Past the caches, where the kernel and the alignment of the target (a
    /// register) allow it: nothing is read before it is overwritten, and what is
    /// in the caches stays there. Pays for results that no cache can hold.
    Streaming,
}

/// What numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeSpec {
    /// Codes that may be used.
    pub range: CodeRange,
    /// How a number becomes one of them.
    pub rounding: Rounding,
    /// How they are written.
    pub stores: Stores,
}

impl CodeSpec {
    /// To codes that are read again soon.
    #[must_use]
    pub const fn new(range: CodeRange, rounding: Rounding) -> Self {
        Self { range, rounding, stores: Stores::Temporal }
    }
}

impl Stores {
    /// Bytes of a result from which on it goes past the caches.
    const LARGE: usize = 16 << 20;

    /// For a result of so many bytes.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        if bytes >= Self::LARGE { Self::Streaming } else { Self::Temporal }
    }
}

impl Isa {
    /// As [`scalar::quantize`].
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn quantize<T: Real, C: Code>(
        self,
        x: &[T],
        params: Params<'_, T>,
        how: CodeSpec,
        codes: &mut [C],
    ) {
        assert!(x.len() == codes.len(), "a code for each element");
        if kernels::quantize(self, x, params, how, codes) {
            return;
        }
        if let Params::Groups(groups) = params {
            groups.parts(self, x.len(), |part, params| {
                let codes = &mut codes[part.clone()];
                self.quantize(&x[part], params, how, codes);
            });
        } else {
            self.run(Quantize { x, params, how, codes });
        }
    }

    /// As [`scalar::quantize`] and [`scalar::measure`], in one pass.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn encode<T: Real, C: Code>(
        self,
        x: &[T],
        params: Params<'_, T>,
        how: CodeSpec,
        codes: &mut [C],
        lanes: &mut LaneSums,
    ) {
        assert!(x.len() == codes.len(), "a code for each element");
        if !kernels::encode(self, x, params, how, codes, lanes) {
            self.quantize(x, params, how, codes);
            self.measure(x, params, how, lanes);
        }
    }

    /// As [`scalar::measure`].
    pub fn measure<T: Real>(
        self,
        x: &[T],
        params: Params<'_, T>,
        how: CodeSpec,
        lanes: &mut LaneSums,
    ) {
        if kernels::measure(self, x, params, how, lanes) {
            return;
        }
        if let Params::Groups(groups) = params
            && !groups.repeat(x.len())
        {
            groups.tiles(self, x.len(), |part, columns| {
                self.measure(&x[part], Params::Each(columns), how, lanes);
            });
        } else {
            self.run(Measure { x, params, how, lanes });
        }
    }

    /// As [`scalar::dequantize`].
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn dequantize<T: Real, C: Code>(
        self,
        codes: &[C],
        params: Params<'_, T>,
        stores: Stores,
        x: &mut [T],
    ) {
        assert!(x.len() == codes.len(), "a code for each element");
        if kernels::dequantize(self, codes, params, stores, x) {
            return;
        }
        if let Params::Groups(groups) = params {
            groups.parts(self, codes.len(), |part, params| {
                let x = &mut x[part.clone()];
                self.dequantize(&codes[part], params, stores, x);
            });
        } else {
            self.run(Dequantize { codes, params, x });
        }
    }

    /// As [`scalar::squared_error`].
    #[must_use]
    pub fn squared_error<T: Real>(
        self,
        x: &[T],
        affine: QuantParams<T>,
        range: CodeRange,
        rounding: Rounding,
    ) -> f64 {
        kernels::squared_error(self, x, affine, CodeSpec::new(range, rounding))
            .unwrap_or_else(|| self.run(SquaredError { x, affine, range, rounding }))
    }

    /// As [`scalar::extent`].
    #[must_use]
    pub fn extent<T: Real>(self, x: &[T]) -> Extent<T> {
        let mut found = [Extent::default()];
        self.join_extents(x, x.len().max(1), &mut found);
        found[0]
    }
}

impl Isa {
    /// Joins the extents of many slices to `extents`: element `i` of each piece
    /// belongs to slice `i / size`. Where `size` is 1, pieces have one element a slice.
    pub fn extents<'a, T: Real>(
        self,
        pieces: impl Iterator<Item = &'a [T]>,
        size: usize,
        extents: &mut [Extent<T>],
    ) {
        if size > 1 {
            for piece in pieces {
                self.join_extents(piece, size, extents);
            }
            return;
        }
        let mut columns = ColumnExtents {
            min: vec![T::INFINITY; extents.len()],
            max: vec![-T::INFINITY; extents.len()],
        };
        let mut rows: [&[T]; ROWS] = [&[]; ROWS];
        let mut count = 0;
        for x in pieces {
            rows[count] = x;
            count += 1;
            if count == ROWS {
                self.add_rows(rows, &mut columns, extents);
                count = 0;
            }
        }
        rows[..count].iter().for_each(|&x| self.add_rows([x], &mut columns, extents));
        for (own, (&min, &max)) in extents.iter_mut().zip(columns.min.iter().zip(&columns.max)) {
            *own = own.join(Extent { min: min + T::ZERO, max: max + T::ZERO, nan: 0, inf: 0 });
        }
    }

    /// Takes in some elements of each column; what is not finite is counted in `extents`.
    fn add_rows<T: Real, const N: usize>(
        self,
        rows: [&[T]; N],
        columns: &mut ColumnExtents<T>,
        extents: &mut [Extent<T>],
    ) {
        if !self.run(AddRows { rows, columns }) {
            for (i, own) in extents.iter_mut().enumerate() {
                for x in rows.map(|x| x[i]) {
                    own.nan += u64::from(x.is_nan());
                    own.inf += u64::from(!x.is_nan() && !x.is_finite());
                }
            }
        }
    }

    /// Joins the extents of each `size` elements of `x` to `extents`.
    fn join_extents<T: Real>(self, x: &[T], size: usize, extents: &mut [Extent<T>]) {
        if !kernels::extents(self, x, size, extents) {
            for (own, x) in extents.iter_mut().zip(x.chunks(size)) {
                *own = own.join(self.run(ExtentOf { x }));
            }
        }
    }
}

struct Quantize<'a, T, C> {
    x: &'a [T],
    params: Params<'a, T>,
    how: CodeSpec,
    codes: &'a mut [C],
}

impl<T: Real, C: Code> Op for Quantize<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        scalar::quantize(self.x, self.params, self.how.range, self.how.rounding, self.codes);
    }
}

struct Measure<'a, T> {
    x: &'a [T],
    params: Params<'a, T>,
    how: CodeSpec,
    lanes: &'a mut LaneSums,
}

impl<T: Real> Op for Measure<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        scalar::measure(self.x, self.params, self.how.range, self.how.rounding, self.lanes);
    }
}

struct Dequantize<'a, T, C> {
    codes: &'a [C],
    params: Params<'a, T>,
    x: &'a mut [T],
}

impl<T: Real, C: Code> Op for Dequantize<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        scalar::dequantize(self.codes, self.params, self.x);
    }
}

struct SquaredError<'a, T> {
    x: &'a [T],
    affine: QuantParams<T>,
    range: CodeRange,
    rounding: Rounding,
}

impl<T: Real> Op for SquaredError<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        scalar::squared_error(self.x, self.affine, self.range, self.rounding)
    }
}

struct ExtentOf<'a, T> {
    x: &'a [T],
}

impl<T: Real> Op for ExtentOf<'_, T> {
    type Output = Extent<T>;
    #[inline(always)]
    fn run(self) -> Extent<T> {
        scalar::extent(self.x)
    }
}

/// Extents of columns, one array an end.
struct ColumnExtents<T> {
    min: Vec<T>,
    max: Vec<T>,
}

/// Rows that are taken in together: what is known of a column is read and written once for all of them.
const ROWS: usize = 8;
/// Columns that are taken together.
const WIDTH: usize = 16;

/// Takes in some elements of each column; gives whether all were finite.
struct AddRows<'a, T, const N: usize> {
    rows: [&'a [T]; N],
    columns: &'a mut ColumnExtents<T>,
}

impl<T: Real, const N: usize> Op for AddRows<'_, T, N> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let rows = self.rows;
        let (mins, rest_of_min) = self.columns.min.as_chunks_mut::<WIDTH>();
        let (maxs, rest_of_max) = self.columns.max.as_chunks_mut::<WIDTH>();
        let mut not_finite = [T::ZERO; WIDTH];
        let whole = WIDTH * mins.len();
        for (i, (own_min, own_max)) in mins.iter_mut().zip(maxs).enumerate() {
            // In registers from row to row.
            let (mut min, mut max) = (*own_min, *own_max);
            for x in rows {
                add_row(&x[WIDTH * i..][..WIDTH], &mut min, &mut max, &mut not_finite);
            }
            (*own_min, *own_max) = (min, max);
        }
        for x in rows {
            add_row(&x[whole..], rest_of_min, rest_of_max, &mut not_finite);
        }
        not_finite.iter().all(|&not_finite| not_finite == T::ZERO)
    }
}

/// Takes in one element of each column; `not_finite` stays 0 as long as all are finite.
#[inline(always)]
fn add_row<T: Real>(x: &[T], min: &mut [T], max: &mut [T], not_finite: &mut [T; WIDTH]) {
    for (((&x, min), max), not_finite) in x.iter().zip(min).zip(max).zip(not_finite) {
        let finite = x.abs() < T::INFINITY;
        let (low, high) = if finite { (x, x) } else { (T::INFINITY, -T::INFINITY) };
        *min = if low < *min { low } else { *min };
        *max = if high > *max { high } else { *max };
        *not_finite = *not_finite + x * T::ZERO;
    }
}

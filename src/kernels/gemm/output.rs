//! From sums of products to results, while they are in the cache.

use super::super::isa::Op;
use super::requantize::Requantize;
use super::tile::{MAX_COLUMNS, Sums};
use super::{PackedA, PackedB};

/// Where the product goes, and as what. All are `[m, n]`, row-major.
#[derive(Debug)]
pub enum Output<'a> {
    /// The sums themselves.
    I32(&'a mut [i32]),
    /// `f32(sum) * (scale_a * scale_b) + bias`, each operation rounded to
    /// nearest, ties to even; then the larger of that and 0 where so asked.
    F32 {
        /// The result.
        out: &'a mut [f32],
        /// One a column.
        bias: Option<&'a [f32]>,
        /// Whether there is a `ReLU`.
        relu: bool,
    },
    /// Codes 0 to 255.
    U8(&'a mut [u8], Requantize<'a>),
    /// Codes -128 to 127.
    I8(&'a mut [i8], Requantize<'a>),
}

/// A tile's place in the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    pub(super) columns: usize,
}

/// Scales of one row of a tile: that of the row, and those of its columns.
type Scales<'a> = (f32, &'a [f32]);

/// What is made of a row of sums.
pub(super) trait Finish<T>: Sync {
    /// Writes one row of a tile that begins at column `first`.
    fn row(&self, sums: &[i32], first: usize, scales: Scales<'_>, out: &mut [T]);
}

/// The sums as they are.
pub(super) struct AsSums;

impl Finish<i32> for AsSums {
    #[inline(always)]
    fn row(&self, sums: &[i32], _: usize, _: Scales<'_>, out: &mut [i32]) {
        out.copy_from_slice(sums);
    }
}

/// Real numbers.
pub(super) struct AsReals<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
}

impl Finish<f32> for AsReals<'_> {
    #[inline(always)]
    fn row(&self, sums: &[i32], first: usize, scales: Scales<'_>, out: &mut [f32]) {
        let (scale_a, scales_b) = scales;
        for ((&sum, &scale_b), out) in sums.iter().zip(scales_b).zip(&mut *out) {
            *out = sum as f32 * (scale_a * scale_b);
        }
        if let Some(bias) = self.bias {
            out.iter_mut().zip(&bias[first..]).for_each(|(out, bias)| *out += bias);
        }
        if self.relu {
            // NaN, the product of overflows, stays visible.
            out.iter_mut().for_each(|out| *out = if *out < 0.0 { 0.0 } else { *out });
        }
    }
}

impl Finish<u8> for Requantize<'_> {
    #[inline(always)]
    fn row(&self, sums: &[i32], first: usize, scales: Scales<'_>, out: &mut [u8]) {
        self.row(sums, first, scales, out);
    }
}

impl Finish<i8> for Requantize<'_> {
    #[inline(always)]
    fn row(&self, sums: &[i32], first: usize, scales: Scales<'_>, out: &mut [i8]) {
        self.row(sums, first, scales, out);
    }
}

/// What the zero points of the left operand contribute to the columns of a
/// panel when all rows share one: `K za zb - za sum B`.
pub(super) struct Base([i32; MAX_COLUMNS]);

impl Base {
    pub(super) fn new(a: &PackedA<'_>, b: &PackedB, place: Place) -> Self {
        let mut base = [0; MAX_COLUMNS];
        if let &[zero] = a.zero_points() {
            let columns = place.column..place.column + place.columns;
            let depth = i32::try_from(b.depth()).unwrap_or(i32::MAX);
            for (base, &sum) in base.iter_mut().zip(&b.sums()[columns.clone()]) {
                *base = zero.wrapping_mul(sum).wrapping_neg();
            }
            if b.has_zero_points() {
                let product = depth.wrapping_mul(zero);
                for (base, &other) in base.iter_mut().zip(&b.zero_points()[columns]) {
                    *base = base.wrapping_add(product.wrapping_mul(other));
                }
            }
        }
        Self(base)
    }
}

/// Corrects the sums of a tile for zero points and writes the result.
pub(super) struct FinishTile<'a, T, F> {
    pub(super) a: &'a PackedA<'a>,
    pub(super) b: &'a PackedB,
    pub(super) base: &'a Base,
    pub(super) place: Place,
    /// Columns of a panel.
    pub(super) width: usize,
    pub(super) sums: &'a mut Sums,
    pub(super) finish: &'a F,
    /// The rows of the tile in the result.
    pub(super) out: &'a mut dyn FnMut(usize) -> &'a mut [T],
}

impl<T, F: Finish<T>> Op for FinishTile<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { a, b, base, place, width, sums, finish, out } = self;
        let columns = place.column..place.column + place.columns;
        let scales_b = &b.scales()[columns.clone()];
        let column_sums = &b.sums()[columns.clone()];
        let zero_points = b.zero_points().get(columns).unwrap_or_default();
        for (i, sums) in sums.0.chunks_exact_mut(width).take(place.rows).enumerate() {
            let row = place.row + i;
            let sums = &mut sums[..place.columns];
            let one = |count: usize| if count == 1 { 0 } else { row };
            let zero = match a.zero_points() {
                [_] => {
                    add(sums, &base.0[..place.columns], 1);
                    0
                }
                all => {
                    add(sums, column_sums, all[row].wrapping_neg());
                    all[row]
                }
            };
            if !zero_points.is_empty() {
                let depth = i32::try_from(b.depth()).unwrap_or(i32::MAX);
                let rest = depth.wrapping_mul(zero).wrapping_sub(a.sums()[row]);
                add(sums, zero_points, rest);
            }
            let scale_a = a.scales()[one(a.scales().len())];
            finish.row(sums, place.column, (scale_a, scales_b), out(i));
        }
    }
}

/// `sums += factor * terms`, modulo 2^32.
#[inline(always)]
fn add(sums: &mut [i32], terms: &[i32], factor: i32) {
    if factor == 0 {
        return;
    }
    if factor == 1 {
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum = sum.wrapping_add(*term));
        return;
    }
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum = sum.wrapping_add(factor.wrapping_mul(*term));
    }
}

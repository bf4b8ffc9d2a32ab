//! Which loop multiplies on an instruction set.

use bytemuck::Pod;

use super::super::Isa;
use super::super::simd::{Dot, ProductOp, Simd};
use super::epilogue::{Epilogue, TileOutput};
use super::tile::{Lanes, Panel, Rows, Tile, int4, scalar, vector};

/// Multiplies as many rows as a tile has, or fewer, by one panel.
pub(super) fn multiply<T: Pod, F: Epilogue<T>>(
    isa: Isa,
    rows: &Rows<'_>,
    panel: &Panel<'_>,
    epilogue: &mut TileOutput<'_, T, F>,
) {
    let narrow = isa.has_tiles();
    if isa.multiply(Multiply { rows, panel, narrow, epilogue: &mut *epilogue }) != Some(true) {
        scalar::multiply(Tile::of(isa), *rows, *panel, epilogue.sums);
        epilogue.run();
    }
}

/// Operands by reference: copied, they would be read in other parts than they were written in, which waits for the
/// stores of the tile before.
struct Multiply<'a, 'o, T, F> {
    rows: &'a Rows<'a>,
    panel: &'a Panel<'a>,
    /// Panels for the tile unit are half as wide as those of AVX-512.
    narrow: bool,
    epilogue: &'a mut TileOutput<'o, T, F>,
}

impl<T: Pod, F: Epilogue<T>> ProductOp for Multiply<'_, '_, T, F> {
    /// Whether the instruction set multiplies such panels.
    type Output = bool;
    #[inline(always)]
    fn run<D: Dot>(self, dot: D) -> bool {
        let Self { rows, panel, narrow, epilogue } = self;
        if !narrow {
            vector::multiply(dot, *rows, *panel, epilogue);
        } else if D::Simd::LANES == 16 && matches!(D::LANES, Lanes::UnsignedBySigned) {
            vector::multiply_narrow(dot, *rows, *panel, epilogue);
        } else {
            return false;
        }
        true
    }
}

/// Multiplies `count` rows, at most [`int4::MAX_ROWS`], by a panel.
pub(super) fn multiply_int4(
    isa: Isa,
    rows: int4::Rows<'_>,
    count: usize,
    panel: int4::Panel<'_>,
    totals: &mut int4::Totals,
) {
    if isa.multiply(MultiplyInt4 { rows, count, panel, totals: &mut *totals }).is_none() {
        int4::scalar(rows, count, panel, totals);
    }
}

struct MultiplyInt4<'a> {
    rows: int4::Rows<'a>,
    count: usize,
    panel: int4::Panel<'a>,
    totals: &'a mut int4::Totals,
}

impl ProductOp for MultiplyInt4<'_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        int4::multiply(dot, self.rows, self.count, self.panel, self.totals);
    }
}

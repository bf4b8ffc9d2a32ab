//! Tiles: a few rows times one panel of columns, summed over the whole of K.

pub(super) mod int4;
pub(super) mod scalar;
pub(super) mod vector;

use super::super::Isa;
use super::super::isa::Products;
pub(super) use super::super::simd::Lanes;
use crate::amx::{SQUARE, TILE_ROWS};

/// Bytes of a row, or of a column, that one step of the innermost loop takes.
pub(super) const STEP: usize = 4;

impl Lanes {
    /// Steps that cover `k`.
    pub(super) const fn steps(self, k: usize) -> usize {
        match self {
            Self::UnsignedBySigned | Self::SignedBySigned => k.div_ceil(4),
            Self::Words => k.div_ceil(2),
        }
    }

    /// What is added to codes of the left operand.
    pub(super) const fn shift_left(self, signed: bool) -> i32 {
        match (self, signed) {
            (Self::UnsignedBySigned, true) => 128,
            (Self::SignedBySigned, false) => -128,
            (Self::UnsignedBySigned, false) | (Self::SignedBySigned, true) | (Self::Words, _) => 0,
        }
    }

    /// Whether codes of the left operand are multiplied as they are, a byte each.
    pub(super) const fn takes_as_they_are(self, signed: bool) -> bool {
        matches!((self, signed), (Self::UnsignedBySigned, false) | (Self::SignedBySigned, true))
    }

    /// The sum of the codes of a row.
    pub(super) fn sum(self, row: &[u8]) -> i32 {
        match self {
            Self::UnsignedBySigned => row.iter().map(|&code| i32::from(code)).sum(),
            Self::SignedBySigned => row.iter().map(|&code| i32::from(code.cast_signed())).sum(),
            Self::Words => {
                let words = row.as_chunks::<2>().0.iter();
                words.map(|&word| i32::from(i16::from_le_bytes(word))).sum()
            }
        }
    }
}

/// The tile of an instruction set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Most rows of a tile.
    pub(super) rows: usize,
    /// Columns of a panel.
    pub(super) columns: usize,
    /// How it multiplies.
    pub(super) lanes: Lanes,
    /// Steps that it takes at once: K is filled up to as many.
    pub(super) steps: usize,
}

/// Columns of the widest panel.
pub(super) const MAX_COLUMNS: usize = 64;
/// Rows of the tallest tile times its columns.
const MAX_SUMS: usize = 512;

/// The sums of one tile, row by row, [`Tile::columns`] apart.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [i32; MAX_SUMS]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; MAX_SUMS])
    }
}

/// Rows of the left operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    /// The first row and those after it.
    pub(super) bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// How many.
    pub(super) count: usize,
}

/// Columns of the right operand, packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel<'a> {
    /// Step by step.
    pub(super) bytes: &'a [u8],
    /// What to fetch into the second-level cache, a line a step: part of the
    /// panel that comes next, which may still be in memory.
    pub(super) ahead: &'a [u8],
}

impl Tile {
    /// Operands of the tile unit. Up to so many rows leave it mostly idle, and take the loop over registers.
    pub(super) const OF_UNIT: Self =
        Self { rows: 3, columns: SQUARE[1], lanes: Lanes::UnsignedBySigned, steps: TILE_ROWS };

    pub(super) const fn of(isa: Isa) -> Self {
        if isa.has_tiles() {
            return Self::OF_UNIT;
        }
        let Some(Products { lanes, width, registers }) = isa.products() else {
            return Self { rows: 4, columns: 16, lanes: Lanes::UnsignedBySigned, steps: 1 };
        };
        Self { rows: vector::ROWS, columns: width * vector::across(registers), lanes, steps: 1 }
    }

    /// Bytes of a row or column of `k` codes, filled up.
    pub(super) const fn depth(self, k: usize) -> usize {
        self.lanes.steps(k).next_multiple_of(self.steps) * STEP
    }

    /// Whether `m` rows of `k` codes are read as they lie: rows that are packed into the tiles of a unit are filled up
    /// there.
    pub(super) const fn takes_rows_of(self, m: usize, k: usize) -> bool {
        self.depth(k) == k || self.steps > 1 && m > self.rows
    }

    /// Bytes that one tile fetches ahead.
    pub(super) const fn ahead(self, panel: &[u8]) -> usize {
        panel.len() / (self.columns * STEP) * 64
    }
}

//! Tiles: a few rows times one panel of columns, summed over the whole of K.
#![expect(unsafe_code, reason = "registers are asked for through traits of unsafe methods")]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod int4;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod scalar;
pub(super) mod vector;

use super::super::Isa;
use super::super::isa::Level;
use super::tiled;

/// Bytes of a row, or of a column, that one step of the innermost loop takes.
pub(super) const STEP: usize = 4;

/// What the four bytes of a step are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    /// Four unsigned bytes of a row by four signed ones of a column.
    UnsignedBySigned,
    /// Four signed bytes by four signed ones.
    SignedBySigned,
    /// Two 16-bit words of either.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "what x86 without VNNI multiplies")
    )]
    Words,
}

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
    pub(super) const fn of(isa: Isa) -> Self {
        if isa.has_tiles() {
            return tiled::TILE;
        }
        match isa.level() {
            Level::Scalar => {
                Self { rows: 4, columns: 16, lanes: Lanes::UnsignedBySigned, steps: 1 }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::WORDS,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => avx2::VNNI,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::WORDS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => avx512::VNNI,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => neon::TILE,
        }
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

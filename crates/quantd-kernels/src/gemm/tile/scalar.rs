//! The definition of a tile, for any [`Lanes`], and what runs where there is
//! no faster one.

use super::{Lanes, Panel, Rows, STEP, Sums, Tile};

/// Multiplies `rows` by one panel.
pub(in super::super) fn multiply(tile: Tile, rows: Rows<'_>, panel: Panel<'_>, sums: &mut Sums) {
    let panel = panel.bytes;
    for (i, sums) in sums.0.chunks_exact_mut(tile.columns).take(rows.count).enumerate() {
        let row = &rows.bytes[i * rows.stride..][..panel.len() / tile.columns];
        sums.fill(0);
        let steps = row.as_chunks::<STEP>().0.iter().zip(panel.chunks_exact(tile.columns * STEP));
        for (a, columns) in steps {
            for (sum, b) in sums.iter_mut().zip(columns.as_chunks::<STEP>().0) {
                *sum = sum.wrapping_add(step(tile.lanes, *a, *b));
            }
        }
    }
}

/// What one step adds: at most 4 * 255 * 128, or 2 * 255 * 255.
#[inline]
fn step(lanes: Lanes, a: [u8; STEP], b: [u8; STEP]) -> i32 {
    let signed = |byte: u8| i32::from(byte.cast_signed());
    let word =
        |bytes: [u8; STEP], i: usize| i32::from(i16::from_le_bytes([bytes[i], bytes[i + 1]]));
    match lanes {
        Lanes::UnsignedBySigned => (0..STEP).map(|i| i32::from(a[i]) * signed(b[i])).sum(),
        Lanes::SignedBySigned => (0..STEP).map(|i| signed(a[i]) * signed(b[i])).sum(),
        Lanes::Words => word(a, 0) * word(b, 0) + word(a, 2) * word(b, 2),
    }
}

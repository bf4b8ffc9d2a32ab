//! The tile instructions in plain Rust, and the micro-kernels made of them.
//!
//! All tiles are of 16 rows by 64 bytes, as the one configuration here has them.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one contract, that the operands are there, covers all loads and stores"
)]

use super::{Operands, TILE_BYTES, TILE_ROWS};

/// A register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile(pub(super) [[u8; TILE_BYTES]; TILE_ROWS]);

impl Tile {
    /// `tilezero`.
    pub(super) const fn zero() -> Self {
        Self([[0; TILE_BYTES]; TILE_ROWS])
    }

    /// `tileloadd` and `tileloaddt1`.
    ///
    /// # Safety
    /// 64 bytes can be read from `from` and every `stride` after it, 16 times.
    pub(super) unsafe fn load(from: *const u8, stride: usize) -> Self {
        let mut tile = Self::zero();
        for (row, to) in tile.0.iter_mut().enumerate() {
            // SAFETY: the row can be read.
            unsafe { from.add(row * stride).copy_to(to.as_mut_ptr(), TILE_BYTES) };
        }
        tile
    }

    /// `tilestored`.
    ///
    /// # Safety
    /// 64 bytes can be written to `to` and every `stride` after it, 16 times.
    pub(super) unsafe fn store(&self, to: *mut u8, stride: usize) {
        for (row, from) in self.0.iter().enumerate() {
            // SAFETY: the row can be written.
            unsafe { to.add(row * stride).copy_from(from.as_ptr(), TILE_BYTES) };
        }
    }

    /// `tdpbusd`: adds `sum over i < 4 of a[m][4 k + i] b[k][4 n + i]` for all `k` to the 32 bits
    /// `[m][n]`, modulo 2^32; `a` is unsigned, `b` signed.
    pub(super) fn add_product(&mut self, a: &Self, b: &Self) {
        for (row, a) in self.0.iter_mut().zip(&a.0) {
            for (n, sum) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let mut total = i32::from_le_bytes(*sum);
                for (a, b) in a.as_chunks::<4>().0.iter().zip(&b.0) {
                    let b = &b[4 * n..4 * n + 4];
                    let products =
                        a.iter().zip(b).map(|(&a, b)| i32::from(a) * i32::from(b.cast_signed()));
                    total = products.fold(total, i32::wrapping_add);
                }
                *sum = total.to_le_bytes();
            }
        }
    }
}

/// As [`Session::square`](super::Session::square).
///
/// # Safety
/// The same.
#[cold]
#[inline(never)]
pub(super) unsafe fn square(operands: &Operands) {
    let &Operands { a, b, steps, sums, add, between, with, .. } = operands;
    let place = |i: usize| sums.cast::<u8>().wrapping_add(i / 2 * 2048 + i % 2 * TILE_BYTES);
    // SAFETY: four tiles of sums can be read and written, two of each operand can be read a step.
    unsafe {
        let mut totals: [Tile; 4] = std::array::from_fn(|i| match add {
            0 => Tile::zero(),
            _ => Tile::load(place(i), 128),
        });
        for step in 0..steps {
            let [upper, lower] =
                [0, 1024].map(|at| Tile::load(a.add(step * 2048 + at), TILE_BYTES));
            let [left, right] = [0, TILE_BYTES].map(|at| Tile::load(b.add(step * 2048 + at), 128));
            let pairs = [(&upper, &left), (&upper, &right), (&lower, &left), (&lower, &right)];
            totals.iter_mut().zip(pairs).for_each(|(total, (a, b))| total.add_product(a, b));
            between(with);
        }
        totals.iter().enumerate().for_each(|(i, total)| total.store(place(i), 128));
    }
}

/// As [`Session::wide`](super::Session::wide).
///
/// # Safety
/// The same.
#[cold]
#[inline(never)]
pub(super) unsafe fn wide(operands: &Operands) {
    let &Operands { a, b, right, steps, sums, .. } = operands;
    let mut totals = [const { Tile::zero() }; 4];
    // SAFETY: one tile of the left operand and two of each panel can be read a step, four of sums be written.
    unsafe {
        for step in 0..steps {
            let row = Tile::load(a.add(step * 1024), TILE_BYTES);
            for (i, total) in totals.iter_mut().enumerate() {
                let panel = if i < 2 { b } else { right };
                total.add_product(
                    &row,
                    &Tile::load(panel.add(step * 2048 + i % 2 * TILE_BYTES), 128),
                );
            }
        }
        for (i, total) in totals.iter().enumerate() {
            total.store(sums.cast::<u8>().add(i * TILE_BYTES), 256);
        }
    }
}

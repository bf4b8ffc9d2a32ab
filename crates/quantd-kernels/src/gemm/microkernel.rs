//! Which loop multiplies on an instruction set.
#![expect(unsafe_code, reason = "functions with target features are called after their detection")]

use bytemuck::Pod;

use super::super::Isa;
use super::super::isa::Level;
use super::epilogue::{Epilogue, TileOutput};
#[cfg(target_arch = "aarch64")]
use super::tile::neon;
use super::tile::{Panel, Rows, Tile, int4, scalar};
#[cfg(target_arch = "x86_64")]
use super::tile::{avx2, avx512};

/// Multiplies as many rows as a tile has, or fewer, by one panel.
pub(super) fn multiply<T: Pod, F: Epilogue<T>>(
    isa: Isa,
    rows: Rows<'_>,
    panel: Panel<'_>,
    epilogue: &mut TileOutput<'_, T, F>,
) {
    match isa.level() {
        // Panels for the tile unit are half as wide as those of AVX-512.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni if isa.has_tiles() => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx512::multiply_narrow(rows, panel, epilogue) }
        }
        _ if isa.has_tiles() => {
            scalar::multiply(Tile::of(isa), rows, panel, epilogue.sums);
            epilogue.run();
        }
        Level::Scalar => {
            scalar::multiply(Tile::of(isa), rows, panel, epilogue.sums);
            epilogue.run();
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx2::multiply_words(rows, panel, epilogue) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx2::multiply_vnni(rows, panel, epilogue) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx512::multiply_words(rows, panel, epilogue) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx512::multiply_vnni(rows, panel, epilogue) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { neon::multiply(rows, panel, epilogue) }
        }
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
    match isa.level() {
        Level::Scalar => int4::scalar(rows, count, panel, totals),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx2::multiply_int4(rows, count, panel, totals) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx2::multiply_int4_vnni(rows, count, panel, totals) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx512::multiply_int4(rows, count, panel, totals) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { avx512::multiply_int4_vnni(rows, count, panel, totals) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot => {
            // SAFETY: such an `Isa` exists only where its features were detected.
            unsafe { neon::multiply_int4(rows, count, panel, totals) }
        }
    }
}

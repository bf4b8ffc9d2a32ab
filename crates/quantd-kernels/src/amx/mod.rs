//! The tile unit (AMX): eight registers of 16 rows by 64 bytes, and a product of two of them that is added to a third.
//!
//! [`Unit`] is what a machine has of it; [`Session`] is one thread's use of it. Everything that needs the
//! hardware is the `asm!` of `kernels`; `model` does the same in plain Rust, so that whoever packs, blocks
//! and finishes products for tiles is tested on every machine.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1 chapter 18, vol. 2 (`LDTILECFG`,
//! `TILELOADD`, `TDPBUSD`, `TILESTORED`); Linux `Documentation/arch/x86/xstate.rst`.
#![expect(unsafe_code, reason = "tiles are loaded from and stored to addresses")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod detect;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod kernels;
mod model;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use detect::Amx;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile: as many `k` of the left operand, or four `k` of 16 columns of the right one.
pub(crate) const TILE_BYTES: usize = 64;

/// What multiplies tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The processor.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(Amx),
    /// Plain Rust, for tests.
    Model,
}

/// Where the tiles of a micro-kernel are; distances are in bytes.
///
/// The left operand is packed: a tile is 1 KiB, its rows one after the other. The right one is a panel of 32
/// columns: 16 rows of two tiles side by side for each step of 64 `k`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Operands {
    /// Left tiles: of each step those that are one below the other.
    pub(crate) a: *const u8,
    /// Right tiles.
    pub(crate) b: *const u8,
    /// The panel to the right of it; of [`wide`](Session::wide) only.
    pub(crate) right: *const u8,
    /// Steps of 64 `k`, at least one.
    pub(crate) steps: usize,
    /// Where the sums go, [`SQUARE`] or [`WIDE`] of them, row by row.
    pub(crate) sums: *mut i32,
    /// Whether what is there is added to; else sums begin with 0.
    pub(crate) add: usize,
    /// Called after each step of [`square`](Session::square), when the unit is busy.
    pub(crate) between: unsafe extern "C" fn(*mut u8),
    /// With this.
    pub(crate) with: *mut u8,
}

/// Rows and columns of sums that [`Session::square`] makes.
pub(crate) const SQUARE: [usize; 2] = [2 * TILE_ROWS, 32];
/// Those of [`Session::wide`].
pub(crate) const WIDE: [usize; 2] = [TILE_ROWS, 64];
/// Bytes of a step of a panel.
pub(crate) const PANEL_STEP: usize = 2 * TILE_ROWS * TILE_BYTES;

impl Unit {
    /// That of this machine, if the system lets this process use it.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        return Amx::permitted().map(Self::Amx);
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        return None;
    }

    /// Takes the time of a thread's first use of it, when nobody waits.
    pub(crate) fn prepare(self) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(amx) => {
                let _configured = tiles::Tiles::configure(amx);
                // SAFETY: the tiles are configured.
                unsafe { kernels::touch() };
            }
            Self::Model => {}
        }
    }

    /// Begins to use it on this thread. A thread's first use takes some 20 microseconds.
    pub(crate) fn session(self) -> Session {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(amx) => Session::Amx(tiles::Tiles::configure(amx)),
            Self::Model => Session::Model,
        }
    }
}

/// The tiles of a thread, all of 16 rows by 64 bytes, until it is dropped. Not to be held where the
/// pool may run other work on the thread.
#[derive(Debug)]
pub(crate) enum Session {
    /// Of the processor.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(tiles::Tiles),
    /// Of the model.
    Model,
}

impl Session {
    /// Multiplies 32 rows by 32 columns.
    ///
    /// # Safety
    /// `a` has `steps` times 2 KiB of tiles, `b` `steps` times [`PANEL_STEP`] bytes, `sums` room for [`SQUARE`];
    /// `between` may be called with `with`, and uses no tiles.
    pub(crate) unsafe fn square(&self, operands: &Operands) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: the operands are good for it, and there are `Tiles`, which are configured.
            Self::Amx(_) => unsafe { kernels::square(operands) },
            // SAFETY: the operands are good for it.
            Self::Model => unsafe { model::square(operands) },
        }
    }

    /// Multiplies 16 rows by 64 columns: two panels.
    ///
    /// # Safety
    /// `a` has `steps` times 1 KiB of tiles, `b` and `right` `steps` times [`PANEL_STEP`] bytes, `sums` room
    /// for [`WIDE`].
    pub(crate) unsafe fn wide(&self, operands: &Operands) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: the operands are good for it, and there are `Tiles`, which are configured.
            Self::Amx(_) => unsafe { kernels::wide(operands) },
            // SAFETY: the operands are good for it.
            Self::Model => unsafe { model::wide(operands) },
        }
    }
}

//! The configuration of the tiles of a thread.

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;

use super::Amx;

/// The operand of `ldtilecfg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Config {
    pub(super) palette: u8,
    pub(super) start_row: u8,
    pub(super) reserved: [u8; 14],
    /// Bytes of the rows of each tile; entries 8 to 15 must be 0.
    pub(super) row_bytes: [u16; 16],
    /// Rows of each tile; entries 8 to 15 must be 0.
    pub(super) rows: [u8; 16],
}

impl Config {
    /// All eight tiles of that shape.
    pub(super) const fn uniform(rows: u8, row_bytes: u16) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            (config.rows[tile], config.row_bytes[tile]) = (rows, row_bytes);
            tile += 1;
        }
        config
    }
}

thread_local! {
    /// Guards of this thread.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The tiles of this thread, configured; released when the last guard is dropped.
///
/// Registers and configuration belong to the thread, and the kernel keeps them when it switches: a guard is not
/// `Send`, and is held for a share of a product rather than by a thread that may sleep.
#[derive(Debug)]
pub(crate) struct Tiles(PhantomData<*mut ()>);

impl Tiles {
    pub(super) fn configure(_: Amx) -> Self {
        static FULL: Config = Config::uniform(16, 64);
        if HELD.replace(HELD.get() + 1) == 0 {
            // SAFETY: `Amx` is proof of the instruction and of leave to use it, and the configuration is a legal one.
            unsafe { load(&FULL) };
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
        if HELD.get() == 0 {
            // SAFETY: the guard exists only where the instruction does.
            unsafe {
                asm!("tilerelease", out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                    out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nomem, nostack, preserves_flags));
            }
        }
    }
}

/// Configures the tiles of this thread; all become 0.
///
/// # Safety
/// There is an [`Amx`], and the configuration is a legal one.
pub(super) unsafe fn load(config: &Config) {
    // SAFETY: there is an `Amx`, so that the instruction exists; it reads 64 bytes.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) config, out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(readonly, nostack, preserves_flags));
    }
}

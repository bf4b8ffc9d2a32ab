//! The micro-kernels: all that only a machine with AMX can run.
//!
//! Each is one `asm!` block from the first `tilezero` to the last `tilestored`, so that no tile has to keep its
//! value from one block to another, which the language does not promise. The configuration is that of
//! [`Tiles`](super::tiles::Tiles).
//!
//! What streams past is loaded by `tileloaddt1`, which leaves the first-level cache to what stays: of `square`
//! that is the panel (at 1280 `k` 40 KiB), which all blocks of rows go through, of `wide` the rows.

use std::arch::asm;
use std::mem::offset_of;

use super::Operands;

/// 2 by 2 tiles of sums.
///
/// # Safety
/// As [`Session::square`](super::Session::square), and the tiles of this thread are configured.
pub(super) unsafe fn square(operands: &Operands) {
    // SAFETY: tiles are configured, and the operands are good for all that is loaded and stored: two tiles of
    // each operand a step, four of sums. What is called uses no tiles and keeps to its ABI.
    unsafe {
        asm!(
            "mov rax, [r15 + {sums}]",
            "mov ecx, 128",
            "cmp qword ptr [r15 + {add}], 0",
            "jne 3f",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [rax + rcx]", "tileloadd tmm1, [rax + rcx + 64]",
            "tileloadd tmm2, [rax + rcx + 2048]", "tileloadd tmm3, [rax + rcx + 2048 + 64]",
            "2:",
            "mov ecx, 64", "mov edx, 128",
            "tileloaddt1 tmm4, [r12 + rcx]", "tileloadd tmm6, [r13 + rdx]", "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [r13 + rdx + 64]", "tdpbusd tmm1, tmm4, tmm7",
            "tileloaddt1 tmm5, [r12 + rcx + 1024]", "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "mov rdi, [r15 + {with}]",
            "call [r15 + {between}]",
            "add r12, 2048", "add r13, 2048", "dec r14",
            "jnz 2b",
            "mov rax, [r15 + {sums}]",
            "mov ecx, 128",
            "tilestored [rax + rcx], tmm0", "tilestored [rax + rcx + 64], tmm1",
            "tilestored [rax + rcx + 2048], tmm2", "tilestored [rax + rcx + 2048 + 64], tmm3",
            inout("r12") operands.a => _, inout("r13") operands.b => _, inout("r14") operands.steps => _,
            in("r15") operands,
            sums = const offset_of!(Operands, sums),
            add = const offset_of!(Operands, add),
            between = const offset_of!(Operands, between),
            with = const offset_of!(Operands, with),
            clobber_abi("sysv64"),
        );
    }
}

/// One by four tiles of sums.
///
/// # Safety
/// As [`Session::wide`](super::Session::wide), and the tiles of this thread are configured.
pub(super) unsafe fn wide(operands: &Operands) {
    // SAFETY: tiles are configured, and the operands are good for all that is loaded and stored: one tile of
    // the left operand and two of each panel a step, four of sums.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloaddt1 tmm5, [{b} + {row}]", "tdpbusd tmm0, tmm4, tmm5",
            "tileloaddt1 tmm6, [{b} + {row} + 64]", "tdpbusd tmm1, tmm4, tmm6",
            "tileloaddt1 tmm7, [{right} + {row}]", "tdpbusd tmm2, tmm4, tmm7",
            "tileloaddt1 tmm5, [{right} + {row} + 64]", "tdpbusd tmm3, tmm4, tmm5",
            "add {a}, 1024", "add {b}, 2048", "add {right}, 2048", "dec {steps}",
            "jnz 2b",
            "mov {row:e}, 256",
            "tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + 128], tmm2", "tilestored [{sums} + {row} + 192], tmm3",
            a = inout(reg) operands.a => _,
            b = inout(reg) operands.b => _,
            right = inout(reg) operands.right => _,
            steps = inout(reg) operands.steps => _,
            line = in(reg) 64_usize,
            row = inout(reg) 128_usize => _,
            sums = in(reg) operands.sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Uses a tile.
///
/// # Safety
/// The tiles of this thread are configured.
pub(super) unsafe fn touch() {
    // SAFETY: the tiles are configured.
    unsafe { asm!("tilezero tmm0", out("tmm0") _, options(nomem, nostack, preserves_flags)) };
}

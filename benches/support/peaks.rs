//! The most that the integer units of a core can do: multiplications and
//! additions of registers only, in a loop without memory.
//!
//! An exact sum of products of bytes needs, a step of the loop,
//! * with VNNI one `VPDPBUSD`, 4 products and 4 additions a lane;
//! * without it one `VPMADDWD`, 2 products of words and 1 addition a lane, and
//!   one `VPADDD`. (`VPMADDUBSW` does twice as many products, but saturates
//!   the sum of two at 16 bits.)
//!
//! Twelve sums are independent of one another, which hides the latency of up
//! to 6 cycles on units that take 2 instructions a cycle.
//!
//! With AMX one `TDPBUSD` of full tiles takes 16 cycles however many sums there are. Its operands are random
//! bytes: with zeros it is a fifth faster.
#![expect(unsafe_code, reason = "instructions are written out, so that no compiler leaves any out")]

use std::arch::asm;
use std::arch::x86_64::{__m256i, __m512i, _mm256_set1_epi64x, _mm512_set1_epi64};

use crate::harness::{self, Meter};

/// Steps of a loop between two looks at the clock.
const STEPS: u64 = 10_000;
/// Any bytes.
const OPERAND: i64 = 0x5a17_c3e8_2b90_f46d;

/// GOPS of all threads (a product and an addition are two operations); `None`
/// where the instruction set has no such limit.
pub(super) fn gops(meter: &Meter<'_>) -> Option<f64> {
    // Operations of a step: of 12 sums, of each lane of a sum.
    let (call, operations): (fn(), u64) = match meter.isa.name() {
        // SAFETY: an `Isa` exists only where its instructions were detected, and leave was given to use them.
        "amx" => (|| unsafe { tiles() }, 4 * 16 * 16 * 64 * 2),
        // SAFETY: an `Isa` exists only where its instructions were detected.
        "avx512-vnni" => (|| unsafe { vnni_512() }, 12 * 16 * 8),
        // SAFETY: an `Isa` exists only where its instructions were detected.
        "avx512" => (|| unsafe { words_512() }, 12 * 16 * 4),
        // SAFETY: an `Isa` exists only where its instructions were detected.
        "avx-vnni" => (|| unsafe { vnni_256() }, 12 * 8 * 8),
        // SAFETY: an `Isa` exists only where its instructions were detected.
        "avx2" => (|| unsafe { words_256() }, 12 * 8 * 4),
        _ => return None,
    };
    let rate = meter.rate(|| (), |()| call());
    Some(rate * (STEPS * operations) as f64 / 1e9)
}

/// # Safety
/// There is AMX-INT8, and leave to use it.
unsafe fn tiles() {
    /// Palette 1, and eight tiles of 16 rows by 64 bytes.
    #[repr(align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        (config.0[16 + 2 * tile], config.0[48 + tile]) = (64, 16);
    }
    let operands: Vec<u64> = harness::bits().take(4 * 1024 / 8).collect();
    // SAFETY: there are the instructions; four tiles are read from the operands, 64 bytes from the configuration.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tileloadd tmm4, [{from} + {row}]", "tileloadd tmm5, [{from} + {row} + 1024]",
            "tileloadd tmm6, [{from} + {row} + 2048]", "tileloadd tmm7, [{from} + {row} + 3072]",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6", "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6", "tdpbusd tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &raw const config,
            from = in(reg) operands.as_ptr(),
            row = in(reg) 64_usize,
            steps = inout(reg) STEPS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni_512() {
    let x: __m512i = _mm512_set1_epi64(OPERAND);
    // SAFETY: only registers that are named as operands or lost are written.
    unsafe {
        asm!(
            "2:",
            "vpdpbusd zmm0, {x}, {x}",
            "vpdpbusd zmm1, {x}, {x}",
            "vpdpbusd zmm2, {x}, {x}",
            "vpdpbusd zmm3, {x}, {x}",
            "vpdpbusd zmm4, {x}, {x}",
            "vpdpbusd zmm5, {x}, {x}",
            "vpdpbusd zmm6, {x}, {x}",
            "vpdpbusd zmm7, {x}, {x}",
            "vpdpbusd zmm8, {x}, {x}",
            "vpdpbusd zmm9, {x}, {x}",
            "vpdpbusd zmm10, {x}, {x}",
            "vpdpbusd zmm11, {x}, {x}",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            x = in(zmm_reg) x,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            options(nomem, nostack),
        );
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn vnni_256() {
    let x: __m256i = _mm256_set1_epi64x(OPERAND);
    // SAFETY: only registers that are named as operands or lost are written.
    unsafe {
        asm!(
            "2:",
            "{{vex}} vpdpbusd ymm0, {x}, {x}",
            "{{vex}} vpdpbusd ymm1, {x}, {x}",
            "{{vex}} vpdpbusd ymm2, {x}, {x}",
            "{{vex}} vpdpbusd ymm3, {x}, {x}",
            "{{vex}} vpdpbusd ymm4, {x}, {x}",
            "{{vex}} vpdpbusd ymm5, {x}, {x}",
            "{{vex}} vpdpbusd ymm6, {x}, {x}",
            "{{vex}} vpdpbusd ymm7, {x}, {x}",
            "{{vex}} vpdpbusd ymm8, {x}, {x}",
            "{{vex}} vpdpbusd ymm9, {x}, {x}",
            "{{vex}} vpdpbusd ymm10, {x}, {x}",
            "{{vex}} vpdpbusd ymm11, {x}, {x}",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            x = in(ymm_reg) x,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            options(nomem, nostack),
        );
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn words_512() {
    let x: __m512i = _mm512_set1_epi64(OPERAND);
    // SAFETY: only registers that are named as operands or lost are written.
    unsafe {
        asm!(
            "2:",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm0, zmm0, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm1, zmm1, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm2, zmm2, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm3, zmm3, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm4, zmm4, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm5, zmm5, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm6, zmm6, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm7, zmm7, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm8, zmm8, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm9, zmm9, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm10, zmm10, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd zmm11, zmm11, {p}",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            x = in(zmm_reg) x,
            p = out(zmm_reg) _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            options(nomem, nostack),
        );
    }
}

#[target_feature(enable = "avx2")]
fn words_256() {
    let x: __m256i = _mm256_set1_epi64x(OPERAND);
    // SAFETY: only registers that are named as operands or lost are written.
    unsafe {
        asm!(
            "2:",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm0, ymm0, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm1, ymm1, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm2, ymm2, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm3, ymm3, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm4, ymm4, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm5, ymm5, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm6, ymm6, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm7, ymm7, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm8, ymm8, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm9, ymm9, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm10, ymm10, {p}",
            "vpmaddwd {p}, {x}, {x}",
            "vpaddd ymm11, ymm11, {p}",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            x = in(ymm_reg) x,
            p = out(ymm_reg) _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            options(nomem, nostack),
        );
    }
}

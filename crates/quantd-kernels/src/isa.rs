//! Instruction sets: which ones the machine has.
//!
//! An [`Isa`] can only be had for a machine that has its instructions, so
//! that a function that takes one needs no further check. Loops that the
//! compiler vectorizes by itself are written once, as an [`Op`], and compiled
//! once for each instruction set by [`Isa::run`]; what needs intrinsics
//! dispatches on [`Isa::level`].
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "functions with target features are called after their detection"
    )
)]

use super::amx::Unit;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
use super::simd::VectorOp;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa {
    level: Level,
    /// What multiplies tiles, beside the registers of the level.
    unit: Option<Unit>,
}

/// The name of AVX-512 with VNNI and tiles (Sapphire Rapids on).
const AMX: &str = "amx";

/// What an [`Isa`] stands for. Levels of one architecture are in ascending
/// order; each has all that those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// What every machine of the target has: SSE2, or NEON without dot products.
    Scalar,
    /// AVX2, FMA, F16C and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 and the 256-bit VNNI of client processors.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL (Skylake-X on); a machine without AVX-VNNI may have it.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 and its VNNI (Cascade Lake, Zen 4 on).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// NEON and the dot products of `ARMv8.2`.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Level {
    #[cfg(target_arch = "x86_64")]
    const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Vnni];
    #[cfg(target_arch = "aarch64")]
    const ALL: &[Self] = &[Self::Scalar, Self::NeonDot];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const ALL: &[Self] = &[Self::Scalar];

    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match self {
            Self::Scalar => true,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => avx512,
            Self::Avx512Vnni => avx512 && is_x86_feature_detected!("avx512vnni"),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_detected(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_detected(self) -> bool {
        true
    }
}

/// A loop over slices that the compiler vectorizes. `run` and all that it
/// calls must be `#[inline(always)]`, or they are compiled for the baseline.
pub(super) trait Op {
    /// What the loop gives.
    type Output;
    /// The loop.
    fn run(self) -> Self::Output;
}

impl Isa {
    const fn of(level: Level) -> Self {
        Self { level, unit: None }
    }

    /// Every instruction set of this machine, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let levels = Level::ALL.iter().copied().filter(|level| level.is_detected());
        levels.map(Self::of).chain(Self::tiled())
    }

    /// The last level with the tile unit beside it, if this machine has both.
    fn tiled() -> Option<Self> {
        let level = Level::ALL.last().copied().filter(|level| level.is_detected())?;
        Some(Self { level, unit: Some(Unit::detect()?) })
    }

    /// Names of every instruction set of the architecture, on this machine or not.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let levels = Level::ALL.iter().map(|&level| Self::of(level).name());
        levels.chain(cfg!(target_arch = "x86_64").then_some(AMX))
    }

    /// The same with a model of the tile unit in place of one, slow and for tests alone.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_tile_model(self) -> Self {
        Self { level: self.level, unit: Some(Unit::Model) }
    }

    /// Whether products run on a tile unit.
    #[must_use]
    pub const fn has_tiles(self) -> bool {
        self.unit.is_some()
    }

    /// To be called on threads that will multiply, where their first use of some unit takes long.
    pub fn prepare_thread(self) {
        if let Some(unit) = self.unit {
            unit.prepare();
        }
    }

    /// What multiplies tiles.
    pub(super) const fn unit(self) -> Option<Unit> {
        self.unit
    }

    /// The same without its tile unit.
    pub(super) const fn registers(self) -> Self {
        Self::of(self.level)
    }

    /// The one with that name, if this machine has it.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().find(|isa| isa.name() == name)
    }

    /// The fastest one.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::of(Level::Scalar))
    }

    /// Name in flags and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.unit {
            None => {}
            Some(Unit::Model) => return "amx-model",
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Some(Unit::Amx(_)) => return AMX,
        }
        match self.level {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => "neon-dot",
        }
    }

    /// Runs a loop over registers; none where the level has no kernels but the loops of `scalar`.
    #[inline]
    pub(super) fn vectorize<O: VectorOp>(self, op: O) -> Option<O::Output> {
        match self.level {
            Level::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                // SAFETY: such an `Isa` exists only where AVX2, FMA, F16C and POPCNT were detected.
                Some(unsafe { vectorize_avx2(op) })
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni => {
                // SAFETY: such an `Isa` exists only where these and AVX-512 F, BW, DQ and VL were detected.
                Some(unsafe { vectorize_avx512(op) })
            }
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => Some(op.run(Neon::new())),
        }
    }

    /// What to dispatch on.
    pub(super) const fn level(self) -> Level {
        self.level
    }

    /// Runs a loop compiled for this instruction set.
    #[inline]
    pub(super) fn run<O: Op>(self, op: O) -> O::Output {
        match self.level {
            Level::Scalar => op.run(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                // SAFETY: such an `Isa` exists only where AVX2, FMA and F16C were detected.
                unsafe { with_avx2(op) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni => {
                // SAFETY: such an `Isa` exists only where AVX-512 F, BW, DQ and VL were detected.
                unsafe { with_avx512(op) }
            }
            // NEON is part of the target; its dot products make no difference here.
            #[cfg(target_arch = "aarch64")]
            Level::NeonDot => op.run(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_avx2<O: Op>(op: O) -> O::Output {
    op.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<O: Op>(op: O) -> O::Output {
    op.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn vectorize_avx2<O: VectorOp>(op: O) -> O::Output {
    op.run(Avx2::new())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn vectorize_avx512<O: VectorOp>(op: O) -> O::Output {
    op.run(Avx512::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert_eq!(Isa::available().next().map(Isa::name), Some("scalar"));
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::by_name("mmx"), None);
        assert!(Isa::names().any(|name| name == Isa::best().name()));
    }
}

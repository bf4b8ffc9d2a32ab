//! Instruction sets: which ones the machine has.
//!
//! An [`Isa`] can only be had for a machine that has its instructions, so
//! that a function that takes one needs no further check. Loops that the
//! compiler vectorizes by itself are written once, as an [`Op`], and compiled
//! once for each instruction set by [`Isa::run`]; what needs registers is a [`VectorOp`] or a
//! [`ProductOp`].
#![cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(
        unsafe_code,
        reason = "functions with target features are called after their detection"
    )
)]

use super::amx::Unit;
use super::simd::{self, Dot, Lanes, ProductOp, Simd, VectorOp};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa {
    level: Level,
    /// What multiplies tiles, beside the registers of the level.
    unit: Option<Unit>,
}

/// The name of AVX-512 with VNNI and tiles (Sapphire Rapids on).
const AMX: &str = "amx";

/// The levels of an architecture, in ascending order: each has all that those before it have. Of each: its
/// name, its registers, how they multiply bytes, and the features that both take.
macro_rules! levels {
    ($($(#[$doc:meta])* $level:ident, $name:literal, $module:ident::$simd:ident, $dot:ident,
       $detected:ident[$($feature:tt)*];)*) => {
        /// What an [`Isa`] stands for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Level {
            /// What every machine of the target has.
            Scalar,
            $($(#[$doc])* $level,)*
        }

        impl Level {
            const ALL: &[Self] = &[Self::Scalar, $(Self::$level),*];

            const fn name(self) -> &'static str {
                match self {
                    Self::Scalar => "scalar",
                    $(Self::$level => $name,)*
                }
            }

            fn is_detected(self) -> bool {
                match self {
                    Self::Scalar => true,
                    $(Self::$level => true $(&& std::arch::$detected!($feature))*,)*
                }
            }
        }

        impl Isa {
            /// Runs a loop that the compiler vectorizes, compiled for this instruction set.
            #[inline]
            pub(super) fn run<O: Op>(self, op: O) -> O::Output {
                match self.level {
                    Level::Scalar => op.run(),
                    $(Level::$level => {
                        // SAFETY: such an `Isa` exists only where its features were detected.
                        unsafe { simd::$module::run(op) }
                    })*
                }
            }

            /// Runs a loop over registers; none where the level has no kernels but the loops of `scalar`.
            #[inline]
            pub(super) fn vectorize<O: VectorOp>(self, op: O) -> Option<O::Output> {
                match self.level {
                    Level::Scalar => None,
                    $(Level::$level => {
                        // SAFETY: such an `Isa` exists only where its features were detected.
                        Some(unsafe { simd::$module::vectorize(op) })
                    })*
                }
            }

            /// Runs a loop over products; none where the level has no other loop than the definition.
            #[inline]
            pub(super) fn multiply<O: ProductOp>(self, op: O) -> Option<O::Output> {
                match self.level {
                    Level::Scalar => None,
                    $(Level::$level => {
                        #[target_feature($(enable = $feature),*)]
                        fn multiply<O: ProductOp>(op: O) -> O::Output {
                            op.run(simd::$dot::new(simd::$module::$simd::new()))
                        }
                        // SAFETY: such an `Isa` exists only where its features were detected.
                        Some(unsafe { multiply(op) })
                    })*
                }
            }

            /// The registers that products are made on, if the level has any.
            pub(super) const fn products(self) -> Option<Products> {
                match self.level {
                    Level::Scalar => None,
                    $(Level::$level => Some(Products::of::<simd::$dot>()),)*
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
levels! {
    /// AVX2, FMA, F16C and POPCNT.
    Avx2, "avx2", avx2::Avx2, Avx2Words,
        is_x86_feature_detected["avx2" "fma" "f16c" "popcnt"];
    /// AVX2 and the 256-bit VNNI of client processors.
    AvxVnni, "avx-vnni", avx2::Avx2, AvxVnni,
        is_x86_feature_detected["avx2" "fma" "f16c" "popcnt" "avxvnni"];
    /// AVX-512 F, BW, DQ and VL (Skylake-X on); a machine without AVX-VNNI may have it.
    Avx512, "avx512", avx512::Avx512, Avx512Words,
        is_x86_feature_detected["avx2" "fma" "f16c" "popcnt" "avx512f" "avx512bw" "avx512dq" "avx512vl"];
    /// AVX-512 and its VNNI (Cascade Lake, Zen 4 on).
    Avx512Vnni, "avx512-vnni", avx512::Avx512, Avx512Vnni,
        is_x86_feature_detected[
            "avx2" "fma" "f16c" "popcnt" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni"
        ];
}

#[cfg(target_arch = "aarch64")]
levels! {
    /// NEON and the dot products of `ARMv8.2`.
    NeonDot, "neon-dot", neon::Neon, NeonDot, is_aarch64_feature_detected["neon" "dotprod"];
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
levels! {}

/// Registers that products are made on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products {
    /// What the four bytes of a lane are.
    pub(super) lanes: Lanes,
    /// 32-bit lanes of a register.
    pub(super) width: usize,
    /// How many registers there are.
    pub(super) registers: usize,
}

impl Products {
    const fn of<D: Dot>() -> Self {
        Self { lanes: D::LANES, width: D::Simd::LANES, registers: D::Simd::REGISTERS }
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
        let levels = Level::ALL.iter().map(|level| level.name());
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
        self.level.name()
    }
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

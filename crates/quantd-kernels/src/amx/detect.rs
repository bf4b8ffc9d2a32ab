//! Whether this process may use tiles: what the processor says, and leave from the kernel.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Proof that the processor has AMX-INT8, and that the kernel lets this process use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amx(());

/// What detection asks.
trait Machine {
    /// EAX, EBX, ECX and EDX of a leaf of `CPUID`.
    fn leaf(&self, leaf: u32, sub: u32) -> [u32; 4];
    /// The states that the system saves: XCR0.
    fn saved_states(&self) -> u64;
    /// Asks for leave to use the data of tiles: 0, or an error of the system.
    fn request(&self) -> isize;
}

impl Amx {
    /// Looks once, and asks the kernel once. Leave is given to the process: threads that are there have it, and
    /// later ones inherit it. Whatever the reason of a refusal (an old kernel, a filter of system calls,
    /// a thread with a signal stack that is too small), there are no tiles then, and no error.
    pub(crate) fn permitted() -> Option<Self> {
        static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
        *FOUND.get_or_init(|| Self::of(&Processor))
    }

    fn of(machine: &impl Machine) -> Option<Self> {
        (has_tiles(machine) && machine.request() == 0).then_some(Self(()))
    }
}

/// Whether the processor multiplies tiles of 16 rows by 64 bytes, eight of them, and the system saves them.
fn has_tiles(machine: &impl Machine) -> bool {
    /// XTILECFG and XTILEDATA.
    const STATES: u64 = 0b11 << 17;
    let bit = |register: u32, bit: u32| register >> bit & 1 == 1;
    let [last, ..] = machine.leaf(0, 0);
    if last < 0x1E {
        return false;
    }
    let [.., basic, _] = machine.leaf(1, 0);
    let [.., extended] = machine.leaf(7, 0);
    let (osxsave, tile, int8) = (bit(basic, 27), bit(extended, 24), bit(extended, 25));
    if !(osxsave && tile && int8) {
        return false;
    }
    let [sizes, rows_and_names, most_rows, _] = machine.leaf(0x1D, 1);
    let palette = [sizes >> 16, rows_and_names >> 16, rows_and_names & 0xFFFF, most_rows & 0xFFFF];
    let [_, unit, ..] = machine.leaf(0x1E, 0);
    let fits = palette == [1024, 8, 64, 16] && unit & 0xFF >= 16 && unit >> 8 & 0xFFFF >= 64;
    fits && machine.saved_states() & STATES == STATES
}

struct Processor;

impl Machine for Processor {
    fn leaf(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let found = __cpuid_count(leaf, sub);
        [found.eax, found.ebx, found.ecx, found.edx]
    }

    fn saved_states(&self) -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: asked only once CPUID has said OSXSAVE, so that the instruction exists.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
                options(nomem, nostack, preserves_flags));
        }
        u64::from(high) << 32 | u64::from(low)
    }

    fn request(&self) -> isize {
        const ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const XTILEDATA: usize = 18;
        let result;
        // SAFETY: the call changes nothing but what this process may do, and no memory.
        unsafe {
            asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XTILEDATA, out("rcx") _, out("r11") _, options(nostack));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sapphire Rapids, with one thing of it changed.
    struct Stub {
        last: u32,
        osxsave: bool,
        features: u32,
        tile: [u32; 3],
        unit: u32,
        states: u64,
        answer: isize,
    }

    const REAL: Stub = Stub {
        last: 0x20,
        osxsave: true,
        features: 0b11 << 24,
        tile: [1024 << 16 | 8192, 8 << 16 | 64, 16],
        unit: 64 << 8 | 16,
        states: 0x602e7,
        answer: 0,
    };

    impl Machine for Stub {
        fn leaf(&self, leaf: u32, sub: u32) -> [u32; 4] {
            match (leaf, sub) {
                (0, 0) => [self.last, 0, 0, 0],
                (1, 0) => [0, 0, u32::from(self.osxsave) << 27, 0],
                (7, 0) => [0, 0, 0, self.features],
                (0x1D, 1) => [self.tile[0], self.tile[1], self.tile[2], 0],
                (0x1E, 0) => [0, self.unit, 0, 0],
                _ => unreachable!("nobody asks for leaf {leaf:#x}"),
            }
        }

        fn saved_states(&self) -> u64 {
            assert!(self.osxsave, "there is no XGETBV");
            self.states
        }

        fn request(&self) -> isize {
            assert!(self.states & 0x60000 == 0x60000, "there is nothing to ask for");
            self.answer
        }
    }

    #[test]
    fn tiles_are_used_where_all_that_they_need_is_there() {
        assert!(Amx::of(&REAL).is_some());
        // EPERM of a filter, EINVAL of a kernel before 5.16, ENOSPC where a thread has a signal stack that is too small.
        for answer in [-1, -22, -28, -38] {
            assert!(Amx::of(&Stub { answer, ..REAL }).is_none());
        }
        for missing in [
            Stub { last: 0x1D, ..REAL },
            Stub { osxsave: false, ..REAL },
            Stub { features: 1 << 24, ..REAL },
            Stub { features: 1 << 25, ..REAL },
            Stub { tile: [2048 << 16, 8 << 16 | 64, 16], ..REAL },
            Stub { tile: [1024 << 16, 8 << 16 | 64, 8], ..REAL },
            Stub { unit: 32 << 8 | 16, ..REAL },
            Stub { states: 0x202e7, ..REAL },
        ] {
            assert!(Amx::of(&missing).is_none());
        }
    }

    #[test]
    fn this_machine_answers_the_same_again() {
        assert_eq!(Amx::permitted(), Amx::permitted());
        assert!(Amx::permitted().is_none() || has_tiles(&Processor));
    }
}

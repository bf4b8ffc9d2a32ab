//! What the machine can do at most, measured beside what is compared with it.

#[cfg(target_arch = "x86_64")]
#[path = "memory.rs"]
mod memory;
#[cfg(target_arch = "x86_64")]
#[path = "peaks.rs"]
mod peaks;

use crate::harness::Meter;

/// The work that a limit is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Products of codes, each with its addition.
    pub(crate) products: usize,
    /// Real numbers (or four bytes of anything) that are passed over.
    pub(crate) numbers: usize,
}

/// Seconds that the work takes at least: `limit-peak` by the multipliers, all
/// others by memory.
///
/// # Errors
/// When this machine, or the program, has no such limit.
#[cfg(target_arch = "x86_64")]
pub(crate) fn seconds(limit: &str, work: Work, meter: &Meter<'_>) -> Result<f64, String> {
    if limit == "limit-peak" {
        let gops = peaks::gops(meter).ok_or("no peak is known of this instruction set")?;
        return Ok(2e-9 * work.products as f64 / gops);
    }
    memory::seconds(limit, work.numbers, meter)
}

/// As above; such limits are only known of x86-64.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn seconds(limit: &str, work: Work, meter: &Meter<'_>) -> Result<f64, String> {
    let Work { products, numbers } = work;
    let isa = meter.isa.name();
    Err(format!("no {limit} of {products} products and {numbers} numbers is known for {isa}"))
}

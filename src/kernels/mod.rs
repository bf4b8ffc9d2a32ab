//! Loops over numbers: quantize, dequantize, measure, extent.
//!
//! This module sees slices and numbers only. [`scalar`] defines every
//! operation; a faster implementation must equal it bit for bit.

pub mod real;
pub mod scalar;
pub mod sums;

#[cfg(test)]
mod tests;

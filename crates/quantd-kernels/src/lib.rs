//! Loops over numbers: quantize, dequantize, measure, extent.
//!
//! This module sees slices and numbers only. [`scalar`] defines every
//! operation; a faster implementation must equal it bit for bit.

mod buffer;
mod cache;
mod convert;
pub mod crew;
mod elementwise;
pub mod gemm;
pub mod heap;
pub mod histogram;
mod isa;
pub mod moments;

pub mod real;
pub mod rough;
pub mod scalar;
pub mod select;
mod smooth;
pub mod stock;
pub mod sums;
pub mod table;

pub use buffer::Buffer;
pub use convert::ToF32;
pub use elementwise::{How, Stores};
pub use isa::Isa;

#[cfg(test)]
mod tests;

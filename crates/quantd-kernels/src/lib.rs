//! Loops over numbers: quantize, dequantize, measure, extent, multiply.
//!
//! This crate sees slices and numbers only. [`scalar`] defines every
//! operation; a faster implementation must equal it bit for bit. Which one
//! runs is said by a value, an [`Isa`], that can only be had for a machine
//! that has its instructions.
//!
//! ```
//! use quantd_kernels::Isa;
//!
//! for isa in Isa::available() {
//!     let extent = isa.extent(&[0.5_f32, -2.0, f32::NAN, 3.0]);
//!     assert_eq!((extent.min, extent.max, extent.nan), (-2.0, 3.0, 1), "{}", isa.name());
//! }
//! ```

mod amx;
mod buffer;
mod buffer_pool;
mod cache;
mod convert;
pub mod eighths;
mod elementwise;
mod filling;
mod fork_join;
pub mod gemm;
pub mod heap;
pub mod histogram;
mod isa;
pub mod minifloat;
pub mod moments;
pub mod real;
pub mod rough;
pub mod scalar;
pub mod select;
mod simd;
mod smooth;
pub mod sums;
pub mod table;

pub use buffer::Buffer;
pub use buffer_pool::BufferPool;
pub use convert::ToF32;
pub use elementwise::{CodeSpec, Stores};
pub use filling::{Filling, Written};
pub use fork_join::{WorkSlots, fork_join};
pub use isa::Isa;

#[cfg(test)]
mod tests;

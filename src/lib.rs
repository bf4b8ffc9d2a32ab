//! quantd: quantization of neural-network tensors as a service.

pub mod api;
pub mod codec;
pub mod kernels;
pub mod quant;
pub mod tensor;

//! Quantization: schemes, ranges, codes and what they lose.
//!
//! A pure function of tensor and scheme: no bytes of any format, no clock, no
//! threads of its own (it uses the rayon pool it is called in), and the same
//! result for any number of them. Work that may be long takes a [`Task`].
//!
//! ```
//! use quantd_core::format::{CODES, Coded};
//! use quantd_core::scheme::{GranularityName, Options};
//! use quantd_core::tensor::{DType, Shape, Tensor};
//! use quantd_core::{QuantError, Task};
//! use quantd_kernels::Isa;
//!
//! // What is not said is as in the preset int8: symmetric codes from -127 to 127.
//! let options = Options { granularity: Some(GranularityName::Channel), ..Options::default() };
//! let scheme = options.resolve()?;
//! let shape = Shape::new(vec![2, 2]).expect("a small shape");
//! let x = Tensor::from_elements(DType::F32, shape, &[1.27_f32, -0.5, 2.54, 0.021]).expect("4 numbers");
//! let task = Task::new(Isa::best());
//!
//! let quantized = scheme.quantize(&x, false, &task)?;
//! let part = |name| quantized.parts.get(name).expect("a part of integers");
//! assert_eq!(*part(CODES).elements::<i8>(), [127, -50, 127, 1]);
//! assert_eq!(*part("scale").elements::<f32>(), [0.01, 0.02]);
//! assert!(quantized.report.sqnr_db.is_some_and(|db| db > 60.0));
//!
//! let restored = Coded { parts: quantized.parts, shape: None, options }.dequantize(DType::F32, &task)?;
//! assert_eq!(*restored.elements::<f32>(), [1.27, -0.5, 2.54, 0.02]);
//! # Ok::<(), QuantError>(())
//! ```

#![forbid(unsafe_code)]

pub mod calibrate;
pub mod compare;
pub mod cost;
mod error;
mod extent;
pub mod format;
mod gather;
pub mod inspect;
pub mod layer;
pub mod matmul;
pub mod params;
pub mod partition;
pub mod range;
pub mod report;
pub mod scheme;
mod source;
mod task;
pub mod tensor;
pub mod transpose;
pub mod walk;
pub mod word;

use rayon::prelude::*;

use quantd_kernels::real::Real;

use partition::Partition;

pub use error::{ErrorKind, QuantError};
pub use task::Task;

/// Statistics of every slice of a partition, in the order of the slices.
#[must_use]
pub fn inspect_slices<T: Real>(
    x: &[T],
    partition: &Partition,
    options: &inspect::Options,
    task: &Task,
) -> Vec<inspect::Statistics> {
    (0..partition.slices())
        .into_par_iter()
        .map(|slice| inspect::inspect(&gather::slice(x, partition, slice), options, task))
        .collect()
}

#[cfg(test)]
mod tests;

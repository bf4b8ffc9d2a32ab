//! Quantization: schemes, ranges, codes and what they lose.
//!
//! A pure function of tensor and scheme: no bytes of any format, no clock, no
//! threads of its own (it uses the rayon pool it is called in), and the same
//! result for any number of them. Work that may be long takes a [`Task`].
//!
//! ```
//! use quantd_core::codes::Stated;
//! use quantd_core::dequantize::{Codes, dequantize};
//! use quantd_core::params::{Numerics, Profile};
//! use quantd_core::quantize::quantize;
//! use quantd_core::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};
//! use quantd_core::tensor::{DType, Shape, Tensor};
//! use quantd_core::{QuantError, Task};
//! use quantd_kernels::Isa;
//!
//! let int8 = Numerics {
//!     profile: Profile::Onnx,
//!     bits: 8,
//!     signed: true,
//!     symmetric: true,
//!     restricted: true,
//! };
//! let scheme = Scheme {
//!     numerics: int8,
//!     granularity: Granularity::Channel { axis: 0 },
//!     range: RangeMethod::MinMax,
//!     nan: NanPolicy::Refuse,
//!     packed: false,
//! };
//! let shape = Shape::new(vec![2, 2]).expect("a small shape");
//! let x = Tensor::from_elements(DType::F32, shape, &[1.27_f32, -0.5, 2.54, 0.021]).expect("4 numbers");
//! let task = Task::new(Isa::best());
//!
//! let quantized = quantize(&x, &scheme, false, &task)?;
//! let parts = &quantized.encoded;
//! assert_eq!(*parts.codes.elements::<i8>(), [127, -50, 127, 1]);
//! assert_eq!(*parts.scale.elements::<f32>(), [0.01, 0.02]);
//! assert!(quantized.report.sqnr_db.is_some_and(|db| db > 60.0));
//!
//! let restored = dequantize(
//!     &Codes {
//!         codes: &parts.codes,
//!         scale: &parts.scale,
//!         zero_point: None,
//!         granularity: scheme.granularity,
//!         stated: Stated::default(),
//!     },
//!     DType::F32,
//!     &task,
//! )?;
//! assert_eq!(*restored.elements::<f32>(), [1.27, -0.5, 2.54, 0.02]);
//! # Ok::<(), QuantError>(())
//! ```

#![forbid(unsafe_code)]

pub mod calibrate;
pub mod codes;
pub mod compare;
pub mod cost;
pub mod dequantize;
mod error;
mod extent;
mod gather;
pub mod inspect;
pub mod layer;
pub mod layout;
pub mod matmul;
pub mod params;
pub mod quantize;
pub mod range;
pub mod report;
pub mod scheme;
mod source;
mod task;
pub mod tensor;
pub mod transpose;
pub mod walk;

use rayon::prelude::*;

use quantd_kernels::real::Real;

use layout::Layout;

pub use error::{ErrorKind, QuantError};
pub use task::Task;

/// Statistics of every slice of a layout, in the order of the slices.
#[must_use]
pub fn inspect_slices<T: Real>(
    x: &[T],
    layout: &Layout,
    options: &inspect::Options,
    task: &Task,
) -> Vec<inspect::Statistics> {
    (0..layout.slices())
        .into_par_iter()
        .map(|slice| inspect::inspect(&gather::slice(x, layout, slice), options, task))
        .collect()
}

#[cfg(test)]
mod tests;

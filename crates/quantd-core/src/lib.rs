//! Quantization: schemes, ranges, codes and what they lose.
//!
//! A pure function of tensor and scheme: no bytes of any format, no clock, no
//! threads of its own (it uses the rayon pool it is called in), and the same
//! result for any number of them.

#![forbid(unsafe_code)]

pub mod calibrate;
pub mod codes;
pub mod compare;
pub mod cost;
pub mod dequantize;
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

use std::borrow::Cow;
use std::fmt;

use rayon::prelude::*;

use quantd_kernels::real::Real;

use layout::Layout;

pub use task::Task;

/// A tensor that a scheme does not fit, or one that cannot be quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantError {
    /// The scheme field (or `data`) at fault.
    pub field: &'static str,
    /// What is wrong, lower case, no full stop.
    pub detail: Cow<'static, str>,
    /// What to send instead; empty when the detail says it.
    pub cure: Cow<'static, str>,
}

impl QuantError {
    /// An error about one field.
    #[must_use]
    pub fn field(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field, detail: detail.into(), cure: Cow::Borrowed("") }
    }

    /// The same error with a cure.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<Cow<'static, str>>) -> Self {
        self.cure = cure.into();
        self
    }
}

impl fmt::Display for QuantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}

impl std::error::Error for QuantError {}

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

//! Inference requests and answers of the Open Inference Protocol v2 (KServe,
//! Triton): a JSON header and, behind it, the elements of those tensors that
//! say so (the binary tensor data extension).
//!
//! The header is split and read field by field, like every other document of
//! strangers: sizes are compared with shapes and with the bytes that are there
//! before a tensor becomes a view of the body.

mod read;
#[cfg(test)]
mod tests;
mod write;

use serde_json::{Map, Value};

use quantd_core::tensor::{DType, Tensor};

pub use read::{raw, read};
pub use write::{Head, Output, write};

/// Longest name of a tensor.
const MAX_NAME: usize = 128;

/// A tensor of a request.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its elements: a view of the body, or read from JSON.
    pub tensor: Tensor,
    /// Whether the elements are a view of the body.
    pub is_view: bool,
    /// What else was said of it: strings, numbers and booleans by name.
    pub parameters: Map<String, Value>,
}

/// An output that the caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Whether it is to be binary; left to the request when `None`.
    pub binary: Option<bool>,
}

/// A request, split.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// To be repeated in the answer.
    pub id: Option<String>,
    /// Options: strings, numbers and booleans by name.
    pub parameters: Map<String, Value>,
    /// The tensors, in their order, no name twice.
    pub inputs: Vec<Input>,
    /// The outputs asked for, no name twice; all when empty.
    pub outputs: Vec<Wanted>,
}

/// The protocol's name of an element type; for floats of eight bits it has but that of their bit patterns.
#[must_use]
pub const fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "FP64",
        DType::F32 => "FP32",
        DType::F16 => "FP16",
        DType::BF16 => "BF16",
        DType::I64 => "INT64",
        DType::I32 => "INT32",
        DType::I16 => "INT16",
        DType::I8 => "INT8",
        DType::U64 => "UINT64",
        DType::U32 => "UINT32",
        DType::U16 => "UINT16",
        DType::U8 => "UINT8",
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            "UINT8"
        }
    }
}

/// The protocol's names of element types, each once.
pub fn datatypes() -> impl Iterator<Item = &'static str> {
    DType::ALL.into_iter().filter(|dtype| !dtype.is_eighth()).map(datatype)
}

/// Whether the protocol lets elements of that type travel as JSON numbers.
const fn has_json(dtype: DType) -> bool {
    !matches!(dtype, DType::F16 | DType::BF16)
}

//! Bytes of strangers to tensors and back.
//!
//! Everything here is synchronous, knows neither HTTP nor quantization, and
//! treats its input as hostile: a length that the input declares is compared
//! with the bytes that are there, and with [`Limits`], before anything is
//! allocated by it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use quantd_codec::{CodecError, Limits, npy};
//! use quantd_core::tensor::{Buffer, DType, Shape};
//!
//! let mut file = npy::header(DType::F32, &Shape::vector(2).expect("a small shape"));
//! file.extend([1.5_f32, -2.0].into_iter().flat_map(f32::to_le_bytes));
//!
//! let limits = Limits::default();
//! let read = |file: &[u8]| {
//!     // Asked for what a copy in another order needs; a server would ask its budget.
//!     let mut room = |_bytes: usize| Ok(());
//!     npy::read(Arc::new(Buffer::copy_of(file)), (&limits, &mut room))
//! };
//! assert_eq!(*read(&file)?.elements::<f32>(), [1.5, -2.0]);
//! // The header says more than there is.
//! assert!(read(&file[..file.len() - 1]).is_err());
//! # Ok::<(), CodecError>(())
//! ```
//!
//! Sums, indices and unwrapping are denied below: what hostile bytes can reach
//! must be checked arithmetic, `get`, or a stated proof.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod encoding;
pub mod json;
pub mod multipart;
pub mod names;
pub mod npy;
pub mod oip;
pub mod safetensors;
pub mod sniff;

use std::borrow::Cow;
use std::fmt;

use quantd_core::tensor::Shape;

/// Bounds on what one document may hold; configuration, passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one decoded document.
    pub max_bytes: usize,
    /// Tensors in one document.
    pub max_tensors: usize,
    /// Elements of one tensor.
    pub max_elements: usize,
    /// Bytes of a safetensors header.
    pub max_header_bytes: usize,
}

/// What a reader must stay within: limits, and who is asked for room.
pub type Within<'a> = (&'a Limits, json::Room<'a>);

impl Limits {
    /// Refuses a shape of too many elements. A dimension of 0 hides none of the others: nothing that is kept for
    /// each row, column or slice of a tensor is longer than this allows.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub fn check(&self, shape: &Shape) -> Result<(), CodecError> {
        let max = self.max_elements;
        if shape.span() <= max {
            return Ok(());
        }
        let detail = if shape.is_empty() {
            format!("the dimensions other than 0 multiply to more than {max}")
        } else {
            format!("the tensor has more than {max} elements")
        };
        Err(CodecError::too_large(detail).cure("split the tensor"))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            max_tensors: 4096,
            max_elements: 1 << 30,
            max_header_bytes: 16 << 20,
        }
    }
}

/// What the caller can do about a [`CodecError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The bytes are not what their format says.
    Malformed,
    /// Well-formed, but of a kind that is not read here.
    Unsupported,
    /// Above a configured limit.
    TooLarge,
    /// Within the limits, but there is no room for it at the moment.
    NoRoom,
    /// Whoever gives room wants no more of it.
    Stopped,
}

/// A document that was not read: what is wrong, where, and what to do.
///
/// No text quotes the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError {
    /// Kind of failure.
    pub reason: Reason,
    /// Field (JSON pointer, header key, tensor name) or byte offset at fault.
    pub at: Option<String>,
    /// What is wrong, lower case, no full stop.
    pub detail: Cow<'static, str>,
    /// What to send instead; empty when the detail says it.
    pub cure: Cow<'static, str>,
}

impl CodecError {
    /// An error of that reason with no place and no cure yet.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, at: None, detail: detail.into(), cure: Cow::Borrowed("") }
    }

    /// [`Reason::Malformed`].
    #[must_use]
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Malformed, detail)
    }

    /// [`Reason::Unsupported`].
    #[must_use]
    pub fn unsupported(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Unsupported, detail)
    }

    /// [`Reason::TooLarge`].
    #[must_use]
    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::TooLarge, detail)
    }

    /// The same error at a named place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// The same error at a byte offset of the document.
    #[must_use]
    pub fn at_offset(self, offset: usize) -> Self {
        self.at(format!("byte {offset}"))
    }

    /// The same error with a cure.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<Cow<'static, str>>) -> Self {
        self.cure = cure.into();
        self
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for CodecError {}

//! Tensors of every type that a file may hold, also of those that nothing is computed with.

use std::sync::Arc;

use crate::CodecError;
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

/// A tensor of a file.
#[derive(Clone, Debug)]
pub enum AnyTensor {
    /// Of a type that is computed with.
    Known(Tensor),
    /// Of another one.
    Opaque(Opaque),
}

/// A view of elements whose type is known by name and size alone.
#[derive(Clone, Debug)]
pub struct Opaque {
    dtype: String,
    shape: Shape,
    buffer: Arc<Buffer>,
    offset: usize,
    byte_len: usize,
}

impl Opaque {
    /// A view of `byte_len` bytes of `buffer` from `offset` on, or `None` when the buffer ends before.
    #[must_use]
    pub fn view(
        (dtype, shape): (String, Shape),
        buffer: Arc<Buffer>,
        offset: usize,
        byte_len: usize,
    ) -> Option<Self> {
        let end = offset.checked_add(byte_len)?;
        let fits = end <= buffer.bytes().len();
        fits.then_some(Self { dtype, shape, buffer, offset, byte_len })
    }

    fn bytes(&self) -> &[u8] {
        let from = self.buffer.bytes().get(self.offset..).unwrap_or_default();
        from.get(..self.byte_len).unwrap_or_default()
    }
}

impl AnyTensor {
    /// Name of the type of the elements.
    #[must_use]
    pub fn dtype_name(&self) -> &str {
        match self {
            Self::Known(tensor) => tensor.dtype().name(),
            Self::Opaque(opaque) => &opaque.dtype,
        }
    }

    /// Dimensions.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        match self {
            Self::Known(tensor) => tensor.shape(),
            Self::Opaque(opaque) => &opaque.shape,
        }
    }

    /// The memory that it is a view of.
    #[must_use]
    pub const fn buffer(&self) -> &Arc<Buffer> {
        match self {
            Self::Known(tensor) => tensor.buffer(),
            Self::Opaque(opaque) => &opaque.buffer,
        }
    }

    /// The tensor, if its type is one that is computed with.
    ///
    /// # Errors
    /// [`Reason::Unsupported`](crate::Reason::Unsupported) for another one.
    pub fn known(self) -> Result<Tensor, CodecError> {
        match self {
            Self::Known(tensor) => Ok(tensor),
            Self::Opaque(_) => Err(unread()),
        }
    }
}

impl From<Tensor> for AnyTensor {
    fn from(tensor: Tensor) -> Self {
        Self::Known(tensor)
    }
}

impl AsRef<[u8]> for AnyTensor {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Known(tensor) => tensor.bytes(),
            Self::Opaque(opaque) => opaque.bytes(),
        }
    }
}

/// The error about a type that nothing is computed with.
pub(super) fn unread() -> CodecError {
    let accepted: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
    CodecError::unsupported("the dtype of the tensor is not read here")
        .cure(format!("convert it to one of {}", accepted.join(", ")))
}

//! Codes as they come back: what is said beside them, and what follows where nothing is.

use crate::QuantError;
use crate::format::{CODES, Coded, SCALE, pack};
use crate::scheme::{Granularity, Options};
use crate::tensor::{DType, Shape, Tensor};

use crate::format::slices::{named, several};

use super::ZERO_POINT;
use super::codes::Stated;

/// Codes one an element, in the shape of their tensor.
#[derive(Debug)]
pub struct Unpacked {
    /// The codes.
    pub codes: Tensor,
    /// Scales; products can do without.
    pub scale: Option<Tensor>,
    /// Zero points; `None` for 0.
    pub zero_point: Option<Tensor>,
    /// Which elements share parameters, where that is named.
    pub named: Option<Granularity>,
    /// What the codes were said to be.
    pub stated: Stated,
}

impl Unpacked {
    /// Codes of products, which have nothing but numbers beside them.
    #[must_use]
    pub fn bare(codes: Tensor, scale: Option<Tensor>, zero_point: Option<Tensor>) -> Self {
        Self { codes, scale, zero_point, named: None, stated: Stated::default() }
    }

    /// Whether there are several scales or zero points.
    #[must_use]
    pub fn has_several(&self) -> bool {
        several([&self.scale, &self.zero_point].into_iter().flatten()).is_some()
    }
}

fn bits(options: &Options) -> u32 {
    options.bits.unwrap_or(8)
}

pub(super) fn is_packed(options: &Options) -> bool {
    options.packing(bits(options))
}

/// Type of codes that come without one.
pub(super) fn dtype(options: &Options) -> DType {
    match (is_packed(options), options.signed.unwrap_or(true), options.bits > Some(8)) {
        (true, _, _) | (false, false, false) => DType::U8,
        (false, true, false) => DType::I8,
        (false, true, true) => DType::I16,
        (false, false, true) => DType::U16,
    }
}

/// Shape of the real numbers.
pub(super) fn shape(coded: &Coded) -> Result<&Shape, QuantError> {
    let codes = coded.part(CODES)?;
    match (&coded.shape, is_packed(&coded.options)) {
        (None, false) => Ok(codes.shape()),
        (None, true) => Err(QuantError::field("shape", "packed codes without a shape")
            .cure("add the shape of the tensor")),
        (Some(shape), false) if shape.len() != codes.shape().len() => Err(misfit()),
        (Some(_), true) if codes.dtype() != DType::U8 => {
            Err(QuantError::field(CODES, "not packed codes").cure("packed codes are U8"))
        }
        (Some(shape), true) => {
            pack::check_len(codes.bytes(), bits(&coded.options), shape.len())?;
            Ok(shape)
        }
        (Some(shape), false) => Ok(shape),
    }
}

fn misfit() -> QuantError {
    QuantError::field("shape", "another number of codes than the shape has")
}

/// Bytes that [`unpacked`] takes: a code a byte, and once more to become a tensor.
#[must_use]
pub fn unpacking_bytes(coded: &Coded) -> usize {
    match &coded.shape {
        Some(shape) if is_packed(&coded.options) => shape.len().saturating_mul(2),
        _ => 0,
    }
}

/// Codes one an element in their shape, whether they came so or packed.
///
/// # Errors
/// [`QuantError`] when the codes do not fit what is said of them.
pub fn unpacked(coded: &Coded) -> Result<Unpacked, QuantError> {
    let options = &coded.options;
    let codes = coded.part(CODES)?;
    let shape = shape(coded)?;
    let codes = if is_packed(options) {
        let signed = options.signed.unwrap_or(true);
        let bytes = pack::unpack(codes.bytes(), bits(options), signed, shape.len())?;
        let dtype = if signed { DType::I8 } else { DType::U8 };
        Tensor::from_elements(dtype, shape.clone(), &bytes)
    } else {
        codes.clone().reshaped(shape.clone())
    };
    Ok(Unpacked {
        codes: codes.ok_or_else(misfit)?,
        scale: coded.parts.get(SCALE).cloned(),
        zero_point: coded.parts.get(ZERO_POINT).cloned(),
        named: named(options)?,
        stated: Stated { bits: options.bits, signed: options.signed },
    })
}

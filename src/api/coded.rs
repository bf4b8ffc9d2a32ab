//! Tensors that come quantized: their parts by name, and what is said beside them.

use quantd_core::format::integer::{SCALE, Unpacked, ZERO_POINT, unpacked, unpacking_bytes};
use quantd_core::format::{Coded, PartType};
use quantd_core::scheme::Options;
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_core::{ErrorKind, QuantError};
use quantd_kernels::real::Real;

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::Origin;

/// One quantized tensor as it came in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) coded: Coded,
    pub(super) place: Origin,
}

impl Item {
    /// Where what the core calls `field` stands.
    pub(super) fn place(&self, field: &str) -> Place {
        self.place.place(field)
    }

    /// The error of the core, about this tensor.
    pub(super) fn located(&self, error: QuantError) -> Error {
        let error = Error::of_quant(error, |field| self.place(field));
        if self.name.is_empty() { error } else { error.about(&self.name) }
    }

    /// Refuses it without a part that it needs.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the first.
    pub(super) fn check_parts(&self) -> Result<(), Error> {
        let Coded { parts, options, .. } = &self.coded;
        let types = options.format().types(options).into_iter();
        match types.filter(|part| part.required).find(|part| parts.get(part.name).is_none()) {
            None => Ok(()),
            Some(part) => Err(missing(self.place(part.name))),
        }
    }

    /// The codes that products take.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for other formats than integers, and codes that do not fit what is said of them.
    pub(super) fn integers(&self, context: &mut Context<'_>) -> Result<Unpacked, Error> {
        let format = self.coded.options.format();
        if !format.is_integer() {
            let detail = format!("products are of integers, not of {}", format.name());
            return Err(self.located(QuantError::of(ErrorKind::Misfit, "scheme", detail)));
        }
        context.reserve(unpacking_bytes(&self.coded))?;
        unpacked(&self.coded).map_err(|error| self.located(error))
    }
}

/// The error for a part that is not there.
pub(super) fn missing(place: Place) -> Error {
    Error::new(Kind::InvalidOption, "missing").at(place).cure("send what /v1/quantize answered")
}

/// A part that stands as an option rather than as a tensor.
pub(super) fn stated(options: &Options, part: &PartType, dtype: DType) -> Option<Tensor> {
    match part.name {
        SCALE => {
            let scale = options.scale.as_deref()?;
            let shape = Shape::vector(scale.len()).ok()?;
            if dtype == DType::F64 {
                return Tensor::from_elements(dtype, shape, scale);
            }
            let scale: Vec<f32> = scale.iter().map(|&scale| Real::from_f64(scale)).collect();
            Tensor::from_elements(DType::F32, shape, &scale)
        }
        ZERO_POINT => {
            let zero_point = options.zero_point.as_deref()?;
            let shape = Shape::vector(zero_point.len()).ok()?;
            Tensor::from_elements(DType::I64, shape, zero_point)
        }
        _ => None,
    }
}

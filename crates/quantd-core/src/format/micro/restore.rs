//! Blocks as they come back, checked.

use crate::QuantError;
use crate::format::integer::first_outside;
use crate::format::pack;
use crate::format::slices::Stored;
use crate::format::{CODES, Coded, SCALE};
use crate::partition::Partition;
use crate::scheme::Coding;
use crate::tensor::{DType, Shape, Tensor};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::CodeRange;
use quantd_kernels::table::Table;

use super::two_level::TwoLevel;
use super::{GLOBAL_SCALE, Micro, table};

impl Micro {
    /// Codes, shape of the real numbers and geometry of the blocks, checked against one another.
    pub(super) fn stored<'a>(
        &self,
        coded: &'a Coded,
    ) -> Result<(Stored<'a, u8>, Shape, Partition), QuantError> {
        let codes = coded.part(CODES)?;
        let packing = self.packing(self.is_packed(&coded.options));
        let expected = if packing.is_some() { DType::U8 } else { self.dtype };
        if codes.dtype() != expected && codes.dtype() != DType::U8 {
            let detail = format!("{} codes of format {}", codes.dtype(), self.name);
            return Err(QuantError::field(CODES, detail).cure(format!("send {expected}")));
        }
        let shape = match (&coded.shape, packing) {
            (Some(shape), _) => shape.clone(),
            (None, None) => codes.shape().clone(),
            (None, Some(packing)) => {
                let mut dims = codes.shape().dims().to_vec();
                dims.last_mut().into_iter().for_each(|last| {
                    *last = last.saturating_mul(8) / packing.bits() as usize;
                });
                Shape::new(dims).map_err(|error| QuantError::field("shape", error.to_string()))?
            }
        };
        let stored = match packing {
            Some(packing) => {
                pack::check(codes.bytes(), packing.bits(), shape.len())?;
                Stored::Packed(codes.bytes(), packing, shape.len())
            }
            None if codes.shape().len() != shape.len() => {
                let detail = "another number of codes than the shape has";
                return Err(QuantError::field("shape", detail));
            }
            None => {
                self.check_codes(codes)?;
                Stored::Plain(codes.elements::<u8>())
            }
        };
        let partition = self.partition(self.granularity(&coded.options)?, &shape)?;
        Ok((stored, shape, partition))
    }

    /// Refuses bytes that are no codes.
    fn check_codes(&self, codes: &Tensor) -> Result<(), QuantError> {
        let largest = (1 << self.element.bits()) - 1;
        let range = CodeRange { min: 0, max: largest };
        let wrong = match self.element.bits() {
            8 => None,
            _ => first_outside(codes, range),
        };
        match wrong {
            None => Ok(()),
            Some(i) => {
                let detail = format!("element {i} is not a code of {} bits", self.element.bits());
                Err(QuantError::field(CODES, detail).cure(format!("use 0 to {largest}")))
            }
        }
    }

    /// The scales of blocks as they come back.
    pub(super) fn table<T: Real>(
        &self,
        coded: &Coded,
        partition: &Partition,
    ) -> Result<Table<T>, QuantError> {
        let scale = coded.part(SCALE)?;
        if scale.dtype() != self.scale_dtype() && scale.dtype() != DType::U8 {
            let detail = format!("{} scales of format {}", scale.dtype(), self.name);
            return Err(QuantError::field(SCALE, detail)
                .cure(format!("send {}, or its bits as U8", self.scale_dtype())));
        }
        if scale.shape().len() != partition.slices() {
            let (count, blocks) = (scale.shape().len(), partition.slices());
            return Err(QuantError::field(SCALE, format!("{count} scales of {blocks} blocks")));
        }
        if !self.has_two_levels() {
            return Ok(self.powers(scale.bytes()));
        }
        let global = coded.part(GLOBAL_SCALE)?;
        let value = match (global.dtype(), global.shape().len()) {
            (DType::F32, 1) => global.elements::<f32>()[0],
            _ => return Err(QuantError::field(GLOBAL_SCALE, "not one number of F32")),
        };
        if !(value.is_finite() && value > 0.0) {
            return Err(QuantError::field(GLOBAL_SCALE, "not a positive finite number"));
        }
        let levels = match self.coding(&coded.options)? {
            Coding::TwoLevel { profile } => TwoLevel::stored(value, profile),
            Coding::Integer(_) | Coding::Float { .. } | Coding::Microscaling { .. } => {
                return Err(QuantError::field("format", "another scheme than its own"));
            }
        };
        Ok(table(scale.bytes(), |pattern| levels.factors(pattern)))
    }
}

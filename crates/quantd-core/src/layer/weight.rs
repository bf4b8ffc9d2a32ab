//! Weights as codes: read, checked, and packed for the product.

use bytemuck::Pod;

use crate::tensor::{DType, Shape, Tensor};
use quantd_kernels::gemm::{Codes, GroupedRhs, PackedInt4, PackedRhs, Rhs};

use super::super::matmul::{Coded, ColumnParameters, Operand, part};
use super::super::partition::resolve_axis;
use super::super::scheme::Granularity;
use super::super::transpose::transposed;
use super::super::{QuantError, Task};
use crate::format::integer::Stated;
use crate::format::integer::dequantize;

/// How weights lie in the tensor that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[n, k]`: a row an output, as frameworks store linear layers.
    OutIn,
    /// `[k, n]`: a column an output.
    InOut,
    /// `[out, in / groups, height, width]`: a kernel an output.
    Oihw,
}

/// Codes of weights, one row (or kernel) an output, and their parameters.
#[derive(Clone, Debug)]
pub struct Weight {
    /// I8 or U8, `[n, k]` or `[out, in / groups, height, width]`.
    codes: Tensor,
    /// One, one an output, or `[n, groups along k]`.
    scales: Vec<f32>,
    /// As many as scales, or one.
    zero_points: Vec<i32>,
    /// Neighbours along K that share a scale.
    group: Option<usize>,
    bits: u32,
}

/// Weights ready to be multiplied by.
#[derive(Debug)]
pub(super) enum Packed {
    /// 8-bit codes, one scale a column.
    Columns(PackedRhs),
    /// 4-bit codes, one scale for each group along K and column.
    Groups(PackedInt4),
}

impl Packed {
    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            // Sums, zero points and scales lie beside the panels.
            Self::Columns(b) => b.bytes() + 12 * b.columns(),
            Self::Groups(b) => b.bytes(),
        }
    }
}

impl Weight {
    /// Quantizes or checks weights.
    ///
    /// # Errors
    /// [`QuantError`] names the field at fault.
    pub fn new(operand: &Operand<'_>, order: Order, task: &Task) -> Result<Self, QuantError> {
        let dims = operand.dims();
        let rank = if order == Order::Oihw { 4 } else { 2 };
        if dims.len() != rank || dims.contains(&0) {
            let detail = format!("{dims:?} is not a weight of this kind of layer");
            let cure = match order {
                Order::OutIn => "send [outputs, inputs]",
                Order::InOut => "send [inputs, outputs]",
                Order::Oihw => "send [outputs, inputs / groups, height, width]",
            };
            return Err(QuantError::field("shape", detail).cure(cure));
        }
        let columns = parameters(operand.granularity(), dims, order)?;
        let bits = match operand {
            Operand::Real { scheme, .. } => scheme.multiplied("weights of layers")?.bits,
            Operand::Coded { stated, .. } => stated.bits.map_or(8, |bits| bits.min(8)),
        };
        let coded = Coded::new("weight", operand, task).map_err(|fault| fault.error)?;
        let Some(scales) = coded.scales else {
            return Err(QuantError::field("scale", "missing").cure("send what quantize answered"));
        };
        let group = match columns {
            ColumnParameters::Groups(size) => Some(size),
            ColumnParameters::Same | ColumnParameters::Each => None,
        };
        let mut weight =
            Self { codes: coded.codes, scales, zero_points: coded.zero_points, group, bits };
        weight.check(columns, order)?;
        if order == Order::InOut {
            weight.transpose(task)?;
        }
        Ok(weight)
    }

    fn check(&self, columns: ColumnParameters, order: Order) -> Result<(), QuantError> {
        let dims = self.codes.shape().dims();
        let (n, k) = match order {
            Order::OutIn | Order::Oihw => (dims[0], self.codes.shape().len() / dims[0]),
            Order::InOut => (dims[1], dims[0]),
        };
        let slices = match columns {
            ColumnParameters::Same => 1,
            ColumnParameters::Each => n,
            ColumnParameters::Groups(size) => n * k.div_ceil(size),
        };
        let lens = [("scale", self.scales.len()), ("zero_point", self.zero_points.len())];
        for (field, len) in lens {
            if len != 1 && len != slices {
                let detail = format!("{len} values for {slices} slices");
                return Err(
                    QuantError::field(field, detail).cure("send one value, or one for each slice")
                );
            }
        }
        if self.group.is_some() && self.bits > 4 {
            return Err(QuantError::field("bits", "groups are of codes of at most 4 bits")
                .cure("use bits 4 or less, or granularity channel"));
        }
        Ok(())
    }

    /// From a column an output to a row an output.
    fn transpose(&mut self, task: &Task) -> Result<(), QuantError> {
        let &[k, n] = self.codes.shape().dims() else { return Ok(()) };
        let codes = transposed(self.codes.bytes(), [k, n], task);
        let tensor = Shape::new(vec![n, k])
            .ok()
            .and_then(|shape| Tensor::from_elements(self.codes.dtype(), shape, &codes));
        self.codes = tensor.ok_or_else(|| QuantError::field("shape", "the weight is too large"))?;
        if let Some(size) = self.group {
            let groups = k.div_ceil(size);
            if self.scales.len() > 1 {
                self.scales = transposed(&self.scales, [groups, n], task).into_owned();
            }
            if self.zero_points.len() > 1 {
                self.zero_points = transposed(&self.zero_points, [groups, n], task).into_owned();
            }
        }
        Ok(())
    }

    /// The codes: I8 or U8, `[n, k]` or `[out, in / groups, height, width]`.
    #[must_use]
    pub const fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Scales: one, one an output, or `[n, groups]`.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Zero points: one, or as many as there are slices.
    #[must_use]
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// Neighbours along K that share a scale, where groups do.
    #[must_use]
    pub const fn group(&self) -> Option<usize> {
        self.group
    }

    /// Bits of a code.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Name of the granularity: `tensor`, `channel` or `group`.
    #[must_use]
    pub fn granularity(&self) -> &'static str {
        match (self.group, self.scales.len().max(self.zero_points.len())) {
            (Some(_), _) => "group",
            (None, 1) if self.outputs() > 1 => "tensor",
            (None, _) => "channel",
        }
    }

    /// Bytes that do not depend on the machine: codes of their bits one after the other, F32 scales, and zero points of
    /// a byte unless all of them are 0.
    pub(super) fn packed_bytes(&self) -> usize {
        let codes = (self.codes.shape().len() * self.bits as usize).div_ceil(8);
        let has_zero_points = self.zero_points.iter().any(|&zero| zero != 0);
        codes + 4 * self.scales.len() + if has_zero_points { self.zero_points.len() } else { 0 }
    }

    /// N.
    pub(super) fn outputs(&self) -> usize {
        self.codes.shape().dims()[0]
    }

    /// K: elements of a row or kernel.
    pub(super) fn depth(&self) -> usize {
        self.codes.shape().len() / self.outputs()
    }

    pub(super) fn is_unsigned(&self) -> bool {
        self.codes.dtype() == DType::U8
    }

    /// No codes, of the type that these have.
    pub(super) fn no_codes(&self) -> Codes<'static> {
        if self.is_unsigned() { Codes::U8(&[]) } else { Codes::I8(&[]) }
    }

    /// Packs the outputs in so many equal parts, one for each group of a convolution; useless
    /// once `task` is cancelled.
    pub(super) fn pack(&self, parts: usize, task: &Task) -> Vec<Packed> {
        let (n, k) = (self.outputs() / parts, self.depth());
        let part = |i: usize| {
            let bytes = transposed(&self.codes.bytes()[i * n * k..][..n * k], [n, k], task);
            let codes = if self.is_unsigned() {
                Codes::U8(&bytes)
            } else {
                Codes::I8(bytemuck::cast_slice(&bytes))
            };
            let isa = task.isa();
            if let Some(group) = self.group {
                let groups = k.div_ceil(group);
                let scales = part(&self.scales, i * n * groups, n * groups);
                let scales = transposed(scales, [scales.len().div_ceil(groups), groups], task);
                let zeros = part(&self.zero_points, i * n * groups, n * groups);
                let zeros = transposed(zeros, [zeros.len().div_ceil(groups), groups], task);
                let (zero_points, scales) = (&*zeros, &*scales);
                let right = GroupedRhs { codes, k, n, group, zero_points, scales };
                return Packed::Groups(PackedInt4::new(isa, right, task.flag()));
            }
            let zero_points = part(&self.zero_points, i * n, n);
            let scales = part(&self.scales, i * n, n);
            let right = Rhs { codes, k, n, zero_points, scales };
            Packed::Columns(PackedRhs::new(isa, right, task.flag()))
        };
        (0..parts).map(part).collect()
    }

    /// The real numbers that the codes stand for: F32 in the shape of the codes.
    ///
    /// # Errors
    /// Those of [`dequantize`].
    pub fn restored(&self, task: &Task) -> Result<Tensor, QuantError> {
        let slices = self.scales.len().max(self.zero_points.len());
        let granularity = match self.group {
            Some(size) => Granularity::Group { axis: 1, size },
            None if slices == self.outputs() => Granularity::Channel { axis: 0 },
            None => Granularity::Tensor,
        };
        let scale = vector(DType::F32, &self.scales)?;
        let zero_point = vector(DType::I32, &self.zero_points)?;
        let parts = crate::format::integer::Codes {
            codes: &self.codes,
            scale: &scale,
            zero_point: Some(&zero_point),
            granularity,
            stated: Stated::default(),
        };
        dequantize(&parts, DType::F32, task)
    }
}

/// Parameters as a tensor.
fn vector<T: Pod>(dtype: DType, values: &[T]) -> Result<Tensor, QuantError> {
    let shape = Shape::new(vec![values.len()]).ok();
    let tensor = shape.and_then(|shape| Tensor::from_elements(dtype, shape, values));
    tensor.ok_or_else(|| QuantError::field("scale", "too many values"))
}

/// How the parameters lie over the outputs.
fn parameters(
    granularity: Granularity,
    dims: &[usize],
    order: Order,
) -> Result<ColumnParameters, QuantError> {
    match (order, granularity) {
        (Order::OutIn, _) => ColumnParameters::new(granularity, dims, 0),
        (Order::InOut, _) => ColumnParameters::new(granularity, dims, 1),
        (Order::Oihw, Granularity::Tensor) => Ok(ColumnParameters::Same),
        (Order::Oihw, Granularity::Channel { axis }) if resolve_axis(axis, dims.len())? == 0 => {
            Ok(ColumnParameters::Each)
        }
        (Order::Oihw, _) => Err(QuantError::field("granularity", "not one that kernels have")
            .cure("use tensor, or channel with axis 0")),
    }
}

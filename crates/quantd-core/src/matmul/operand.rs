//! The operands of a product as 8-bit codes with one scale and zero point for
//! each row or column, or for each group along K.

use crate::tensor::{DType, Reals, Tensor};
use quantd_kernels::gemm::Codes;
use quantd_kernels::real::Real;

use super::super::partition::resolve_axis;
use super::super::scheme::{Granularity, Scheme};
use super::super::{QuantError, Task};
use super::Fault;
use crate::format::integer::Stated;
use crate::format::integer::encode;

/// What a caller multiplies.
#[derive(Debug)]
pub enum Operand<'a> {
    /// Real numbers, quantized on the fly.
    Real {
        /// The numbers.
        tensor: &'a Tensor,
        /// How they are quantized.
        scheme: &'a Scheme,
    },
    /// Codes.
    Coded {
        /// Codes: I8 or U8.
        codes: &'a Tensor,
        /// Scales, one or one a slice; without them the product stays integer.
        scale: Option<&'a Tensor>,
        /// Zero points, one or one a slice, within the type of the codes; `None` for 0.
        zero_point: Option<&'a Tensor>,
        /// Which elements share them.
        granularity: Granularity,
        /// What the codes were said to be.
        stated: Stated,
    },
}

impl Operand<'_> {
    /// Dimensions.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Real { tensor, .. } => tensor.shape().dims(),
            Self::Coded { codes, .. } => codes.shape().dims(),
        }
    }

    /// Which elements share parameters.
    #[must_use]
    pub const fn granularity(&self) -> Granularity {
        match self {
            Self::Real { scheme, .. } => scheme.granularity,
            Self::Coded { granularity, .. } => *granularity,
        }
    }
}

impl Operand<'_> {
    /// Bytes that it takes to be multiplied, and to be compared where there is a report.
    pub(super) fn working_bytes(&self, report: bool) -> Result<usize, QuantError> {
        /// Parameters of a slice: as they come, in the types that are computed in, and in another order.
        const SLICE: usize = 64;
        /// An element in another order, and packed as a word.
        const PACKED: usize = 1 + 2;
        /// In f64, from half precision.
        const REAL: usize = 4 + 8;
        let (elements, slices, own) = match self {
            Self::Real { tensor, scheme } => {
                let plan = scheme.plan(tensor)?;
                let elements = tensor.shape().len();
                (elements, plan.slices, plan.working_bytes.saturating_add(elements))
            }
            Self::Coded { codes, scale, zero_point, .. } => {
                let len =
                    |tensor: &Option<&Tensor>| tensor.map_or(0, |tensor| tensor.shape().len());
                (codes.shape().len(), len(scale).saturating_add(len(zero_point)), 0)
            }
        };
        let element = PACKED + if report { REAL } else { 0 };
        let elements = elements.saturating_mul(element);
        Ok(own.saturating_add(elements).saturating_add(slices.saturating_mul(SLICE)))
    }
}

/// Codes of an operand and what they mean.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) codes: Tensor,
    /// In the order of the slices; `None` when the caller gave none.
    pub(crate) scales: Option<Vec<f32>>,
    pub(crate) zero_points: Vec<i32>,
    /// Scale and zero point as they were found, where the operand was real.
    pub(super) found: Option<[Tensor; 2]>,
}

impl Coded {
    /// Quantizes an operand, or takes its codes as they are.
    pub(crate) fn new(
        side: &'static str,
        operand: &Operand<'_>,
        task: &Task,
    ) -> Result<Self, Fault> {
        let fault = |error| Fault { side, error };
        match operand {
            Operand::Real { tensor, scheme } => {
                scheme.multiplied("products").map_err(fault)?;
                let made = encode(tensor, scheme, task).map_err(fault)?;
                let zero_points = integers(&made.zero_point).unwrap_or_default();
                let scales = Some(reals(&made.scale));
                let found = Some([made.scale, made.zero_point]);
                Ok(Self { codes: made.codes, scales, zero_points, found })
            }
            Operand::Coded { codes, scale, zero_point, stated, .. } => {
                if !matches!(codes.dtype(), DType::I8 | DType::U8) {
                    let error =
                        QuantError::field("codes", "not a type of codes that is multiplied");
                    return Err(fault(error.cure("send I8 or U8")));
                }
                let zero_points = match zero_point {
                    None => vec![0],
                    Some(zero_point) => integers(zero_point).ok_or_else(|| {
                        fault(QuantError::field("zero_point", "not an integer type"))
                    })?,
                };
                stated.check(codes, &zero_points).map_err(fault)?;
                let scales = scale.map(checked_scales).transpose().map_err(fault)?;
                let codes = (*codes).clone();
                Ok(Self { codes, scales, zero_points, found: None })
            }
        }
    }

    /// The codes from element `first` on.
    pub(super) fn codes(&self, first: usize, len: usize) -> Codes<'_> {
        let bytes = &self.codes.bytes()[first..first + len];
        if self.is_unsigned() { Codes::U8(bytes) } else { Codes::I8(bytemuck::cast_slice(bytes)) }
    }

    /// Whether the codes have this type.
    pub(super) fn is_unsigned(&self) -> bool {
        self.codes.dtype() == DType::U8
    }
}

fn checked_scales(scale: &Tensor) -> Result<Vec<f32>, QuantError> {
    if !scale.dtype().is_float() {
        return Err(QuantError::field("scale", "not a floating-point type").cure("send F32 or F64"));
    }
    let scales = reals(scale);
    match scales.iter().position(|scale| !(*scale > 0.0 && scale.is_finite())) {
        None => Ok(scales),
        Some(i) => {
            let detail = format!("element {i} is not a positive finite number");
            Err(QuantError::field("scale", detail))
        }
    }
}

/// In f32, whatever they were.
fn reals(tensor: &Tensor) -> Vec<f32> {
    match tensor.reals() {
        Reals::F32(reals) => reals.into_owned(),
        Reals::F64(reals) => reals.iter().map(|&x| <f32 as Real>::from_f64(x)).collect(),
    }
}

/// Integers of a size that f32 holds exactly; those beyond are out of any range of codes too.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and is checked then")]
fn integers(tensor: &Tensor) -> Option<Vec<i32>> {
    match tensor.reals() {
        Reals::F32(reals) if !tensor.dtype().is_float() => {
            Some(reals.iter().map(|&x| x as i32).collect())
        }
        Reals::F32(_) | Reals::F64(_) => None,
    }
}

/// How the parameters of the left operand lie over its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowParameters {
    /// All rows share them.
    Same,
    /// One a row, batches included.
    Each,
}

impl RowParameters {
    /// Of a granularity over these dimensions.
    pub(super) fn new(granularity: Granularity, dims: &[usize]) -> Result<Self, QuantError> {
        match granularity {
            Granularity::Tensor => Ok(Self::Same),
            Granularity::Token => Ok(Self::Each),
            Granularity::Channel { axis } if dims.len() == 2 && resolve_axis(axis, 2)? == 0 => {
                Ok(Self::Each)
            }
            Granularity::Channel { .. } | Granularity::Group { .. } | Granularity::Block { .. } => {
                Err(QuantError::field("granularity", "not one that rows of a product have")
                    .cure("use tensor or token"))
            }
        }
    }
}

/// How the parameters of the right operand lie over its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnParameters {
    /// All columns share them.
    Same,
    /// One a column, shared by all batches.
    Each,
    /// One for each group of so many along K, and column.
    Groups(usize),
}

impl ColumnParameters {
    /// Of a granularity over these dimensions; columns of the product lie
    /// along `axis`, K along the other one of the last two.
    pub(crate) fn new(
        granularity: Granularity,
        dims: &[usize],
        axis: usize,
    ) -> Result<Self, QuantError> {
        let depth = 2 * dims.len() - 3 - axis;
        match granularity {
            Granularity::Tensor => return Ok(Self::Same),
            Granularity::Channel { axis: own } if resolve_axis(own, dims.len())? == axis => {
                return Ok(Self::Each);
            }
            // The vectors along the last axis, one a column where that is K.
            Granularity::Token if dims.len() == 2 && axis == 0 => return Ok(Self::Each),
            Granularity::Group { axis: own, size } if resolve_axis(own, dims.len())? == depth => {
                return Ok(Self::Groups(size));
            }
            Granularity::Channel { .. }
            | Granularity::Token
            | Granularity::Group { .. }
            | Granularity::Block { .. } => {}
        }
        Err(QuantError::field("granularity", "not one that columns of a product have").cure(
            format!(
                "use tensor, channel with axis {axis}, or group with axis {depth}; \
             set transpose_b for weights of shape [columns, k]"
            ),
        ))
    }
}

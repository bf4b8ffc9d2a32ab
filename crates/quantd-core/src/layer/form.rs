//! What goes into a layer and what comes out of it.

use crate::tensor::DType;
use crate::words;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{CodeRange, QuantParams};
use quantd_kernels::{CodeSpec, Isa};

use super::super::QuantError;
use super::super::matmul::Requantization;
use super::super::params::{Numerics, Range};
use super::super::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};

/// Where scale and zero point of the input come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parameters {
    /// The extent of all that one call brings.
    Tensor,
    /// The extent of each row, or of each image.
    Token,
    /// Given ahead.
    Static(QuantParams<f32>),
}

impl Parameters {
    /// Name in answers: `dynamic`, `dynamic_per_token` or `static`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tensor => "dynamic",
            Self::Token => "dynamic_per_token",
            Self::Static(_) => "static",
        }
    }
}

/// How the input of a layer becomes codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Input {
    /// Codes and formulas.
    pub numerics: Numerics,
    /// Where scale and zero point come from.
    pub parameters: Parameters,
    /// What happens to NaN.
    pub nan: NanPolicy,
}

/// How the result leaves a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// As real numbers.
    F32,
    /// As codes.
    Codes {
        /// Codes and formulas.
        numerics: Numerics,
        /// Scale and zero point.
        affine: QuantParams<f32>,
        /// Whose definition of requantization; `None` for `float_ort` where sums
        /// have a common scale, and for quantizing the real result where not.
        requantization: Option<Requantization>,
    },
}

words! {
    /// What is applied to the real result.
    pub enum Activation {
        /// Nothing.
        None = "none",
        /// The larger of it and 0.
        Relu = "relu",
        /// `x (1 + erf(x / sqrt 2)) / 2`.
        Gelu = "gelu",
        /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
        GeluTanh = "gelu_tanh",
    }
}

impl Activation {
    /// Replaces each number by the function of it; NaN stays NaN.
    pub(super) fn apply(self, isa: Isa, x: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            Self::Gelu => isa.gelu(x),
            Self::GeluTanh => isa.gelu_tanh(x),
        }
    }

    /// Whether it is one of the smooth ones, which need real numbers.
    pub(super) const fn is_smooth(self) -> bool {
        matches!(self, Self::Gelu | Self::GeluTanh)
    }
}

/// Element type of the codes.
pub(super) const fn code_dtype(numerics: &Numerics) -> DType {
    numerics.code_type().dtype()
}

impl Input {
    /// What a scheme says about an input: its granularity is `tensor` or
    /// `token`, its range `min_max`, or given and then static.
    ///
    /// # Errors
    /// [`QuantError`] names the field that does not fit.
    pub fn new(scheme: &Scheme) -> Result<Self, QuantError> {
        let numerics = *scheme.multiplied("products")?;
        let parameters = match (fixed(scheme)?, scheme.granularity) {
            (Some(affine), Granularity::Tensor) => Parameters::Static(affine),
            (None, Granularity::Tensor) => Parameters::Tensor,
            (None, Granularity::Token) => Parameters::Token,
            (Some(_), _) => {
                return Err(QuantError::field("granularity", "static parameters are for all rows")
                    .cure("use tensor, or leave the range out"));
            }
            (None, _) => {
                return Err(QuantError::field("granularity", "not one that inputs have")
                    .cure("use tensor or token"));
            }
        };
        Ok(Self { numerics, parameters, nan: scheme.nan })
    }

    /// Element type of the codes.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        code_dtype(&self.numerics)
    }

    /// The fixed scale and zero point, if there are any.
    #[must_use]
    pub const fn fixed(&self) -> Option<QuantParams<f32>> {
        match self.parameters {
            Parameters::Static(affine) => Some(affine),
            Parameters::Tensor | Parameters::Token => None,
        }
    }

    pub(super) const fn how(&self) -> CodeSpec {
        self.numerics.how()
    }

    /// Every zero point that the input may have: one, or both ends.
    pub(super) fn zero_points(&self) -> Vec<i32> {
        match self.parameters {
            Parameters::Static(affine) => vec![affine.zero_point],
            Parameters::Tensor | Parameters::Token if self.numerics.symmetric => {
                vec![self.numerics.middle()]
            }
            Parameters::Tensor | Parameters::Token => {
                let CodeRange { min, max } = self.numerics.code_range();
                vec![min, max]
            }
        }
    }
}

impl Output {
    /// Codes as a scheme with a given range says.
    ///
    /// # Errors
    /// [`QuantError`] names the field that does not fit.
    pub fn codes(
        scheme: &Scheme,
        requantization: Option<Requantization>,
    ) -> Result<Self, QuantError> {
        let numerics = *scheme.multiplied("products")?;
        if scheme.granularity != Granularity::Tensor {
            return Err(QuantError::field("granularity", "an output has one scale")
                .cure("use tensor, or leave it out"));
        }
        let Some(affine) = fixed(scheme)? else {
            return Err(QuantError::field("scale", "missing")
                .cure("give scale and zero_point, min and max, or a calibrator"));
        };
        Ok(Self::Codes { numerics, affine, requantization })
    }

    /// Element type of the result.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Codes { numerics, .. } => code_dtype(numerics),
        }
    }

    /// Scale and zero point of the result, where it is codes.
    #[must_use]
    pub const fn affine(&self) -> Option<QuantParams<f32>> {
        match self {
            Self::F32 => None,
            Self::Codes { affine, .. } => Some(*affine),
        }
    }
}

/// The parameters that a scheme gives ahead.
fn fixed(scheme: &Scheme) -> Result<Option<QuantParams<f32>>, QuantError> {
    let numerics = scheme.integers("products")?;
    match &scheme.range {
        RangeMethod::MinMax => Ok(None),
        RangeMethod::Explicit { min, max } => {
            let [min, max] = [one("min", min)?, one("max", max)?];
            Ok(Some(numerics.affine(Range::around_zero(min, max))))
        }
        RangeMethod::Given { scale, zero_point } => {
            let scale = one("scale", scale)?;
            if scale <= 0.0 {
                return Err(QuantError::field("scale", "not a positive number in f32"));
            }
            let default = if numerics.symmetric { numerics.middle() } else { 0 };
            let zero_point = match zero_point.as_slice() {
                [] => default,
                &[zero_point] => zero_point,
                _ => return Err(several("zero_point")),
            };
            Ok(Some(QuantParams { scale, zero_point }))
        }
        RangeMethod::Percentile(_)
        | RangeMethod::Mse
        | RangeMethod::EntropyOrt
        | RangeMethod::EntropyTensorrt
        | RangeMethod::EntropyModelopt
        | RangeMethod::CrossEntropy { .. } => {
            Err(QuantError::field("range", "not one that is found while a layer runs")
                .cure("use min_max, or give min and max, or a calibrator"))
        }
    }
}

fn several(field: &'static str) -> QuantError {
    QuantError::field(field, "several values").cure("send one value")
}

fn one(field: &'static str, values: &[f64]) -> Result<f32, QuantError> {
    let &[value] = values else { return Err(several(field)) };
    let value = <f32 as Real>::from_f64(value);
    if value.is_finite() {
        return Ok(value);
    }
    Err(QuantError::field(field, "beyond the largest number of f32"))
}

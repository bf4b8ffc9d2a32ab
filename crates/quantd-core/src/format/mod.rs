//! How numbers are stored: formats as values, a file and a row of [`FORMATS`] each.
//!
//! A format turns a tensor into named parts (codes, scales, ..) and these back into real numbers. Whoever
//! writes or reads quantized tensors goes over the parts by their names and knows nothing else of a format.

mod float;
pub mod integer;
mod micro;
mod pack;
mod slices;

use std::fmt;

use crate::tensor::{DType, Shape, Tensor};

use super::cost::Cost;
use super::report::Report;
use super::scheme::{Options, Scheme};
use super::{QuantError, Task};

pub use integer::INTEGER;

/// The part that every format has.
pub const CODES: &str = "codes";
/// The part of scales.
pub const SCALE: &str = "scale";

/// Every format, in the order in which messages list them.
pub static FORMATS: [&dyn Format; 14] = [
    &INTEGER,
    &float::F16,
    &float::BF16,
    &float::FP8_E4M3,
    &float::FP8_E5M2,
    &float::FP8_E4M3FNUZ,
    &float::FP8_E5M2FNUZ,
    &micro::MXFP8_E4M3,
    &micro::MXFP8_E5M2,
    &micro::MXFP6_E2M3,
    &micro::MXFP6_E3M2,
    &micro::MXFP4,
    &micro::MXINT8,
    &micro::NVFP4,
];

/// A named tensor of a quantized one.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its elements.
    pub tensor: Tensor,
}

/// The parts of a quantized tensor, in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// The part of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|part| part.name == name).map(|part| &part.tensor)
    }

    /// Adds a part.
    pub fn push(&mut self, name: &'static str, tensor: Tensor) {
        self.0.push(Part { name, tensor });
    }

    /// The parts in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }
}

impl FromIterator<(&'static str, Tensor)> for Parts {
    fn from_iter<I: IntoIterator<Item = (&'static str, Tensor)>>(parts: I) -> Self {
        Self(parts.into_iter().map(|(name, tensor)| Part { name, tensor }).collect())
    }
}

impl IntoIterator for Parts {
    type Item = Part;
    type IntoIter = std::vec::IntoIter<Part>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Parts and report of one tensor.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// What it is stored as.
    pub parts: Parts,
    /// What was lost, over the whole tensor.
    pub report: Report,
    /// What was lost slice by slice, where that was asked for.
    pub slices: Vec<Report>,
}

/// What a part will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartShape {
    /// Its name.
    pub name: &'static str,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Vec<usize>,
}

impl PartShape {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a scheme makes of a tensor, and what that takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The parts, in the order in which they are written, the codes first.
    pub parts: Vec<PartShape>,
    /// Slices of the scheme's granularity.
    pub slices: usize,
    /// Bytes beside the tensor and its parts that it is worked out with.
    pub working_bytes: usize,
    /// What that costs.
    pub cost: Cost,
}

/// How a part is read where its elements come as numbers without a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartType {
    /// Its name.
    pub name: &'static str,
    /// Type of its elements unless another is named.
    pub dtype: DType,
    /// Types that may be named; none where there is no choice.
    pub types: &'static [DType],
    /// Whether the numbers cannot be restored without it.
    pub required: bool,
    /// Whether it has an element for each of the tensor's, in its shape.
    pub elementwise: bool,
}

/// A quantized tensor as it comes back: its parts, and what is said beside them.
#[derive(Clone, Debug)]
pub struct Coded {
    /// The parts that there are, in any order.
    pub parts: Parts,
    /// Dimensions of the real numbers, where they are named.
    pub shape: Option<Shape>,
    /// The fields of the scheme that are named.
    pub options: Options,
}

/// What restoring takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restoring {
    /// Real numbers that there will be.
    pub elements: usize,
    /// Their type.
    pub dtype: DType,
    /// Bytes beside them and the parts.
    pub working_bytes: usize,
    /// What it costs.
    pub cost: Cost,
}

impl Coded {
    /// The part of that name.
    ///
    /// # Errors
    /// [`QuantError`] when it is not there.
    pub fn part(&self, name: &'static str) -> Result<&Tensor, QuantError> {
        self.parts.get(name).ok_or_else(|| QuantError::field(name, "missing"))
    }

    /// What [`dequantize`](Self::dequantize) takes.
    ///
    /// # Errors
    /// [`QuantError`] when the parts do not fit one another.
    pub fn restoring(&self, dtype: Option<DType>) -> Result<Restoring, QuantError> {
        self.options.format().restoring(self, dtype)
    }

    /// The real numbers as `dtype`: F64, F32, F16 or BF16, rounded to nearest, ties to even.
    ///
    /// # Errors
    /// [`QuantError`] when the parts do not fit one another.
    pub fn dequantize(&self, dtype: DType, task: &Task) -> Result<Tensor, QuantError> {
        self.options.format().dequantize(self, dtype, task)
    }
}

/// A way to store numbers.
pub trait Format: fmt::Debug + Send + Sync {
    /// Name in requests and answers; also that of the preset with nothing but the format.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn summary(&self) -> &'static str;

    /// Whether products and layers take its codes.
    fn is_integer(&self) -> bool {
        false
    }

    /// Checks options against one another and against the format, and fills in the defaults.
    ///
    /// # Errors
    /// [`QuantError`] names a field that contradicts another, or that the format has not.
    fn resolve(&'static self, options: &Options) -> Result<Scheme, QuantError>;

    /// What a scheme makes of a tensor of that shape and type, and what that takes.
    ///
    /// # Errors
    /// [`QuantError`] when the scheme does not fit the shape.
    fn plan(&self, scheme: &Scheme, shape: &Shape, dtype: DType) -> Result<Plan, QuantError>;

    /// The parts as they are read, the codes first.
    fn types(&self, options: &Options) -> Vec<PartType>;

    /// Parts and report; with `per_slice` also a report on each slice of the scheme's granularity.
    ///
    /// # Errors
    /// [`QuantError`] when the scheme does not fit the tensor, or NaN is refused.
    fn quantize(
        &self,
        tensor: &Tensor,
        scheme: &Scheme,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError>;

    /// The reports of schemes of this format on one tensor, in their order; fewer once the task is cancelled.
    ///
    /// # Errors
    /// The index of the first scheme that does not fit the tensor, and why.
    fn measure(
        &self,
        tensor: &Tensor,
        schemes: &[&Scheme],
        task: &Task,
    ) -> Result<Vec<Report>, (usize, QuantError)> {
        let report =
            |(i, scheme): (usize, &&Scheme)| match self.quantize(tensor, scheme, false, task) {
                Ok(quantized) => Ok(quantized.report),
                Err(error) => Err((i, error)),
            };
        schemes.iter().enumerate().take_while(|_| !task.is_cancelled()).map(report).collect()
    }

    /// What [`dequantize`](Self::dequantize) takes; the type of the result is `dtype` if that is named.
    ///
    /// # Errors
    /// [`QuantError`] when the parts do not fit one another.
    fn restoring(&self, coded: &Coded, dtype: Option<DType>) -> Result<Restoring, QuantError>;

    /// The real numbers as `dtype`: F64, F32, F16 or BF16.
    ///
    /// # Errors
    /// [`QuantError`] when the parts do not fit one another.
    fn dequantize(&self, coded: &Coded, dtype: DType, task: &Task) -> Result<Tensor, QuantError>;
}

impl dyn Format {
    /// Refuses any format but integers, which are all that `what` are of.
    ///
    /// # Errors
    /// [`QuantError`] about `format`.
    pub fn check_integer(&self, what: &str) -> Result<(), QuantError> {
        if self.is_integer() { Ok(()) } else { Err(self.not_integer(what)) }
    }

    /// The error for a format that is not that of integers.
    pub(crate) fn not_integer(&self, what: &str) -> QuantError {
        let detail = format!("{what} are of integers, not of {}", self.name());
        QuantError::field("format", detail).cure("use format int, or leave it out")
    }
}

impl PartialEq for dyn Format {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What readers and writers of parts count on.
    #[test]
    fn formats_have_names_of_their_own_and_codes() {
        let mut names: Vec<_> = FORMATS.iter().map(|format| format.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FORMATS.len());
        let shape = Shape::new(vec![256, 256]).unwrap();
        for format in FORMATS {
            let scheme = format.resolve(&Options::NONE).unwrap();
            let parts = format.plan(&scheme, &shape, DType::F32).unwrap().parts;
            let read = format.types(&Options::NONE);
            assert!(parts.iter().map(|part| part.name).eq(read.iter().map(|part| part.name)));
            assert_eq!(parts[0].name, CODES);
        }
    }
}

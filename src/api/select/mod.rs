//! Which of several tensors an operation is for.
//!
//! A whole checkpoint holds more than weights. `include` names exactly what is meant; without it the rule of
//! [`Rule`] says what is, and `exclude` takes away from either. All others pass through.

use quantd_codec::safetensors::AnyTensor;
use quantd_core::tensor::Tensor;

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::Fields;
use super::fields::field::fields;
use super::patterns::{self, Pattern, Patterns};
use super::payload::Format;

fields! {
    pub(super) INCLUDE: "include", Patterns = Patterns,
        "Tensors that are meant, whatever their type and shape, where the request names several: names, globs \
         (`*` and `?`, which match dots too), or `re:` and a regular expression for the start of the name. \
         Default: of JSON `tensors` all; of a safetensors file the weights, which are the tensors of a \
         floating-point type with at least two dimensions, or all if there are none. Of quantize the others \
         pass as they are.";
    pub(super) EXCLUDE: "exclude", Patterns = Patterns,
        "Tensors that are not meant, of those that would be.";
}
/// What is meant where `include` does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The weights: what has a floating-point type and at least two dimensions, or, where nothing has, all.
    Weights,
    /// All that can be computed with.
    All,
}

impl Rule {
    /// That of a body of this format: tensors of JSON are named by the caller one by one, a file is
    /// taken as it is.
    pub(super) fn of(format: Format) -> Self {
        if format == Format::Safetensors { Self::Weights } else { Self::All }
    }
}

/// Patterns of the names that are meant.
#[derive(Debug)]
pub(super) struct Selection {
    include: Option<Vec<Pattern>>,
    exclude: Option<Vec<Pattern>>,
    /// Where the last of them was said.
    place: Option<Place>,
}

/// Tensors by name: those that were meant, and the others.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) chosen: Vec<(String, Tensor)>,
    pub(super) passed: Vec<(String, AnyTensor)>,
}

impl Selection {
    /// Takes the options out.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for what is no list of patterns.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, Error> {
        let [of_include, of_exclude] = [&INCLUDE, &EXCLUDE].map(|field| fields.place(field.name));
        let (include, exclude) = (fields.get(&INCLUDE)?, fields.get(&EXCLUDE)?);
        let place = match (&include, &exclude) {
            (_, Some(_)) => Some(of_exclude),
            (Some(_), None) => Some(of_include),
            (None, None) => None,
        };
        Ok(Self { include, exclude, place })
    }

    /// Divides the tensors of a request.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for a pattern that is none or matches nothing, for patterns beside a tensor without
    /// a name, and when nothing is left; [`Kind::UnsupportedTensor`] when what is meant cannot be computed with.
    pub(super) fn split(
        self,
        tensors: Vec<(String, AnyTensor)>,
        rule: Rule,
        context: &mut Context<'_>,
    ) -> Result<Selected, Error> {
        let refuse = |place: &Place, detail: &str, cure: &str| {
            Err(Error::new(Kind::InvalidOption, detail).at(place.clone()).cure(cure))
        };
        if let ([(name, _)], Some(place)) = (tensors.as_slice(), &self.place)
            && name.is_empty()
        {
            return refuse(
                place,
                "does not apply to a tensor without a name",
                "leave it out, or send tensors with names: a safetensors file, or tensors in JSON",
            );
        }
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        let mut meant = match &self.include {
            Some(patterns) => patterns::matches(patterns, &names, context)?,
            None => rule.meant(&tensors),
        };
        let excluded = self.exclude.as_deref().unwrap_or_default();
        let excluded = patterns::matches(excluded, &names, context)?;
        meant.iter_mut().zip(excluded).for_each(|(meant, excluded)| *meant &= !excluded);
        if let (Some(place), false) = (&self.place, meant.contains(&true)) {
            return refuse(place, "no tensor is left", "include more, or exclude less");
        }
        let (mut chosen, mut passed) = (Vec::with_capacity(tensors.len()), Vec::new());
        for ((name, tensor), meant) in tensors.into_iter().zip(meant) {
            if meant {
                chosen.push(computable((name, tensor))?);
            } else {
                passed.push((name, tensor));
            }
        }
        Ok(Selected { chosen, passed })
    }
}

/// The tensor, if its type is one that is computed with.
///
/// # Errors
/// [`Kind::UnsupportedTensor`] names it.
pub(super) fn computable((name, tensor): (String, AnyTensor)) -> Result<(String, Tensor), Error> {
    match tensor.known() {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(Error::from(error).about(&name)),
    }
}

impl Rule {
    /// What is meant by the rule. Where nothing can be computed with, all is, to be refused.
    fn meant(self, tensors: &[(String, AnyTensor)]) -> Vec<bool> {
        let known = |tensor: &AnyTensor, is: &dyn Fn(&Tensor) -> bool| match tensor {
            // Floats of eight bits were quantized already, by a scale that stands elsewhere.
            AnyTensor::Known(tensor) => !tensor.dtype().is_eighth() && is(tensor),
            AnyTensor::Opaque(_) => false,
        };
        let is_known = |tensor: &AnyTensor| known(tensor, &|_| true);
        let is_weight = |tensor: &AnyTensor| {
            known(tensor, &|tensor| tensor.dtype().is_float() && tensor.shape().rank() >= 2)
        };
        let which = |is: &dyn Fn(&AnyTensor) -> bool| -> Option<Vec<bool>> {
            let meant: Vec<bool> = tensors.iter().map(|(_, tensor)| is(tensor)).collect();
            meant.contains(&true).then_some(meant)
        };
        let weights = match self {
            Self::Weights => which(&is_weight),
            Self::All => None,
        };
        weights.or_else(|| which(&is_known)).unwrap_or_else(|| vec![true; tensors.len()])
    }
}

#[cfg(test)]
mod tests;

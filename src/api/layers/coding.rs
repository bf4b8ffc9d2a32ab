//! How inputs and outputs of layers become codes: schemes, or what a calibrator learnt.

use serde_json::{Map, Value};

use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::{Fields, Origin};
use crate::api::name::Name;
use crate::api::options::{self, options_of_value};
use quantd_core::layer::{Input, Output, Parameters};
use quantd_core::matmul::Requantization;
use quantd_core::params::Numerics;
use quantd_core::scheme::{Coding, Granularity, GranularityName, Options, Scheme};
use quantd_kernels::scalar::QuantParams;

/// Finds the parameters that a calibrator has learnt, for codes of a kind, or of
/// its own where none is given.
pub type Calibrated<'a> = &'a dyn Fn(
    &Name,
    Option<&Numerics>,
    &mut Context<'_>,
) -> Result<(Numerics, QuantParams<f32>), Error>;

/// Who finds them, and what that may take.
pub(super) type Find<'a, 'c> = (Calibrated<'a>, &'a mut Context<'c>);

/// The options of an input or output, and the name of a calibrator among them.
fn options_of(value: Value, pointer: &str) -> Result<(Options, Option<Name>), Error> {
    let Value::Object(mut map) = value else {
        return Ok((options_of_value(value, pointer)?, None));
    };
    let place = Place::Pointer(format!("{pointer}/calibrator"));
    let name = match map.remove("calibrator").filter(|name| !name.is_null()) {
        None => None,
        Some(name) => Some(Name::new(name.as_str().unwrap_or_default(), place)?),
    };
    Ok((options_of_value(Value::Object(map), pointer)?, name))
}

/// What a calibrator has learnt, and the codes that it is for.
fn learnt(
    options: &Options,
    name: &Name,
    pointer: &str,
    (calibrated, context): Find<'_, '_>,
) -> Result<(Scheme, QuantParams<f32>), Error> {
    let place = |field: &str| Place::Pointer(format!("{pointer}/{field}"));
    if options.range.is_some() || options.scale.is_some() || options.min.is_some() {
        let error = Error::new(Kind::InvalidOption, "given beside a range");
        return Err(error.at(place("calibrator")).cure("leave one of them out"));
    }
    let scheme = options::resolve(options, &Origin::Body(pointer.to_owned()))?;
    if scheme.granularity != Granularity::Tensor {
        let error = Error::new(Kind::InvalidOption, "static parameters are for all rows");
        return Err(error.at(place("granularity")).cure("use tensor, or leave calibrator out"));
    }
    let beside = Options { granularity: None, nan: None, ..options.clone() };
    let integers = scheme.integers("layers");
    let integers = *integers.map_err(|error| Error::of_quant(error, |field| place(field)))?;
    let wanted = Some(&integers).filter(|_| beside != Options::default());
    let (numerics, affine) = calibrated(name, wanted, context)
        .map_err(|error| Error { place: Some(place("calibrator")), ..error })?;
    Ok((Scheme { coding: Coding::Integer(numerics), ..scheme }, affine))
}

/// How the input becomes codes: where nothing is said, unsigned ones with a
/// scale and a zero point for each row.
pub(super) fn input(value: Option<Value>, find: Find<'_, '_>) -> Result<Input, Error> {
    let pointer = "/input";
    let origin = Origin::Body(pointer.to_owned());
    let at = |error| Error::of_quant(error, |field| origin.place(field));
    let said = value.map(|value| options_of(value, pointer)).transpose()?;
    let (mut options, name) = said.unwrap_or_default();
    if name.is_none() && options == Options::default() {
        (options.signed, options.granularity) = (Some(false), Some(GranularityName::Token));
    }
    match name {
        Some(name) => {
            let (scheme, affine) = learnt(&options, &name, pointer, find)?;
            let input = Input::new(&scheme).map_err(at)?;
            Ok(Input { parameters: Parameters::Static(affine), ..input })
        }
        None => Input::new(&options::resolve(&options, &origin)?).map_err(at),
    }
}

/// How the result leaves: as F32 where nothing is said.
pub(super) fn output(value: Option<Value>, find: Find<'_, '_>) -> Result<Output, Error> {
    let pointer = "/output";
    let mut value = match value {
        None => return Ok(Output::F32),
        Some(value) if value == "F32" => return Ok(Output::F32),
        Some(value) => value,
    };
    let origin = Origin::Body(pointer.to_owned());
    let mut requantization = None;
    if let Value::Object(map) = &mut value
        && let Some(word) = map.remove("requantize")
    {
        let mut fields = Fields::new(Map::new(), origin.clone());
        fields.insert("requantize", word);
        requantization = fields.word::<Requantization>("requantize")?;
    }
    let (options, name) = options_of(value, pointer)?;
    let at = |error| Error::of_quant(error, |field| origin.place(field));
    match name {
        None if requantization.is_none() && options == Options::default() => Ok(Output::F32),
        Some(name) => {
            let (scheme, affine) = learnt(&options, &name, pointer, find)?;
            let numerics = *scheme.integers("layers").map_err(at)?;
            Ok(Output::Codes { numerics, affine, requantization })
        }
        None => Output::codes(&options::resolve(&options, &origin)?, requantization).map_err(at),
    }
}

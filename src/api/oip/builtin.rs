//! The built-in models, carried out by what serves `/v1`.

use serde_json::Value;

use crate::api::coded::Item;
use crate::api::context::Context;
use crate::api::dequantize::{self, output_dtype};
use crate::api::error::{Error, Kind, Place};
use crate::api::matmul::{self, Request, Side};
use crate::api::options::{self, SCHEME_FIELDS};
use crate::api::payload;
use crate::api::quantize;
use quantd_codec::Limits;
use quantd_codec::oip::{Input, Output};
use quantd_core::format::integer::{Unpacked, ZERO_POINT};
use quantd_core::format::{CODES, Coded, Parts};
use quantd_core::matmul::Report as ProductReport;
use quantd_core::scheme::{Coding, Options, Scheme};
use quantd_core::tensor::{DType, Reals, Shape, Tensor};

use super::exchange::Call;
use super::models::{Model, Operation};

/// What models call codes.
const Q: &str = "q";

/// What models call a part.
pub(super) fn input_name(part: &'static str) -> &'static str {
    if part == CODES { Q } else { part }
}

/// The fields of schemes that models take: their names say the preset.
fn fields_of_models() -> &'static [&'static str] {
    SCHEME_FIELDS.split_first().map_or(&[], |(_, fields)| fields)
}

/// Carries a request to a built-in model out; gives all its outputs.
///
/// # Errors
/// [`Error`] names the parameter or the input at fault.
pub fn run(
    model: &Model,
    call: &mut Call,
    context: &mut Context<'_>,
) -> Result<Vec<Output>, Error> {
    match model.operation {
        Operation::Quantize(preset) => run_quantize(preset, call, context),
        Operation::Dequantize(preset) => run_dequantize(preset, call, context),
        Operation::Matmul => run_matmul(call, context),
    }
}

fn output(name: &'static str, tensor: Tensor) -> Output {
    Output { name, tensor, parameters: Vec::new(), binary: false }
}

/// A scalar as the vector of one element that the protocol's clients expect.
fn vector(tensor: Tensor) -> Tensor {
    if tensor.shape().rank() > 0 {
        return tensor;
    }
    let one = Shape::vector(1).ok().and_then(|shape| tensor.clone().reshaped(shape));
    one.unwrap_or(tensor)
}

fn internal() -> Error {
    Error::new(Kind::Internal, "a result does not fit its shape")
}

/// The scheme fields among the parameters, over those of the preset.
fn options_over(preset: &str, call: &mut Call) -> Result<Options, Error> {
    for name in ["preset", "scheme"] {
        if call.fields.take(name).is_some() {
            return Err(call
                .fields
                .error(name, "the name of the model says it")
                .cure("call another model, or set the fields of the scheme one by one"));
        }
    }
    call.fields.insert("preset", Value::String(preset.to_owned()));
    options::take(&mut call.fields)
}

fn run_quantize(
    preset: &str,
    call: &mut Call,
    context: &mut Context<'_>,
) -> Result<Vec<Output>, Error> {
    let known = ["x"];
    let resolved = options_over(preset, call)?.resolve();
    let fields = call.fields.clone();
    let scheme = resolved.map_err(|error| Error::of_quant(error, |field| fields.place(field)))?;
    call.fields.clone().finish(fields_of_models())?;
    let Input { tensor, .. } = call.require("x", &known)?;
    call.finish_inputs(&known)?;
    let located = |error| {
        Error::of_quant(error, |field| match field {
            "data" | "shape" => Place::Pointer(format!("/inputs/0/{field}")),
            field => fields.place(field),
        })
    };
    let plan = scheme.plan(&tensor).map_err(&located)?;
    context.afford(plan.cost)?;
    let format = (call.format(), &mut *context);
    let made = quantize::quantize_one(tensor, (&scheme, &plan), false, format, located)?;
    context.release(made.text);
    let mut outputs = Vec::new();
    for part in made.parts {
        outputs.push(match part.name {
            CODES => {
                let parameters = described(&scheme, &part.tensor, &made.shape);
                Output { parameters, ..output(Q, part.tensor) }
            }
            ZERO_POINT => output(ZERO_POINT, vector(widened(&part.tensor).ok_or_else(internal)?)),
            name => {
                let dtype = part.tensor.dtype();
                let named = ("quantd_dtype", dtype.name().to_owned());
                let parameters = if dtype.is_eighth() { vec![named] } else { Vec::new() };
                Output { parameters, ..output(name, vector(part.tensor)) }
            }
        });
    }
    outputs.push(metrics(&made.report.figures().collect::<Vec<_>>()).ok_or_else(internal)?);
    Ok(outputs)
}

/// What codes are that the protocol has no types for: packed ones, and floats of eight bits.
fn described(scheme: &Scheme, codes: &Tensor, shape: &[usize]) -> Vec<(&'static str, String)> {
    let dims = || shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let of_shape = || ("quantd_shape", format!("[{}]", dims()));
    match (&scheme.coding, scheme.packed) {
        (Coding::Integer(numerics), true) => {
            let letter = if numerics.signed { 'I' } else { 'U' };
            vec![
                ("quantd_dtype", format!("{letter}{}", numerics.bits)),
                ("quantd_packing", format!("int{}_lo_hi", numerics.bits)),
                of_shape(),
            ]
        }
        (Coding::Integer(_), false) => Vec::new(),
        (_, true) => vec![("quantd_dtype", scheme.format.name().to_owned()), of_shape()],
        (_, false) if codes.dtype().is_eighth() => {
            vec![("quantd_dtype", codes.dtype().name().to_owned()), of_shape()]
        }
        (_, false) => Vec::new(),
    }
}

/// Zero points as I32, whatever the type of the codes.
fn widened(zero_point: &Tensor) -> Option<Tensor> {
    // Exact: codes have at most 16 bits.
    let Reals::F32(reals) = zero_point.reals() else { return None };
    #[expect(clippy::cast_possible_truncation, reason = "codes have at most 16 bits")]
    let wide: Vec<i32> = reals.iter().map(|&zero_point| zero_point as i32).collect();
    Tensor::from_elements(DType::I32, zero_point.shape().clone(), &wide)
}

fn product_figures(report: &ProductReport) -> [(&'static str, Option<f64>); 4] {
    [
        ("mse", report.mse),
        ("max_abs_error", report.max_abs_error),
        ("sqnr_db", report.sqnr_db),
        ("cosine", report.cosine),
    ]
}

/// Figures as one vector, named by a parameter; NaN where a figure is none.
fn metrics(figures: &[(&'static str, Option<f64>)]) -> Option<Output> {
    let values: Vec<f64> = figures.iter().map(|(_, value)| value.unwrap_or(f64::NAN)).collect();
    let names: Vec<_> = figures.iter().map(|(name, _)| *name).collect();
    let shape = Shape::vector(values.len()).ok()?;
    Some(Output {
        parameters: vec![("metric_names", names.join(","))],
        ..output("metrics", Tensor::from_elements(DType::F64, shape, &values)?)
    })
}

fn run_dequantize(
    preset: &str,
    call: &mut Call,
    context: &mut Context<'_>,
) -> Result<Vec<Output>, Error> {
    let dtype = output_dtype(&mut call.fields)?;
    let mut shape = payload::shape(&mut call.fields, context.limits)?;
    let mut options = options_over(preset, call)?;
    let own = ["output_dtype", "shape"];
    let known_fields: Vec<_> = own.iter().chain(fields_of_models()).copied().collect();
    call.fields.clone().finish(&known_fields)?;
    let types = options.format().types(&options);
    let names: Vec<_> = types.iter().map(|part| input_name(part.name)).collect();
    let place = Place::Pointer("/inputs/0".to_owned());
    let mut parts = Parts::default();
    for (part, name) in types.iter().zip(&names) {
        let input = match part.required {
            true => Some(call.require(name, &names)?),
            false => call.take(name),
        };
        let Some(input) = input else { continue };
        if part.name == CODES
            && let Some(stated) = shape_of(&input, &place, context.limits)?
        {
            // Integers say it where they are packed, floats wherever the protocol has no type for them.
            let is_shorter = input.tensor.shape().len() != stated.len();
            options.packed = Some(options.format().is_integer() || is_shorter);
            shape = Some(stated);
        }
        parts.push(part.name, input.tensor);
    }
    call.finish_inputs(&names)?;
    let coded = Coded { parts, shape, options };
    let item = Item { name: String::new(), coded, place: call.fields.origin().clone() };
    let restored = dequantize::restore(&item, dtype, call.format(), context)?;
    context.release(dequantize::text_bytes(&restored, call.format()));
    Ok(vec![output("x", restored)])
}

/// The shape that packed codes say they have, as the answer of a quantizing
/// model says it.
fn shape_of(q: &Input, place: &Place, limits: &Limits) -> Result<Option<Shape>, Error> {
    let Some(text) = q.parameters.get("quantd_shape") else { return Ok(None) };
    let inner = text.as_str().and_then(|text| text.strip_prefix('[')?.strip_suffix(']'));
    let dims = inner.map(|inner| inner.split(',').filter(|dim| !dim.is_empty()));
    let dims: Option<Vec<usize>> = dims.and_then(|dims| dims.map(|dim| dim.parse().ok()).collect());
    match dims.and_then(|dims| Shape::new(dims).ok()) {
        Some(shape) => {
            limits.check(&shape).map_err(|error| Error::from(error).at(place.clone()))?;
            Ok(Some(shape))
        }
        None => Err(Error::new(Kind::InvalidOption, "quantd_shape is not a shape")
            .at(place.clone())
            .cure("write it as \"[2,3]\"")),
    }
}

fn run_matmul(call: &mut Call, context: &mut Context<'_>) -> Result<Vec<Output>, Error> {
    let known = ["a", "b", "bias", "a_scale", "a_zero_point", "b_scale", "b_zero_point"];
    matmul::SCHEMES.into_iter().try_for_each(|name| call.fields.nest(name))?;
    let transposed = matmul::transpose_b(&mut call.fields.clone())?;
    let a = side("a", call, transposed, &known)?;
    let b = side("b", call, transposed, &known)?;
    let bias = call.take("bias").map(|input| input.tensor);
    call.finish_inputs(&known)?;
    let mut request = Request { a, b, bias, fields: call.fields.clone() };
    let made = matmul::multiply(&mut request, call.format(), context)?;
    let mut outputs = vec![output("y", made.result)];
    if let Some(report) = made.report {
        outputs.push(metrics(&product_figures(&report)).ok_or_else(internal)?);
    }
    Ok(outputs)
}

/// An operand: codes when its elements are 8-bit integers, else real numbers.
fn side(name: &str, call: &mut Call, transposed: bool, known: &[&str]) -> Result<Side, Error> {
    let Input { tensor, .. } = call.require(name, known)?;
    let field = format!("{name}_scheme");
    let scheme = call.fields.take(&field);
    let pointer = format!("/parameters/{field}");
    if tensor.dtype().is_float() {
        let scheme = matmul::scheme_or_default(name, scheme, transposed, &pointer)?;
        return Ok(Side::Real { tensor, scheme: Box::new(scheme) });
    }
    if scheme.is_some() {
        return Err(call.fields.error(&field, "the operand is quantized already"));
    }
    let scale = call.take(&format!("{name}_scale")).map(|input| input.tensor);
    let zero_point = call.take(&format!("{name}_zero_point")).map(|input| input.tensor);
    Ok(Side::coded(name, Unpacked::bare(tensor, scale, zero_point), transposed))
}

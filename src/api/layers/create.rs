//! Requests that make a layer: weights, bias and options.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::coded::{Metadata, json_item, safetensors_item};
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::field::names;
use crate::api::fields::{Fields, Origin, merge_schemes};
use crate::api::matmul::REAL;
use crate::api::name::Name;
use crate::api::options::{self, SCHEME_FIELDS, options_of_value};
use crate::api::payload::{self, Format, Payload};
use quantd_codec::json::{self, Member};
use quantd_codec::{Within, npy, safetensors};
use quantd_core::format::integer::Unpacked;
use quantd_core::layer::{Activation, Conv, Definition, Geometry, Layer, Order, Weight};
use quantd_core::matmul::Operand;
use quantd_core::partition::CHUNK;
use quantd_core::scheme::{Granularity, Options, Scheme};
use quantd_core::tensor::{Buffer, DType, Reals, Tensor};
use quantd_core::transpose::transposed;
use quantd_core::word::Word;
use quantd_core::{QuantError, Task, cost};
use quantd_kernels::Filling;
use rayon::prelude::*;

use super::coding::{self, Calibrated};
use super::options::{
    ACTIVATION, DILATION, GROUPS, KEEP_FLOAT, KIND, LayerKind, MAX_LINKS, OPTIONS, PADDING, STRIDE,
    TRANSPOSE,
};

/// Bytes of a step in K of the last panel of outputs, which is as wide as any.
const PANEL: usize = 128;

/// A layer, or the names of a chain.
#[derive(Debug)]
pub enum Made {
    /// A layer and what it was made of.
    Layer(Box<(Definition, Layer)>),
    /// The names of the layers of a chain.
    Chain(Vec<Name>),
}

/// Weights as they came in.
#[derive(Debug)]
enum Given {
    Real(Tensor, Option<Value>),
    Coded(Box<Unpacked>),
}

/// A request, decoded.
#[derive(Debug)]
pub struct Request {
    weight: Option<Given>,
    bias: Option<Tensor>,
    fields: Fields,
}

/// Decodes a request. What it asks for is not looked at yet.
///
/// # Errors
/// [`Error`] names the field at fault.
pub fn read(payload: Payload, context: &mut Context<'_>) -> Result<Request, Error> {
    let (body, input, query) = payload.inflate(context)?;
    let mut fields = query.into_fields()?;
    fields.gather("scheme", &SCHEME_FIELDS);
    ["input", "output"].into_iter().try_for_each(|name| fields.nest(name))?;
    match input {
        Format::Json => decode_json(body.bytes(), fields, context),
        Format::Safetensors => decode_safetensors(body, fields, context),
        Format::Npy => {
            let within: Within<'_> = (context.limits, &mut |bytes| context.take(bytes));
            Ok(alone(npy::read(body, within)?, fields))
        }
        Format::Raw => Ok(alone(payload::raw_tensor(body, &mut fields, context.limits)?, fields)),
    }
}

impl Request {
    /// The name that the body gives.
    ///
    /// # Errors
    /// When it is none.
    pub fn name(&mut self) -> Result<Option<Name>, Error> {
        let place = self.fields.place("name");
        let name = self.fields.take("name");
        name.map(|name| Name::new(name.as_str().unwrap_or_default(), place)).transpose()
    }

    /// Makes what the request describes.
    ///
    /// # Errors
    /// [`Error`] names the field at fault.
    pub fn make(
        mut self,
        calibrated: Calibrated<'_>,
        context: &mut Context<'_>,
    ) -> Result<Made, Error> {
        let Some(chain) = chain(&mut self.fields)? else {
            return Ok(Made::Layer(Box::new(layer(self, calibrated, context)?)));
        };
        if self.weight.is_some() {
            return Err(self.fields.error("weight", "a chain has no weights of its own"));
        }
        self.fields.finish(&names(&OPTIONS))?;
        Ok(Made::Chain(chain))
    }
}

/// A weight without a bias.
fn alone(tensor: Tensor, mut fields: Fields) -> Request {
    let scheme = fields.take("scheme");
    Request { weight: Some(Given::Real(tensor, scheme)), bias: None, fields }
}

fn chain(fields: &mut Fields) -> Result<Option<Vec<Name>>, Error> {
    let place = fields.place("chain");
    let kind = fields.clone().take("kind");
    let Some(value) = fields.take("chain") else {
        if kind.is_some_and(|kind| kind == LayerKind::Chain.name()) {
            return Err(fields.error("chain", "missing").cure("for instance [\"fc1\", \"fc2\"]"));
        }
        return Ok(None);
    };
    if fields.one_of("kind", &[LayerKind::Chain.name()])?.is_none() && kind.is_some() {
        return Err(fields.error("chain", "given beside another kind"));
    }
    let items = match value {
        Value::Array(items) if (1..=MAX_LINKS).contains(&items.len()) => items,
        one @ Value::String(_) => vec![one],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(fields
                .error("chain", format!("not a list of 1 to {MAX_LINKS} names"))
                .cure("for instance [\"fc1\", \"fc2\"]"));
        }
    };
    let name = |item: &Value| Name::new(item.as_str().unwrap_or_default(), place.clone());
    items.iter().map(name).collect::<Result<_, _>>().map(Some)
}

fn layer(
    request: Request,
    calibrated: Calibrated<'_>,
    context: &mut Context<'_>,
) -> Result<(Definition, Layer), Error> {
    let Request { weight, bias, mut fields } = request;
    let Some(given) = weight else {
        let error = fields.missing("weight", &names(&OPTIONS));
        let cure = "send a tensor, such as {\"data\": [[1, 2]]}, or codes; or a chain";
        return Err(if error.cure.is_empty() { error.cure(cure) } else { error });
    };
    let origin = fields.origin().clone();
    let kind = fields.get(&KIND)?.unwrap_or(LayerKind::Linear);
    let transpose = fields.get(&TRANSPOSE)?.unwrap_or(false);
    let (geometry, order) = match (kind, transpose) {
        (LayerKind::Conv2d, false) => (Geometry::Conv(conv(&mut fields)?), Order::Oihw),
        (LayerKind::Conv2d, true) => {
            return Err(fields.error("transpose", "does not apply to kernels"));
        }
        (_, false) => (Geometry::Linear, Order::OutIn),
        (_, true) => (Geometry::Linear, Order::InOut),
    };
    let input = coding::input(fields.take("input"), (calibrated, context))?;
    let output = coding::output(fields.take("output"), (calibrated, context))?;
    let activation = fields.get(&ACTIVATION)?.unwrap_or(Activation::None);
    let keep_float = fields.get(&KEEP_FLOAT)?.unwrap_or(true);
    fields.finish(&names(&OPTIONS))?;
    let elements = match &given {
        Given::Real(tensor, _) => tensor.shape().len(),
        Given::Coded(coded) => coded.codes.shape().len(),
    };
    // Codes, the same in another order, packed as words in panels, and real numbers, as they come, in another order
    // and as they are kept; what is stored of codes and numbers.
    let dims = match &given {
        Given::Real(tensor, _) => tensor.shape().dims(),
        Given::Coded(coded) => coded.codes.shape().dims(),
    };
    let outputs = dims.get(usize::from(order == Order::InOut)).copied().unwrap_or(1);
    let panel = (elements / outputs.max(1)).saturating_mul(PANEL);
    context.reserve(elements.saturating_mul(1 + 1 + 2 + 12 + 5).saturating_add(panel))?;
    context.afford(cost::pack(elements))?;
    let (weight, float) = weights(&given, order, keep_float, context)?;
    let bias = bias.map(|bias| real(&bias).into_owned());
    let definition = Definition { geometry, weight, bias, float, input, output, activation };
    let layer = Layer::new(&definition, context.task).map_err(|error| located(error, &origin))?;
    context.take(0)?;
    Ok((definition, layer))
}

/// Where the caller wrote what is wrong.
fn located(error: QuantError, origin: &Origin) -> Error {
    Error::of_quant(error, |field| match field {
        "requantize" => Place::Pointer("/output/requantize".to_owned()),
        "shape" => Place::Pointer("/weight/shape".to_owned()),
        field => origin.place(field),
    })
}

/// The weights as codes, and as real numbers where those are kept.
fn weights(
    given: &Given,
    order: Order,
    keep_float: bool,
    context: &mut Context<'_>,
) -> Result<(Weight, Option<Tensor>), Error> {
    let at = |error: QuantError| {
        Error::of_quant(error, |field| match field {
            "data" | "codes" | "shape" | "scale" | "zero_point" => {
                Place::Pointer(format!("/weight/{field}"))
            }
            field => Place::Pointer(format!("/weight/scheme/{field}")),
        })
    };
    match given {
        Given::Real(tensor, scheme) => {
            let scheme = weight_scheme(scheme.clone(), order)?;
            let plan = scheme.plan(tensor).map_err(at)?;
            context.afford(plan.cost)?;
            let operand = Operand::Real { tensor, scheme: &scheme };
            context.reserve(plan.working_bytes)?;
            let weight = Weight::new(&operand, order, context.task).map_err(at)?;
            context.take(0)?;
            let float =
                if keep_float { real_weight(tensor, order, &weight, context.task) } else { None };
            context.take(0)?;
            Ok((weight, float))
        }
        Given::Coded(coded) => {
            let operand = Operand::Coded {
                codes: &coded.codes,
                scale: coded.scale.as_ref(),
                zero_point: coded.zero_point.as_ref(),
                granularity: coded_granularity(coded, order),
                stated: coded.stated,
            };
            let weight = Weight::new(&operand, order, context.task).map_err(at)?;
            context.take(0)?;
            let float =
                if keep_float { Some(weight.restored(context.task).map_err(at)?) } else { None };
            context.take(0)?;
            Ok((weight, float))
        }
    }
}

/// The real numbers that codes were found of, a row (or kernel) an output.
fn real_weight(tensor: &Tensor, order: Order, weight: &Weight, task: &Task) -> Option<Tensor> {
    let float = real(tensor);
    let float = match (order, weight.codes().shape().dims()) {
        (Order::InOut, &[n, k]) => transposed(&float, [k, n], task),
        _ => Cow::Borrowed(&*float),
    };
    // Memory that was never used takes longer to be had than to be written: in parts, which end.
    let mut filling = Filling::of::<f32>(float.len());
    let (parts, written) = filling.parts::<f32>(CHUNK);
    float.par_chunks(CHUNK).zip(parts).for_each(|(float, part)| {
        if !task.is_cancelled() {
            part.copy_from_slice(float);
            written.whole(part);
        }
    });
    Tensor::view(DType::F32, weight.codes().shape().clone(), Arc::new(filling.finish()), 0)
}

/// The elements in f32.
fn real(tensor: &Tensor) -> Cow<'_, [f32]> {
    use quantd_kernels::real::Real;
    match tensor.reals() {
        Reals::F32(x) => x,
        Reals::F64(x) => x.iter().map(|&x| <f32 as Real>::from_f64(x)).collect(),
    }
}

/// A scale for each output.
const fn outputs(order: Order) -> Granularity {
    Granularity::Channel { axis: if matches!(order, Order::InOut) { 1 } else { 0 } }
}

/// Which codes share parameters: several of them are those of outputs where nothing else is named.
fn coded_granularity(coded: &Unpacked, order: Order) -> Granularity {
    let unnamed = if coded.has_several() { outputs(order) } else { Granularity::Tensor };
    coded.named.unwrap_or(unnamed)
}

/// How weights are quantized: with 8 bits and one scale an output, unless something else is named.
fn weight_scheme(scheme: Option<Value>, order: Order) -> Result<Scheme, Error> {
    let pointer = "/weight/scheme";
    let options = match scheme {
        Some(scheme) => options_of_value(scheme, pointer)?,
        None => Options::default(),
    };
    let origin = Origin::Body(pointer.to_owned());
    let mut scheme = options::resolve(&options, &origin)?;
    if !options.names_granularity() {
        scheme.granularity = outputs(order);
    }
    let at = |error| Error::of_quant(error, |field| origin.place(field));
    scheme.multiplied("weights of layers").map_err(at)?;
    Ok(scheme)
}

fn conv(fields: &mut Fields) -> Result<Conv, Error> {
    let groups = fields.get(&GROUPS)?.unwrap_or(1);
    Ok(Conv {
        stride: fields.get(&STRIDE)?.unwrap_or([1; 2]),
        padding: fields.get(&PADDING)?.unwrap_or([0; 4]),
        dilation: fields.get(&DILATION)?.unwrap_or([1; 2]),
        groups: usize::try_from(groups).unwrap_or(1),
    })
}

fn decode_json(
    text: &[u8],
    mut query: Fields,
    context: &mut Context<'_>,
) -> Result<Request, Error> {
    let members = json::members(text)?;
    let mut fields = payload::options_beside(&members, &["weight", "bias"], context)?;
    let [weight, bias] = ["weight", "bias"].map(|key| json::find(&members, key));
    let scheme = query.take("scheme");
    fields.merge(query)?;
    let weight = weight.map(|member| json_weight(member, scheme, context)).transpose()?;
    let bias =
        bias.map(|member| payload::numbers_or_tensor(member, DType::F32, context)).transpose()?;
    // The scheme of weights stands beside them; in a query there is no such place.
    if fields.clone().take("scheme").is_some() {
        return Err(fields.error("scheme", "does not apply here").cure("put it into weight"));
    }
    Ok(Request { weight, bias, fields })
}

/// A weight with a scheme, its own or one of the query, or what `quantize` answered.
fn json_weight(
    member: &Member<'_>,
    query: Option<Value>,
    context: &mut Context<'_>,
) -> Result<Given, Error> {
    let base = "/weight";
    let members = json::members(member.value)
        .map_err(|error| Error::from(error).at(Place::Pointer(base.to_owned())))?;
    if members.iter().any(|member| member.key == "codes") {
        let mut fields = Fields::default();
        if let Some(scheme) = query {
            fields.insert("scheme", scheme);
        }
        let item = json_item(&members, base, &fields, context)?;
        return Ok(Given::Coded(Box::new(item.integers(context)?)));
    }
    let scheme = json::find(&members, "scheme");
    let scheme = scheme.map(|m| context.read_option(m.value, "/weight/scheme")).transpose()?;
    let scheme = merge_schemes(scheme, query, "/weight/scheme")?;
    let (tensor, rest) = payload::tensor_of_members(&members, base, context)?;
    match rest.iter().find(|member| member.key != "scheme") {
        None => Ok(Given::Real(tensor, scheme)),
        Some(member) => Err(payload::unknown_member(member, base, &REAL)),
    }
}

/// Tensors `weight` and `bias`, or `weight.codes`, `weight.scale`,
/// `weight.zero_point` (or these without `weight.`) as `quantize` answers them.
fn decode_safetensors(
    body: Arc<Buffer>,
    mut fields: Fields,
    context: &mut Context<'_>,
) -> Result<Request, Error> {
    let document = safetensors::read(body, context.limits)?;
    let metadata = Metadata::read(&document.metadata, context)?;
    let mut parts: BTreeMap<String, Tensor> = document.tensors.into_iter().collect();
    // As `quantize` answers for a tensor of that name, or for one without a name.
    let name = ["weight", ""]
        .into_iter()
        .find(|name| parts.contains_key(if name.is_empty() { "codes" } else { "weight.codes" }));
    let scheme = fields.take("scheme").or_else(|| metadata.scheme(name.unwrap_or("weight")));
    let weight = match (parts.remove("weight"), name) {
        (Some(tensor), _) => Some(Given::Real(tensor, scheme)),
        (None, Some(name)) => {
            let query = match &scheme {
                Some(scheme) => options_of_value(scheme.clone(), "/weight/scheme")?,
                None => Options::default(),
            };
            let item = safetensors_item(name.to_owned(), &mut parts, &metadata, &query, context)?;
            Some(Given::Coded(Box::new(item.integers(context)?)))
        }
        (None, None) => None,
    };
    let bias = parts.remove("bias");
    if let Some(name) = parts.keys().next() {
        let detail = format!("tensor {name:?} does not belong to a layer");
        return Err(Error::new(Kind::MalformedBody, detail)
            .cure("known here: weight, bias, and codes, scale, zero_point of weight"));
    }
    if weight.is_none() && fields.clone().take("chain").is_none() {
        let detail = "no tensor called weight, and none called weight.codes";
        return Err(Error::new(Kind::MalformedBody, detail).cure("name the tensor weight"));
    }
    Ok(Request { weight, bias, fields })
}

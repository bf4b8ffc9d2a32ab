//! `matmul`: two tensors in, their product by way of 8-bit integers out.

mod options;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use quantd_codec::json::{self, Member};
use quantd_codec::safetensors;
use quantd_core::cost::{self, Cost};
use quantd_core::format::integer::Unpacked;
use quantd_core::matmul::{
    Dims, Fault, Form, Multiplied, Operand, Product, Requantization, matmul,
};
use quantd_core::scheme::{Granularity, Options, Scheme};
use quantd_core::tensor::{Buffer, DType, Tensor};

use super::answer::{Answer, to_json_text};
use super::coded::{Metadata, json_item, safetensors_item};
use super::context::Context;
use super::documents::{ProductReportDoc, SchemeDoc};
use super::error::{Error, Kind, Place};
use super::fields::field::names;
use super::fields::{Fields, Origin, merge_schemes};
use super::options::{self as schemes, options_of_value};
use super::payload::{self, Format, Payload};

use self::options::{OUTPUT_DTYPE, OUTPUT_SCALE, RELU, REPORT, REQUANTIZE, TRANSPOSE_B};

pub use self::options::{MEMBERS, OPERANDS, OPTIONS, PRODUCTS};

const SIDES: [&str; 2] = ["a", "b"];
/// What a query calls the schemes of the operands.
pub(super) const SCHEMES: [&str; 2] = ["a_scheme", "b_scheme"];
/// Members of an operand of real numbers, and what others begin with.
pub(super) const REAL: [&str; 6] = ["data", "data_b64", "shape", "dtype", "scheme", "codes"];

/// An operand as it came in.
pub(super) enum Side {
    Real { tensor: Tensor, scheme: Box<Scheme> },
    Coded(Box<Unpacked>, Granularity),
}

impl Side {
    /// Codes. Where nothing else is named, several parameters are those of the rows of A and of the columns of B.
    pub(super) fn coded(side: &str, codes: Unpacked, transpose_b: bool) -> Self {
        let granularity = match (codes.named, codes.has_several(), side) {
            (Some(granularity), ..) => granularity,
            (None, false, _) => Granularity::Tensor,
            (None, true, "b") => columns(transpose_b),
            (None, true, _) => Granularity::Token,
        };
        Self::Coded(Box::new(codes), granularity)
    }

    const fn operand(&self) -> Operand<'_> {
        match self {
            Self::Real { tensor, scheme } => Operand::Real { tensor, scheme },
            Self::Coded(item, granularity) => Operand::Coded {
                codes: &item.codes,
                scale: item.scale.as_ref(),
                zero_point: item.zero_point.as_ref(),
                granularity: *granularity,
                stated: item.stated,
            },
        }
    }

    const fn scheme(&self) -> Option<&Scheme> {
        match self {
            Self::Real { scheme, .. } => Some(scheme),
            Self::Coded(..) => None,
        }
    }
}

/// A request, decoded.
pub(super) struct Request {
    pub(super) a: Side,
    pub(super) b: Side,
    pub(super) bias: Option<Tensor>,
    pub(super) fields: Fields,
}

/// What the fields beside the operands say.
struct Settings {
    transpose_b: bool,
    form: Form,
    relu: bool,
    report: bool,
}

/// Makes the product of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let (body, input, query) = payload.inflate(context)?;
    let mut fields = query.into_fields()?;
    SCHEMES.into_iter().try_for_each(|name| fields.nest(name))?;
    let mut request = match input {
        Format::Json => decode_json(body.bytes(), fields, context)?,
        Format::Safetensors => {
            let transpose_b = transpose_b(&mut fields)?;
            decode_safetensors(body, fields, transpose_b, context)?
        }
        Format::Npy | Format::Raw => {
            let detail = "a product has two operands, the format holds one tensor";
            return Err(Error::new(Kind::UnsupportedMediaType, detail)
                .cure("send application/json or application/x-safetensors"));
        }
    };
    let made = multiply(&mut request, format, context)?;
    write(made, &request, format, context)
}

/// Makes the product for an answer of that format.
///
/// # Errors
/// [`Error`] names the field or the operand at fault.
pub(super) fn multiply(
    request: &mut Request,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Multiplied, Error> {
    let origin = request.fields.origin().clone();
    let settings = settings(request, &origin)?;
    let product = Product {
        a: request.a.operand(),
        b: request.b.operand(),
        transpose_b: settings.transpose_b,
        bias: request.bias.as_ref(),
        relu: settings.relu,
        form: settings.form,
        report: settings.report,
    };
    let located = |fault| locate(fault, &origin);
    let dims = Dims::new(&product).map_err(located)?;
    context.limits.check(&dims.shape)?;
    let text = if format == Format::Json { json::text_of_one(product.form.dtype()) } else { 0 };
    context.reserve(dims.working_bytes(&product).map_err(located)?)?;
    context.foresee(dims.shape.len().saturating_mul(text))?;
    context.afford(cost(request, &dims, settings.report, format))?;
    matmul(&product, context.task).map_err(located)
}

/// What quantizing the operands and multiplying them costs, in real numbers as well for a report.
fn cost(request: &Request, dims: &Dims, report: bool, format: Format) -> Cost {
    let side = |side: &Side| match side {
        Side::Real { tensor, scheme } => {
            let own = scheme.plan(tensor).map_or(Cost::default(), |plan| plan.cost);
            own + cost::pack(tensor.shape().len())
        }
        Side::Coded(item, _) => cost::pack(item.codes.shape().len()),
    };
    let cells = dims.shape.len();
    let compared = if report { cost::real_product(cells, dims.k) } else { Cost::default() };
    let text = cost::text(if format == Format::Json { cells } else { 0 });
    side(&request.a) + side(&request.b) + cost::product(cells, dims.k) + compared + text
}

/// Where the caller wrote what is wrong.
fn locate(fault: Fault, origin: &Origin) -> Error {
    let Fault { side, error } = fault;
    let place = |field: &str| match (origin, side) {
        (_, "") => origin.place(field),
        // Tensors of a file, and what its metadata says of them.
        (Origin::Query, side) => Place::Pointer(format!("/{side}/{field}")),
        (Origin::Body(_), side)
            if ["data", "codes", "shape", "scale", "zero_point"].contains(&field) =>
        {
            Place::Pointer(format!("/{side}/{field}"))
        }
        (Origin::Body(_), side) => Place::Pointer(format!("/{side}/scheme/{field}")),
    };
    Error::of_quant(error, place)
}

pub(super) fn transpose_b(fields: &mut Fields) -> Result<bool, Error> {
    Ok(fields.get(&TRANSPOSE_B)?.unwrap_or(false))
}

/// Reads the options; those of a safetensors request have lost `transpose_b` already.
fn settings(request: &mut Request, origin: &Origin) -> Result<Settings, Error> {
    let real = |side: &Side| match side {
        Side::Real { .. } => true,
        Side::Coded(item, _) => item.scale.is_some(),
    };
    let scaled = real(&request.a) && real(&request.b);
    let fields = &mut request.fields;
    let default = if scaled { DType::F32 } else { DType::I32 };
    let output = fields.get(&OUTPUT_DTYPE)?.unwrap_or(default);
    let form = if output == DType::I32 {
        Form::I32
    } else if output == DType::F32 {
        Form::F32
    } else {
        codes_form(fields, output == DType::U8, origin)?
    };
    let settings = Settings {
        transpose_b: transpose_b(fields)?,
        form,
        relu: fields.get(&RELU)?.unwrap_or(false),
        report: fields.get(&REPORT)?.unwrap_or(false),
    };
    request.fields.clone().finish(&names(&[OPTIONS]))?;
    Ok(settings)
}

fn codes_form(fields: &mut Fields, unsigned: bool, origin: &Origin) -> Result<Form, Error> {
    let Some(scale) = fields.get(&OUTPUT_SCALE)? else {
        return Err(fields.error("output_scale", "missing").cure("for instance 0.5"));
    };
    let scale = <f32 as quantd_kernels::real::Real>::from_f64(scale);
    if scale < f32::MIN_POSITIVE {
        return Err(Error::new(Kind::InvalidOption, "not a positive number")
            .at(origin.place("output_scale")));
    }
    let (min, max) = if unsigned { (0, 255) } else { (-128, 127) };
    let zero_point = fields.integer("output_zero_point", min, max)?.unwrap_or(0);
    let requantization = fields.get(&REQUANTIZE)?;
    Ok(Form::Codes {
        unsigned,
        scale,
        zero_point: i32::try_from(zero_point).unwrap_or(0),
        requantization: requantization.unwrap_or(Requantization::FloatOrt),
    })
}

/// What an operand without a scheme is quantized with: activations on the
/// whole with a zero point, weights column by column without one.
pub(super) fn scheme_or_default(
    side: &str,
    scheme: Option<Value>,
    transpose_b: bool,
    pointer: &str,
) -> Result<Scheme, Error> {
    let given = match scheme {
        Some(scheme) => options_of_value(scheme, pointer)?,
        None => Options::default(),
    };
    let is_bare = given == Options::default();
    let origin = Origin::Body(pointer.to_owned());
    let mut scheme = schemes::resolve(&given, &origin)?;
    if is_bare && side == "a" {
        scheme = schemes::resolve(&Options { signed: Some(false), ..given }, &origin)?;
    } else if is_bare {
        scheme.granularity = columns(transpose_b);
    }
    let at = |error| Error::of_quant(error, |field| origin.place(field));
    scheme.multiplied("products").map_err(at)?;
    Ok(scheme)
}

/// A scale for each column of the product.
const fn columns(transpose_b: bool) -> Granularity {
    Granularity::Channel { axis: if transpose_b { -2 } else { -1 } }
}

fn decode_json(
    text: &[u8],
    mut query: Fields,
    context: &mut Context<'_>,
) -> Result<Request, Error> {
    let members = json::members(text)?;
    let mut fields = payload::options_beside(&members, &[SIDES[0], SIDES[1], "bias"], context)?;
    let schemes = SCHEMES.map(|name| query.take(name));
    fields.merge(query)?;
    let transposed = transpose_b(&mut fields.clone())?;
    let mut sides = Vec::with_capacity(2);
    for (side, scheme) in SIDES.into_iter().zip(schemes) {
        let Some(member) = json::find(&members, side) else {
            let error = fields.missing(side, &names(&[MEMBERS, OPTIONS]));
            let cure = "send a tensor, such as {\"data\": [[1, 2]]}, or codes";
            return Err(if error.cure.is_empty() { error.cure(cure) } else { error });
        };
        sides.push(json_side(side, member, (transposed, scheme), context)?);
    }
    let bias = json::find(&members, "bias");
    let bias = bias.map(|member| json_bias(member, &fields, context)).transpose()?;
    let [a, b] = <[Side; 2]>::try_from(sides)
        .map_err(|_| Error::new(Kind::Internal, "a product has two sides"))?;
    Ok(Request { a, b, bias, fields })
}

/// An operand: a tensor with a scheme, its own or one of the query, or what `quantize` answered.
fn json_side(
    side: &str,
    member: &Member<'_>,
    (transpose_b, query): (bool, Option<Value>),
    context: &mut Context<'_>,
) -> Result<Side, Error> {
    let base = payload::pointer("", side);
    let members = json::members(member.value)
        .map_err(|error| Error::from(error).at(Place::Pointer(base.clone())))?;
    if members.iter().any(|member| member.key == "codes") {
        let mut fields = Fields::default();
        if let Some(scheme) = query {
            fields.insert("scheme", scheme);
        }
        let item = json_item(&members, &base, &fields, context)?;
        return Ok(Side::coded(side, item.integers(context)?, transpose_b));
    }
    let (tensor, rest) = payload::tensor_of_members(&members, &base, context)?;
    let mut scheme = None;
    for member in rest {
        if member.key != "scheme" {
            return Err(payload::unknown_member(member, &base, &REAL));
        }
        let at = payload::pointer(&base, &member.key);
        scheme = Some(context.read_option(member.value, &at)?).filter(|scheme| !scheme.is_null());
    }
    let at = payload::pointer(&base, "scheme");
    let scheme = merge_schemes(scheme, query, &at)?;
    let scheme = scheme_or_default(side, scheme, transpose_b, &at)?;
    Ok(Side::Real { tensor, scheme: Box::new(scheme) })
}

/// A bias is I32 beside codes, else F32.
fn json_bias(
    member: &Member<'_>,
    fields: &Fields,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    let output = fields.clone().get(&OUTPUT_DTYPE)?;
    let is_codes = matches!(output, Some(DType::U8 | DType::I8));
    let dtype = if is_codes { DType::I32 } else { DType::F32 };
    payload::numbers_or_tensor(member, dtype, context)
}

/// Tensors `a`, `b` and `bias`, or `a.codes`, `a.scale`, `a.zero_point` and so
/// on as `quantize` answers them. The schemes of real operands are presets in
/// the query, `a_scheme` and `b_scheme`, or stand in the metadata.
fn decode_safetensors(
    body: Arc<Buffer>,
    mut fields: Fields,
    transpose_b: bool,
    context: &mut Context<'_>,
) -> Result<Request, Error> {
    let document = safetensors::read(body, context.limits)?;
    let metadata = Metadata::read(&document.metadata, context)?;
    let mut parts: BTreeMap<String, Tensor> = document.tensors.into_iter().collect();
    let mut sides = Vec::with_capacity(2);
    for side in SIDES {
        let given = fields.take(&format!("{side}_scheme"));
        sides.push(match parts.remove(side) {
            Some(tensor) => {
                let scheme = given.or_else(|| metadata.scheme(side));
                let scheme =
                    scheme_or_default(side, scheme, transpose_b, &format!("/{side}/scheme"));
                Side::Real { tensor, scheme: Box::new(scheme?) }
            }
            None if parts.contains_key(&format!("{side}.codes")) => {
                let query = match given {
                    Some(scheme) => options_of_value(scheme, &format!("/{side}/scheme"))?,
                    None => Options::default(),
                };
                let item =
                    safetensors_item(side.to_owned(), &mut parts, &metadata, &query, context)?;
                Side::coded(side, item.integers(context)?, transpose_b)
            }
            None => {
                let detail = format!("no tensor called {side}, and none called {side}.codes");
                return Err(Error::new(Kind::MalformedBody, detail)
                    .cure("name the tensors of the file a and b"));
            }
        });
    }
    let bias = parts.remove("bias");
    if let Some(name) = parts.keys().next() {
        let detail = format!("tensor {name:?} belongs to no operand");
        return Err(Error::new(Kind::MalformedBody, detail)
            .cure("known here: a, b, bias, and codes, scale, zero_point of a and b"));
    }
    fields.insert("transpose_b", Value::Bool(transpose_b));
    let [a, b] = <[Side; 2]>::try_from(sides)
        .map_err(|_| Error::new(Kind::Internal, "a product has two sides"))?;
    Ok(Request { a, b, bias, fields })
}

fn write(
    made: Multiplied,
    request: &Request,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let Multiplied { result, a, b, report } = made;
    let report = report.as_ref().map(ProductReportDoc::from);
    let found = SIDES.into_iter().zip([(a, &request.a), (b, &request.b)]);
    let found = found.filter_map(|(name, (found, side))| Some((name, found?, side.scheme()?)));
    match format {
        Format::Json => Answer::object(&mut |bytes| context.take(bytes), |writer| {
            writer.value("dtype", &result.dtype().name())?;
            writer.value("shape", &result.shape().dims())?;
            writer.tensor("data", &result)?;
            for (name, [scale, zero_point], scheme) in found {
                writer.object(name, |writer| {
                    writer.tensor("scale", &scale)?;
                    writer.tensor("zero_point", &zero_point)?;
                    writer.value("scheme", &SchemeDoc::from(scheme))
                })?;
            }
            if let Some(report) = report {
                writer.value("report", &report)?;
            }
            Ok(())
        }),
        Format::Safetensors => {
            let mut metadata = BTreeMap::new();
            if let Some(report) = report {
                metadata.insert("report".to_owned(), to_json_text(&report)?);
            }
            let mut tensors = vec![("data".to_owned(), result)];
            let mut schemes = BTreeMap::new();
            for (name, [scale, zero_point], scheme) in found {
                tensors.push((format!("{name}.scale"), scale));
                tensors.push((format!("{name}.zero_point"), zero_point));
                schemes.insert(name, SchemeDoc::from(scheme));
            }
            metadata.insert("scheme".to_owned(), to_json_text(&schemes)?);
            Ok(Answer::safetensors(tensors, &metadata))
        }
        Format::Npy | Format::Raw => {
            let report = report.map(|report| to_json_text(&report)).transpose()?;
            let facts = report.map(|report| ("report", report)).into_iter().collect();
            Ok(Answer::tensor(result, format, facts))
        }
    }
}

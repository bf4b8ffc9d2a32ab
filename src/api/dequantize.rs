//! `dequantize`: what `quantize` answered in, real numbers out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use quantd_codec::json::{self, Member, Room};
use quantd_codec::safetensors::{self, AnyTensor};
use quantd_codec::{Limits, Within, names, npy};
use quantd_core::cost;
use quantd_core::dequantize::{Codes, dequantize, working_bytes};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use super::answer::Answer;
use super::coded::{Coding, Item, coding, unpacked};
use super::context::Context;
use super::error::{Error, Kind};
use super::fields::{Fields, Origin};
use super::options::{Options, SCHEME_FIELDS, beside_scheme, options_of_value};
use super::passed::{self, Passed, several};
use super::payload::{self, Format, Payload, pointer};
use super::select::computable;

/// Restores every tensor of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let (body, input, query) = payload.inflate(context)?;
    let mut fields = Fields::from_query(&query)?;
    let Decoded { items, passed, dtype } = match input {
        Format::Json => {
            fields.gather("scheme", &SCHEME_FIELDS);
            decode_json(body.bytes(), fields, context)?
        }
        Format::Safetensors => decode_safetensors(body, fields, context)?,
        Format::Npy | Format::Raw => {
            let dtype = output_dtype(&mut fields)?;
            let items = vec![decode_bare(body, input, fields, context)?];
            Decoded { items, passed: Vec::new(), dtype }
        }
    };
    let passed = Passed::admit(passed, std::iter::empty(), format, context)?;
    let one = matches!(items.as_slice(), [item] if item.name.is_empty());
    let mut restored = Vec::with_capacity(items.len());
    for item in items {
        let name = item.name.clone();
        let tensor = restore(item, dtype, format, context)?;
        restored.push((name, tensor));
    }
    // Taken as they were made, for the text that is written now.
    context.release(restored.iter().map(|(_, tensor)| text_bytes(tensor, format)).sum());
    passed.release(context);
    let count = passed.len();
    let answer = write(restored, passed, one, (format, context))?;
    Ok(Answer { passed: count, ..answer })
}

/// What a request holds: tensors as codes, those that pass as they are, and the type of the answer.
struct Decoded {
    items: Vec<Item>,
    passed: Vec<(String, AnyTensor)>,
    dtype: Option<DType>,
}

/// Restores one tensor for an answer of that format.
///
/// # Errors
/// [`Error`] names the field at fault.
pub(super) fn restore(
    item: Item,
    dtype: Option<DType>,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    let granularity = item.granularity();
    let Item { name, codes, scale, zero_point, stated, place, .. } = item;
    let scale = scale.ok_or_else(|| {
        Error::new(Kind::InvalidOption, "missing")
            .at(place.place("scale"))
            .cure("send what /v1/quantize answered")
    })?;
    let default = if scale.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let output = dtype.unwrap_or(default);
    let located = |error| {
        let error = Error::of_quant(error, |field| place.place(field));
        if name.is_empty() { error } else { error.about(&name) }
    };
    let zero_point = zero_point.as_ref();
    let parts = Codes { codes: &codes, scale: &scale, zero_point, granularity, stated };
    let elements = codes.shape().len();
    let working = working_bytes(&parts, output).map_err(located)?;
    // NumPy has no name for bfloat16, which is widened.
    let widened = if format == Format::Npy && output == DType::BF16 { 8 } else { 0 };
    let text = if format == Format::Json { json::text_of_one(output) } else { 0 };
    let answer = elements.saturating_mul(output.size() + widened + text);
    context.reserve(working.saturating_add(answer))?;
    let numbers = if format == Format::Json { elements } else { 0 };
    context.afford(cost::dequantize(elements, scale.shape().len()) + cost::text(numbers))?;
    let restored = dequantize(&parts, output, context.task).map_err(located)?;
    context.release(working);
    Ok(restored)
}

/// Bytes that [`restore`] took for the text of what it made.
pub(super) fn text_bytes(restored: &Tensor, format: Format) -> usize {
    if format == Format::Json { super::answer::text_bytes(restored) } else { 0 }
}

fn write(
    mut restored: Vec<(String, Tensor)>,
    passed: Passed,
    one: bool,
    (format, context): (Format, &mut Context<'_>),
) -> Result<Answer, Error> {
    match format {
        Format::Json => {
            let room: Room<'_> = &mut |bytes| context.take(bytes);
            Answer::object(room, |writer| match restored.as_slice() {
                [(_, tensor)] if one => writer.numbers(tensor),
                _ => writer.object("tensors", |writer| {
                    restored.iter().try_for_each(|(name, tensor)| {
                        writer.object(name, |w| w.numbers(tensor))
                    })?;
                    passed.write_json(writer)
                }),
            })
        }
        Format::Safetensors => {
            if let ([(name, _)], true) = (restored.as_mut_slice(), one) {
                "data".clone_into(name);
            }
            restored.iter().try_for_each(|(name, _)| passed::check_name(name))?;
            let restored = restored.into_iter().map(|(name, tensor)| (name, tensor.into()));
            let tensors: Vec<(String, AnyTensor)> = restored.chain(passed.into_tensors()).collect();
            Ok(Answer::safetensors(tensors, &BTreeMap::new()))
        }
        Format::Npy | Format::Raw => match <[(String, Tensor); 1]>::try_from(restored) {
            Ok([(_, tensor)]) => Ok(Answer::tensor(tensor, format, Vec::new())),
            Err(_) => Err(several()),
        },
    }
}

pub(super) fn output_dtype(fields: &mut Fields) -> Result<Option<DType>, Error> {
    fields.dtype("output_dtype", &[DType::F32, DType::F64, DType::F16, DType::BF16])
}

/// Members of one quantized tensor; of the report nothing is needed.
const JSON_FIELDS: [&str; 9] = [
    "codes",
    "dtype",
    "shape",
    "scale",
    "zero_point",
    "scale_dtype",
    "scheme",
    "report",
    "output_dtype",
];

fn decode_json(
    text: &[u8],
    mut query: Fields,
    context: &mut Context<'_>,
) -> Result<Decoded, Error> {
    let mut members = json::members(text)?;
    members.retain(|member| member.key != "tensors" || !member.is_null());
    let mut top = Fields::new(Map::new(), Origin::Body(String::new()));
    if let Some(member) = members.iter().find(|member| member.key == "output_dtype") {
        top.insert("output_dtype", context.read_option(member.value, "/output_dtype")?);
    }
    top.merge(query.split(&["output_dtype"]))?;
    let dtype = output_dtype(&mut top)?;
    let Some(tensors) = members.iter().find(|member| member.key == "tensors") else {
        let items = vec![json_item(&members, "", &query, context)?];
        return Ok(Decoded { items, passed: Vec::new(), dtype });
    };
    if let Some(other) = members.iter().find(|m| m.key != "tensors" && m.key != "output_dtype") {
        return Err(top.error(&other.key, "given beside tensors").cure("put it into each tensor"));
    }
    let tensors = payload::named(tensors.value, context, |members, base, context| {
        let has = |key: &str| json::find(members, key).is_some();
        if !has("codes") && (has("data") || has("data_b64")) {
            return payload::tensor_alone(members, DType::F32, base, context).map(Named::Passed);
        }
        json_item(members, base, &query, context).map(|item| Named::Coded(Box::new(item)))
    })?;
    let (mut items, mut passed) = (Vec::with_capacity(tensors.len()), Vec::new());
    for (name, tensor) in tensors {
        match tensor {
            Named::Coded(item) => items.push(Item { name, ..*item }),
            Named::Passed(tensor) => passed.push((name, tensor.into())),
        }
    }
    if items.is_empty() && !passed.is_empty() {
        let error = top.error("tensors", "none of them has codes");
        return Err(error.cure("send what /v1/quantize answered"));
    }
    Ok(Decoded { items, passed, dtype })
}

/// What stands under a name.
enum Named {
    Coded(Box<Item>),
    Passed(Tensor),
}

/// Reads one quantized tensor as `quantize` answers it; what it does not say, `query` may.
pub(super) fn json_item(
    members: &[Member<'_>],
    base: &str,
    query: &Fields,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let origin = Origin::Body(base.to_owned());
    let find = |key: &str| json::find(members, key).map(|member| member.value);
    let missing = |key: &str| {
        Error::new(Kind::InvalidOption, "missing")
            .at(origin.place(key))
            .cure("send what /v1/quantize answered")
    };
    let mut fields = Fields::new(Map::new(), origin.clone());
    for key in ["dtype", "shape", "scale_dtype", "scheme"] {
        if let Some(value) = find(key) {
            fields.insert(key, context.read_option(value, &pointer(base, key))?);
        }
    }
    if let Some(other) = members.iter().find(|m| !JSON_FIELDS.contains(&m.key.as_ref())) {
        return Err(payload::unknown_member(other, base, &JSON_FIELDS));
    }
    fields.merge(query.clone())?;
    let scheme_pointer = pointer(base, "scheme");
    let options = match fields.take("scheme") {
        Some(scheme) => options_of_value(scheme, &scheme_pointer)?,
        None => Options::default(),
    };
    let coding = coding(&options, &Origin::Body(scheme_pointer))?;
    let dtype = payload::dtype(&mut fields, "dtype")?.unwrap_or(coding.dtype());
    let limits = context.limits;
    let shape = payload::shape(&mut fields, limits)?;
    let scale_dtype = scale_dtype(&mut fields)?;
    fields.finish(&JSON_FIELDS).map_err(beside_scheme)?;
    let mut read = |key: &str, dtype: DType, shape: Option<&Shape>| {
        let text = find(key).ok_or_else(|| missing(key))?;
        let within: Within<'_> = (limits, &mut |bytes| context.take(bytes));
        json::read_tensor(text, dtype, shape, &pointer(base, key), within).map_err(Error::from)
    };
    // Packed codes are a flat list of bytes; the shape is that of the tensor.
    let own_shape = if coding.packed.is_some() { None } else { shape.as_ref() };
    let codes = read("codes", dtype, own_shape)?;
    let zero_point = match find("zero_point") {
        Some(_) => Some(read("zero_point", DType::I32, None)?),
        None => options.zero_point.as_deref().and_then(zero_point_tensor),
    };
    let scale = match find("scale") {
        Some(_) => Some(read("scale", scale_dtype, None)?),
        None => options.scale.as_deref().and_then(|scale| scale_tensor(scale, scale_dtype)),
    };
    let codes = unpacked(codes, shape, &coding, &origin.place("codes"), context)?;
    let Coding { granularity, stated, .. } = coding;
    Ok(Item { name: String::new(), codes, scale, zero_point, granularity, stated, place: origin })
}

/// Codes alone in the body; everything else stands in the query.
fn decode_bare(
    body: Arc<Buffer>,
    format: Format,
    mut fields: Fields,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let limits = context.limits;
    let dtype = payload::dtype(&mut fields, "dtype")?;
    let shape = payload::shape(&mut fields, limits)?;
    let scale_dtype = scale_dtype(&mut fields)?;
    let options = Options::take(&mut fields)?;
    let own = ["output_dtype", "dtype", "shape", "scale_dtype"];
    let known: Vec<_> = own.into_iter().chain(SCHEME_FIELDS).collect();
    fields.clone().finish(&known)?;
    let coding = coding(&options, &Origin::Query)?;
    let codes = match (format, &shape) {
        (Format::Npy, _) => npy::read(body, (limits, &mut |bytes| context.take(bytes)))?,
        (_, Some(shape)) if coding.packed.is_none() => {
            payload::raw_view(body, dtype.unwrap_or(coding.dtype()), shape.clone(), &fields)?
        }
        (_, Some(_)) => {
            let len = body.bytes().len();
            let bytes = Shape::vector(len).ok();
            bytes
                .and_then(|shape| Tensor::view(DType::U8, shape, body, 0))
                .ok_or_else(|| Error::new(Kind::TooLarge, "too many packed codes"))?
        }
        (_, None) => return Err(fields.error("shape", "missing").cure("for instance shape=2,3")),
    };
    let codes = unpacked(codes, shape, &coding, &Origin::Query.place("shape"), context)?;
    let Some(scale) = options.scale.as_deref() else {
        return Err(fields.error("scale", "missing").cure("for instance scale=0.1"));
    };
    let scale = scale_tensor(scale, scale_dtype)
        .ok_or_else(|| Error::new(Kind::TooLarge, "too many scales"))?;
    let zero_point = options.zero_point.as_deref().and_then(zero_point_tensor);
    let (name, scale, place) = (String::new(), Some(scale), Origin::Query);
    let Coding { granularity, stated, .. } = coding;
    Ok(Item { name, codes, scale, zero_point, granularity, stated, place })
}

fn zero_point_tensor(zero_point: &[i64]) -> Option<Tensor> {
    Tensor::from_elements(DType::I64, Shape::vector(zero_point.len()).ok()?, zero_point)
}

fn scale_tensor(scale: &[f64], dtype: DType) -> Option<Tensor> {
    use quantd_kernels::real::Real;
    let shape = Shape::vector(scale.len()).ok()?;
    if dtype == DType::F64 {
        return Tensor::from_elements(dtype, shape, scale);
    }
    let scale: Vec<f32> = scale.iter().map(|&scale| <f32 as Real>::from_f64(scale)).collect();
    Tensor::from_elements(DType::F32, shape, &scale)
}

/// Type of the scales that stand as numbers, and of the arithmetic.
fn scale_dtype(fields: &mut Fields) -> Result<DType, Error> {
    let dtype = fields.dtype("scale_dtype", &[DType::F32, DType::F64])?;
    Ok(dtype.unwrap_or(DType::F32))
}

/// `codes`, `scale`, `zero_point` (or `w.codes`, ..) with the scheme in the
/// metadata; scheme fields in the query serve tensors without one. Those that
/// the metadata says have passed do so again.
fn decode_safetensors(
    body: Arc<Buffer>,
    mut fields: Fields,
    context: &mut Context<'_>,
) -> Result<Decoded, Error> {
    let dtype = output_dtype(&mut fields)?;
    // As many as a request of `quantize` may hold, each in its parts.
    let max_tensors = context.limits.max_tensors.saturating_mul(names::PARTS.len());
    let document = safetensors::read_any(body, &Limits { max_tensors, ..*context.limits })?;
    let query = Options::take(&mut fields)?;
    fields.finish(&SCHEME_FIELDS)?;
    let metadata = Metadata::read(&document.metadata, context)?;
    let names = passed_names(&document.metadata, context)?;
    let (passed, parts): (Vec<_>, Vec<_>) =
        document.tensors.into_iter().partition(|(name, _)| names.contains(name));
    let bases: Vec<String> = parts
        .iter()
        .filter_map(|(name, _)| {
            let base = if name == "codes" { Some("") } else { name.strip_suffix(".codes") };
            base.map(str::to_owned)
        })
        .collect();
    if bases.is_empty() {
        let detail = "no tensor called codes, and none that ends in .codes";
        return Err(Error::new(Kind::MalformedBody, detail)
            .cure("send the safetensors answer of /v1/quantize"));
    }
    check_names(&bases, &passed)?;
    let mut parts = parts.into_iter().map(computable).collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut items = Vec::with_capacity(bases.len());
    for name in bases {
        items.push(safetensors_item(name, &mut parts, &metadata, &query, context)?);
    }
    if let Some(name) = parts.keys().next() {
        let detail = format!("tensor {name:?} belongs to no codes");
        return Err(Error::new(Kind::MalformedBody, detail));
    }
    Ok(Decoded { items, passed, dtype })
}

/// Refuses names that the tensors of one answer cannot have.
fn check_names(bases: &[String], passed: &[(String, AnyTensor)]) -> Result<(), Error> {
    let passed: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
    let all: Vec<&str> = bases.iter().map(String::as_str).chain(passed.iter().copied()).collect();
    names::check(all.iter().copied())?;
    let bases: BTreeSet<&str> = bases.iter().map(String::as_str).collect();
    match passed.iter().find(|name| bases.contains(*name)) {
        None => Ok(()),
        Some(name) => {
            let detail = "it is there as codes, and once more as it is";
            Err(Error::new(Kind::MalformedBody, detail).about(name))
        }
    }
}

/// The names in the entry `passed`.
fn passed_names(
    metadata: &BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Result<BTreeSet<String>, Error> {
    let mut fields = Fields::new(Map::new(), Origin::Body("/__metadata__".to_owned()));
    if let Some(names) = metadata_json(metadata, "passed", context)? {
        fields.insert("passed", names);
    }
    Ok(fields.texts("passed")?.into_iter().flatten().collect())
}

/// What a metadata entry says about the tensor `name`: all of it for the only tensor.
fn own_entry(value: Option<&Value>, name: &str) -> Option<Value> {
    match value {
        Some(Value::Object(map)) if !name.is_empty() => map.get(name).cloned(),
        other => other.cloned(),
    }
}

/// What the metadata of a file says about its tensors.
pub(super) struct Metadata {
    scheme: Option<Value>,
    shape: Option<Value>,
}

impl Metadata {
    /// Reads the entries that matter.
    pub(super) fn read(
        metadata: &BTreeMap<String, String>,
        context: &mut Context<'_>,
    ) -> Result<Self, Error> {
        let scheme = metadata_json(metadata, "scheme", context)?;
        Ok(Self { scheme, shape: metadata_json(metadata, "shape", context)? })
    }

    /// The scheme of the tensor of that name.
    pub(super) fn scheme(&self, name: &str) -> Option<Value> {
        own_entry(self.scheme.as_ref(), name)
    }
}

/// Takes the parts of `name` out of `parts`; `query` serves where the metadata has no scheme.
pub(super) fn safetensors_item(
    name: String,
    parts: &mut BTreeMap<String, Tensor>,
    metadata: &Metadata,
    query: &Options,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let mut part = |part: &str| {
        let key = if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
        parts.remove(&key)
    };
    let missing = || {
        let detail = format!("no tensor {:?} beside the others", format!("{name}.codes"));
        Error::new(Kind::MalformedBody, detail)
    };
    let codes = part("codes").ok_or_else(missing)?;
    let scale = part("scale");
    let zero_point = part("zero_point");
    let (scheme, shape) = (metadata.scheme(&name), own_entry(metadata.shape.as_ref(), &name));
    let pointer = "/__metadata__/scheme";
    let origin = Origin::Body(pointer.to_owned());
    let options = match scheme {
        Some(scheme) => options_of_value(scheme, pointer)?,
        None => query.clone(),
    };
    let coding = coding(&options, &origin)?;
    let mut fields = Fields::new(Map::new(), Origin::Body("/__metadata__".to_owned()));
    if let Some(shape) = shape {
        fields.insert("shape", shape);
    }
    let shape = payload::shape(&mut fields, context.limits)?;
    let codes = unpacked(codes, shape, &coding, &origin.place("shape"), context)?;
    let (Coding { granularity, stated, .. }, place) = (coding, Origin::Body(String::new()));
    Ok(Item { name, codes, scale, zero_point, granularity, stated, place })
}

fn metadata_json(
    metadata: &BTreeMap<String, String>,
    key: &str,
    context: &mut Context<'_>,
) -> Result<Option<Value>, Error> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    context.read_option_by_name(text.as_bytes(), &pointer("/__metadata__", key)).map(Some)
}

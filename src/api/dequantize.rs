//! `dequantize`: what `quantize` answered in, real numbers out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use quantd_codec::json::{self, Member, Room};
use quantd_codec::safetensors::{self, AnyTensor};
use quantd_codec::{Limits, Within, names, npy};
use quantd_core::cost;
use quantd_core::format::{CODES, Coded, PartType, Parts, Restoring};
use quantd_core::scheme::Options;
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use super::answer::Answer;
use super::coded::{Item, missing, stated};
use super::context::Context;
use super::error::{Error, Kind};
use super::fields::{Fields, Origin};
use super::formats;
use super::options::{self, SCHEME_FIELDS, beside_scheme, options_of_value};
use super::passed::{self, Passed, several};
use super::payload::{self, Format, Payload, pointer};
use super::select::computable;

/// Types that real numbers are answered in.
pub const OUTPUTS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

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
            let items = vec![decode_bare(&body, input, fields, context)?];
            Decoded { items, passed: Vec::new(), dtype }
        }
    };
    let passed = Passed::admit(passed, std::iter::empty(), format, context)?;
    let one = matches!(items.as_slice(), [item] if item.name.is_empty());
    let mut restored = Vec::with_capacity(items.len());
    for item in items {
        let tensor = restore(&item, dtype, format, context)?;
        restored.push((item.name, tensor));
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
    item: &Item,
    dtype: Option<DType>,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    item.check_parts()?;
    let located = |error| item.located(error);
    let restoring = item.coded.restoring(dtype).map_err(located)?;
    let Restoring { elements, dtype, working_bytes, cost } = restoring;
    // NumPy has no name for bfloat16, which is widened.
    let widened = if format == Format::Npy && dtype == DType::BF16 { 8 } else { 0 };
    let text = if format == Format::Json { json::text_of_one(dtype) } else { 0 };
    let answer = elements.saturating_mul(dtype.size() + widened + text);
    context.reserve(working_bytes.saturating_add(answer))?;
    let numbers = if format == Format::Json { elements } else { 0 };
    context.afford(cost + cost::text(numbers))?;
    let restored = item.coded.dequantize(dtype, context.task).map_err(located)?;
    context.release(working_bytes);
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
    fields.dtype("output_dtype", &OUTPUTS)
}

/// What a query may say beside the scheme of codes in bytes.
const OWN: [&str; 4] = ["output_dtype", "dtype", "shape", "scale_dtype"];

/// The option that names the type of a part.
fn type_option(part: &PartType) -> String {
    if part.name == CODES { "dtype".to_owned() } else { format!("{}_dtype", part.name) }
}

/// Members of one quantized tensor; of the report nothing is needed.
fn members_of(types: &[PartType]) -> Vec<String> {
    let others = types.iter().filter(|part| part.name != CODES);
    let typed = others.clone().filter(|part| !part.types.is_empty()).map(type_option);
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut members = own(&[CODES, "dtype", "shape"]);
    members.extend(others.map(|part| part.name.to_owned()));
    members.extend(typed);
    members.extend(own(&["scheme", "report", "output_dtype"]));
    members
}

/// The type of a part, as it is named or by default.
fn type_of(part: &PartType, fields: &mut Fields) -> Result<DType, Error> {
    let named = match part.types {
        [] => None,
        types => fields.dtype(&type_option(part), types)?,
    };
    Ok(named.unwrap_or(part.dtype))
}

/// Refuses a granularity whose fields contradict one another.
fn check_granularity(options: &Options, origin: &Origin) -> Result<(), Error> {
    if options.names_granularity() {
        let at = |error| Error::of_quant(error, |field| origin.place(field));
        options.resolve_granularity().map_err(at)?;
    }
    Ok(())
}

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
    let mut fields = Fields::new(Map::new(), origin.clone());
    let is_option = |key: &str| {
        ["dtype", "shape", "scheme"].contains(&key)
            || (key.ends_with("_dtype") && key != "output_dtype")
    };
    for member in members.iter().filter(|member| is_option(&member.key)) {
        let at = pointer(base, &member.key);
        fields.insert(&member.key, context.read_option(member.value, &at)?);
    }
    fields.merge(query.clone())?;
    let scheme_pointer = pointer(base, "scheme");
    let options = match fields.take("scheme") {
        Some(scheme) => options_of_value(scheme, &scheme_pointer)?,
        None => Options::default(),
    };
    check_granularity(&options, &Origin::Body(scheme_pointer))?;
    let types = options.format().types(&options);
    let known = members_of(&types);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(other) = members.iter().find(|member| !known.contains(&&*member.key)) {
        return Err(payload::unknown_member(other, base, &known));
    }
    let limits = context.limits;
    let shape = payload::shape(&mut fields, limits)?;
    let mut parts = Parts::default();
    for part in &types {
        let dtype = type_of(part, &mut fields)?;
        let tensor = match json::find(members, part.name) {
            None => stated(&options, part, dtype),
            Some(member) => {
                // Others, such as packed codes, are nested as they are.
                let shape = shape.as_ref().filter(|_| part.elementwise);
                let within: Within<'_> = (limits, &mut |bytes| context.take(bytes));
                let at = pointer(base, part.name);
                Some(json::read_tensor(member.value, dtype, shape, &at, within)?)
            }
        };
        match tensor {
            Some(tensor) => parts.push(part.name, tensor),
            None if part.name == CODES => return Err(missing(origin.place(CODES))),
            None => {}
        }
    }
    fields.finish(&known).map_err(beside_scheme)?;
    let coded = Coded { parts, shape, options };
    Ok(Item { name: String::new(), coded, place: origin })
}

/// Codes alone in the body; everything else stands in the query.
fn decode_bare(
    body: &Arc<Buffer>,
    format: Format,
    mut fields: Fields,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let limits = context.limits;
    let options = options::take(&mut fields)?;
    let types = options.format().types(&options);
    let shape = payload::shape(&mut fields, limits)?;
    check_granularity(&options, &Origin::Query)?;
    let mut parts = Parts::default();
    for part in &types {
        let dtype = type_of(part, &mut fields)?;
        if part.name == CODES {
            let body = (Arc::clone(body), format);
            parts.push(CODES, bare_codes(body, (part, dtype), shape.as_ref(), &fields, context)?);
        } else if let Some(tensor) = stated(&options, part, dtype) {
            parts.push(part.name, tensor);
        } else if part.required {
            let example = format!("for instance {}=0.1", part.name);
            return Err(fields.error(part.name, "missing").cure(example));
        }
    }
    let known: Vec<_> = OWN.into_iter().chain(SCHEME_FIELDS).chain(["scheme"]).collect();
    fields.finish(&known)?;
    let coded = Coded { parts, shape, options };
    Ok(Item { name: String::new(), coded, place: Origin::Query })
}

/// The codes that are all of a body.
fn bare_codes(
    (body, format): (Arc<Buffer>, Format),
    (part, dtype): (&PartType, DType),
    shape: Option<&Shape>,
    fields: &Fields,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    match (format, shape) {
        (Format::Npy, _) => {
            Ok(npy::read(body, (context.limits, &mut |bytes| context.take(bytes)))?)
        }
        (_, Some(shape)) if part.elementwise => {
            payload::raw_view(body, dtype, shape.clone(), fields)
        }
        (_, Some(_)) => {
            let bytes = Shape::vector(body.bytes().len()).ok();
            bytes
                .and_then(|shape| Tensor::view(DType::U8, shape, body, 0))
                .ok_or_else(|| Error::new(Kind::TooLarge, "too many codes"))
        }
        (_, None) => Err(fields.error("shape", "missing").cure("for instance shape=2,3")),
    }
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
    let most = formats::all().map(|format| format.types(&Options::NONE).len()).max().unwrap_or(1);
    let max_tensors = context.limits.max_tensors.saturating_mul(most);
    let document = safetensors::read_any(body, &Limits { max_tensors, ..*context.limits })?;
    let query = options::take(&mut fields)?;
    let known: Vec<_> = SCHEME_FIELDS.into_iter().chain(["scheme"]).collect();
    fields.finish(&known)?;
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
    let (scheme, shape) = (metadata.scheme(&name), own_entry(metadata.shape.as_ref(), &name));
    let pointer = "/__metadata__/scheme";
    let options = match scheme {
        Some(scheme) => options_of_value(scheme, pointer)?,
        None => query.clone(),
    };
    check_granularity(&options, &Origin::Body(pointer.to_owned()))?;
    let mut own = Parts::default();
    for part in options.format().types(&options) {
        let key =
            if name.is_empty() { part.name.to_owned() } else { format!("{name}.{}", part.name) };
        match parts.remove(&key) {
            Some(tensor) => own.push(part.name, tensor),
            None if part.name == CODES => {
                let detail = format!("no tensor {key:?} beside the others");
                return Err(Error::new(Kind::MalformedBody, detail));
            }
            None => {}
        }
    }
    let mut fields = Fields::new(Map::new(), Origin::Body("/__metadata__".to_owned()));
    if let Some(shape) = shape {
        fields.insert("shape", shape);
    }
    let shape = payload::shape(&mut fields, context.limits)?;
    let coded = Coded { parts: own, shape, options };
    Ok(Item { name, coded, place: Origin::Body(String::new()) })
}

fn metadata_json(
    metadata: &BTreeMap<String, String>,
    key: &str,
    context: &mut Context<'_>,
) -> Result<Option<Value>, Error> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    context.read_option_by_name(text.as_bytes(), &pointer("/__metadata__", key)).map(Some)
}

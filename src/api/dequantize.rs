//! `dequantize`: what `quantize` answered in, real numbers out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Map;

use quantd_codec::json::{self, Room};
use quantd_codec::safetensors::{self, AnyTensor};
use quantd_codec::{Limits, names};
use quantd_core::cost;
use quantd_core::format::Restoring;
use quantd_core::scheme::Options;
use quantd_core::tensor::{Buffer, DType, Tensor};

use super::answer::Answer;
use super::coded::{
    Item, Metadata, SCALE_DTYPE, bare_item, json_item, metadata_json, safetensors_item,
};
use super::context::Context;
use super::error::{Error, Kind};
use super::fields::field::{Component, Table, Types, fields, names};
use super::fields::{Fields, Origin};
use super::formats;
use super::options::{self, SCHEME_FIELDS};
use super::passed::{self, Passed, several};
use super::payload::{self, DTYPE, Format, Payload, SHAPE};
use super::schemas;
use super::select::computable;

/// Types that real numbers are answered in.
pub const OUTPUTS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Restores every tensor of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let (body, input, query) = payload.inflate(context)?;
    let mut fields = query.into_fields()?;
    let Decoded { items, passed, dtype } = match input {
        Format::Json => {
            fields.gather("scheme", &SCHEME_FIELDS);
            decode_json(body.bytes(), fields, context)?
        }
        Format::Safetensors => decode_safetensors(body, fields, context)?,
        Format::Npy | Format::Raw => {
            let dtype = output_dtype(&mut fields)?;
            let items = vec![bare_item(&body, input, &mut fields, context)?];
            fields.finish(&names(&[QUERY, options::SCHEME, &[&options::SHORT]]))?;
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
    fields.get(&OUTPUT_DTYPE)
}

fields! {
    OUTPUT_DTYPE: "output_dtype", Types = Types { types: &OUTPUTS, component: Component::of::<schemas::RealDtype>() },
        "Element type of the answer. Default: that of the scale.";
}
/// What a query may say beside the scheme.
pub const QUERY: Table = &[&DTYPE, &SHAPE, &SCALE_DTYPE, &OUTPUT_DTYPE];

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
        return Err(error.cure("send an answer of quantize"));
    }
    Ok(Decoded { items, passed, dtype })
}

/// What stands under a name.
enum Named {
    Coded(Box<Item>),
    Passed(Tensor),
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
    let known = names(&[options::SCHEME, &[&options::SHORT]]);
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
            .cure("send an answer of quantize in safetensors"));
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

//! `quantize`: tensors and a scheme in, codes and reports out.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use quantd_codec::safetensors::AnyTensor;
use quantd_codec::{Limits, json};
use quantd_core::format::{CODES, Part, PartShape, Parts, Plan};
use quantd_core::report::Report;
use quantd_core::scheme::{Options, Scheme};
use quantd_core::tensor::{DType, Tensor};
use quantd_core::{QuantError, cost};

use super::answer::{Answer, Fact, ObjectWriter, dims_text, to_json_text};
use super::context::Context;
use super::documents::{ReportDoc, SchemeDoc};
use super::error::{Error, Kind, Place};
use super::fields::field::{Flag, Table, fields, named, names};
use super::fields::{Fields, Origin};
use super::options::{self, beside_scheme, scheme_at};
use super::passed::{Passed, several};
use super::payload::{DTYPE, Format, Payload, SHAPE, TENSOR, TENSORS};
use super::schemas;
use super::select::{self, Rule, Selected, Selection};

/// Most slices that one report lists.
const MAX_SLICE_REPORTS: usize = 1 << 16;

/// Bytes of a report and of its document.
const REPORT: usize = 2 * (size_of::<Report>() + size_of::<ReportDoc>());
/// Bytes of the text of a report, or of the scheme.
const REPORT_TEXT: usize = 800;

/// Times that this text is there in a safetensors answer: by the name of the tensor and with all others, and both
/// once more in the header, which moves as it grows.
const REPEATED: usize = 8;

/// Numbers of a report.
const REPORT_NUMBERS: usize = 16;
fields! {
    SCHEME: "scheme", in JSON named::<schemas::SchemeOrPreset>,
        "How to quantize. Default: the preset int8.";
    PER_SLICE: "per_slice", Flag = Flag,
        "Report on each slice too.";
    OUTPUT: "output", in JSON named::<schemas::OutputName>,
        "Which tensor an npy or octet-stream answer holds. Default codes.";
}
/// What a JSON request has beside its tensor.
pub const MEMBERS: Table =
    &[&TENSORS, &SCHEME, &PER_SLICE, &OUTPUT, &select::INCLUDE, &select::EXCLUDE];
/// What a query may say beside the fields of the scheme.
pub const QUERY: Table =
    &[&DTYPE, &SHAPE, &options::SHORT, &PER_SLICE, &OUTPUT, &select::INCLUDE, &select::EXCLUDE];

/// One result, ready to be written.
pub(super) struct Item {
    name: String,
    pub(super) shape: Vec<usize>,
    pub(super) parts: Parts,
    scheme: SchemeDoc,
    pub(super) report: ReportDoc,
    /// Bytes that were taken for its text.
    pub(super) text: usize,
}

impl Item {
    fn codes(&self) -> Option<&Tensor> {
        self.parts.get(CODES)
    }
}

/// Quantizes every tensor of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let rule = Rule::of(payload.format);
    let mut request = payload.decode_any(&names(&[TENSOR, MEMBERS]), context)?;
    let fields = &mut request.fields;
    let per_slice = fields.get(&PER_SLICE)?.unwrap_or(false);
    let output = fields.take(OUTPUT.name);
    let (scheme, place) = scheme(fields)?;
    let output = chosen_part(output, &scheme, fields)?;
    let selection = Selection::take(fields)?;
    let origin = request.fields.origin().clone();
    request.fields.finish(&known_fields(&origin)).map_err(beside_scheme)?;
    let Selected { chosen, passed } = selection.split(request.tensors, rule, context)?;
    let names = chosen.iter().flat_map(|(name, _)| part_names(name, &scheme));
    let passed = Passed::admit(passed, names, format, context)?;
    let one = matches!(chosen.as_slice(), [(name, _)] if name.is_empty());
    let located = |name: &str, error| {
        let error = Error::of_quant(error, |field| locate(field, name, &origin, &place));
        if name.is_empty() { error } else { error.about(name) }
    };
    let plan = |(name, tensor): &(String, Tensor)| {
        scheme.plan(tensor).map_err(|error| located(name, error))
    };
    let plans = chosen.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    context.afford(plans.iter().map(|plan| plan.cost).sum())?;
    let mut items = Vec::with_capacity(chosen.len());
    for ((name, tensor), plan) in chosen.into_iter().zip(&plans) {
        if context.task.is_cancelled() {
            break;
        }
        if per_slice {
            if plan.slices > MAX_SLICE_REPORTS {
                return Err(too_many_reports(plan.slices, &origin));
            }
            context.afford(cost::text(REPORT_NUMBERS * plan.slices))?;
        }
        let located = |error| located(&name, error);
        let item = quantize_one(tensor, (&scheme, plan), per_slice, (format, context), located)?;
        items.push(Item { name, ..item });
    }
    // Taken as they were made, for the text that is written now.
    context.release(items.iter().map(|item| item.text).sum());
    passed.release(context);
    let count = passed.len();
    let answer = match format {
        Format::Json => write_json(&items, one, &passed, context),
        Format::Safetensors => write_safetensors(items, one, passed, context.limits),
        Format::Npy | Format::Raw => write_tensor(items, format, output),
    };
    answer.map(|answer| Answer { passed: count, ..answer })
}

/// The names of what is answered for a tensor.
fn part_names(name: &str, scheme: &Scheme) -> impl Iterator<Item = String> {
    let parts = scheme.format.types(&Options::NONE).into_iter();
    parts.map(move |part| format!("{name}.{}", part.name))
}

/// The part that an answer of one bare tensor holds.
fn chosen_part(
    output: Option<Value>,
    scheme: &Scheme,
    fields: &mut Fields,
) -> Result<&'static str, Error> {
    let types = scheme.format.types(&Options::NONE);
    let names: Vec<_> = types.iter().map(|part| part.name).collect();
    if let Some(output) = output {
        fields.insert(OUTPUT.name, output);
    }
    Ok(fields.one_of(OUTPUT.name, &names)?.unwrap_or(CODES))
}

/// Quantizes one tensor for an answer of that format, having taken room for all it needs; `located`
/// says where the caller wrote what is wrong.
///
/// # Errors
/// [`Error`] names the field or the data at fault.
pub(super) fn quantize_one(
    tensor: Tensor,
    (scheme, plan): (&Scheme, &Plan),
    per_slice: bool,
    (format, context): (Format, &mut Context<'_>),
    located: impl Fn(QuantError) -> Error,
) -> Result<Item, Error> {
    let working = plan.working_bytes;
    context.reserve(working)?;
    let reports = if per_slice { plan.slices.saturating_add(1) } else { 1 };
    let (bytes, text) = answer_bytes(&plan.parts, format);
    context.reserve(bytes.saturating_add(reports.saturating_mul(REPORT)))?;
    let texts = if format == Format::Safetensors { REPEATED } else { 2 };
    let text = text.saturating_add(reports.saturating_mul(texts * REPORT_TEXT));
    context.reserve(text)?;
    let shape = tensor.shape().dims().to_vec();
    let result = scheme.quantize(&tensor, per_slice, context.task).map_err(&located)?;
    drop(tensor);
    context.release(working);
    let mut report = ReportDoc::from(&result.report);
    if per_slice {
        report.slices = Some(result.slices.iter().map(ReportDoc::from).collect());
    }
    let (name, scheme) = (String::new(), SchemeDoc::from(scheme));
    Ok(Item { name, shape, parts: result.parts, scheme, report, text })
}

/// The scheme of the request, and where its fields stand.
///
/// # Errors
/// [`Kind::InvalidOption`] names the field at fault.
pub fn scheme(fields: &mut Fields) -> Result<(Scheme, Origin), Error> {
    match fields.origin().clone() {
        Origin::Query => {
            let scheme = options::resolve(&options::take(fields)?, &Origin::Query)?;
            Ok((scheme, Origin::Query))
        }
        Origin::Body(base) => {
            let origin = match fields.is_asked("scheme") {
                true => Origin::Query,
                false => Origin::Body(format!("{base}/scheme")),
            };
            let scheme = scheme_at(fields.take("scheme").unwrap_or(Value::Null), &origin)?;
            Ok((scheme, origin))
        }
    }
}

fn known_fields(origin: &Origin) -> Vec<&'static str> {
    match origin {
        Origin::Query => names(&[QUERY, options::SCHEME]),
        Origin::Body(_) => names(&[TENSOR, MEMBERS]),
    }
}

/// Where the caller wrote what the core calls `field`.
fn locate(field: &str, tensor: &str, origin: &Origin, scheme: &Origin) -> Place {
    match (field, origin) {
        // A shape that a format cannot hold is the tensor's.
        ("data" | "shape", Origin::Body(_)) if tensor.is_empty() => {
            Place::Pointer("/data".to_owned())
        }
        ("data" | "shape", Origin::Body(_)) => {
            let base = super::payload::pointer("/tensors", tensor);
            Place::Pointer(format!("{base}/data"))
        }
        _ => scheme.place(field),
    }
}

fn too_many_reports(slices: usize, origin: &Origin) -> Error {
    let detail = format!("{slices} slices, reports list at most {MAX_SLICE_REPORTS}");
    Error::new(Kind::InvalidOption, detail)
        .at(origin.place("per_slice"))
        .cure("leave per_slice out")
}

/// Bytes of the parts, and of the text they become as JSON.
fn answer_bytes(parts: &[PartShape], format: Format) -> (usize, usize) {
    let (mut bytes, mut text) = (0_usize, 0_usize);
    for part in parts {
        let own = part.len().saturating_mul(part.dtype.size());
        // Codes as they are made; parameters as they are found and as tensors.
        let once = part.name == CODES;
        bytes = bytes.saturating_add(if once { own } else { own.saturating_mul(2) });
        // Rows of one element have brackets of their own.
        let brackets = if part.name == CODES { 0 } else { 2 };
        let number = json::text_of_one(part.dtype) + brackets;
        text = text.saturating_add(part.len().saturating_mul(number));
    }
    (bytes, if format == Format::Json { text } else { 0 })
}

/// The same bytes as unsigned integers.
fn patterns(tensor: &Tensor) -> Tensor {
    let patterns = tensor.clone().viewed(tensor.dtype().patterns());
    patterns.unwrap_or_else(|| tensor.clone())
}

fn write_json(
    items: &[Item],
    one: bool,
    passed: &Passed,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let write = |writer: &mut ObjectWriter<'_>, item: &Item| {
        writer.value("dtype", &item.codes().map(|codes| codes.dtype().name()))?;
        writer.value("shape", &item.shape)?;
        for Part { name, tensor } in item.parts.iter() {
            // Codes are their bit patterns, whatever they stand for.
            let codes = (*name == CODES && tensor.dtype().is_float()).then(|| patterns(tensor));
            writer.tensor(name, codes.as_ref().unwrap_or(tensor))?;
        }
        let is_real = |dtype: DType| dtype.is_float() || dtype.is_eighth();
        for Part { name, tensor } in item.parts.iter().filter(|part| part.name != CODES) {
            if is_real(tensor.dtype()) {
                writer.value(&format!("{name}_dtype"), &tensor.dtype().name())?;
            }
        }
        writer.value("scheme", &item.scheme)?;
        writer.value("report", &item.report)
    };
    Answer::object(&mut |bytes| context.take(bytes), |writer| match items {
        [item] if one => write(writer, item),
        _ => writer.object("tensors", |writer| {
            items
                .iter()
                .try_for_each(|item| writer.object(&item.name, |writer| write(writer, item)))?;
            passed.write_json(writer)
        }),
    })
}

fn write_safetensors(
    items: Vec<Item>,
    one: bool,
    passed: Passed,
    limits: &Limits,
) -> Result<Answer, Error> {
    let mut metadata = BTreeMap::new();
    if let ([item], true) = (items.as_slice(), one) {
        metadata.insert("scheme".to_owned(), to_json_text(&item.scheme)?);
        metadata.insert("report".to_owned(), to_json_text(&item.report)?);
        metadata.insert("shape".to_owned(), to_json_text(&item.shape)?);
    } else {
        // Each name maps to its report, and the three maps hold everything by name.
        for item in &items {
            metadata.insert(item.name.clone(), to_json_text(&item.report)?);
        }
        metadata.insert("scheme".to_owned(), by_name(&items, |item| &item.scheme)?);
        metadata.insert("report".to_owned(), by_name(&items, |item| &item.report)?);
        metadata.insert("shape".to_owned(), by_name(&items, |item| &item.shape)?);
    }
    if let Some(names) = passed.names()? {
        metadata.insert("passed".to_owned(), names);
    }
    let mut tensors: Vec<(String, AnyTensor)> = Vec::new();
    for Item { name, parts, .. } in items {
        for Part { name: part, tensor } in parts {
            let name = if one { part.to_owned() } else { format!("{name}.{part}") };
            tensors.push((name, tensor.into()));
        }
    }
    tensors.extend(passed.into_tensors());
    let answer = Answer::safetensors(tensors, &metadata);
    // What cannot be sent back is no answer.
    if answer.segments.first().is_some_and(|header| header.len() > limits.max_header_bytes) {
        let detail = format!(
            "schemes and reports make a header of more than {} bytes",
            limits.max_header_bytes
        );
        return Err(Error::new(Kind::TooLarge, detail)
            .cure("leave per_slice out, send fewer tensors, or accept application/json"));
    }
    Ok(answer)
}

/// Members of an object, in their order.
struct Members<'a, T>(Vec<(&'a str, &'a T)>);

impl<T: Serialize> Serialize for Members<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// What all of them have, as an object with a member for each.
fn by_name<'a, T: Serialize + 'a>(
    items: &'a [Item],
    of: impl Fn(&'a Item) -> &'a T,
) -> Result<String, Error> {
    to_json_text(&Members(items.iter().map(|item| (item.name.as_str(), of(item))).collect()))
}

/// Longest text of a header: clients refuse heads of some times as much.
const MAX_FACT: usize = 4096;

/// What a bare tensor cannot carry, for headers. What is too long for one is named in a header of
/// its own, so that nobody takes what is there for all there is.
fn facts(item: &Item) -> Result<Vec<Fact>, Error> {
    let mut report = to_json_text(&item.report)?;
    let mut omitted = Vec::new();
    if report.len() > MAX_FACT && item.report.slices.is_some() {
        report = to_json_text(&ReportDoc { slices: None, ..item.report.clone() })?;
        omitted.push("report.slices");
    }
    let mut texts = vec![("scheme", Some(to_json_text(&item.scheme)?)), ("report", Some(report))];
    for Part { name, tensor } in item.parts.iter().filter(|part| part.name != CODES) {
        texts.push((name, list_text(tensor)?));
    }
    let mut facts = vec![("logical_shape", dims_text(&item.shape))];
    for (what, text) in texts {
        match text.filter(|text| text.len() <= MAX_FACT) {
            Some(text) => facts.push((what, text)),
            None => omitted.push(what),
        }
    }
    if !omitted.is_empty() {
        facts.push(("omitted", omitted.join(",")));
    }
    Ok(facts)
}

/// `0.5,0.25`: as `scale` is written in a query. The text of millions is not made to be dropped.
fn list_text(tensor: &Tensor) -> Result<Option<String>, Error> {
    if tensor.shape().len() > MAX_FACT / 2 {
        return Ok(None);
    }
    let mut room = |_| Ok(());
    let mut text = json::Text::new(&mut room);
    json::write_tensor(&mut text, tensor)?;
    let mut text = text.finish().concat();
    text.retain(|byte| !matches!(byte, b'[' | b']'));
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

fn write_tensor(items: Vec<Item>, format: Format, output: &str) -> Result<Answer, Error> {
    let [item] = <[Item; 1]>::try_from(items).map_err(|_| several())?;
    let facts = facts(&item)?;
    let tensor = item.parts.get(output).cloned();
    let tensor = tensor.ok_or_else(|| Error::new(Kind::Internal, "a part is missing"))?;
    // NumPy has no name for the type, and what it is widened to are no codes.
    let unnamed = tensor.dtype() == DType::BF16 && output == CODES;
    let tensor = if unnamed { patterns(&tensor) } else { tensor };
    Ok(Answer::tensor(tensor, format, facts))
}

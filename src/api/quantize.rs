//! `quantize`: tensors and a scheme in, codes and reports out.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use quantd_codec::safetensors::AnyTensor;
use quantd_codec::{Limits, json, names, pack};
use quantd_core::layout::Layout;
use quantd_core::quantize::{Encoded, Quantized, quantize, working_bytes};
use quantd_core::report::Report;
use quantd_core::scheme::Scheme;
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_core::{QuantError, cost};

use super::answer::{Answer, ObjectWriter, dims_text, to_json_text};
use super::context::Context;
use super::documents::{ReportDoc, SchemeDoc};
use super::error::{Error, Kind, Place};
use super::fields::{Fields, Origin};
use super::options::{Options, SCHEME_FIELDS, beside_scheme, scheme_at};
use super::passed::{Passed, several};
use super::payload::{Format, Payload};
use super::select::{self, Rule, Selected, Selection};

/// Most slices that one report lists.
const MAX_SLICE_REPORTS: usize = 1 << 16;

/// Bytes of a report and of its document.
const REPORT: usize = 2 * (size_of::<Report>() + size_of::<ReportDoc>());
/// Bytes of the text of a report, or of the scheme.
const REPORT_TEXT: usize = 640;

/// Times that this text is there in a safetensors answer: by the name of the tensor and with all others, and both
/// once more in the header, which moves as it grows.
const REPEATED: usize = 8;

/// Numbers of a report.
const REPORT_NUMBERS: usize = 16;
/// Members of a JSON request.
const MEMBERS: [&str; 10] = [
    "data",
    "data_b64",
    "shape",
    "dtype",
    "tensors",
    "scheme",
    "per_slice",
    "output",
    "include",
    "exclude",
];

/// What `output` may name when the answer is one bare tensor.
const OUTPUTS: [&str; 3] = ["codes", "scale", "zero_point"];

/// One result, ready to be written.
pub(super) struct Item {
    name: String,
    pub(super) shape: Vec<usize>,
    pub(super) codes: Tensor,
    pub(super) scale: Tensor,
    pub(super) zero_point: Tensor,
    scheme: SchemeDoc,
    pub(super) report: ReportDoc,
    /// Bytes that were taken for its text.
    pub(super) text: usize,
}

/// Quantizes every tensor of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let rule = Rule::of(payload.format);
    let mut request = payload.decode_any(&MEMBERS, context)?;
    let fields = &mut request.fields;
    let per_slice = fields.bool("per_slice")?.unwrap_or(false);
    let output = fields.word("output", &OUTPUTS)?;
    let (scheme, place) = scheme(fields)?;
    let selection = Selection::take(fields)?;
    let origin = request.fields.origin().clone();
    request.fields.finish(&known_fields(&origin)).map_err(beside_scheme)?;
    let Selected { chosen, passed } = selection.split(request.tensors, rule, context)?;
    let passed = Passed::admit(passed, chosen.iter().flat_map(part_names), format, context)?;
    let one = matches!(chosen.as_slice(), [(name, _)] if name.is_empty());
    let cost = chosen.iter().map(|(_, tensor)| cost::quantize(tensor.shape(), &scheme));
    context.afford(cost.sum())?;
    let mut items = Vec::with_capacity(chosen.len());
    for (name, tensor) in chosen {
        if context.task.is_cancelled() {
            break;
        }
        let located = |error| {
            let error = Error::of_quant(error, |field| locate(field, &name, &origin, &place));
            if name.is_empty() { error } else { error.about(&name) }
        };
        if per_slice {
            let layout = Layout::new(scheme.granularity, tensor.shape()).map_err(located)?;
            if layout.slices() > MAX_SLICE_REPORTS {
                return Err(too_many_reports(layout.slices(), &origin));
            }
            context.afford(cost::text(REPORT_NUMBERS * layout.slices()))?;
        }
        let item = quantize_one(tensor, &scheme, per_slice, (format, context), located)?;
        items.push(Item { name, ..item });
    }
    // Taken as they were made, for the text that is written now.
    context.release(items.iter().map(|item| item.text).sum());
    passed.release(context);
    let count = passed.len();
    let answer = match format {
        Format::Json => write_json(&items, one, &passed, context),
        Format::Safetensors => write_safetensors(items, one, passed, context.limits),
        Format::Npy | Format::Raw => write_tensor(items, format, output.unwrap_or("codes")),
    };
    answer.map(|answer| Answer { passed: count, ..answer })
}

/// The names of what is answered for a tensor.
fn part_names((name, _): &(String, Tensor)) -> [String; 3] {
    names::PARTS.map(|part| format!("{name}.{part}"))
}

/// Quantizes one tensor for an answer of that format, having taken room for all it needs; `located`
/// says where the caller wrote what is wrong.
///
/// # Errors
/// [`Error`] names the field or the data at fault.
pub(super) fn quantize_one(
    tensor: Tensor,
    scheme: &Scheme,
    per_slice: bool,
    (format, context): (Format, &mut Context<'_>),
    located: impl Fn(QuantError) -> Error,
) -> Result<Item, Error> {
    let layout = Layout::new(scheme.granularity, tensor.shape()).map_err(&located)?;
    let slices = layout.slices();
    let working = working_bytes(&tensor, scheme).map_err(&located)?;
    context.reserve(working)?;
    let reports = if per_slice { slices.saturating_add(1) } else { 1 };
    let scale = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let (bytes, text) = answer_bytes(tensor.shape().len(), scheme, (slices, scale), format);
    context.reserve(bytes.saturating_add(reports.saturating_mul(REPORT)))?;
    let texts = if format == Format::Safetensors { REPEATED } else { 2 };
    let text = text.saturating_add(reports.saturating_mul(texts * REPORT_TEXT));
    context.reserve(text)?;
    let result = quantize(&tensor, scheme, per_slice, context.task).map_err(&located)?;
    drop(tensor);
    context.release(working);
    Ok(Item { text, ..item(result, scheme, per_slice)? })
}

/// The scheme of the request, and where its fields stand.
///
/// # Errors
/// [`Kind::InvalidOption`] names the field at fault.
pub fn scheme(fields: &mut Fields) -> Result<(Scheme, Origin), Error> {
    match fields.origin().clone() {
        Origin::Query => {
            let scheme = Options::take(fields)?.resolve(&Origin::Query)?;
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
        Origin::Query => {
            let own = ["per_slice", "output", "dtype", "shape"];
            own.into_iter().chain(select::FIELDS).chain(SCHEME_FIELDS).collect()
        }
        Origin::Body(_) => MEMBERS.to_vec(),
    }
}

/// Where the caller wrote what the core calls `field`.
fn locate(field: &str, tensor: &str, origin: &Origin, scheme: &Origin) -> Place {
    match (field, origin) {
        ("data", Origin::Body(_)) if tensor.is_empty() => Place::Pointer("/data".to_owned()),
        ("data", Origin::Body(_)) => {
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

/// Bytes of codes and parameters, and of the text they become as JSON.
fn answer_bytes(
    elements: usize,
    scheme: &Scheme,
    (slices, scale): (usize, DType),
    format: Format,
) -> (usize, usize) {
    let code = scheme.numerics.code_type().dtype();
    // Packed beside those that are not, and once more to become a tensor.
    let packed = if scheme.packed { elements.div_ceil(2).saturating_mul(2) } else { 0 };
    let codes = elements.saturating_mul(code.size()).saturating_add(packed);
    // As they are found and as tensors.
    let parameters = slices.saturating_mul(2 * (scale.size() + code.size()));
    let text = if format == Format::Json {
        let own = elements.saturating_mul(json::text_of_one(code));
        let slice = json::text_of_one(scale) + json::text_of_one(code);
        // Rows of one element have brackets of their own.
        own.saturating_add(slices.saturating_mul(slice + 3))
    } else {
        0
    };
    (codes.saturating_add(parameters), text)
}

fn item(result: Quantized, scheme: &Scheme, per_slice: bool) -> Result<Item, Error> {
    let mut report = ReportDoc::from(&result.report);
    if per_slice {
        report.slices = Some(result.slices.iter().map(ReportDoc::from).collect());
    }
    let Encoded { codes, scale, zero_point } = result.encoded;
    let shape = codes.shape().dims().to_vec();
    let codes = if scheme.packed {
        let bytes = pack::pack(codes.bytes(), scheme.numerics.bits);
        packed_tensor(&bytes).ok_or_else(|| Error::new(Kind::TooLarge, "too many codes"))?
    } else {
        codes
    };
    Ok(Item {
        name: String::new(),
        shape,
        codes,
        scale,
        zero_point,
        scheme: SchemeDoc::from(scheme),
        report,
        text: 0,
    })
}

fn packed_tensor(bytes: &[u8]) -> Option<Tensor> {
    Tensor::from_elements(DType::U8, Shape::vector(bytes.len()).ok()?, bytes)
}

fn write_json(
    items: &[Item],
    one: bool,
    passed: &Passed,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let write = |writer: &mut ObjectWriter<'_>, item: &Item| {
        writer.value("dtype", &item.codes.dtype().name())?;
        writer.value("shape", &item.shape)?;
        writer.tensor("codes", &item.codes)?;
        writer.tensor("scale", &item.scale)?;
        writer.tensor("zero_point", &item.zero_point)?;
        writer.value("scale_dtype", &item.scale.dtype().name())?;
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
    let mut tensors: Vec<(String, AnyTensor)> = Vec::with_capacity(3 * items.len() + passed.len());
    for item in items {
        let name = |part: &str| if one { part.to_owned() } else { format!("{}.{part}", item.name) };
        tensors.push((name("codes"), item.codes.into()));
        tensors.push((name("scale"), item.scale.into()));
        tensors.push((name("zero_point"), item.zero_point.into()));
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
fn facts(item: &Item) -> Result<Vec<(&'static str, String)>, Error> {
    let mut report = to_json_text(&item.report)?;
    let mut omitted = Vec::new();
    if report.len() > MAX_FACT && item.report.slices.is_some() {
        report = to_json_text(&ReportDoc { slices: None, ..item.report.clone() })?;
        omitted.push("report.slices");
    }
    let mut facts = vec![("quantd-logical-shape", dims_text(&item.shape))];
    for (name, what, text) in [
        ("quantd-scheme", "scheme", Some(to_json_text(&item.scheme)?)),
        ("quantd-report", "report", Some(report)),
        ("quantd-scale", "scale", list_text(&item.scale)?),
        ("quantd-zero-point", "zero_point", list_text(&item.zero_point)?),
    ] {
        match text.filter(|text| text.len() <= MAX_FACT) {
            Some(text) => facts.push((name, text)),
            None => omitted.push(what),
        }
    }
    if !omitted.is_empty() {
        facts.push(("quantd-omitted", omitted.join(",")));
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
    let tensor = match output {
        "scale" => item.scale,
        "zero_point" => item.zero_point,
        _ => item.codes,
    };
    Ok(Answer::tensor(tensor, format, facts))
}

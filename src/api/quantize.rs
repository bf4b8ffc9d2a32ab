//! `quantize`: tensors and a scheme in, codes and reports out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::codec::pack;
use crate::quant::QuantError;
use crate::quant::layout::Layout;
use crate::quant::quantize::{Encoded, Quantized, quantize, working_bytes};
use crate::quant::scheme::Scheme;
use crate::tensor::{DType, Shape, Tensor};

use super::answer::{Answer, ObjectWriter, dims_text, to_json_text};
use super::documents::{ReportDoc, SchemeDoc};
use super::error::{Error, Kind, Place};
use super::fields::{Fields, Origin};
use super::options::{Options, SCHEME_FIELDS, scheme_of_value};
use super::payload::{Context, Format, Payload};

/// Most slices that one report lists.
const MAX_SLICE_REPORTS: usize = 1 << 16;

/// Bytes of a report, of its document and of its text, or of a small tensor.
const REPORT: usize = 1024;

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
}

/// Quantizes every tensor of the request.
///
/// # Errors
/// [`Error`] names the field, the tensor or the offset at fault.
pub fn run(payload: Payload, format: Format, context: &mut Context<'_>) -> Result<Answer, Error> {
    let mut request = payload.decode(context)?;
    let fields = &mut request.fields;
    let per_slice = fields.bool("per_slice")?.unwrap_or(false);
    let output = fields.word("output", &OUTPUTS)?;
    let (scheme, place) = scheme(fields)?;
    request.fields.finish(&known_fields(&place)).map_err(misplaced)?;
    let one = matches!(request.tensors.as_slice(), [(name, _)] if name.is_empty());
    let mut items = Vec::with_capacity(request.tensors.len());
    for (name, tensor) in request.tensors {
        if context.cancel.is_cancelled() {
            break;
        }
        let located = |error| {
            let error = Error::of_quant(error, |field| locate(field, &name, &place));
            if name.is_empty() { error } else { error.about(&name) }
        };
        if per_slice {
            let layout = Layout::new(scheme.granularity, tensor.shape()).map_err(located)?;
            if layout.slices() > MAX_SLICE_REPORTS {
                return Err(too_many_reports(layout.slices(), &place));
            }
        }
        let item = quantize_one(tensor, &scheme, per_slice, (format, context), located)?;
        items.push(Item { name, ..item });
    }
    match format {
        Format::Json => write_json(&items, one),
        Format::Safetensors => write_safetensors(items, one),
        Format::Npy | Format::Raw => write_tensor(items, format, output.unwrap_or("codes")),
    }
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
    context.reserve(answer_bytes(tensor.shape().len(), scheme, slices, format))?;
    context.reserve(REPORT * if per_slice { slices + 1 } else { 1 })?;
    let result = quantize(&tensor, scheme, per_slice, context.cancel).map_err(&located)?;
    drop(tensor);
    context.release(working);
    item(result, scheme, per_slice)
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
            let pointer = format!("{base}/scheme");
            let scheme = scheme_of_value(fields.take("scheme").unwrap_or(Value::Null), &pointer)?;
            Ok((scheme, Origin::Body(pointer)))
        }
    }
}

fn known_fields(place: &Origin) -> Vec<&'static str> {
    match place {
        Origin::Query => {
            let own = ["per_slice", "output", "dtype", "shape"];
            own.into_iter().chain(SCHEME_FIELDS).collect()
        }
        Origin::Body(_) => {
            vec!["data", "data_b64", "shape", "dtype", "tensors", "scheme", "per_slice"]
        }
    }
}

/// Says where in a body a scheme field belongs that stands beside the scheme.
fn misplaced(error: Error) -> Error {
    let name = match &error.place {
        Some(Place::Pointer(pointer)) => pointer.strip_prefix('/').map(str::to_owned),
        _ => None,
    };
    match name {
        Some(name) if SCHEME_FIELDS.contains(&name.as_str()) => {
            error.cure(format!("put it into the scheme: \"scheme\": {{{name:?}: ..}}"))
        }
        _ => error,
    }
}

/// Where the caller wrote what the core calls `field`.
fn locate(field: &str, tensor: &str, scheme: &Origin) -> Place {
    match (field, scheme) {
        ("data", Origin::Body(_)) if tensor.is_empty() => Place::Pointer("/data".to_owned()),
        ("data", Origin::Body(_)) => {
            let base = super::payload::pointer("/tensors", tensor);
            Place::Pointer(format!("{base}/data"))
        }
        _ => scheme.place(field),
    }
}

fn too_many_reports(slices: usize, scheme: &Origin) -> Error {
    let detail = format!("{slices} slices, reports list at most {MAX_SLICE_REPORTS}");
    let place = match scheme {
        Origin::Query => Place::Parameter("per_slice".to_owned()),
        Origin::Body(_) => Place::Pointer("/per_slice".to_owned()),
    };
    Error::new(Kind::InvalidOption, detail).at(place).cure("leave per_slice out")
}

/// Bytes of codes and parameters, and of the text they become as JSON.
fn answer_bytes(elements: usize, scheme: &Scheme, slices: usize, format: Format) -> usize {
    // A code and a comma, and a scale and a zero point with theirs.
    let (code, slice) = if format == Format::Json { (5, 32) } else { (0, 0) };
    let bytes = scheme.numerics.code_type().dtype().size();
    let codes = elements.saturating_mul(if bytes > 1 { bytes + code + 2 } else { bytes + code });
    codes.saturating_add(slices.saturating_mul(8 + bytes + slice))
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
    })
}

fn packed_tensor(bytes: &[u8]) -> Option<Tensor> {
    Tensor::from_elements(DType::U8, Shape::vector(bytes.len()).ok()?, bytes)
}

fn write_json(items: &[Item], one: bool) -> Result<Answer, Error> {
    let write = |writer: &mut ObjectWriter, item: &Item| {
        writer.value("dtype", &item.codes.dtype().name())?;
        writer.value("shape", &item.shape)?;
        writer.tensor("codes", &item.codes);
        writer.tensor("scale", &item.scale);
        writer.tensor("zero_point", &item.zero_point);
        writer.value("scale_dtype", &item.scale.dtype().name())?;
        writer.value("scheme", &item.scheme)?;
        writer.value("report", &item.report)
    };
    // A code takes at most 5 characters with its comma at 8 bits; most take 4.
    let capacity = items.iter().map(|item| item.codes.shape().len() * 5 + 1024).sum();
    let mut writer = ObjectWriter::begin(Vec::with_capacity(capacity));
    match items {
        [item] if one => write(&mut writer, item)?,
        _ => writer.object("tensors", |writer| {
            items
                .iter()
                .try_for_each(|item| writer.object(&item.name, |writer| write(writer, item)))
        })?,
    }
    Ok(Answer::json(writer.end()))
}

fn write_safetensors(items: Vec<Item>, one: bool) -> Result<Answer, Error> {
    let mut metadata = BTreeMap::new();
    if let ([item], true) = (items.as_slice(), one) {
        metadata.insert("scheme".to_owned(), to_json_text(&item.scheme)?);
        metadata.insert("report".to_owned(), to_json_text(&item.report)?);
        metadata.insert("shape".to_owned(), to_json_text(&item.shape)?);
    } else {
        // Each name maps to its report, and the three maps hold everything by name.
        let by_name = |value: &dyn Fn(&Item) -> Result<Value, Error>| {
            let map: Result<serde_json::Map<_, _>, Error> =
                items.iter().map(|item| Ok((item.name.clone(), value(item)?))).collect();
            to_json_text(&map?)
        };
        for item in &items {
            metadata.insert(item.name.clone(), to_json_text(&item.report)?);
        }
        metadata.insert("scheme".to_owned(), by_name(&|item| to_value(&item.scheme))?);
        metadata.insert("report".to_owned(), by_name(&|item| to_value(&item.report))?);
        metadata.insert("shape".to_owned(), by_name(&|item| to_value(&item.shape))?);
    }
    let mut tensors = Vec::with_capacity(3 * items.len());
    for item in items {
        let name = |part: &str| if one { part.to_owned() } else { format!("{}.{part}", item.name) };
        tensors.push((name("codes"), item.codes));
        tensors.push((name("scale"), item.scale));
        tensors.push((name("zero_point"), item.zero_point));
    }
    Ok(Answer::safetensors(tensors, &metadata))
}

fn to_value(document: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(document)
        .map_err(|_| Error::new(Kind::Internal, "an answer could not be written"))
}

/// Longest report that is repeated in a header.
const MAX_FACT: usize = 4096;

fn write_tensor(items: Vec<Item>, format: Format, output: &str) -> Result<Answer, Error> {
    let [item] = <[Item; 1]>::try_from(items).map_err(|_| several())?;
    let mut facts = vec![
        ("quantd-scheme", to_json_text(&item.scheme)?),
        ("quantd-logical-shape", dims_text(&item.shape)),
        ("quantd-report", to_json_text(&item.report)?),
    ];
    if item.scale.shape().rank() == 0 {
        let text = |tensor: &Tensor| {
            let mut text = Vec::new();
            crate::codec::json::write_tensor(&mut text, tensor);
            String::from_utf8_lossy(&text).into_owned()
        };
        facts.push(("quantd-scale", text(&item.scale)));
        facts.push(("quantd-zero-point", text(&item.zero_point)));
    }
    facts.retain(|(_, text)| text.len() <= MAX_FACT);
    let tensor = match output {
        "scale" => item.scale,
        "zero_point" => item.zero_point,
        _ => item.codes,
    };
    Ok(Answer::tensor(tensor, format, facts))
}

/// The error for an answer of one tensor to a request of several.
#[must_use]
pub fn several() -> Error {
    Error::new(Kind::NotAcceptable, "several tensors do not fit an answer of one")
        .cure("accept application/x-safetensors or application/json")
}

//! A calibrator as one document, out and back in.

use serde_json::Map;

use crate::api::answer::{Answer, ObjectWriter};
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::{Fields, Origin};
use crate::api::payload::pointer;
use quantd_codec::{Within, json};
use quantd_core::calibrate::{Calibration, Parts, Seen};
use quantd_core::tensor::{DType, Shape, Tensor};

use super::{Import, Setup, request, write_setup};

/// Where the document stands in a request.
pub(super) const BASE: &str = "/document";
/// What a document calls itself.
const FORMAT: &str = "quantd-calibrator";
/// Version of the documents that are written and read.
const VERSION: i64 = 1;
/// Largest count.
const MOST: i64 = 1 << 53;
/// Members that are columns.
const COLUMNS: [(&str, DType); 12] = [
    ("finite", DType::U64),
    ("min", DType::F64),
    ("max", DType::F64),
    ("average_min", DType::F64),
    ("average_max", DType::F64),
    ("positive", DType::U64),
    ("negative", DType::U64),
    ("distinct", DType::U64),
    ("values", DType::F64),
    ("value_counts", DType::U64),
    ("lines", DType::F64),
    ("line_counts", DType::U64),
];
const SMALL: [&str; 14] = [
    "format",
    "version",
    "range",
    "percentile",
    "decay",
    "granularity",
    "axis",
    "bins",
    "nan",
    "scheme",
    "batches",
    "elements",
    "nan_elements",
    "inf_elements",
];

/// Everything that a calibrator was created with and has learnt.
///
/// # Errors
/// There is no room for its text.
pub fn export(
    setup: &Setup,
    calibration: &Calibration,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let parts = calibration.parts();
    Answer::object(&mut |bytes| context.take(bytes), |writer| write(writer, setup, &parts))
}

fn write(writer: &mut ObjectWriter<'_>, setup: &Setup, parts: &Parts) -> Result<(), Error> {
    let Parts { seen, finite, min, max, average_min, average_max, positive, negative, .. } = parts;
    writer.value("format", &FORMAT)?;
    writer.value("version", &VERSION)?;
    write_setup(writer, setup)?;
    writer.value("batches", &seen.batches)?;
    writer.value("elements", &seen.elements)?;
    writer.value("nan_elements", &seen.nan)?;
    writer.value("inf_elements", &seen.inf)?;
    let slices = finite.len();
    let table = |len: usize| vec![slices, len.checked_div(slices).unwrap_or(0)];
    counts(writer, "finite", finite, vec![slices])?;
    reals(writer, "min", min, vec![slices])?;
    reals(writer, "max", max, vec![slices])?;
    reals(writer, "average_min", average_min, vec![slices])?;
    reals(writer, "average_max", average_max, vec![slices])?;
    counts(writer, "positive", positive, table(positive.len()))?;
    counts(writer, "negative", negative, table(negative.len()))?;
    counts(writer, "distinct", &parts.distinct, vec![parts.distinct.len()])?;
    reals(writer, "values", &parts.values, vec![parts.values.len()])?;
    counts(writer, "value_counts", &parts.value_counts, vec![parts.value_counts.len()])?;
    let lines = parts.line_counts.len();
    reals(writer, "lines", &parts.lines, vec![lines, parts.line])?;
    counts(writer, "line_counts", &parts.line_counts, vec![lines])
}

/// A column, unless there is nothing in it.
fn counts(
    writer: &mut ObjectWriter<'_>,
    key: &str,
    values: &[u64],
    dims: Vec<usize>,
) -> Result<(), Error> {
    column(writer, key, values.is_empty(), || {
        Tensor::from_elements(DType::U64, Shape::new(dims).ok()?, values)
    })
}

/// The same of real numbers.
fn reals(
    writer: &mut ObjectWriter<'_>,
    key: &str,
    values: &[f64],
    dims: Vec<usize>,
) -> Result<(), Error> {
    column(writer, key, values.is_empty(), || {
        Tensor::from_elements(DType::F64, Shape::new(dims).ok()?, values)
    })
}

fn column(
    writer: &mut ObjectWriter<'_>,
    key: &str,
    is_empty: bool,
    tensor: impl FnOnce() -> Option<Tensor>,
) -> Result<(), Error> {
    if !is_empty {
        let missing = || Error::new(Kind::Internal, "a column without a shape");
        writer.tensor(key, &tensor().ok_or_else(missing)?)?;
    }
    Ok(())
}

/// Reads what [`export`] wrote, or what claims to be that.
///
/// # Errors
/// [`Error`] names the member at fault.
pub(super) fn read(text: &[u8], context: &mut Context<'_>) -> Result<Import, Error> {
    let members = json::members(text)
        .map_err(|error| Error::from(error).at(Place::Pointer(BASE.to_owned())))?;
    let mut fields = Fields::new(Map::new(), Origin::Body(BASE.to_owned()));
    let mut parts = Parts::default();
    for member in &members {
        let key = member.key.as_ref();
        let place = pointer(BASE, key);
        match COLUMNS.iter().find(|(name, _)| *name == key) {
            Some(&(_, dtype)) => {
                let within: Within<'_> = (context.limits, &mut |bytes| context.take(bytes));
                let tensor = json::read_tensor(member.value, dtype, None, &place, within)?;
                // Once more as a column.
                context.reserve(tensor.bytes().len())?;
                take_column(&mut parts, key, &tensor)?;
            }
            None => fields.insert(key, context.read_option(member.value, &place)?),
        }
    }
    fields.one_of("format", &[FORMAT])?.ok_or_else(|| {
        fields.error("format", "missing").cure("send a document exactly as it was exported")
    })?;
    if fields.integer("version", VERSION, VERSION)?.is_none() {
        return Err(fields.error("version", "missing").cure(format!("use {VERSION}")));
    }
    let setup = request::take_setup(&mut fields)?;
    let mut count = |field: &str| -> Result<u64, Error> {
        let missing = |fields: &Fields| fields.error(field, "missing").cure("use 0 for none");
        let count = fields.integer(field, 0, MOST)?.ok_or_else(|| missing(&fields))?;
        Ok(count.unsigned_abs())
    };
    parts.seen = Seen {
        batches: count("batches")?,
        elements: count("elements")?,
        nan: count("nan_elements")?,
        inf: count("inf_elements")?,
    };
    let known: Vec<&str> =
        SMALL.into_iter().chain(COLUMNS.into_iter().map(|(name, _)| name)).collect();
    fields.finish(&known)?;
    Ok(Import { setup, parts })
}

fn take_column(parts: &mut Parts, key: &str, tensor: &Tensor) -> Result<(), Error> {
    let wrong = |text: &str| {
        Err(Error::new(Kind::InvalidOption, text.to_owned())
            .at(Place::Pointer(pointer(BASE, key)))
            .cure("send a document exactly as it was exported"))
    };
    let dims = tensor.shape().dims();
    let is_table = ["positive", "negative", "lines"].contains(&key);
    match (is_table, dims) {
        (true, &[rows, columns]) if key == "lines" => parts.line = columns * usize::from(rows > 0),
        (true, [_, _]) | (false, [_]) => {}
        (true, _) => return wrong("not a list of lists of one length"),
        (false, _) => return wrong("not a list of numbers"),
    }
    let reals = || tensor.elements::<f64>().into_owned();
    let counts = || tensor.elements::<u64>().into_owned();
    match key {
        "finite" => parts.finite = counts(),
        "min" => parts.min = reals(),
        "max" => parts.max = reals(),
        "average_min" => parts.average_min = reals(),
        "average_max" => parts.average_max = reals(),
        "positive" => parts.positive = counts(),
        "negative" => parts.negative = counts(),
        "distinct" => parts.distinct = counts(),
        "values" => parts.values = reals(),
        "value_counts" => parts.value_counts = counts(),
        "lines" => parts.lines = reals(),
        _ => parts.line_counts = counts(),
    }
    Ok(())
}

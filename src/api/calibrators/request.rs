//! Requests about calibrators.

use serde_json::{Map, Value};

use crate::api::coded::SCALE_DTYPE;
use crate::api::compare::only;
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::field::{
    self, Flag, Form, Integer, Kind as _, Real, Table, Words, fields, named, names,
};
use crate::api::fields::{Fields, Origin, Query};
use crate::api::name::Name;
use crate::api::options::{self, SCHEME_FIELDS, beside_scheme, scheme_of_value};
use crate::api::payload::{Format, Payload, TENSOR, pointer};
use crate::api::schemas::{LearntGranularity, LearntNan, LearntRange};
use quantd_codec::json;
use quantd_core::QuantError;
use quantd_core::calibrate::{FEWEST_BINS, MOST_BINS, Method, MethodName, Parts, Plan};
use quantd_core::params::Numerics;
use quantd_core::scheme::{Coding, GranularityName, RangeName, Scheme};
use quantd_core::tensor::DType;
use quantd_core::word::Word;
use quantd_core::words;

use super::document;
use super::schemas;
use super::{Batch, Creation, Import, Setup, Wanted};

words! {
    /// What calibrators make of NaN.
    pub enum NanLearnt {
        /// The batch is refused.
        Refuse = "refuse",
        /// They are left out and counted.
        Ignore = "ignore",
    }
}

/// Bins on each side of 0; how many there may be, the plan says.
#[derive(Clone, Copy, Debug)]
struct Bins;

impl field::Kind for Bins {
    type Value = usize;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<usize>, Error> {
        Ok(fields.integer(name, 1, 1 << 24)?.and_then(|bins| usize::try_from(bins).ok()))
    }

    fn form(&self) -> Form {
        let allowed = Integer { min: FEWEST_BINS as i64, max: MOST_BINS as i64, bounded: true };
        allowed.form()
    }
}

fields! {
    NAME: "name", in JSON field::name,
        "Its name: letters, digits and `. _ -`, a letter or digit first.";
    RANGE: "range", Words<MethodName> = Words::of::<LearntRange>(),
        "How ranges are found. Default `min_max`, or what `percentile` or `decay` imply.";
    DECAY: "decay", Real = Real { min: 0.0, max: 1.0 },
        "Share of the past in a moving average: 1 less the averaging constant of others. Default 0.99.";
    GRANULARITY: "granularity", in JSON named::<LearntGranularity>,
        "Which elements share a range. Default: channel if `axis` is given, else tensor.";
    AXIS: "axis", in JSON || options::AXIS.kind.form(),
        "Axis of the channels (default 0), or of the softmax of `cross_entropy` (default -1).";
    BINS: "bins", Bins = Bins,
        "Bins on each side of 0 for percentile and mse, a power of two. Default 2048.";
    NAN: "nan", Words<NanLearnt> = Words::of::<LearntNan>(),
        "What happens to NaN: refused (default), or left out and counted.";
    SCHEME: "scheme", in JSON named::<schemas::CodesOrPreset>,
        "The codes that scales and zero points are for. Default int8.";
    DOCUMENT: "document", in JSON named::<schemas::CalibratorDocument>,
        "An exported calibrator, instead of all but the names.";
    REPLACE: "replace", Flag = Flag,
        "Whether one of that name goes. Default false: then it is refused.";
    FROM: "from", in JSON field::text,
        "Name of one of this server.";
    RESOLVE: "resolve", Flag = Flag,
        "Whether to find the range, which may take a search. Default: to a calibrator, that it is; to a batch, \
         unless it takes a search for each of several channels.";
}
/// What a new calibrator is asked for with.
pub const CREATION: Table = &[
    &NAME,
    &RANGE,
    &options::PERCENTILE,
    &DECAY,
    &GRANULARITY,
    &AXIS,
    &BINS,
    &NAN,
    &SCHEME,
    &DOCUMENT,
    &REPLACE,
];
/// The other calibrator of a merge: one of the two.
pub const MERGER: Table = &[&FROM, &DOCUMENT];
/// What a batch is sent with beside its tensor.
pub const BATCH: Table = &[&RESOLVE];
/// What a query may say of the codes.
const CODES: [Table; 2] = [options::CODES, &[&options::SHORT]];
/// What a calibrator is asked with.
pub const QUERY: [Table; 3] = [options::CODES, &[&options::SHORT], &[&SCALE_DTYPE, &RESOLVE]];
/// Share of the past in a moving average unless another is given: PyTorch's
/// and ONNX Runtime's averaging constant is 0.01.
const USUAL_DECAY: f64 = 0.99;

/// A JSON request: its options, and the text of its member `document`.
fn read_object<T>(
    payload: Payload,
    context: &mut Context<'_>,
    read: impl FnOnce(Fields, Option<&[u8]>, &mut Context<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (body, format, query) = payload.inflate(context)?;
    if format != Format::Json {
        return Err(Error::new(Kind::UnsupportedMediaType, "the request is not JSON")
            .at(Place::Header("content-type"))
            .cure("send application/json; only batches are tensors"));
    }
    let mut query = query.into_fields()?;
    query.gather("scheme", &names(&CODES));
    let mut fields = Fields::new(Map::new(), Origin::Body(String::new()));
    let mut document = None;
    for member in &json::members(body.bytes())? {
        match member.key.as_ref() {
            "document" if member.value != b"null" => document = Some(member.value),
            key => {
                fields.insert(key, context.read_option(member.value, &pointer("", key))?);
            }
        }
    }
    fields.merge(query)?;
    read(fields, document, context)
}

/// A calibrator to be, from options or from a document.
///
/// # Errors
/// [`Error`] names the member at fault.
pub fn read_creation(payload: Payload, context: &mut Context<'_>) -> Result<Creation, Error> {
    read_object(payload, context, |mut fields, document, context| {
        let Some(name) = name(&mut fields, "name")? else {
            return Err(or_instance(
                fields.missing("name", &names(&[CREATION])),
                "\"activations\"",
            ));
        };
        let replace = fields.get(&REPLACE)?.unwrap_or(false);
        let import = match document {
            Some(text) => {
                fields.clone().finish(&names(&[CREATION])).map_err(|error| {
                    error
                        .cure("a document says how it learns: give only name and replace beside it")
                })?;
                document::read(text, context)?
            }
            None => Import { setup: take_setup(&mut fields)?, parts: Parts::default() },
        };
        fields.finish(&names(&[CREATION])).map_err(beside_scheme)?;
        Ok(Creation { name, replace, import })
    })
}

/// An error about what is missing, with an example of it where nothing else helps.
fn or_instance(error: Error, example: &str) -> Error {
    let cure = format!("for instance {example}");
    if error.cure.is_empty() { error.cure(cure) } else { error }
}

fn name(fields: &mut Fields, field: &str) -> Result<Option<Name>, Error> {
    let place = fields.place(field);
    let Some(value) = fields.take(field) else { return Ok(None) };
    Name::new(value.as_str().unwrap_or_default(), place).map(Some)
}

/// How a calibrator learns, from the members that say so.
pub(super) fn take_setup(fields: &mut Fields) -> Result<Setup, Error> {
    let origin = fields.origin().clone();
    let mut options = options::take_granularity(fields)?;
    let method = take_method(fields, options.axis)?;
    if let Method::CrossEntropy { .. } = method {
        options.range = Some(RangeName::CrossEntropy);
    }
    // Whatever their sizes, these are refused below.
    match options.granularity {
        Some(GranularityName::Group) => _ = options.group_size.get_or_insert(1),
        Some(GranularityName::Block) => _ = options.block_shape.get_or_insert([1, 1]),
        _ => {}
    }
    let at = |error: QuantError| Error::of_quant(error, |field| origin.place(field));
    let granularity = options.resolve_granularity().map_err(at)?;
    let bins = fields.get(&BINS)?;
    let ignore_nan = fields.get(&NAN)? == Some(NanLearnt::Ignore);
    let scheme = fields.take("scheme").unwrap_or(Value::Null);
    let pointer = match &origin {
        Origin::Body(base) => pointer(base, "scheme"),
        Origin::Query => "/scheme".to_owned(),
    };
    let numerics = numerics_of_value(scheme, &pointer)?;
    let plan = Plan::new(method, granularity, bins, ignore_nan).map_err(at)?;
    Ok(Setup { plan, numerics })
}

fn take_method(fields: &mut Fields, axis: Option<i64>) -> Result<Method, Error> {
    let range = fields.get(&RANGE)?;
    let percentile = fields.get(&options::PERCENTILE)?;
    let decay = fields.get(&DECAY)?;
    let range = range.unwrap_or(match (percentile, decay) {
        (Some(_), _) => MethodName::Percentile,
        (None, Some(_)) => MethodName::MovingAverage,
        (None, None) => MethodName::MinMax,
    });
    for (field, given, needs) in [
        ("percentile", percentile.is_some(), MethodName::Percentile),
        ("decay", decay.is_some(), MethodName::MovingAverage),
    ] {
        if given && range != needs {
            return Err(fields
                .error(field, format!("does not go with range {}", range.name()))
                .cure(format!("use range {}, or leave {field} out", needs.name())));
        }
    }
    Ok(match range {
        MethodName::MinMax => Method::MinMax,
        MethodName::MovingAverage => Method::MovingAverage { decay: decay.unwrap_or(USUAL_DECAY) },
        MethodName::Percentile => match percentile {
            Some(p) => Method::Percentile(p),
            None => return Err(fields.error("percentile", "missing").cure("for instance 99.9")),
        },
        MethodName::Mse => Method::Mse,
        MethodName::EntropyOrt => Method::EntropyOrt,
        MethodName::EntropyTensorrt => Method::EntropyTensorrt,
        MethodName::EntropyModelopt => Method::EntropyModelopt,
        MethodName::CrossEntropy => Method::CrossEntropy { axis: axis.unwrap_or(-1) },
    })
}

/// The codes of a scheme, which here says nothing of ranges and granularity.
fn numerics_of_value(value: Value, at: &str) -> Result<Numerics, Error> {
    if let Value::Object(map) = &value {
        let beside = |key: &&String| !names(&CODES).contains(&key.as_str());
        let known = |key: &&String| SCHEME_FIELDS.contains(&key.as_str());
        if let Some(key) = map.keys().filter(known).find(beside) {
            return Err(Error::new(Kind::InvalidOption, "does not belong to the codes")
                .at(Place::Pointer(pointer(at, key)))
                .cure("a calibrator's range, granularity and nan stand beside its scheme"));
        }
    }
    integers(&scheme_of_value(value, at)?, &Origin::Body(at.to_owned()))
}

/// Codes and formulas of a scheme of integers, which calibrators are for.
fn integers(scheme: &Scheme, origin: &Origin) -> Result<Numerics, Error> {
    if let Coding::Integer(numerics) = scheme.coding {
        return Ok(numerics);
    }
    let detail = format!("calibrators are for integers, not for {}", scheme.format.name());
    Err(Error::new(Kind::InvalidOption, detail).at(origin.place("format")))
}

/// One batch in any format.
///
/// # Errors
/// [`Error`] names the member or offset at fault.
pub fn read_batch(payload: Payload, context: &mut Context<'_>) -> Result<Batch, Error> {
    let known = names(&[TENSOR, BATCH]);
    let mut request = payload.decode(&known, context)?;
    let origin = request.fields.origin().clone();
    let resolve = request.fields.get(&RESOLVE)?;
    request.fields.finish(&known)?;
    let tensor = only(request.tensors)?;
    Ok(Batch { tensor, wanted: Wanted { resolve, ..Wanted::default() }, origin })
}

/// What a query asks to be said of a calibrator.
///
/// # Errors
/// [`Kind::InvalidOption`] names the parameter at fault.
pub fn read_query(query: Query) -> Result<Wanted, Error> {
    let mut fields = query.into_fields()?;
    let resolve = fields.get(&RESOLVE)?.unwrap_or(true);
    let wide = fields.get(&SCALE_DTYPE)?;
    let wide = wide.map(|dtype| dtype == DType::F64);
    let mut codes = Fields::default();
    let mut is_named = false;
    for field in names(&CODES) {
        if let Some(value) = fields.take(field) {
            codes.insert(field, value);
            is_named = true;
        }
    }
    fields.finish(&names(&QUERY))?;
    let numerics = match is_named {
        true => {
            let scheme = options::resolve(&options::take(&mut codes)?, &Origin::Query)?;
            Some(integers(&scheme, &Origin::Query)?)
        }
        false => None,
    };
    Ok(Wanted { numerics, wide, resolve: Some(resolve) })
}

/// What a calibrator is to take in.
#[derive(Debug)]
pub enum Merger {
    /// Another one of this server.
    Named(Name),
    /// One that was exported.
    Document(Box<Import>),
}

/// The other calibrator of a merge.
///
/// # Errors
/// [`Error`] names the member at fault.
pub fn read_merger(payload: Payload, context: &mut Context<'_>) -> Result<Merger, Error> {
    read_object(payload, context, |mut fields, document, context| {
        let name = name(&mut fields, "from")?;
        fields.clone().finish(&names(&[MERGER]))?;
        match (name, document) {
            (Some(name), None) => Ok(Merger::Named(name)),
            (None, Some(text)) => Ok(Merger::Document(Box::new(document::read(text, context)?))),
            (Some(_), Some(_)) => Err(fields.error("document", "given beside from")),
            (None, None) => Err(fields
                .error("from", "missing")
                .cure("name another calibrator, or give an exported one as document")),
        }
    })
}

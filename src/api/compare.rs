//! `compare`: one tensor under many schemes, in one table.

use std::cmp::Ordering;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::ArrayBuilder;

use quantd_core::compare::{compare, pareto_front};
use quantd_core::cost::Cost;
use quantd_core::report::Report;
use quantd_core::scheme::Scheme;
use quantd_core::tensor::Tensor;
use quantd_core::words;

use super::answer::Answer;
use super::context::Context;
use super::documents::{CompareDoc, ComparedDoc, ReportDoc, SchemeDoc};
use super::error::{Error, Kind, Place};
use super::fields::Fields;
use super::fields::field::{Component, Form, Table, Words, fields, names};
use super::options::scheme_of_value;
use super::payload::{Payload, TENSOR, TENSORS};
use super::schemas::{self, PresetName, SchemeOrPreset};
use super::select::{self, Rule, Selected, Selection};
use super::shorthand;

/// Most schemes of one comparison.
const MAX_SCHEMES: usize = 256;
fields! {
    SCHEMES: "schemes", in JSON || {
        let list = ArrayBuilder::new().min_items(Some(1)).max_items(Some(MAX_SCHEMES));
        let presets = ArrayBuilder::new().items(Ref::from_schema_name(PresetName::name()));
        let schemes = list.items(Ref::from_schema_name(SchemeOrPreset::name()));
        Form::ListOf(Component::of::<SchemeOrPreset>(), schemes.build(), presets.build())
    },
        "Schemes to compare, up to 256, such as `int8,int4_g128`; a sweep of common ones when left out.";
    FORMATS: "formats", in JSON || {
        let list = ArrayBuilder::new().min_items(Some(1)).max_items(Some(MAX_SCHEMES));
        let names = || ArrayBuilder::new().items(Ref::from_schema_name(PresetName::name()));
        let formats = list.items(Ref::from_schema_name(PresetName::name()));
        Form::ListOf(Component::of::<PresetName>(), formats.build(), names().build())
    },
        "Presets to compare, such as `int8,fp8_e4m3,nvfp4`: as `schemes`, by name alone.";
    SORT: "sort", Words<Sort> = Words::of::<schemas::SortName>(),
        "What the table is sorted by, best first. Default sqnr.";
}
/// What a JSON request has beside its tensor.
pub const MEMBERS: Table =
    &[&TENSORS, &SCHEMES, &FORMATS, &SORT, &select::INCLUDE, &select::EXCLUDE];
/// What a query may say beside type and shape.
pub const QUERY: Table = &[&SCHEMES, &FORMATS, &SORT, &select::INCLUDE, &select::EXCLUDE];

words! {
    /// Columns that the table is sorted by, best first.
    pub enum Sort {
        /// Signal over noise.
        Sqnr = "sqnr",
        /// Bits an element.
        Bits = "bits",
        /// Mean squared error.
        Mse = "mse",
        /// Cosine of the angle.
        Cosine = "cosine",
    }
}

/// Compares the schemes of the request, or a sweep of common ones, on its tensor.
///
/// # Errors
/// [`Error`] names the field or the scheme at fault.
pub fn run(payload: Payload, context: &mut Context<'_>) -> Result<Answer, Error> {
    let rule = Rule::of(payload.format);
    let known = names(&[TENSOR, MEMBERS]);
    let mut request = payload.decode_any(&known, context)?;
    let fields = &mut request.fields;
    let sort = fields.get(&SORT)?.unwrap_or(Sort::Sqnr);
    let selection = Selection::take(fields)?;
    let Selected { chosen, passed } = selection.split(request.tensors, rule, context)?;
    let tensor = only_chosen(chosen)?;
    let wanted =
        [&SCHEMES.name, &FORMATS.name].map(|&name| fields.take(name).map(|list| (name, list)));
    let (from, (names, schemes)) = match wanted {
        [Some(_), Some((name, _))] => {
            let error = fields.error(name, "given beside schemes");
            return Err(error.cure("put all of them into schemes, or into formats"));
        }
        [Some((name, list)), None] | [None, Some((name, list))] => {
            (name, listed(name, list, fields)?)
        }
        [None, None] => (SCHEMES.name, sweep(&tensor)?),
    };
    let place = |fields: &Fields, i: usize| fields.place_of_entry(from, i);
    let (mut working, mut cost) = (0, Cost::default());
    for (i, scheme) in schemes.iter().enumerate() {
        let plan = scheme.plan(&tensor);
        let plan = plan.map_err(|error| Error::of_quant(error, |_| place(fields, i)))?;
        (working, cost) = (plan.working_bytes.max(working), cost + plan.cost);
    }
    context.reserve(working)?;
    context.afford(cost)?;
    let reports = compare(&tensor, &schemes, context.task).map_err(|(i, error)| {
        let field = error.field;
        let at = if field == "data" { fields.origin().place("data") } else { place(fields, i) };
        Error::of_quant(error, |_| at)
    })?;
    request.fields.finish(&known)?;
    let front = pareto_front(&reports);
    let mut rows: Vec<(Report, ComparedDoc)> = names
        .into_iter()
        .zip(&schemes)
        .zip(reports.into_iter().zip(front))
        .map(|((name, scheme), (report, pareto))| {
            let scheme = SchemeDoc::from(scheme);
            let doc = ComparedDoc { name, scheme, report: ReportDoc::from(&report), pareto };
            (report, doc)
        })
        .collect();
    rows.sort_by(|(a, _), (b, _)| order(sort, a, b));
    let results = rows.into_iter().map(|(_, row)| row).collect();
    let dtype = tensor.dtype().name();
    let passed = passed.into_iter().map(|(name, _)| name).collect();
    let document = CompareDoc { dtype, shape: tensor.shape().dims().to_vec(), results, passed };
    Answer::document(&document, &mut |bytes| context.take(bytes))
}

/// Best first. No error at all (an infinite SQNR) is best of all.
fn order(sort: Sort, a: &Report, b: &Report) -> Ordering {
    let ascending = |a: Option<f64>, b: Option<f64>| {
        a.unwrap_or(f64::INFINITY).total_cmp(&b.unwrap_or(f64::INFINITY))
    };
    match sort {
        Sort::Bits => ascending(a.bits_per_element, b.bits_per_element),
        Sort::Mse => ascending(a.mse, b.mse),
        Sort::Cosine => ascending(b.cosine, a.cosine),
        Sort::Sqnr => {
            let sqnr = |report: &Report| match (report.sqnr_db, report.mse) {
                (Some(sqnr), _) => sqnr,
                (None, Some(0.0)) => f64::INFINITY,
                (None, _) => f64::NEG_INFINITY,
            };
            sqnr(b).total_cmp(&sqnr(a))
        }
    }
}

/// The one tensor of a request that takes one.
///
/// # Errors
/// [`Kind::InvalidOption`] when there are more or none.
pub(super) fn only(tensors: Vec<(String, Tensor)>) -> Result<Tensor, Error> {
    match <[(String, Tensor); 1]>::try_from(tensors) {
        Ok([(_, tensor)]) => Ok(tensor),
        Err(tensors) => {
            let detail = format!("{} tensors, but the operation takes one", tensors.len());
            Err(Error::new(Kind::InvalidOption, detail).cure("send one tensor a request"))
        }
    }
}

/// The one tensor of those that may be chosen from.
///
/// # Errors
/// As [`only`].
pub(super) fn only_chosen(chosen: Vec<(String, Tensor)>) -> Result<Tensor, Error> {
    only(chosen).map_err(|error| error.cure("name one with include, or send one tensor a request"))
}

fn listed(
    field: &str,
    schemes: Value,
    fields: &Fields,
) -> Result<(Vec<String>, Vec<Scheme>), Error> {
    let list = match schemes {
        Value::Array(list) => list,
        name @ Value::String(_) => vec![name],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(fields.error(field, format!("not a list of {field}")));
        }
    };
    if list.is_empty() || list.len() > MAX_SCHEMES {
        return Err(fields
            .error(field, format!("not an allowed number of {field}"))
            .cure(format!("use 1 to {MAX_SCHEMES}, or leave {field} out for a sweep")));
    }
    if field == FORMATS.name
        && let Some(i) = list.iter().position(|name| !name.is_string())
    {
        let error = Error::new(Kind::InvalidOption, "not a name");
        return Err(error
            .at(fields.place_of_entry(field, i))
            .cure("send schemes for more than names"));
    }
    let mut names = Vec::with_capacity(list.len());
    let mut parsed = Vec::with_capacity(list.len());
    for (i, value) in list.into_iter().enumerate() {
        let given = value.as_str().map(str::to_owned);
        let scheme =
            scheme_of_value(value, &format!("/{field}/{i}")).map_err(|error| {
                match fields.place(field) {
                    Place::Pointer(_) => error,
                    place @ (Place::Parameter(_) | Place::Header(_)) => error.at(place),
                }
            })?;
        names.push(given.unwrap_or_else(|| shorthand::name(&scheme)));
        parsed.push(scheme);
    }
    Ok((names, parsed))
}

/// Formats that are served, beside integers, at their usual schemes; those of weights that have a scale a row.
const SERVED: [&str; 7] =
    ["bf16", "fp8_e4m3", "fp8_e5m2", "mxfp8_e4m3", "mxfp6_e2m3", "mxfp4", "nvfp4"];

/// Integers of bits x granularity x range method, and the formats that are served: what one would try first.
fn sweep(tensor: &Tensor) -> Result<(Vec<String>, Vec<Scheme>), Error> {
    let rank = tensor.shape().rank();
    let granularities: &[(&str, Value)] = &[
        ("tensor", serde_json::json!({})),
        ("channel", serde_json::json!({"granularity": "channel", "axis": 0})),
        ("group", serde_json::json!({"granularity": "group", "axis": -1, "group_size": 128})),
    ];
    // A vector has no channels worth the name, a scalar not even groups.
    let fitting = |name: &str| match name {
        "channel" => rank >= 2,
        "group" => rank >= 1,
        _ => true,
    };
    let ranges = [
        serde_json::json!({"range": "min_max"}),
        serde_json::json!({"range": "percentile", "percentile": 99.9}),
        serde_json::json!({"range": "mse"}),
    ];
    let codes = [
        serde_json::json!({"bits": 8, "signed": true}),
        serde_json::json!({"bits": 8, "signed": false}),
        serde_json::json!({"bits": 4, "signed": true}),
        serde_json::json!({"bits": 4, "signed": false}),
    ];
    let mut schemes = Vec::new();
    for (_, granularity) in granularities.iter().filter(|(name, _)| fitting(name)) {
        for code in &codes {
            for range in &ranges {
                let fields = [granularity, code, range].into_iter().filter_map(Value::as_object);
                let all = fields.flatten().map(|(name, value)| (name.clone(), value.clone()));
                schemes.push(scheme_of_value(Value::Object(all.collect()), "/schemes")?);
            }
        }
    }
    for name in SERVED {
        let scheme = scheme_of_value(Value::from(name), "/schemes")?;
        // Blocks that do not divide the last axis are left out.
        if scheme.plan(tensor).is_ok() {
            schemes.push(scheme);
        }
    }
    if rank >= 2 {
        let rows = serde_json::json!({"format": "fp8_e4m3", "granularity": "channel", "axis": 0});
        schemes.push(scheme_of_value(rows, "/schemes")?);
    }
    Ok((schemes.iter().map(shorthand::name).collect(), schemes))
}

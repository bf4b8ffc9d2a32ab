//! Requests that run a layer.

use std::collections::BTreeMap;

use crate::api::answer::Answer;
use crate::api::compare::only;
use crate::api::context::Context;
use crate::api::documents::ProductReportDoc;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::field::{Flag, Table, fields, names};
use crate::api::payload::{Format, Payload, TENSOR};
use quantd_codec::json;
use quantd_core::layer::{ChainError, Comparison, chain_float};
use quantd_core::tensor::{Shape, Tensor};
use quantd_core::{ErrorKind, QuantError, cost};

use super::LayerHandle;
use super::documents::{EvaluationDoc, MemoryDoc, TimeDoc};

/// Runs of an evaluation.
const MAX_RUNS: u32 = 20;
/// Time after which no further run is begun, seconds.
const ENOUGH: f64 = 0.5;

fields! {
    pub BATCH: "batch", Flag = Flag,
        "Whether the request may be run together with others, which changes no byte of the answer. Default true.";
}
/// What a run is asked for with beside its tensor.
pub const RUN: Table = &[&BATCH];

/// The only tensor of the request.
///
/// # Errors
/// [`Error`] names the field at fault.
pub fn input(payload: Payload, context: &mut Context<'_>) -> Result<Tensor, Error> {
    let request = payload.decode(&names(&[TENSOR]), context)?;
    request.fields.finish(&names(&[TENSOR]))?;
    only(request.tensors)
}

/// The only tensor of a request to run a layer, and whether it may be run
/// together with others.
///
/// # Errors
/// [`Error`] names the field at fault.
pub fn input_of_run(payload: Payload, context: &mut Context<'_>) -> Result<(Tensor, bool), Error> {
    let known = names(&[TENSOR, RUN]);
    let mut request = payload.decode(&known, context)?;
    let batch = request.fields.get(&BATCH)?.unwrap_or(true);
    request.fields.finish(&known)?;
    Ok((only(request.tensors)?, batch))
}

/// Takes room for a run and its answer; gives the shape of the result.
///
/// # Errors
/// [`Error`] about the shape, or when there is no room.
pub fn reserve(
    hosted: &LayerHandle,
    x: &Tensor,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Shape, Error> {
    let (shape, bytes) = hosted.shape(x.shape().dims())?;
    let checked = context.limits.check(&shape);
    checked.map_err(|error| Error::from(error.cure("send fewer rows at once")))?;
    context.reserve(bytes)?;
    context.afford(hosted.cost(x.shape().dims(), cost::product)?)?;
    if format == Format::Json {
        let one = json::text_of_one(hosted.output().dtype);
        context.foresee(shape.len().saturating_mul(one))?;
    }
    Ok(shape)
}

/// The result as an answer.
///
/// # Errors
/// There is no room for its text.
pub fn answer(
    hosted: &LayerHandle,
    y: Tensor,
    format: Format,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let affine = hosted.links().last().and_then(|link| link.layer.output().affine());
    let version = hosted.version.to_string();
    let mut facts =
        vec![("layer", hosted.name.as_str().to_owned()), ("layer_version", version.clone())];
    if let Some(affine) = affine {
        facts.push(("scale", affine.scale.to_string()));
        facts.push(("zero_point", affine.zero_point.to_string()));
    }
    match format {
        Format::Json => Answer::object(&mut |bytes| context.take(bytes), |writer| {
            writer.value("layer", &hosted.name.as_str())?;
            writer.value("version", &hosted.version)?;
            writer.value("dtype", &y.dtype().name())?;
            writer.value("shape", &y.shape().dims())?;
            writer.tensor("data", &y)?;
            if let Some(affine) = affine {
                writer.value("scale", &affine.scale)?;
                writer.value("zero_point", &affine.zero_point)?;
            }
            Ok(())
        }),
        Format::Safetensors => {
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value));
            let metadata: BTreeMap<String, String> = facts.collect();
            Ok(Answer::safetensors(vec![("data".to_owned(), y)], &metadata))
        }
        Format::Npy | Format::Raw => Ok(Answer::tensor(y, format, facts)),
    }
}

/// Runs the layer in integers and in real numbers on the tensor of the
/// request; `now` gives seconds from any start.
///
/// # Errors
/// [`Error`] names the field at fault; `/keep_float` where the real weights
/// were not kept.
pub fn evaluate(
    payload: Payload,
    hosted: &LayerHandle,
    now: &dyn Fn() -> f64,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let x = input(payload, context)?;
    // Twice, and the results once more to be compared.
    reserve(hosted, &x, Format::Raw, context)?;
    let cells = reserve(hosted, &x, Format::Raw, context)?.len();
    context.reserve(cells.saturating_mul(2 * size_of::<f32>()))?;
    context.afford(hosted.cost(x.shape().dims(), cost::real_product)?)?;
    let layers = hosted.layers();
    let mut best = [f64::INFINITY; 2];
    let (started, mut runs) = (now(), 0);
    let (real, made) = loop {
        let start = now();
        let made = hosted.forward(&x, context.task)?;
        let between = now();
        let real = chain_float(&layers, &x, context.task).map_err(|error| unkept(hosted, error))?;
        let times = [between - start, now() - between];
        best = [best[0].min(times[0]), best[1].min(times[1])];
        runs += 1;
        if runs == MAX_RUNS || now() - started > ENOUGH || context.task.is_cancelled() {
            break (real, made);
        }
    };
    let Some(last) = layers.last() else {
        return Err(Error::new(Kind::Internal, "a chain without layers"));
    };
    let comparison = Comparison::of(&real, &made, last);
    let memory: MemoryDoc = layers.iter().map(|layer| MemoryDoc::from(*layer)).sum();
    let [integer, float] = best;
    let time = TimeDoc {
        integer_ms: integer * 1e3,
        float_ms: float * 1e3,
        speed_up: Some(float / integer).filter(|speed_up| speed_up.is_finite()),
        runs,
    };
    let document = EvaluationDoc {
        layer: hosted.name.as_str().to_owned(),
        version: hosted.version,
        shape: made.shape().dims().to_vec(),
        error: ProductReportDoc::from(&comparison),
        memory,
        compression_ratio: memory.float_bytes as f64 / memory.packed_bytes.max(1) as f64,
        time,
    };
    Answer::document(&document, &mut |bytes| context.take(bytes))
}

fn unkept(hosted: &LayerHandle, error: ChainError) -> Error {
    if error.error.kind != ErrorKind::NotKept {
        return hosted.located(error);
    }
    let ChainError { link, error: QuantError { detail, cure, .. } } = error;
    let name = hosted.links().nth(link).map_or("", |link| link.name.as_str()).to_owned();
    Error::new(Kind::Conflict, format!("layer {name:?}: {detail}"))
        .at(Place::Pointer("/keep_float".to_owned()))
        .cure(cure)
}

//! Hosted layers as models: input `x`, output `y`.

use crate::api::context::Context;
use crate::api::error::{Error, Place};
use crate::api::layers::{LayerHandle, Port, run};
use quantd_codec::oip::Output;
use quantd_core::tensor::{Shape, Tensor};

use super::exchange::Call;
use super::models::Spec;

/// What a layer or chain takes.
#[must_use]
pub fn input(hosted: &LayerHandle) -> Spec {
    spec("x", &hosted.input())
}

/// What it gives.
#[must_use]
pub fn output(hosted: &LayerHandle) -> Spec {
    spec("y", &hosted.output())
}

fn spec(name: &'static str, port: &Port) -> Spec {
    let size = |dim: &Option<usize>| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1);
    Spec { name, dtype: port.dtype, dims: port.dims.iter().map(size).collect() }
}

/// The input of a request, and whether it may be run together with others.
///
/// # Errors
/// [`Error`] names the parameter or the input at fault.
pub fn take_input(call: &mut Call) -> Result<(Tensor, bool), Error> {
    let known = ["x"];
    let batch = call.fields.get(&run::BATCH)?.unwrap_or(true);
    call.fields.clone().finish(&[run::BATCH.name])?;
    let x = call.require("x", &known)?;
    call.finish_inputs(&known)?;
    Ok((x.tensor, batch))
}

/// Takes room for a run on `x` and its answer; gives the shape of the result.
///
/// # Errors
/// [`Error`] about the input, or when there is no room.
pub fn reserve(
    hosted: &LayerHandle,
    x: &Tensor,
    call: &Call,
    context: &mut Context<'_>,
) -> Result<Shape, Error> {
    run::reserve(hosted, x, call.format(), context).map_err(located)
}

/// The result as the outputs of an answer.
#[must_use]
pub fn outputs(hosted: &LayerHandle, y: Tensor) -> Vec<Output> {
    let affine = hosted.links().last().and_then(|link| link.layer.output().affine());
    let parameters = affine.map(|affine| {
        vec![
            ("quantd_scale", affine.scale.to_string()),
            ("quantd_zero_point", affine.zero_point.to_string()),
        ]
    });
    vec![Output { name: "y", tensor: y, parameters: parameters.unwrap_or_default(), binary: false }]
}

/// The same error about the only input.
#[must_use]
pub fn located(error: Error) -> Error {
    match &error.place {
        Some(Place::Pointer(place)) => {
            let pointer = format!("/inputs/0{place}");
            error.at(Place::Pointer(pointer))
        }
        Some(Place::Parameter(_) | Place::Header(_)) | None => error,
    }
}

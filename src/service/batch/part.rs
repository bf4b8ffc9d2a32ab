//! What a request to a layer makes of its body and of its result, alone or among others.

use std::time::{Duration, Instant};

use crate::api::answer::Answer;
use crate::api::context::Context;
use crate::api::error::Error;
use crate::api::layers::LayerHandle;
use quantd_core::tensor::{Shape, Tensor};

/// What a request makes of its body and of its result.
pub(in crate::service) trait Part: Send {
    /// The input, and whether it may be run with others.
    fn decode(&mut self, context: &mut Context<'_>) -> Result<(Tensor, bool), Error>;
    /// Takes room for a run on `x` and its answer; gives the shape of the result.
    fn reserve(&self, x: &Tensor, context: &mut Context<'_>) -> Result<Shape, Error>;
    /// The same error in the terms of the request.
    fn located(&self, error: Error) -> Error;
    /// The answer; the run on `rows` rows in all took from `started` to `ended`.
    fn encode(&mut self, y: Tensor, run: Run, context: &mut Context<'_>) -> Result<Answer, Error>;
}

/// A run, as the statistics count it.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Run {
    /// Rows of this request.
    pub(in crate::service) rows: usize,
    /// Rows of all requests that ran together; 0 for all of them but one.
    pub(in crate::service) executed: usize,
    /// When the leader took the request up.
    pub(in crate::service) begun: Instant,
    /// When its input was decoded.
    pub(in crate::service) decoded: Instant,
    /// What the product took.
    pub(in crate::service) took: Duration,
}

/// Rows of an input.
pub(in crate::service) fn rows(hosted: &LayerHandle, x: &Tensor) -> usize {
    let row = hosted.input().dims.iter().flatten().product::<usize>();
    x.shape().len().checked_div(row).unwrap_or(1).max(1)
}

/// Runs a request by itself: a batch of one, on the thread that calls.
pub(in crate::service) fn alone(
    part: &mut dyn Part,
    hosted: &LayerHandle,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let begun = Instant::now();
    let (x, _) = part.decode(context)?;
    let decoded = Instant::now();
    part.reserve(&x, context)?;
    let y = hosted.forward(&x, context.task).map_err(|error| part.located(error))?;
    let rows = rows(hosted, &x);
    drop(x);
    let run = Run { rows, executed: rows, begun, decoded, took: decoded.elapsed() };
    part.encode(y, run, context)
}

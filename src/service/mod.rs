//! The use cases, asynchronous outside and synchronous inside.
//!
//! A command carries the bytes of a request; one closure on the compute pool
//! decodes them, computes and encodes the answer. Nothing here knows HTTP.

pub mod admission;
pub mod batch;
pub mod calibrators;
pub mod compute;
pub mod layers;
pub mod models;
mod pools;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::answer::{Answer, Style};
use crate::api::context::Context;
use crate::api::effort::Effort;
use crate::api::error::{Error, Kind};
use crate::api::payload::{Format, Payload};
use crate::api::{compare, dequantize, inspect, matmul, quantize};
use quantd_codec::Limits;
use quantd_core::Task;

use admission::Permit;
use batch::Batching;
use calibrators::Calibrators;
use compute::Compute;
use layers::Layers;
use pools::Length;

/// What to do with the tensors of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Codes, parameters and reports.
    Quantize,
    /// Real numbers again.
    Dequantize,
    /// Reports of many schemes.
    Compare,
    /// Statistics.
    Inspect,
    /// The product of two tensors.
    Matmul,
}

impl Operation {
    /// Name in paths and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quantize => "quantize",
            Self::Dequantize => "dequantize",
            Self::Compare => "compare",
            Self::Inspect => "inspect",
            Self::Matmul => "matmul",
        }
    }

    /// Formats of the answer, the one for a JSON request first, the one for a
    /// binary request second.
    #[must_use]
    pub const fn formats(self) -> &'static [Format] {
        match self {
            Self::Quantize | Self::Dequantize | Self::Matmul => {
                &[Format::Json, Format::Safetensors, Format::Npy, Format::Raw]
            }
            Self::Compare | Self::Inspect => &[Format::Json],
        }
    }

    /// Bytes that a request may need in all, from those of its body: the body
    /// itself, what it decodes to, and the answer.
    #[must_use]
    pub const fn cost(self, format: Format, body: usize) -> usize {
        let factor = match (self, format) {
            // Text of a number is about as long as the number; the answer is text too.
            (Self::Quantize, Format::Json) => 4,
            (_, Format::Json) => 3,
            // Codes, or a conversion of half-precision elements.
            (Self::Quantize, _) => 2,
            (Self::Dequantize, _) => 5,
            (Self::Compare | Self::Inspect | Self::Matmul, _) => 2,
        };
        body.saturating_mul(factor).saturating_add(64 << 10)
    }
}

/// A request, ready to be carried out; copies share its body.
#[derive(Clone, Debug)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// The body.
    pub payload: Payload,
    /// Format of the answer.
    pub format: Format,
    /// How its text leaves.
    pub style: Style,
}

/// Carries a command out on the thread that calls.
///
/// # Errors
/// [`Error`] of the operation.
pub fn execute(command: Command, context: &mut Context<'_>) -> Result<Answer, Error> {
    let Command { operation, payload, format, style } = command;
    let answer = match operation {
        Operation::Quantize => quantize::run(payload, format, context),
        Operation::Dequantize => dequantize::run(payload, format, context),
        Operation::Compare => compare::run(payload, context),
        Operation::Inspect => inspect::run(payload, context),
        Operation::Matmul => matmul::run(payload, format, context),
    }?;
    answer.styled(style, context)
}

/// Does work that may hold the bytes of a permit, of which `spare` are not used yet.
fn in_context<T>(
    limits: &Limits,
    (task, effort): (&Task, Effort),
    (permit, spare): (&mut Permit, usize),
    work: impl FnOnce(&mut Context<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut grow = |bytes| permit.grow_by(bytes);
    work(&mut Context { limits, task, spare, grow: &mut grow, effort })
}

/// An answer, how long it took, and the bytes it may hold until it is written.
#[derive(Debug)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// Time on the pool: decode, compute and encode.
    pub compute: Duration,
    /// Released when the answer is written; answers that share memory share it.
    pub permit: Arc<Permit>,
}

/// What became of work in a pool.
enum Done<T> {
    /// It was done, in that time.
    Made(T, Duration),
    /// Nothing was done: it is longer than what is done there.
    Outgrown,
}

/// The use cases over one compute pool.
#[derive(Debug)]
pub struct Service {
    compute: Compute,
    limits: Arc<Limits>,
    calibrators: Calibrators,
    layers: Layers,
    models: models::Models,
    batching: Batching,
    lanes: batch::Lanes,
}

impl Service {
    /// Over that pool and within those limits.
    #[must_use]
    pub fn new(
        compute: Compute,
        limits: Limits,
        calibrators: calibrators::Settings,
        layers: Layers,
        batching: Batching,
    ) -> Self {
        Self {
            compute,
            limits: Arc::new(limits),
            calibrators: Calibrators::new(calibrators),
            layers,
            models: models::Models::default(),
            batching,
            lanes: batch::Lanes::default(),
        }
    }

    /// The layers that are kept.
    #[must_use]
    pub const fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Bounds on documents.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The calibrators that are kept.
    #[must_use]
    pub const fn calibrators(&self) -> &Calibrators {
        &self.calibrators
    }

    /// The pool.
    #[must_use]
    pub const fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Waits for the right to hold the bytes of a request.
    ///
    /// # Errors
    /// Those of [`Compute::admit`].
    pub async fn admit(&self, bytes: usize) -> Result<Permit, Error> {
        self.compute.admit(bytes).await
    }

    /// Carries a command out on the pool.
    ///
    /// # Errors
    /// [`Error`] of the operation or of the pool.
    pub async fn run(&self, permit: Permit, command: Command) -> Result<Outcome, Error> {
        let (name, body) = (command.operation.name(), command.payload.body.bytes().len());
        self.work(permit, name, body, |context| execute(command, context)).await
    }

    /// Does the work of the operation `name` on the pool: it decodes, computes and encodes the answer.
    /// The permit covers the `body` that the work holds and what it makes.
    ///
    /// # Errors
    /// [`Error`] of the work or of the pool.
    pub async fn work(
        &self,
        permit: Permit,
        name: &'static str,
        body: usize,
        work: impl FnOnce(&mut Context<'_>) -> Result<Answer, Error> + Clone + Send + 'static,
    ) -> Result<Outcome, Error> {
        let (answer, compute, mut permit) = self.on_pool(permit, body, work).await?;
        // What the request held is gone; the answer is what is left.
        permit.shrink(answer.held());
        crate::telemetry::computed(name, compute);
        Ok(Outcome { answer, compute, permit: Arc::new(permit) })
    }

    /// Does work on the pool and says how long it took; the permit covers the
    /// `body` that the work holds and what it makes. With a small body it is begun
    /// among the short ones, and where it turns out to be long it is begun anew
    /// among the others, before it has done anything.
    async fn on_pool<T: Send + 'static>(
        &self,
        mut permit: Permit,
        body: usize,
        work: impl FnOnce(&mut Context<'_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<(T, Duration, Permit), Error> {
        if Length::of_body(body) == Length::Short {
            let held = permit.held_bytes();
            let done = self.in_pool(Length::Short, permit, body, work.clone()).await?;
            permit = match done {
                (Done::Made(made, compute), permit) => return Ok((made, compute, permit)),
                (Done::Outgrown, permit) => permit,
            };
            permit.shrink(held);
        }
        match self.in_pool(Length::Long, permit, body, work).await? {
            (Done::Made(made, compute), permit) => Ok((made, compute, permit)),
            (Done::Outgrown, _) => Err(Error::new(Kind::Internal, "there is no pool for the work")),
        }
    }

    async fn in_pool<T: Send + 'static>(
        &self,
        length: Length,
        permit: Permit,
        body: usize,
        work: impl FnOnce(&mut Context<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<(Done<T>, Permit), Error> {
        let (limits, effort) = (Arc::clone(&self.limits), self.compute.effort(length));
        let work = move |task: &Task, permit: &mut Permit| {
            let started = Instant::now();
            let spare = permit.held_bytes().saturating_sub(body);
            in_context(&limits, (task, effort), (permit, spare), |context| {
                let made = work(context);
                if context.effort.is_outgrown() {
                    return Ok(Done::Outgrown);
                }
                let made = made?;
                if task.is_cancelled() {
                    return Err(Error::new(Kind::Internal, "cancelled"));
                }
                Ok(Done::Made(made, started.elapsed()))
            })
        };
        self.compute.run(length, permit, work).await
    }
}

//! Requests about layers, from their body to their answer.

use std::sync::Arc;
use std::time::Instant;

use crate::api::answer::{Answer, Style};
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::Query;
use crate::api::layers::create::{self, Made};
use crate::api::layers::documents::LayerDoc;
use crate::api::layers::stored::Stored;
use crate::api::layers::{LayerHandle, run};
use crate::api::name::Name;
use crate::api::oip;
use crate::api::payload::{Format, Payload};
use crate::service::admission::Permit;
use crate::service::batch::{Part, Run, alone};
use crate::service::calibrators::Calibrators;
use crate::service::{Outcome, Service};
use quantd_codec::encoding::Encoding;
use quantd_core::calibrate::QuantParams;
use quantd_core::params::Numerics;
use quantd_core::tensor::{Shape, Tensor};

use super::keeper::Commit;
use super::registry::FIRST_VERSION;

impl Service {
    /// Makes a layer or chain of a request, and says its name if that is new.
    /// `name` is the one in the path: what is under it is replaced, what is
    /// under another one is not.
    ///
    /// # Errors
    /// [`Error`] names the field at fault; nothing is made then.
    /// [`Kind::Conflict`] when the name is taken.
    pub async fn make_layer(
        &self,
        permit: Permit,
        name: Option<Name>,
        payload: Payload,
        style: Style,
    ) -> Result<Outcome, Error> {
        let replaces = name.is_some();
        let saved = self.layers().settings().directory.is_some();
        let body = payload.body.bytes().len();
        let (layers, calibrators) = (self.layers().clone(), self.calibrators().clone());
        let work = move |context: &mut Context<'_>| {
            let calibrated =
                |name: &Name, numerics: Option<&Numerics>, context: &mut Context<'_>| {
                    learnt(&calibrators, name, numerics, context)
                };
            let mut request = create::read(payload, context)?;
            let name = agreed(name, request.name()?)?;
            if !replaces {
                // Again when it is made; by then others may have taken it.
                layers.check_new(&name)?;
            }
            let made = request.make(&calibrated, context)?;
            let (doc, stored) = match &made {
                Made::Layer(made) => {
                    let (definition, layer) = &**made;
                    let stored = saved.then(|| Stored::layer(definition));
                    (LayerDoc::of_layer(definition, layer), stored)
                }
                Made::Chain(names) => (LayerDoc::of_chain(), saved.then(|| Stored::chain(names))),
            };
            Ok(Commit { name, replaces, doc, made: made.into(), stored })
        };
        let (commit, compute, mut permit) = self.on_pool(permit, body, work).await?;
        let doc = self.layers().commit(commit).await?;
        let is_new = doc.version == FIRST_VERSION;
        let mut answer = Answer::document(&doc, &mut |bytes| permit.grow_by(bytes))?;
        if style.pretty {
            answer = answer.laid_out(&mut |bytes| permit.grow_by(bytes))?;
        }
        if is_new {
            answer.created = Some(doc.name);
        }
        permit.shrink(answer.len());
        crate::telemetry::computed("make_layer", compute);
        Ok(Outcome { answer, compute, permit: Arc::new(permit) })
    }

    /// Runs a layer on the tensor of a request.
    ///
    /// # Errors
    /// [`Error`] names the field at fault.
    pub async fn run_layer(
        &self,
        permit: Permit,
        hosted: Arc<LayerHandle>,
        payload: Payload,
        (format, style): (Format, Style),
    ) -> Result<Outcome, Error> {
        let body = payload.body.bytes().len();
        // What is laid out takes room that is not known before the run.
        let by_itself = style.pretty || says_alone(&payload.query);
        let is_plain = payload.encoding == Encoding::Identity && !by_itself;
        let part = Forward { payload: Some(payload), hosted: Arc::clone(&hosted), format, style };
        if is_plain && self.is_batchable(&hosted, body) {
            return self.run_together(permit, body, hosted, Box::new(part)).await;
        }
        self.work(permit, "forward", body, move |context| {
            let mut part = part;
            alone(&mut part, &hosted, context)
        })
        .await
    }

    /// Compares a layer with its real numbers on the tensor of a request.
    ///
    /// # Errors
    /// [`Error`] names the field at fault.
    pub async fn evaluate_layer(
        &self,
        permit: Permit,
        hosted: Arc<LayerHandle>,
        payload: Payload,
        style: Style,
    ) -> Result<Outcome, Error> {
        let body = payload.body.bytes().len();
        let started = Instant::now();
        self.work(permit, "evaluate", body, move |context| {
            run::evaluate(payload, &hosted, &|| started.elapsed().as_secs_f64(), context)?
                .styled(style, context)
        })
        .await
    }
}

/// What the calibrator of that name has learnt.
fn learnt(
    calibrators: &Calibrators,
    name: &Name,
    numerics: Option<&Numerics>,
    context: &mut Context<'_>,
) -> Result<(Numerics, QuantParams<f32>), Error> {
    let calibrator = calibrators.get(name).map_err(|error| Error {
        // The path names a layer; what the body names is an option.
        kind: Kind::InvalidOption,
        ..error
    })?;
    let numerics = *numerics.unwrap_or(&calibrator.setup().numerics);
    Ok((numerics, calibrator.parameters(&numerics, context)?))
}

/// Whether a query asks for a run without others.
fn says_alone(query: &Query) -> bool {
    query.texts(run::BATCH.name).any(|text| text.eq_ignore_ascii_case("false") || text == "0")
}

/// A request to run a layer.
#[derive(Clone)]
struct Forward {
    payload: Option<Payload>,
    hosted: Arc<LayerHandle>,
    format: Format,
    style: Style,
}

impl Part for Forward {
    fn decode(&mut self, context: &mut Context<'_>) -> Result<(Tensor, bool), Error> {
        let payload = self.payload.take();
        let payload = payload.ok_or_else(|| Error::new(Kind::Internal, "decoded twice"))?;
        run::input_of_run(payload, context)
    }

    fn reserve(&self, x: &Tensor, context: &mut Context<'_>) -> Result<Shape, Error> {
        run::reserve(&self.hosted, x, self.format, context)
    }

    fn located(&self, error: Error) -> Error {
        error
    }

    fn encode(&mut self, y: Tensor, _: Run, context: &mut Context<'_>) -> Result<Answer, Error> {
        run::answer(&self.hosted, y, self.format, context)?.styled(self.style, context)
    }
}

/// The name in the path or in the body, or in both where they agree.
fn agreed(path: Option<Name>, body: Option<Name>) -> Result<Name, Error> {
    let wrong = |detail: &str| {
        Error::new(Kind::InvalidOption, detail).at(Place::Pointer("/name".to_owned()))
    };
    match (path, body) {
        (Some(path), Some(body)) if path != body => {
            Err(wrong("not the name in the path").cure("leave it out"))
        }
        (Some(name), _) | (None, Some(name)) if oip::is_reserved(name.as_str()) => {
            Err(wrong("the name of a built-in model of /v2").cure("take another one"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Err(wrong("missing").cure("for instance \"fc1\"")),
    }
}

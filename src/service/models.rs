//! Models by name, as the Open Inference Protocol calls them, and what their
//! requests took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::api::answer::{Answer, Encoding, Style};
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::layers::LayerHandle;
use crate::api::name::Name;
use crate::api::oip::documents::{
    BatchStatistics, Duration as Total, IndexEntry, InferStatistics, MemoryUsage, ModelMetadata,
    ModelStatistics, TensorMetadata,
};
use crate::api::oip::{self, Body, CATALOG, Call, Model, VERSION, hosted};
use quantd_codec::oip::Output;
use quantd_core::tensor::{Shape, Tensor};

use super::admission::Permit;
use super::batch::{Part, Run, alone};
use super::{Outcome, Service};

/// Sizes of batches that are told apart.
const MAX_BATCH_SIZES: usize = 256;

/// A model that exists.
#[derive(Clone, Debug)]
pub enum Target {
    /// One of [`CATALOG`].
    Builtin(&'static Model),
    /// A layer or chain.
    Layer(Arc<LayerHandle>),
}

/// A request to a model, nothing of it decoded.
#[derive(Clone, Debug)]
pub struct Inference {
    /// The model.
    pub target: Target,
    /// The body.
    pub body: Body,
    /// Content coding that the client asked for.
    pub style: Style,
    /// When the request came.
    pub received: Instant,
}

/// What the parts of an execution took.
#[derive(Clone, Copy, Debug)]
struct Phases {
    queue: Duration,
    input: Duration,
    infer: Duration,
    output: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    last: u64,
    inferences: u64,
    executions: u64,
    times: InferStatistics,
    batches: BTreeMap<u64, BatchStatistics>,
}

/// Counts and durations of one model.
#[derive(Debug, Default)]
struct Statistics(Mutex<Counters>);

/// Statistics of every model that was asked for since it is there.
#[derive(Debug, Default)]
pub(super) struct Models {
    /// By name: the version and its statistics. An older version is forgotten.
    found: Mutex<BTreeMap<String, (u64, Arc<Statistics>)>>,
}

impl Models {
    /// The statistics of a model. What is no longer there is forgotten where
    /// something new comes; `exists` tells.
    fn of(&self, name: &str, version: u64, exists: &dyn Fn(&str) -> bool) -> Arc<Statistics> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((own, statistics)) = found.get(name)
            && *own == version
        {
            return Arc::clone(statistics);
        }
        found.retain(|name, _| exists(name));
        let statistics = Arc::<Statistics>::default();
        found.insert(name.to_owned(), (version, Arc::clone(&statistics)));
        statistics
    }
}

fn add(total: &mut Total, count: u64, time: Duration) {
    total.count += count;
    total.ns = total.ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        // Counters are whole whatever panicked beside them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of `rows` rows, and the execution on `executed` rows that it
    /// is counted with; 0 where another request of the same one is.
    fn executed(&self, rows: u64, executed: u64, phases: Phases) {
        let mut counters = self.lock();
        counters.inferences += rows;
        add(&mut counters.times.queue, 1, phases.queue);
        add(&mut counters.times.compute_input, 1, phases.input);
        add(&mut counters.times.compute_infer, 1, phases.infer);
        add(&mut counters.times.compute_output, 1, phases.output);
        if executed == 0 {
            return;
        }
        counters.executions += 1;
        let known = counters.batches.contains_key(&executed);
        if known || counters.batches.len() < MAX_BATCH_SIZES {
            let batch = counters.batches.entry(executed).or_default();
            batch.batch_size = executed;
            add(&mut batch.compute_input, 1, phases.input);
            add(&mut batch.compute_infer, 1, phases.infer);
            add(&mut batch.compute_output, 1, phases.output);
        }
    }

    /// A request that was answered, or was not.
    fn answered(&self, success: bool, time: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut counters = self.lock();
        counters.last = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let times = &mut counters.times;
        add(if success { &mut times.success } else { &mut times.fail }, 1, time);
    }

    fn document(&self, name: &str, version: u64, memory_bytes: usize) -> ModelStatistics {
        let counters = self.lock();
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_string(),
            last_inference: counters.last,
            inference_count: counters.inferences,
            execution_count: counters.executions,
            inference_stats: counters.times,
            response_stats: serde_json::Map::new(),
            batch_stats: counters.batches.values().copied().collect(),
            memory_usage: vec![MemoryUsage {
                kind: "CPU",
                id: 0,
                byte_size: u64::try_from(memory_bytes).unwrap_or(u64::MAX),
            }],
        }
    }
}

impl Target {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin(model) => &model.name,
            Self::Layer(hosted) => hosted.name.as_str(),
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u64 {
        match self {
            Self::Builtin(_) => VERSION,
            Self::Layer(hosted) => hosted.version,
        }
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn metadata(&self) -> ModelMetadata {
        let (platform, inputs, outputs) = match self {
            Self::Builtin(model) => (
                "quantd_builtin",
                model.inputs.iter().map(TensorMetadata::from).collect(),
                model.outputs.iter().map(TensorMetadata::from).collect(),
            ),
            Self::Layer(hosted) => (
                "quantd_layer",
                vec![TensorMetadata::from(&hosted::input(hosted))],
                vec![TensorMetadata::from(&hosted::output(hosted))],
            ),
        };
        let (name, versions) = (self.name().to_owned(), vec![self.version().to_string()]);
        ModelMetadata { name, versions, platform, inputs, outputs }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Builtin(_) => 0,
            Self::Layer(hosted) => hosted.links().map(|link| link.layer.memory_bytes()).sum(),
        }
    }
}

/// Refuses what has waited longer than it may.
fn in_time(call: &Call, received: Instant) -> Result<(), Error> {
    let allowed = call.timeout.filter(|allowed| *allowed > 0).map(Duration::from_micros);
    if allowed.is_some_and(|allowed| received.elapsed() > allowed) {
        let detail = "the request waited longer than its timeout allows";
        return Err(Error::new(Kind::Overloaded, detail));
    }
    Ok(())
}

/// A request to a built-in model, decoded, computed and encoded on the thread that calls.
fn execute(
    inference: Inference,
    model: &Model,
    (submitted, statistics): (Instant, &Statistics),
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let Inference { target, body, style, received } = inference;
    let started = Instant::now();
    let mut call = oip::decode(body, &model.inputs, context)?;
    in_time(&call, received)?;
    let decoded = Instant::now();
    let outputs = oip::run(model, &mut call, context)?;
    let computed = Instant::now();
    let answer = encode(&call, &target, outputs, style, context)?;
    let phases = Phases {
        queue: started - submitted,
        input: decoded - started,
        infer: computed - decoded,
        output: computed.elapsed(),
    };
    statistics.executed(1, 1, phases);
    Ok(answer)
}

/// The answer of a model.
fn encode(
    call: &Call,
    target: &Target,
    outputs: Vec<Output>,
    style: Style,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let version = target.version().to_string();
    let answer = oip::encode(call, (target.name(), &version), outputs, context)?;
    let answer = match style.pretty {
        true => answer.laid_out(&mut |bytes| context.take(bytes))?,
        false => answer,
    };
    answer.compressed_as(style.encoding, context)
}

/// A request to a layer.
struct OfLayer {
    inference: Option<Inference>,
    call: Call,
    target: Target,
    style: Style,
    hosted: Arc<LayerHandle>,
    submitted: Instant,
    statistics: Arc<Statistics>,
}

impl OfLayer {
    fn new(
        inference: Inference,
        hosted: Arc<LayerHandle>,
        submitted: Instant,
        statistics: Arc<Statistics>,
    ) -> Self {
        let (target, style) = (inference.target.clone(), inference.style);
        let call = Call::default();
        Self { inference: Some(inference), call, target, style, hosted, submitted, statistics }
    }
}

impl Part for OfLayer {
    fn decode(&mut self, context: &mut Context<'_>) -> Result<(Tensor, bool), Error> {
        let inference = self.inference.take();
        let Inference { body, received, .. } =
            inference.ok_or_else(|| Error::new(Kind::Internal, "decoded twice"))?;
        self.call = oip::decode(body, &[hosted::input(&self.hosted)], context)?;
        in_time(&self.call, received)?;
        hosted::take_input(&mut self.call)
    }

    fn reserve(&self, x: &Tensor, context: &mut Context<'_>) -> Result<Shape, Error> {
        hosted::reserve(&self.hosted, x, &self.call, context)
    }

    fn located(&self, error: Error) -> Error {
        hosted::located(error)
    }

    fn encode(&mut self, y: Tensor, run: Run, context: &mut Context<'_>) -> Result<Answer, Error> {
        let started = Instant::now();
        let outputs = hosted::outputs(&self.hosted, y);
        let answer = encode(&self.call, &self.target, outputs, self.style, context)?;
        let phases = Phases {
            queue: run.begun.saturating_duration_since(self.submitted),
            input: run.decoded - run.begun,
            infer: run.took,
            output: started.elapsed(),
        };
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        self.statistics.executed(count(run.rows), count(run.executed), phases);
        Ok(answer)
    }
}

fn no_model() -> Error {
    Error::new(Kind::NotFound, "no such model")
        .cure("see POST /v2/repository/index for what there is")
}

/// The number of a version, if one is asked for.
fn number(version: Option<&str>) -> Result<Option<u64>, Error> {
    let Some(text) = version else { return Ok(None) };
    let number = oip::is_version(text).then(|| text.parse().ok()).flatten();
    number.map(Some).ok_or_else(|| {
        Error::new(Kind::NotFound, "the model has no such version").cure("versions are numbers")
    })
}

impl Service {
    /// The model of that name and version, ready to run.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, and those of [`Layers::get`](super::layers::Layers::get).
    pub async fn model(&self, name: &str, version: Option<&str>) -> Result<Target, Error> {
        let version = number(version)?;
        if let Some(model) = oip::find(name) {
            return match version {
                None | Some(VERSION) => Ok(Target::Builtin(model)),
                Some(_) => Err(Error::new(Kind::NotFound, "the model has no such version")),
            };
        }
        let name = self.layer_name(name)?;
        self.layers().get(&name, version).await.map(Target::Layer)
    }

    /// The name of a layer that exists.
    fn layer_name(&self, name: &str) -> Result<Name, Error> {
        let name = Name::new(name, Place::Parameter("model".to_owned())).map_err(|_| no_model())?;
        if self.layers().contains(&name) { Ok(name) } else { Err(no_model()) }
    }

    /// Whether a model takes requests; `None` where there is no such model.
    #[must_use]
    pub fn is_model_ready(&self, name: &str, version: Option<&str>) -> Option<bool> {
        let version = number(version).ok()?;
        if oip::find(name).is_some() {
            return version.is_none_or(|version| version == VERSION).then_some(true);
        }
        let name = self.layer_name(name).ok()?;
        let doc = self.layers().describe(&name).ok()?;
        let exists = version.is_none_or(|version| version == doc.version);
        exists.then(|| !self.layers().is_unloaded(&name))
    }

    /// Number of models.
    #[must_use]
    pub fn model_count(&self) -> usize {
        CATALOG.len() + self.layers().len()
    }

    /// Every model, by name and version.
    #[must_use]
    pub fn index(&self) -> Vec<IndexEntry> {
        let builtin = CATALOG.iter().map(|model| IndexEntry {
            name: model.name.clone(),
            version: VERSION.to_string(),
            state: "READY",
            reason: "",
        });
        let layers = self.layers().list().layers.into_iter().map(|doc| {
            let name = Name::new(&doc.name, Place::Parameter("model".to_owned()));
            let unloaded = name.is_ok_and(|name| self.layers().is_unloaded(&name));
            IndexEntry {
                version: doc.version.to_string(),
                name: doc.name,
                state: if unloaded { "UNAVAILABLE" } else { "READY" },
                reason: if unloaded { "unloaded" } else { "" },
            }
        });
        builtin.chain(layers).collect()
    }

    /// Brings a model back that was unloaded.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, and those of [`Layers::load`](super::layers::Layers::load).
    pub async fn load_model(&self, name: &str) -> Result<(), Error> {
        if oip::find(name).is_some() {
            return Ok(());
        }
        self.layers().load(&self.layer_name(name)?).await.map(drop)
    }

    /// Takes a model out of memory.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::InvalidOption`] for one
    /// that is built in, and those of [`Layers::unload`](super::layers::Layers::unload).
    pub async fn unload_model(&self, name: &str) -> Result<(), Error> {
        if oip::find(name).is_some() {
            return Err(Error::new(Kind::InvalidOption, "the model is built in"));
        }
        self.layers().unload(&self.layer_name(name)?).await
    }

    fn statistics_of(&self, name: &str, version: u64) -> Arc<Statistics> {
        let exists = |name: &str| oip::find(name).is_some() || self.layer_name(name).is_ok();
        self.models.of(name, version, &exists)
    }

    /// What requests to a model took.
    #[must_use]
    pub fn statistics(&self, target: &Target) -> ModelStatistics {
        let (name, version) = (target.name(), target.version());
        self.statistics_of(name, version).document(name, version, target.memory_bytes())
    }

    /// What requests to every model took.
    #[must_use]
    pub fn all_statistics(&self) -> Vec<ModelStatistics> {
        let builtin = CATALOG.iter().map(|model| {
            self.statistics_of(&model.name, VERSION).document(&model.name, VERSION, 0)
        });
        let layers = self.layers().list().layers.into_iter().map(|doc| {
            let bytes = if doc.loaded { doc.memory.memory_bytes } else { 0 };
            self.statistics_of(&doc.name, doc.version).document(&doc.name, doc.version, bytes)
        });
        builtin.chain(layers).collect()
    }

    /// Carries a request to a model out on the pool.
    ///
    /// # Errors
    /// [`Error`] of the request, of the model or of the pool.
    pub async fn infer(&self, permit: Permit, inference: Inference) -> Result<Outcome, Error> {
        let statistics = self.statistics_of(inference.target.name(), inference.target.version());
        let (body, received) = (inference.body.bytes.bytes().len(), inference.received);
        let submitted = Instant::now();
        let own = Arc::clone(&statistics);
        let result = match inference.target.clone() {
            Target::Builtin(model) => {
                let work = move |context: &mut Context<'_>| {
                    execute(inference, model, (submitted, &own), context)
                };
                self.work(permit, "infer", body, work).await
            }
            Target::Layer(hosted) => {
                let is_plain = inference.body.encoding == Encoding::Identity
                    // What is laid out takes room that is not known before the run.
                    && !inference.style.pretty;
                let together = is_plain && self.is_batchable(&hosted, body);
                let of = Arc::clone(&hosted);
                let part = move || OfLayer::new(inference, of, submitted, own);
                if together {
                    self.run_together(permit, body, hosted, Box::new(part())).await
                } else {
                    let work =
                        move |context: &mut Context<'_>| alone(&mut part(), &hosted, context);
                    self.work(permit, "infer", body, work).await
                }
            }
        };
        statistics.answered(result.is_ok(), received.elapsed());
        result
    }
}

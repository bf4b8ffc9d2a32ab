//! Models by name, as the Open Inference Protocol calls them, and what their
//! requests took.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::api::answer::Encoding;
use crate::api::error::{Error, Kind};
use crate::api::oip::documents::{
    BatchStatistics, Duration as Total, IndexEntry, InferStatistics, ModelMetadata,
    ModelStatistics, TensorMetadata,
};
use crate::api::oip::{self, Body, CATALOG, Model, VERSION};
use crate::api::payload::Context;

use super::compute::Permit;
use super::{Outcome, Service};

/// Sizes of batches that are told apart.
const MAX_BATCH_SIZES: usize = 256;

/// A model that exists.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// One of [`CATALOG`].
    Builtin(&'static Model),
}

/// A request to a model, nothing of it decoded.
#[derive(Debug)]
pub struct Inference {
    /// The model.
    pub target: Target,
    /// The body.
    pub body: Body,
    /// Content coding that the client asked for.
    pub encoding: Encoding,
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

/// Statistics of every model, in the order of [`CATALOG`].
#[derive(Debug)]
pub(super) struct Models {
    builtin: LazyLock<Vec<Arc<Statistics>>>,
}

impl Default for Models {
    fn default() -> Self {
        Self { builtin: LazyLock::new(|| CATALOG.iter().map(|_| Arc::default()).collect()) }
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

    /// An execution for one request of `rows` rows.
    fn executed(&self, rows: u64, phases: Phases) {
        let mut counters = self.lock();
        counters.executions += 1;
        counters.inferences += rows;
        add(&mut counters.times.queue, 1, phases.queue);
        add(&mut counters.times.compute_input, 1, phases.input);
        add(&mut counters.times.compute_infer, 1, phases.infer);
        add(&mut counters.times.compute_output, 1, phases.output);
        let known = counters.batches.contains_key(&rows);
        if known || counters.batches.len() < MAX_BATCH_SIZES {
            let batch = counters.batches.entry(rows).or_default();
            batch.batch_size = rows;
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

    fn document(&self, name: &str, version: &str) -> ModelStatistics {
        let counters = self.lock();
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            last_inference: counters.last,
            inference_count: counters.inferences,
            execution_count: counters.executions,
            inference_stats: counters.times,
            response_stats: serde_json::Map::new(),
            batch_stats: counters.batches.values().copied().collect(),
            memory_usage: Vec::new(),
        }
    }
}

impl Target {
    /// What the model takes and gives.
    #[must_use]
    pub fn metadata(&self) -> ModelMetadata {
        match self {
            Self::Builtin(model) => ModelMetadata {
                name: model.name.clone(),
                versions: vec![VERSION.to_owned()],
                platform: "quantd_builtin".to_owned(),
                inputs: model.inputs.iter().map(TensorMetadata::from).collect(),
                outputs: model.outputs.iter().map(TensorMetadata::from).collect(),
            },
        }
    }

    /// Whether the model is part of the program.
    #[must_use]
    pub const fn is_builtin(&self) -> bool {
        matches!(self, Self::Builtin(_))
    }
}

impl Inference {
    /// Decodes, computes and encodes on the thread that calls.
    fn execute(
        self,
        submitted: Instant,
        statistics: &Statistics,
        context: &mut Context<'_>,
    ) -> Result<crate::api::answer::Answer, Error> {
        let Self { target: Target::Builtin(model), body, encoding, received } = self;
        let started = Instant::now();
        let mut call = oip::decode(body, &model.inputs, context)?;
        if let Some(allowed) = call.timeout.filter(|allowed| *allowed > 0)
            && received.elapsed() > Duration::from_micros(allowed)
        {
            return Err(Error::new(
                Kind::Overloaded,
                "the request waited longer than its timeout allows",
            ));
        }
        let decoded = Instant::now();
        let outputs = oip::run(model, &mut call, context)?;
        let computed = Instant::now();
        let answer = oip::encode(&call, (&model.name, VERSION), outputs)?;
        let answer = answer.compressed_as(encoding, context.cancel)?;
        let phases = Phases {
            queue: started - submitted,
            input: decoded - started,
            infer: computed - decoded,
            output: computed.elapsed(),
        };
        statistics.executed(1, phases);
        Ok(answer)
    }
}

impl Service {
    /// The model of that name and version; the newest without a version.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Target, Error> {
        let Some(model) = oip::find(name) else {
            return Err(Error::new(Kind::NotFound, "no such model")
                .cure("see POST /v2/repository/index for what there is"));
        };
        match version {
            None | Some(VERSION) => Ok(Target::Builtin(model)),
            Some(version) if oip::is_version(version) => {
                Err(Error::new(Kind::NotFound, "the model has no such version"))
            }
            Some(_) => Err(Error::new(Kind::NotFound, "the model has no such version")
                .cure("versions are numbers")),
        }
    }

    /// Every model, by name and version.
    #[must_use]
    pub fn index(&self) -> Vec<IndexEntry> {
        let ready = |model: &Model| IndexEntry {
            name: model.name.clone(),
            version: VERSION.to_owned(),
            state: "READY",
            reason: "",
        };
        CATALOG.iter().map(ready).collect()
    }

    /// What requests to `target` took, or to every model.
    #[must_use]
    pub fn statistics(&self, target: Option<&Target>) -> Vec<ModelStatistics> {
        let wanted = |model: &Model| match target {
            None => true,
            Some(Target::Builtin(target)) => target.name == model.name,
        };
        let all = CATALOG.iter().zip(self.models.builtin.iter());
        all.filter(|(model, _)| wanted(model))
            .map(|(model, statistics)| statistics.document(&model.name, VERSION))
            .collect()
    }

    fn statistics_of(&self, target: &Target) -> Arc<Statistics> {
        let Target::Builtin(target) = target;
        let mut all = CATALOG.iter().zip(self.models.builtin.iter());
        let found = all.find(|(model, _)| model.name == target.name);
        found.map(|(_, statistics)| Arc::clone(statistics)).unwrap_or_default()
    }

    /// Carries a request to a model out on the pool.
    ///
    /// # Errors
    /// [`Error`] of the request, of the model or of the pool.
    pub async fn infer(&self, permit: Permit, inference: Inference) -> Result<Outcome, Error> {
        let statistics = self.statistics_of(&inference.target);
        let (body, received) = (inference.body.bytes.bytes().len(), inference.received);
        let submitted = Instant::now();
        let own = Arc::clone(&statistics);
        let work = move |context: &mut Context<'_>| inference.execute(submitted, &own, context);
        let result = self.work(permit, "infer", body, work).await;
        statistics.answered(result.is_ok(), received.elapsed());
        result
    }

    /// Counts a request to `target` that failed before it was carried out.
    pub fn failed(&self, target: &Target, received: Instant) {
        self.statistics_of(target).answered(false, received.elapsed());
    }
}

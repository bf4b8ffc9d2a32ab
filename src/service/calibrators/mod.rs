//! The calibrators that this server keeps.
//!
//! What a batch teaches is found out without a lock, on the thread that has the
//! batch; only to take it in is the calibrator locked, and only that one. Who
//! reads a calibrator shares what it knows and does not hold up who feeds it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::answer::Answer;
use crate::api::calibrators::{
    self as api, Batch, Creation, List, Merger, Ranges, Setup, Summary, Wanted,
};
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::Query;
use crate::api::name::Name;
use crate::api::payload::{Format, Payload};
use quantd_core::calibrate::{Calibration, QuantParams};
use quantd_core::params::Numerics;
use quantd_core::{QuantError, cost};

mod found;

use found::Found;

/// Bytes of a calibrator apart from what it has learnt.
const OVERHEAD: usize = 1 << 10;

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Calibrators.
    pub max_calibrators: usize,
    /// Bytes of all of them.
    pub max_bytes: usize,
}

/// All calibrators. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calibrators {
    entries: Arc<Mutex<BTreeMap<Name, Arc<Calibrator>>>>,
    budget: Arc<Budget>,
    max: usize,
}

/// One calibrator.
#[derive(Debug)]
pub struct Calibrator {
    name: Name,
    setup: Setup,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    learnt: Arc<Calibration>,
    /// What was found of that.
    found: Found,
    room: Room,
}

/// Bytes that all calibrators may take.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// Some of them, given back when dropped.
#[derive(Debug)]
struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Takes `bytes`.
    fn take(self: &Arc<Self>, bytes: usize) -> Result<Room, Error> {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.max);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Room { budget: Arc::clone(self), bytes }),
            Err(_) => Err(Error::new(Kind::Storage, "no room for what the calibrator learns")
                .cure(
                    "delete calibrators, use granularity tensor, or raise --max-calibrator-bytes",
                )),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Room {
    /// Makes it that of `bytes` if it was less.
    fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let mut more = self.budget.take(bytes.saturating_sub(self.bytes))?;
        self.bytes += std::mem::take(&mut more.bytes);
        Ok(())
    }
}

/// Why something was not taken in.
enum MergeIn {
    /// There is no room.
    Room(Error),
    /// It does not fit.
    Fit(QuantError),
}

impl MergeIn {
    fn error(self, of_fit: impl FnOnce(QuantError) -> Error) -> Error {
        match self {
            Self::Room(error) => error,
            Self::Fit(error) => of_fit(error),
        }
    }
}

/// What it protects is replaced as a whole: a panic leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calibrator {
    /// What it was created with.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What it has learnt so far.
    #[must_use]
    pub fn learnt(&self) -> Arc<Calibration> {
        Arc::clone(&lock(&self.state).learnt)
    }

    /// Ranges of all slices for codes of `numerics`, in f64 where they are to be `wide`: found once
    /// where that takes a search.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when nothing was fed yet, [`Kind::InvalidOption`] when f32 does not hold
    /// the range, and when the search would take too long.
    fn ranges(
        &self,
        learnt: &Arc<Calibration>,
        wanted: (&Numerics, bool),
        context: &mut Context<'_>,
    ) -> Result<Arc<Ranges>, Error> {
        let is_current = |state: &State| Arc::ptr_eq(&state.learnt, learnt);
        let known = lock(&self.state);
        if is_current(&known)
            && let Some(ranges) = known.found.get(wanted)
        {
            return Ok(ranges);
        }
        drop(known);
        let seen = learnt.seen().elements;
        context.afford(cost::resolve(learnt.plan(), learnt.slices(), seen, wanted.0))?;
        let ranges = Ranges::of(learnt, wanted, context.task)
            .map_err(|error| Error::of_quant(error, |field| Place::Parameter(field.to_owned())))?;
        let ranges = Arc::new(ranges);
        let mut known = lock(&self.state);
        // What is fed while somebody holds what was learnt goes to a copy.
        if is_current(&known) && self.setup.plan.method().searches() && !context.task.is_cancelled()
        {
            known.found.keep(wanted, Arc::clone(&ranges));
        }
        Ok(ranges)
    }

    /// Scale and zero point for codes of `numerics`.
    ///
    /// # Errors
    /// Those of its ranges, and [`Kind::InvalidOption`] when there is one for each channel.
    pub fn parameters(
        &self,
        numerics: &Numerics,
        context: &mut Context<'_>,
    ) -> Result<QuantParams<f32>, Error> {
        let learnt = self.learnt();
        if learnt.slices() <= 1
            && let Ranges::F32(ranges) = &*self.ranges(&learnt, (numerics, false), context)?
            && let &[range] = ranges.as_slice()
        {
            return Ok(numerics.affine(range));
        }
        Err(Error::new(Kind::InvalidOption, "the calibrator has a range for each channel")
            .cure("use one of granularity tensor"))
    }

    /// Bytes that so many slices of it take.
    fn bytes(&self, slices: usize) -> usize {
        let found = if self.setup.plan.method().searches() { Found::bytes(slices) } else { 0 };
        self.setup.plan.bytes(slices).saturating_add(found).saturating_add(OVERHEAD)
    }

    /// Takes up all that is to be said once `other` is taken in: after that it is too late to refuse it,
    /// and to begin anew.
    fn commit(
        &self,
        other: &Calibration,
        wanted: &Wanted,
        context: &mut Context<'_>,
    ) -> Result<(), Error> {
        let (plan, slices) = (&self.setup.plan, other.slices());
        context.afford(cost::text(slices.saturating_mul(4)))?;
        if wanted.resolves(plan, slices) {
            let numerics = wanted.numerics.unwrap_or(self.setup.numerics);
            let seen = self.learnt().seen().elements.saturating_add(other.seen().elements);
            context.afford(cost::resolve(plan, slices, seen, &numerics))?;
        }
        context.effort.commit();
        Ok(())
    }

    /// Takes something of `slices` slices in, if there is room for it.
    fn merge_in(
        &self,
        slices: usize,
        merge_in: impl FnOnce(&mut Calibration) -> Result<(), QuantError>,
    ) -> Result<Arc<Calibration>, MergeIn> {
        let state = &mut *lock(&self.state);
        if state.learnt.slices() == 0 {
            state.room.grow(self.bytes(slices)).map_err(MergeIn::Room)?;
        }
        // Copied only while somebody reads it.
        merge_in(Arc::make_mut(&mut state.learnt)).map_err(MergeIn::Fit)?;
        state.found = Found::default();
        Ok(Arc::clone(&state.learnt))
    }

    fn describe(
        &self,
        learnt: &Arc<Calibration>,
        wanted: &Wanted,
        context: &mut Context<'_>,
    ) -> Result<Answer, Error> {
        // Four columns, twice as numbers and once as text.
        context.reserve(learnt.slices().saturating_mul(256))?;
        context.afford(cost::text(learnt.slices().saturating_mul(4)))?;
        let find = |numerics: &Numerics, wide: bool, context: &mut Context<'_>| {
            self.ranges(learnt, (numerics, wide), context)
        };
        api::describe(&self.name, &self.setup, learnt, wanted, (&find, context))
    }
}

impl Calibrators {
    /// None yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { max_calibrators, max_bytes } = settings;
        let budget = Budget { used: AtomicUsize::new(0), max: max_bytes };
        Self { entries: Arc::default(), budget: Arc::new(budget), max: max_calibrators }
    }

    /// Bytes that a request may need in all, from those of its body.
    #[must_use]
    pub const fn cost(format: Format, body: usize) -> usize {
        let factor = if matches!(format, Format::Json) { 3 } else { 2 };
        body.saturating_mul(factor).saturating_add(64 << 10)
    }

    /// The calibrator of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn get(&self, name: &Name) -> Result<Arc<Calibrator>, Error> {
        lock(&self.entries).get(name).cloned().ok_or_else(|| {
            Error::new(Kind::NotFound, "no calibrator of that name")
                .at(Place::Parameter("name".to_owned()))
                .cure("list the calibrators to see which there are")
        })
    }

    /// Number of calibrators.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn list(&self) -> List {
        let entries: Vec<Arc<Calibrator>> = lock(&self.entries).values().cloned().collect();
        let summary = |calibrator: &Arc<Calibrator>| {
            let state = lock(&calibrator.state);
            let bytes = state.room.bytes;
            Summary::new(&calibrator.name, &calibrator.setup, &state.learnt, bytes)
        };
        List { calibrators: entries.iter().map(summary).collect() }
    }

    /// Makes a calibrator, from options or from a document.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when there is one of that name, [`Kind::Storage`]
    /// when no more are kept, and the errors of the request.
    pub fn create(&self, payload: Payload, context: &mut Context<'_>) -> Result<Answer, Error> {
        let Creation { name, replace, import } = api::read_creation(payload, context)?;
        let bytes = import.setup.plan.bytes(import.slices()).saturating_add(OVERHEAD);
        let room = self.budget.take(bytes)?;
        context.reserve(bytes)?;
        let learnt = Arc::new(import.calibration()?);
        let state =
            Mutex::new(State { learnt: Arc::clone(&learnt), found: Found::default(), room });
        let calibrator = Arc::new(Calibrator { name: name.clone(), setup: import.setup, state });
        let mut answer = calibrator.describe(&learnt, &Wanted::default(), context)?;
        answer.created = Some(name.to_string());
        self.insert(name, calibrator, replace)?;
        Ok(answer)
    }

    fn insert(&self, name: Name, calibrator: Arc<Calibrator>, replace: bool) -> Result<(), Error> {
        let mut entries = lock(&self.entries);
        let is_new = !entries.contains_key(&name);
        if !is_new && !replace {
            return Err(Error::new(Kind::Conflict, "there is a calibrator of that name")
                .at(Place::Pointer("/name".to_owned()))
                .cure("choose another name, delete it, or set replace"));
        }
        if is_new && entries.len() >= self.max {
            let detail = format!("{} calibrators are kept at most", self.max);
            return Err(
                Error::new(Kind::Storage, detail).cure("delete one, or raise --max-calibrators")
            );
        }
        let replaced = entries.insert(name, calibrator);
        // What it has learnt is let go without the lock.
        drop(entries);
        drop(replaced);
        Ok(())
    }

    /// Forgets a calibrator. Who works with it at the moment finishes with it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name.
    pub fn remove(&self, name: &Name) -> Result<(), Error> {
        self.get(name)?;
        let removed = lock(&self.entries).remove(name);
        drop(removed);
        Ok(())
    }

    /// Feeds one batch.
    ///
    /// # Errors
    /// [`Kind::NotFound`], and those of the batch; nothing has changed then.
    pub fn feed(
        &self,
        name: &Name,
        payload: Payload,
        context: &mut Context<'_>,
    ) -> Result<Answer, Error> {
        let calibrator = self.get(name)?;
        let batch = api::read_batch(payload, context)?;
        let learnt = self.learn(&calibrator, &batch, context)?;
        calibrator.describe(&learnt, &batch.wanted, context)
    }

    fn learn(
        &self,
        calibrator: &Calibrator,
        batch: &Batch,
        context: &mut Context<'_>,
    ) -> Result<Arc<Calibration>, Error> {
        let plan = calibrator.setup.plan;
        let slices = plan.slices(batch.tensor.shape()).map_err(|error| batch.error(error))?;
        let bytes = plan.bytes(slices);
        if bytes > self.budget.max {
            // Before it is worked out.
            self.budget.take(bytes)?;
        }
        // Elements in their compute type and once more slice by slice, what the
        // batch teaches, and a copy of what was known for those who read it.
        let elements = batch.tensor.shape().len().saturating_mul(24);
        context.reserve(bytes.saturating_mul(2).saturating_add(elements))?;
        context.afford(cost::learn(batch.tensor.shape(), &plan))?;
        let learnt = Calibration::of_batch(plan, &batch.tensor, context.task)
            .map_err(|error| batch.error(error))?;
        if context.task.is_cancelled() {
            return Err(Error::new(Kind::Internal, "cancelled"));
        }
        calibrator.commit(&learnt, &batch.wanted, context)?;
        calibrator
            .merge_in(slices, |known| known.feed(&learnt))
            .map_err(|error| error.error(|error| batch.error(error)))
    }

    /// Takes in what another calibrator, of this server or from a document, has seen.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a name that is none, and [`Kind::InvalidOption`]
    /// when the two do not go together; nothing has changed then.
    pub fn merge(
        &self,
        name: &Name,
        payload: Payload,
        context: &mut Context<'_>,
    ) -> Result<Answer, Error> {
        let calibrator = self.get(name)?;
        let (other, named) = match api::read_merger(payload, context)? {
            Merger::Named(from) => {
                let place = Place::Pointer("/from".to_owned());
                (self.get(&from).map_err(|error| error.at(place))?.learnt(), true)
            }
            Merger::Document(import) => {
                let bytes = import.setup.plan.bytes(import.slices());
                if bytes > self.budget.max {
                    self.budget.take(bytes)?;
                }
                context.reserve(bytes)?;
                (Arc::new(import.calibration()?), false)
            }
        };
        context.reserve(calibrator.setup.plan.bytes(other.slices()))?;
        let misfit = |error: QuantError| {
            if named {
                let detail = format!("{} {}", error.field, error.detail).into();
                let error = QuantError { detail, ..error };
                return Error::of_quant(error, |_| Place::Pointer("/from".to_owned()));
            }
            Error::of_quant(error, |field| Place::Pointer(format!("/document/{field}")))
        };
        calibrator.commit(&other, &Wanted::default(), context)?;
        let learnt = calibrator
            .merge_in(other.slices(), |known| known.merge(&other))
            .map_err(|error| error.error(misfit))?;
        calibrator.describe(&learnt, &Wanted::default(), context)
    }

    /// What there is to say of a calibrator.
    ///
    /// # Errors
    /// [`Kind::NotFound`], and those of [`api::describe`].
    pub fn describe(
        &self,
        name: &Name,
        query: Query,
        context: &mut Context<'_>,
    ) -> Result<Answer, Error> {
        let wanted = api::read_query(query)?;
        let calibrator = self.get(name)?;
        let learnt = calibrator.learnt();
        // Kept alive until the answer is made, whatever is fed meanwhile.
        context.reserve(calibrator.setup.plan.bytes(learnt.slices()))?;
        calibrator.describe(&learnt, &wanted, context)
    }

    /// A calibrator as one document.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name.
    pub fn export(&self, name: &Name, context: &mut Context<'_>) -> Result<Answer, Error> {
        let calibrator = self.get(name)?;
        let learnt = calibrator.learnt();
        let bytes = calibrator.setup.plan.bytes(learnt.slices());
        // What it knows, its columns, and one of them as a tensor.
        context.reserve(bytes.saturating_mul(3))?;
        context.afford(cost::bytes(bytes))?;
        api::export(&calibrator.setup, &learnt, context)
    }
}

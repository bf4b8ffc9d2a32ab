//! Small requests to one layer, run as one product.
//!
//! Requests queue in the lane of their layer. The first one calls a leader,
//! a piece of work on the compute pool that decodes what has come, multiplies
//! all rows at once, answers, and looks again until nothing is left: under load
//! requests find a leader at work, and none of them starts one. Rows do not
//! influence one another, so that an answer has the same bytes as alone; what
//! fails together is run again one by one.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::api::answer::Answer;
use crate::api::context::Context;
use crate::api::effort::Effort;
use crate::api::error::{Error, Kind};
use crate::api::layers::{Hosted, Link};
use crate::api::name::Name;
use quantd_codec::Limits;
use quantd_core::cost;
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use super::admission::{Permit, Waiting};
use super::compute::Compute;
use super::pools::{Length, Slot};
use super::{Outcome, Service};

/// Bytes of a body for each number of a row that may still be run with others.
const NUMBER: usize = 24;

/// Time of one thread that a product may take, in seconds: others of the same pool wait for it, and
/// it is not stopped for a client that leaves.
const TOGETHER: f64 = 0.01;

/// How requests are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of one product; with 1 or less every request runs alone.
    pub rows: usize,
    /// How long a request waits for as many others as came together last time.
    pub wait: Duration,
}

/// What a request makes of its body and of its result.
pub(super) trait Part: Send {
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
pub(super) struct Run {
    /// Rows of this request.
    pub(super) rows: usize,
    /// Rows of all requests that ran together; 0 for all of them but one.
    pub(super) executed: usize,
    /// When the leader took the request up.
    pub(super) begun: Instant,
    /// When its input was decoded.
    pub(super) decoded: Instant,
    /// What the product took.
    pub(super) took: Duration,
}

/// A request that waits for a leader.
struct Item {
    part: Box<dyn Part>,
    permit: Permit,
    body: usize,
    queued: Instant,
    waiting: Option<Waiting>,
    reply: oneshot::Sender<Result<Outcome, Error>>,
}

/// A request that is answered once all that ran with it can be.
struct Done {
    result: Result<(Answer, Duration), Error>,
    permit: Permit,
    reply: oneshot::Sender<Result<Outcome, Error>>,
}

/// A request whose input is decoded.
struct Ready {
    item: Item,
    x: Tensor,
    rows: usize,
    shape: Shape,
    /// Bytes that were taken for the answer.
    spare: usize,
    begun: Instant,
    decoded: Instant,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Whether a leader is at work, or called.
    led: bool,
    /// Requests that ran together last.
    last: usize,
    /// Requests that the leader sleeps for; 0 while it does not.
    awaited: usize,
}

/// The requests to a layer, or to a chain of certain layers.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// The layers that a leader runs, without keeping them.
type Links = Vec<Weak<Link>>;

/// The lanes of all layers.
#[derive(Default)]
pub(super) struct Lanes {
    /// By name: the layers that its leader runs, and its lane. Versions would not tell them apart:
    /// they begin anew after a removal, and a chain keeps its own when one of its layers is replaced.
    found: Mutex<HashMap<Name, (Links, Arc<Lane>)>>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").finish_non_exhaustive()
    }
}

/// What a leader needs.
#[derive(Clone)]
struct Leader {
    lane: Arc<Lane>,
    hosted: Arc<Hosted>,
    /// Numbers of a row.
    row: usize,
    compute: Compute,
    limits: Arc<Limits>,
    batching: Batching,
    runtime: Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it protects is changed in steps that leave nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn defect<T>(_: T) -> Error {
    Error::new(Kind::Internal, "the server failed on the request")
}

/// Numbers of a row, where rows can be run together.
pub(super) fn row(hosted: &Hosted) -> Option<usize> {
    match hosted.input().dims.as_slice() {
        [None, Some(row)] if hosted.is_row_independent() => Some(*row),
        _ => None,
    }
}

impl Lanes {
    fn of(&self, hosted: &Hosted, exists: impl Fn(&Name) -> bool) -> Arc<Lane> {
        let mut found = lock(&self.found);
        if let Some((links, lane)) = found.get(&hosted.name)
            && hosted.is_made_of(links)
        {
            return Arc::clone(lane);
        }
        found.retain(|name, _| exists(name));
        let lane = Arc::<Lane>::default();
        found.insert(hosted.name.clone(), (hosted.made_of(), Arc::clone(&lane)));
        lane
    }
}

impl Service {
    /// Whether a request of `body` bytes, as they are, to `hosted` may be run with others.
    pub(super) fn goes_together(&self, hosted: &Hosted, body: usize) -> bool {
        let rows = self.rows_together(hosted);
        rows > 1
            && row(hosted).is_some_and(|row| {
                let most = row.saturating_mul(rows).saturating_mul(NUMBER).saturating_add(4096);
                body <= most && Length::of_body(body) == Length::Short
            })
    }

    /// Rows of one product with that layer, which is to be short work.
    fn rows_together(&self, hosted: &Hosted) -> usize {
        let one = row(hosted).and_then(|row| hosted.cost(&[1, row], cost::product).ok());
        one.map_or(0, |one| one.fits(TOGETHER).min(self.batching.rows))
    }

    /// Runs a request to `hosted` together with those that come at the same time.
    ///
    /// # Errors
    /// [`Error`] of the request, or when too many wait.
    pub(super) async fn run_together(
        &self,
        permit: Permit,
        body: usize,
        hosted: Arc<Hosted>,
        part: Box<dyn Part>,
    ) -> Result<Outcome, Error> {
        let lane = self.lanes.of(&hosted, |name| self.layers().contains(name));
        let (reply, answer) = oneshot::channel();
        let mut item = Item { part, permit, body, queued: Instant::now(), waiting: None, reply };
        let (is_led, is_awaited) = {
            let mut queue = lock(&lane.queue);
            if queue.led {
                item.waiting = Some(self.compute.wait()?);
            }
            queue.items.push_back(item);
            let is_awaited = queue.awaited > 0 && queue.items.len() >= queue.awaited;
            (std::mem::replace(&mut queue.led, true), is_awaited)
        };
        if is_awaited {
            lane.arrived.notify_one();
        }
        if !is_led {
            let rows = self.rows_together(&hosted);
            let leader = Leader {
                lane,
                row: row(&hosted).unwrap_or(1).max(1),
                hosted,
                compute: self.compute.clone(),
                limits: Arc::clone(&self.limits),
                batching: Batching { rows, ..self.batching },
                runtime: Handle::current(),
            };
            leader.call();
        }
        let outcome = answer.await.map_err(defect)??;
        crate::telemetry::computed("forward", outcome.compute);
        Ok(outcome)
    }
}

impl Leader {
    /// Starts on the pool, once there is a slot.
    fn call(self) {
        let compute = self.compute.clone();
        if let Some(slot) = compute.try_slot(Length::Short) {
            compute.spawn(Length::Short, move || self.lead(slot));
            return;
        }
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            match self.compute.slot(Length::Short).await {
                Ok(slot) => compute.spawn(Length::Short, move || self.lead(slot)),
                Err(error) => self.refuse(&error),
            }
        });
    }

    /// Answers all that wait with an error.
    fn refuse(&self, error: &Error) {
        let mut queue = lock(&self.lane.queue);
        queue.led = false;
        for item in queue.items.drain(..) {
            drop(item.reply.send(Err(error.clone())));
        }
    }

    /// Works until nobody waits. After each run whoever waits for the slot has
    /// it first.
    fn lead(self, mut slot: Slot) {
        while let Some(items) = self.next() {
            self.run(items);
            drop(slot);
            slot = match self.compute.try_slot(Length::Short) {
                Some(slot) => slot,
                None => return self.call(),
            };
        }
    }

    /// The requests that run next; none ends the leader.
    fn next(&self) -> Option<Vec<Item>> {
        let mut queue = lock(&self.lane.queue);
        let deadline = queue.items.front().map(|first| first.queued + self.batching.wait);
        let expected = queue.last.min(self.batching.rows);
        while queue.items.len() < expected {
            let left = deadline.and_then(|at| at.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else { break };
            // Woken once, by the last of them.
            queue.awaited = expected;
            let waited = self.lane.arrived.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.awaited = 0;
        let count = queue.items.len().min(self.batching.rows);
        if count == 0 {
            queue.led = false;
            return None;
        }
        queue.last = count;
        Some(queue.items.drain(..count).collect())
    }

    fn run(&self, items: Vec<Item>) {
        let (mut group, mut rows) = (Vec::with_capacity(items.len()), 0);
        let mut alone = Vec::new();
        for item in items {
            let Some((ready, together)) = self.decode(item) else { continue };
            let own = ready.rows;
            if !together || own > self.batching.rows || ready.x.dtype() != DType::F32 {
                alone.push(ready);
                continue;
            }
            if rows + own > self.batching.rows {
                self.run_group(std::mem::take(&mut group));
                rows = 0;
            }
            rows += own;
            group.push(ready);
        }
        self.run_group(group);
        alone.into_iter().for_each(|ready| self.run_alone(ready));
    }

    /// Decodes a request, or answers it: its client may have left, it may have
    /// waited too long, or it is wrong.
    fn decode(&self, mut item: Item) -> Option<(Ready, bool)> {
        item.waiting = None;
        if item.reply.is_closed() {
            crate::telemetry::cancelled();
            return None;
        }
        let begun = Instant::now();
        crate::telemetry::queue_wait(begun - item.queued);
        let task = self.compute.task();
        let made = catch_unwind(AssertUnwindSafe(|| {
            let Item { part, permit, body, .. } = &mut item;
            let spare = permit.held_bytes().saturating_sub(*body);
            let mut grow = |bytes| permit.grow_by(bytes);
            let effort = self.compute.effort(Length::Long);
            let mut context =
                Context { limits: &self.limits, task: &task, spare, grow: &mut grow, effort };
            let (x, together) = part.decode(&mut context)?;
            let shape = part.reserve(&x, &mut context)?;
            Ok((x, shape, context.spare, together))
        }));
        match made.unwrap_or_else(|panic| Err(defect(panic))) {
            Ok((x, shape, spare, together)) => {
                let decoded = Instant::now();
                let rows = (x.shape().len() / self.row).max(1);
                Some((Ready { item, x, rows, shape, spare, begun, decoded }, together))
            }
            Err(error) => {
                drop(item.reply.send(Err(error)));
                None
            }
        }
    }

    /// One product of all rows; one by one where that fails.
    fn run_group(&self, mut group: Vec<Ready>) {
        if group.len() < 2 {
            return group.into_iter().for_each(|ready| self.run_alone(ready));
        }
        let started = Instant::now();
        let made = catch_unwind(AssertUnwindSafe(|| self.product(&group)));
        let Ok(Some(y)) = made else {
            return group.into_iter().for_each(|ready| self.run_alone(ready));
        };
        let took = started.elapsed();
        let (mut executed, mut first) = (group.iter().map(|ready| ready.rows).sum(), 0);
        let answered = group.drain(..).map(|ready| {
            let own = y.part(first, ready.shape.clone()).ok_or_else(|| defect(()));
            first += ready.shape.len();
            self.answer(ready, own, (std::mem::take(&mut executed), took))
        });
        send(answered.collect());
    }

    fn product(&self, group: &[Ready]) -> Option<Tensor> {
        let elements: usize = group.iter().map(|ready| ready.x.shape().len()).sum();
        let mut x = Buffer::with_capacity(elements * size_of::<f32>());
        group.iter().for_each(|ready| x.extend(ready.x.bytes()));
        let shape = Shape::new(vec![elements / self.row, self.row]).ok()?;
        let x = Tensor::view(DType::F32, shape, Arc::new(x), 0)?;
        self.hosted.forward(&x, &self.compute.task()).ok()
    }

    fn run_alone(&self, ready: Ready) {
        let started = Instant::now();
        let task = self.compute.task();
        let made = catch_unwind(AssertUnwindSafe(|| self.hosted.forward(&ready.x, &task)));
        let made = made.unwrap_or_else(|panic| Err(defect(panic)));
        let made = made.map_err(|error| ready.item.part.located(error));
        let rows = ready.rows;
        send(vec![self.answer(ready, made, (rows, started.elapsed()))]);
    }

    fn answer(
        &self,
        ready: Ready,
        made: Result<Tensor, Error>,
        (executed, took): (usize, Duration),
    ) -> Done {
        let Ready { item, x, rows, spare, begun, decoded, .. } = ready;
        let Item { mut part, mut permit, reply, .. } = item;
        drop(x);
        let run = Run { rows, executed, begun, decoded, took };
        let task = self.compute.task();
        let encoded = catch_unwind(AssertUnwindSafe(|| {
            let mut grow = |bytes| permit.grow_by(bytes);
            let effort = Effort::UNBOUNDED;
            let mut context =
                Context { limits: &self.limits, task: &task, spare, grow: &mut grow, effort };
            part.encode(made?, run, &mut context)
        }));
        let result = encoded.unwrap_or_else(|panic| Err(defect(panic)));
        Done { result: result.map(|answer| (answer, begun.elapsed())), permit, reply }
    }
}

/// Sends answers that may be parts of one result, whose memory is there until the last of them
/// is written: so long all of them hold the permit for it.
fn send(all: Vec<Done>) {
    let len = |done: &Done| done.result.as_ref().map_or(0, |(answer, _)| answer.len());
    let bytes = all.iter().map(len).sum();
    let mut held: Option<Permit> = None;
    let mut ready = Vec::with_capacity(all.len());
    for Done { result, permit, reply } in all {
        match &mut held {
            Some(held) => held.merge(permit),
            None => held = Some(permit),
        }
        ready.push((result, reply));
    }
    let Some(mut permit) = held else { return };
    permit.shrink(bytes);
    let permit = Arc::new(permit);
    for (result, reply) in ready {
        let permit = || Arc::clone(&permit);
        let result = result.map(|(answer, compute)| Outcome { answer, compute, permit: permit() });
        // Nobody listens any more when the client has gone.
        drop(reply.send(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Serve;
    use quantd_codec::json::Text;

    fn spaces(bytes: usize) -> Answer {
        let mut room = |_| Ok(());
        let mut text = Text::new(&mut room);
        // The line end behind it counts as well.
        text.push(&vec![b' '; bytes - 1]).unwrap();
        Answer::json(text).unwrap()
    }

    #[tokio::test]
    async fn answers_of_one_result_hold_its_memory_until_the_last_is_gone() {
        let compute = Compute::new(Serve::for_tests().compute()).unwrap();
        let (mut all, mut received) = (Vec::new(), Vec::new());
        for bytes in [2048, 0, 4096] {
            let permit = compute.admit(1 << 20).await.unwrap();
            let (reply, answer) = oneshot::channel();
            let result = match bytes {
                0 => Err(Error::new(Kind::NonFinite, "a test")),
                bytes => Ok((spaces(bytes), Duration::ZERO)),
            };
            all.push(Done { result, permit, reply });
            received.push(answer);
        }
        // A client that has left keeps nothing.
        drop(received.remove(0));
        send(all);
        assert_eq!(compute.inflight_bytes(), 6144);
        let last = received.pop().unwrap().await.unwrap().unwrap();
        assert_eq!(last.answer.len(), 4096);
        let failed = received.pop().unwrap().await.unwrap();
        assert_eq!(failed.unwrap_err().kind, Kind::NonFinite);
        assert_eq!(compute.inflight_bytes(), 6144);
        drop(last);
        assert_eq!(compute.inflight_bytes(), 0);
    }
}

//! The work that runs what waits in a lane, until nothing does.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::api::answer::Answer;
use crate::api::effort::Effort;
use crate::api::error::Error;
use crate::api::layers::LayerHandle;
use crate::service::admission::Permit;
use crate::service::compute::{Compute, caught, defect};
use crate::service::pools::{Length, Slot};
use crate::service::{Outcome, in_context};
use quantd_codec::Limits;
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use super::part::{Run, rows};
use super::{Batching, Item, Lane, lock};

/// What a leader needs.
#[derive(Clone)]
pub(super) struct Leader {
    pub(super) lane: Arc<Lane>,
    pub(super) hosted: Arc<LayerHandle>,
    /// Numbers of a row.
    pub(super) row: usize,
    pub(super) compute: Compute,
    pub(super) limits: Arc<Limits>,
    pub(super) batching: Batching,
    pub(super) runtime: Handle,
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

impl Leader {
    /// Starts on the pool, once there is a slot.
    pub(super) fn call(self) {
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
        let effort = self.compute.effort(Length::Long);
        let Item { part, permit, body, .. } = &mut item;
        let spare = permit.held_bytes().saturating_sub(*body);
        let made = caught(|| {
            in_context(&self.limits, (&task, effort), (permit, spare), |context| {
                let (x, together) = part.decode(context)?;
                let shape = part.reserve(&x, context)?;
                Ok((x, shape, context.spare, together))
            })
        });
        match made {
            Ok((x, shape, spare, together)) => {
                let decoded = Instant::now();
                let rows = rows(&self.hosted, &x);
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
        let made = caught(|| self.product(&group).ok_or_else(defect));
        let Ok(y) = made else {
            return group.into_iter().for_each(|ready| self.run_alone(ready));
        };
        let took = started.elapsed();
        let (mut executed, mut first) = (group.iter().map(|ready| ready.rows).sum(), 0);
        let answered = group.drain(..).map(|ready| {
            let own = y.part(first, ready.shape.clone()).ok_or_else(defect);
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
        let made = caught(|| self.hosted.forward(&ready.x, &task));
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
        let result = caught(|| {
            let held = (&mut permit, spare);
            in_context(&self.limits, (&task, Effort::UNBOUNDED), held, |context| {
                part.encode(made?, run, context)
            })
        });
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
    use crate::api::error::Kind;
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

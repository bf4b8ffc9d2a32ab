//! Small requests to one layer, run as one product.
//!
//! Requests queue in the lane of their layer. The first one calls a leader,
//! a piece of work on the compute pool that decodes what has come, multiplies
//! all rows at once, answers, and looks again until nothing is left: under load
//! requests find a leader at work, and none of them starts one. Rows do not
//! influence one another, so that an answer has the same bytes as alone; what
//! fails together is run again one by one.

mod leader;
mod part;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::api::error::Error;
use crate::api::layers::{ChainMember, LayerHandle};
use crate::api::name::Name;
use quantd_core::cost;

use super::admission::{Permit, Waiting};
use super::compute::defect;
use super::pools::Length;
use super::{Outcome, Service};
use leader::Leader;

pub(super) use part::{Part, Run, alone};

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

/// A request that waits for a leader.
struct Item {
    part: Box<dyn Part>,
    permit: Permit,
    body: usize,
    queued: Instant,
    waiting: Option<Waiting>,
    reply: oneshot::Sender<Result<Outcome, Error>>,
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
type Links = Vec<Weak<ChainMember>>;

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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it protects is changed in steps that leave nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers of a row, where rows can be run together.
pub(super) fn row(hosted: &LayerHandle) -> Option<usize> {
    match hosted.input().dims.as_slice() {
        [None, Some(row)] if hosted.is_row_independent() => Some(*row),
        _ => None,
    }
}

impl Lanes {
    fn of(&self, hosted: &LayerHandle, exists: impl Fn(&Name) -> bool) -> Arc<Lane> {
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
    pub(super) fn is_batchable(&self, hosted: &LayerHandle, body: usize) -> bool {
        let rows = self.rows_together(hosted);
        rows > 1
            && row(hosted).is_some_and(|row| {
                let most = row.saturating_mul(rows).saturating_mul(NUMBER).saturating_add(4096);
                body <= most && Length::of_body(body) == Length::Short
            })
    }

    /// Rows of one product with that layer, which is to be short work.
    fn rows_together(&self, hosted: &LayerHandle) -> usize {
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
        hosted: Arc<LayerHandle>,
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
        let outcome = answer.await.map_err(|_| defect())??;
        crate::telemetry::computed("forward", outcome.compute);
        Ok(outcome)
    }
}

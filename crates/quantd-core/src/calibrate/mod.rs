//! Clipping ranges learnt over batches.
//!
//! A [`Calibration`] keeps, of all batches that it has seen, what its range
//! method needs, in memory that depends on the number of slices only. But for
//! moving averages it is a function of the multiset of what was fed: neither
//! the order of batches, nor how they were cut, nor in which of several
//! calibrations that were [merged](Calibration::merge) they ended up changes a
//! bit of it.

mod distinct;
mod histogram;
mod plan;
mod resolve;
mod sample;
mod state;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::tensor::{Reals, Tensor};
use quantd_kernels::real::Real;
pub use quantd_kernels::scalar::QuantParams;

use super::partition::Partition;
use super::{QuantError, Task};
use distinct::Distinct;
use histogram::Histogram;
pub use plan::{BINS, FEWEST_BINS, MOST_BINS, Method, MethodName, Plan};
use sample::Sample;
pub use state::Parts;

/// Most elements that are counted: up to here f64 counts exactly.
const MOST: u64 = 1 << 53;

/// Counts over everything that was fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Batches.
    pub batches: u64,
    /// Elements, NaN and infinities included.
    pub elements: u64,
    /// NaN elements.
    pub nan: u64,
    /// Infinite elements.
    pub inf: u64,
}

impl Seen {
    /// The counts of both.
    ///
    /// # Errors
    /// [`QuantError`] when they are too large to be kept.
    fn plus(self, other: Self) -> Result<Self, QuantError> {
        let add = |a: u64, b: u64| a.checked_add(b).filter(|&sum| sum <= MOST);
        let sum = || {
            Some(Self {
                batches: add(self.batches, other.batches)?,
                elements: add(self.elements, other.elements)?,
                nan: add(self.nan, other.nan)?,
                inf: add(self.inf, other.inf)?,
            })
        };
        sum().ok_or_else(|| {
            QuantError::field("elements", "more than 2^53 elements").cure("start a new calibrator")
        })
    }
}

/// What is known of one slice.
#[derive(Clone, Debug, PartialEq)]
struct Slice {
    /// Finite elements.
    finite: u64,
    /// The smallest and the largest of them; zeros as long as there are none.
    extent: [f64; 2],
    /// Averages of the ends, where the method takes them.
    average: Option<[f64; 2]>,
    /// Counts of magnitudes, where the method looks at them.
    histogram: Option<Histogram>,
    /// The values themselves, where the method compares distributions and they are few.
    distinct: Option<Distinct>,
}

impl Slice {
    fn of<T: Real>(values: &[T], plan: &Plan, task: &Task) -> (Self, [u64; 2]) {
        let extent = super::extent::whole(values, task);
        let finite = values.len() as u64 - extent.nan - extent.inf;
        let ends = if finite == 0 { [0.0; 2] } else { [extent.min, extent.max].map(Real::to_f64) };
        let histogram =
            plan.method().counts().then(|| Histogram::of(values, ends, plan.bins(), task));
        let average = plan.method().averages().then_some(ends);
        let distinct = if plan.method().is_entropy() { Distinct::of(values, task) } else { None };
        (Self { finite, extent: ends, average, histogram, distinct }, [extent.nan, extent.inf])
    }

    /// Joins what another has seen, but for its averages.
    fn join(&mut self, other: &Self) {
        if other.finite == 0 {
            return;
        }
        if self.finite == 0 {
            self.extent = other.extent;
            self.distinct.clone_from(&other.distinct);
        } else {
            let both = self.distinct.as_ref().zip(other.distinct.as_ref());
            self.distinct = both.and_then(|(own, other)| own.join(other));
            self.extent[0] = self.extent[0].min(other.extent[0]);
            self.extent[1] = self.extent[1].max(other.extent[1]);
        }
        self.finite += other.finite;
        if let (Some(own), Some(other)) = (&mut self.histogram, &other.histogram) {
            own.join(other);
        }
    }

    /// Moves the averages by `share` of the way to those of another.
    fn approach(&mut self, other: &Self, share: f64) {
        if other.finite == 0 {
            return;
        }
        if self.finite == 0 {
            self.average = other.average;
            return;
        }
        if let (Some(own), Some(other)) = (&mut self.average, other.average) {
            for (own, other) in own.iter_mut().zip(other) {
                *own += share * (other - *own);
            }
        }
    }
}

/// What was learnt of the batches seen so far.
///
/// ```
/// use quantd_core::calibrate::{Calibration, Method, Plan};
/// use quantd_core::params::{Numerics, Profile};
/// use quantd_core::scheme::Granularity;
/// use quantd_core::tensor::{DType, Shape, Tensor};
/// use quantd_core::{QuantError, Task};
/// use quantd_kernels::Isa;
///
/// let task = Task::new(Isa::best());
/// let plan = Plan::new(Method::MinMax, Granularity::Tensor, None, false)?;
/// let mut seen = Calibration::new(plan);
/// for batch in [[0.0_f32, 1.0], [-1.0, 4.1]] {
///     let shape = Shape::new(vec![2]).expect("a small shape");
///     let batch = Tensor::from_elements(DType::F32, shape, &batch).expect("2 numbers");
///     seen.feed(&Calibration::of_batch(plan, &batch, &task)?)?;
/// }
/// let uint8 = Numerics {
///     profile: Profile::Onnx,
///     bits: 8,
///     signed: false,
///     symmetric: false,
///     restricted: false,
/// };
/// let parameters = seen.parameters::<f32>(&uint8, &task)?;
/// assert_eq!((parameters[0].scale, parameters[0].zero_point), (0.02, 50));
/// # Ok::<(), QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    plan: Plan,
    seen: Seen,
    /// None before the first batch.
    slices: Vec<Slice>,
    /// Lines of the softmax, for cross-entropy.
    sample: Option<Sample>,
}

impl Calibration {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new(plan: Plan) -> Self {
        let seen = Seen { batches: 0, elements: 0, nan: 0, inf: 0 };
        Self { plan, seen, slices: Vec::new(), sample: None }
    }

    /// What one batch teaches. [`Plan::bytes`] says how much memory that takes.
    ///
    /// # Errors
    /// [`QuantError`] when the plan does not fit the shape, when there are no
    /// elements, or when there is NaN and the plan refuses it.
    pub fn of_batch(plan: Plan, tensor: &Tensor, task: &Task) -> Result<Self, QuantError> {
        match tensor.reals() {
            Reals::F32(x) => Self::of_elements(plan, &x, tensor, task),
            Reals::F64(x) => Self::of_elements(plan, &x, tensor, task),
        }
    }

    fn of_elements<T: Real>(
        plan: Plan,
        x: &[T],
        tensor: &Tensor,
        task: &Task,
    ) -> Result<Self, QuantError> {
        if x.is_empty() {
            return Err(QuantError::field("data", "the batch has no elements"));
        }
        let partition = Partition::new(plan.granularity(), tensor.shape())?;
        let of_slice = |slice| Slice::of(&super::gather::slice(x, &partition, slice), &plan, task);
        let found: Vec<(Slice, [u64; 2])> =
            (0..partition.slices()).into_par_iter().map(of_slice).collect();
        let mut seen = Seen { batches: 1, elements: x.len() as u64, nan: 0, inf: 0 };
        for (_, [nan, inf]) in &found {
            seen.nan += nan;
            seen.inf += inf;
        }
        if seen.nan > 0 && !plan.ignores_nan() {
            let first = x.iter().position(|x| x.is_nan()).unwrap_or_default();
            return Err(QuantError::nan(first)
                .cure("send finite numbers, or make a calibrator with nan: ignore"));
        }
        let slices = found.into_iter().map(|(slice, _)| slice).collect();
        let sample = if let Method::CrossEntropy { axis } = plan.method() {
            Some(Sample::of(x, tensor.shape().dims(), axis)?)
        } else {
            None
        };
        Ok(Self { plan, seen, slices, sample })
    }

    /// Takes in a batch after all others.
    ///
    /// # Errors
    /// [`QuantError`] when it does not fit the earlier ones; nothing has
    /// changed then.
    pub fn feed(&mut self, batch: &Self) -> Result<(), QuantError> {
        let share = if let Method::MovingAverage { decay } = self.plan.method() {
            1.0 - decay
        } else {
            0.0
        };
        self.merge_in(batch, share)
    }

    /// Takes in all that another one has seen. Moving averages become their
    /// mean, weighted by the batches of each.
    ///
    /// # Errors
    /// [`QuantError`] when the other is of another kind or does not fit;
    /// nothing has changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), QuantError> {
        if let Some(field) = self.plan.difference(&other.plan) {
            return Err(QuantError::field(field, "differs from that of the other calibrator")
                .cure("merge calibrators that were created alike"));
        }
        let total = self.seen.batches.saturating_add(other.seen.batches).max(1);
        self.merge_in(other, other.seen.batches as f64 / total as f64)
    }

    fn merge_in(&mut self, other: &Self, share: f64) -> Result<(), QuantError> {
        if other.seen.batches == 0 {
            return Ok(());
        }
        let seen = self.seen.plus(other.seen)?;
        if self.seen.batches == 0 {
            self.slices.clone_from(&other.slices);
            self.sample.clone_from(&other.sample);
            self.seen = seen;
            return Ok(());
        }
        self.check_fit(other)?;
        for (own, other) in self.slices.iter_mut().zip(&other.slices) {
            own.approach(other, share);
            own.join(other);
        }
        if let (Some(own), Some(other)) = (&mut self.sample, &other.sample) {
            own.join(other);
        }
        self.seen = seen;
        Ok(())
    }

    fn check_fit(&self, other: &Self) -> Result<(), QuantError> {
        let differ = |what: &str, new: usize, old: usize| {
            Err(QuantError::field("shape", format!("{new} {what}, earlier batches had {old}"))
                .cure("feed tensors of one kind to a calibrator"))
        };
        if self.slices.len() != other.slices.len() {
            return differ("channels", other.slices.len(), self.slices.len());
        }
        match (&self.sample, &other.sample) {
            (Some(own), Some(other)) if own.line() != other.line() => {
                differ("elements along the axis of the softmax", other.line(), own.line())
            }
            _ => Ok(()),
        }
    }

    /// How it learns.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How much it has seen.
    #[must_use]
    pub const fn seen(&self) -> Seen {
        self.seen
    }

    /// Number of slices: 0 before the first batch.
    #[must_use]
    pub fn slices(&self) -> usize {
        self.slices.len()
    }

    /// Smallest and largest finite element of all, whatever the method makes of
    /// them; `None` as long as there is none.
    #[must_use]
    pub fn observed(&self) -> Option<[f64; 2]> {
        let any = self.slices.iter().filter(|slice| slice.finite > 0);
        any.map(|slice| slice.extent).reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])])
    }
}

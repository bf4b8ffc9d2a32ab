//! `inspect`: what to look at before choosing a scheme.

use quantd_core::inspect::{Options as Wanted, Statistics};
use quantd_core::partition::Partition;
use quantd_core::scheme::Granularity;
use quantd_core::tensor::{Reals, Tensor};
use quantd_core::{QuantError, Task, cost, inspect_slices};
use quantd_kernels::real::Real;

use super::answer::Answer;
use super::compare::only_chosen;
use super::context::Context;
use super::documents::{InspectDoc, StatisticsDoc};
use super::error::{Error, Kind};
use super::fields::Fields;
use super::fields::field::{self, Integer, Table, fields, names};
use super::options::{self, take_granularity};
use super::payload::{Payload, TENSOR, TENSORS};
use super::select::{self, Rule, Selection};

/// Most bins of a histogram.
const MAX_BINS: i64 = 4096;
/// Most percentiles of one request.
const MAX_PERCENTILES: usize = 64;
/// Most numbers that the slices of one answer may hold.
const MAX_NUMBERS: usize = 1 << 22;
const PERCENTILES: [f64; 9] = [0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9];
fields! {
    BINS: "bins", Integer = Integer { min: 1, max: MAX_BINS, bounded: true },
        "Bins of the histogram. Default 64.";
    PERCENTILE_LIST: "percentiles", field::Reals = field::Reals { most: MAX_PERCENTILES },
        "Percentiles to find, 0 to 100.";
}
/// What a query may say beside type and shape.
pub const QUERY: Table = &[
    &BINS,
    &PERCENTILE_LIST,
    &options::GRANULARITY,
    &options::AXIS,
    &options::GROUP_SIZE,
    &options::BLOCK_SHAPE,
    &select::INCLUDE,
    &select::EXCLUDE,
];
/// The only member of JSON that a query has no place for.
pub const MEMBERS: Table = &[&TENSORS];

/// Statistics of the tensor of the request, and of its slices when a
/// granularity is named.
///
/// # Errors
/// [`Error`] names the field at fault.
pub fn run(payload: Payload, context: &mut Context<'_>) -> Result<Answer, Error> {
    let known = names(&[TENSOR, MEMBERS, QUERY]);
    let mut request = payload.decode_any(&known, context)?;
    let fields = &mut request.fields;
    let bins = fields.get(&BINS)?.unwrap_or(64);
    let bins = usize::try_from(bins).unwrap_or(1);
    let percentiles = percentiles(fields)?;
    let origin = fields.origin().clone();
    let selection = Selection::take(fields)?;
    let options = take_granularity(fields)?;
    let place = |error: QuantError| Error::of_quant(error, |field| origin.place(field));
    let granularity = options.resolve_granularity().map_err(place)?;
    request.fields.clone().finish(&known)?;
    let tensor = only_chosen(selection.split(request.tensors, Rule::All, context)?.chosen)?;
    let wanted = Wanted { bins, percentiles };
    let numbers = 2 * wanted.bins + wanted.percentiles.len() + 16;
    let partition = Partition::new(granularity, tensor.shape()).map_err(place)?;
    if partition.slices().saturating_mul(numbers) > MAX_NUMBERS {
        return Err(request
            .fields
            .error("granularity", "too many slices for one answer")
            .cure("ask for fewer bins and percentiles, or a coarser granularity"));
    }
    // The elements as f32 where they are not, and a slice at a time side by side;
    // each number of the answer, of which percentiles are several, twice.
    let answer = partition.slices().saturating_add(1).saturating_mul(numbers);
    let working = answer.saturating_mul(32);
    context.reserve(tensor.shape().len().saturating_mul(8).saturating_add(working))?;
    context.foresee(answer.saturating_mul(24))?;
    let counted = partition.slices() + 1;
    context.afford(cost::inspect(
        2 * tensor.shape().len(),
        counted,
        wanted.percentiles.len(),
        bins,
    ))?;
    let (whole, slices) = match tensor.reals() {
        Reals::F32(x) => all(&x, &tensor, &partition, &wanted, context.task)?,
        Reals::F64(x) => all(&x, &tensor, &partition, &wanted, context.task)?,
    };
    let slices = (granularity != Granularity::Tensor)
        .then(|| slices.into_iter().map(StatisticsDoc::from).collect());
    let document = InspectDoc {
        dtype: tensor.dtype().name(),
        shape: tensor.shape().dims().to_vec(),
        statistics: StatisticsDoc::from(whole),
        slices,
    };
    Answer::document(&document, &mut |bytes| context.take(bytes))
}

fn all<T: Real>(
    x: &[T],
    tensor: &Tensor,
    partition: &Partition,
    wanted: &Wanted,
    task: &Task,
) -> Result<(Statistics, Vec<Statistics>), Error> {
    let whole = Partition::new(Granularity::Tensor, tensor.shape())
        .map_err(|_| Error::new(Kind::Internal, "a tensor without partition"))?;
    let one = inspect_slices(x, &whole, wanted, task).into_iter().next();
    let one = one.ok_or_else(|| Error::new(Kind::Internal, "a tensor without slice"))?;
    let slices =
        if *partition == whole { Vec::new() } else { inspect_slices(x, partition, wanted, task) };
    Ok((one, slices))
}

fn percentiles(fields: &mut Fields) -> Result<Vec<f64>, Error> {
    let Some(percentiles) = fields.get(&PERCENTILE_LIST)? else { return Ok(PERCENTILES.to_vec()) };
    let allowed = percentiles.iter().all(|p| (0.0..=100.0).contains(p));
    if !allowed || percentiles.len() > MAX_PERCENTILES {
        return Err(fields
            .error("percentiles", "not a list of percentiles")
            .cure(format!("use at most {MAX_PERCENTILES} numbers from 0 to 100")));
    }
    Ok(percentiles)
}

//! What a calibration knows, as plain columns: the way out of it and back in.

use crate::QuantError;
use crate::scheme::Granularity;

use super::distinct::Distinct;
use super::histogram::{Histogram, magnitude, top_of};
use super::sample::Sample;
use super::{Calibration, MOST, Plan, Seen, Slice};

/// Everything that was learnt, one entry a slice in each column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Counts over all slices.
    pub seen: Seen,
    /// Finite elements.
    pub finite: Vec<u64>,
    /// The smallest of them, 0 where there are none.
    pub min: Vec<f64>,
    /// The largest of them, 0 where there are none.
    pub max: Vec<f64>,
    /// Averages of the lower ends; empty but for moving averages.
    pub average_min: Vec<f64>,
    /// Averages of the upper ends; empty but for moving averages.
    pub average_max: Vec<f64>,
    /// Counts of positive elements, as many for each slice, from 0 on and as
    /// far as there are any; empty for methods that do not count.
    pub positive: Vec<u64>,
    /// Counts of negative elements in the same way.
    pub negative: Vec<u64>,
    /// How many distinct values are kept; 0 where they are too many, empty but for entropy.
    pub distinct: Vec<u64>,
    /// The distinct values of all slices, ascending in each.
    pub values: Vec<f64>,
    /// How often each of them was seen.
    pub value_counts: Vec<u64>,
    /// Length of a line of the softmax; 0 but for cross-entropy.
    pub line: usize,
    /// The elements of the lines that are kept.
    pub lines: Vec<f64>,
    /// How often each of them was seen.
    pub line_counts: Vec<u64>,
}

fn wrong<T>(
    field: &'static str,
    detail: impl Into<std::borrow::Cow<'static, str>>,
) -> Result<T, QuantError> {
    Err(QuantError::field(field, detail).cure("send a document exactly as it was exported"))
}

impl Calibration {
    /// Everything that was learnt.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let column = |of: &dyn Fn(&Slice) -> f64| self.slices.iter().map(of).collect::<Vec<_>>();
        let averages = || self.slices.iter().filter_map(|slice| slice.average);
        let histograms = || self.slices.iter().filter_map(|slice| slice.histogram.as_ref());
        let used = histograms().map(Histogram::used).max().unwrap_or(0);
        let sample = self.sample.as_ref();
        let kept = |slice: &Slice| slice.distinct.as_ref().map_or(0, |kept| kept.pairs().len());
        let distinct = || self.slices.iter().filter_map(|slice| slice.distinct.as_ref());
        let pairs = || distinct().flat_map(Distinct::pairs);
        let counted = if self.plan.method().is_entropy() { &self.slices[..] } else { &[] };
        Parts {
            seen: self.seen,
            finite: self.slices.iter().map(|slice| slice.finite).collect(),
            min: column(&|slice| slice.extent[0]),
            max: column(&|slice| slice.extent[1]),
            average_min: averages().map(|ends| ends[0]).collect(),
            average_max: averages().map(|ends| ends[1]).collect(),
            positive: histograms().flat_map(|h| &h.positive[..used]).copied().collect(),
            negative: histograms().flat_map(|h| &h.negative[..used]).copied().collect(),
            distinct: counted.iter().map(|slice| kept(slice) as u64).collect(),
            values: pairs().map(|(x, _)| *x).collect(),
            value_counts: pairs().map(|(_, count)| *count).collect(),
            line: sample.map_or(0, Sample::line),
            lines: sample.into_iter().flat_map(Sample::elements).collect(),
            line_counts: sample.map_or_else(Vec::new, Sample::counts),
        }
    }

    /// The calibration of that plan that has these parts, which may come from
    /// anyone: they are checked to be what a calibration could have.
    ///
    /// # Errors
    /// [`QuantError`] names the column at fault.
    pub fn from_parts(plan: Plan, parts: &Parts) -> Result<Self, QuantError> {
        let count = parts.finite.len();
        check_counts(plan, parts)?;
        check_lengths(plan, parts)?;
        let used = parts.positive.len().checked_div(count).unwrap_or(0);
        let mut pairs = 0;
        let mut slices = Vec::with_capacity(count);
        for i in 0..count {
            let extent = extent(parts, i)?;
            let average = match (parts.average_min.get(i), parts.average_max.get(i)) {
                (Some(&min), Some(&max)) => Some(average([min, max], extent)?),
                _ => None,
            };
            let histogram = plan.method().counts().then(|| {
                let side = |counts: &[u64]| {
                    let mut side = counts[i * used..(i + 1) * used].to_vec();
                    side.resize(plan.bins(), 0);
                    side
                };
                let top = top_of(magnitude(extent));
                Histogram { top, positive: side(&parts.positive), negative: side(&parts.negative) }
            });
            let finite = parts.finite[i];
            if let Some(histogram) = &histogram {
                check_histogram(histogram, finite, extent)?;
            }
            let distinct = if let (true, Some(histogram)) = (plan.method().is_entropy(), &histogram)
            {
                let first = pairs;
                pairs += places(parts, i);
                distinct(parts, i, first..pairs, (histogram, extent))?
            } else {
                None
            };
            slices.push(Slice { finite, extent, average, histogram, distinct });
        }
        let sample = sample(plan, parts)?;
        Ok(Self { plan, seen: parts.seen, slices, sample })
    }
}

fn check_counts(plan: Plan, parts: &Parts) -> Result<(), QuantError> {
    let Seen { batches, elements, nan, inf } = parts.seen;
    let bounded = [
        ("batches", batches),
        ("elements", elements),
        ("nan_elements", nan),
        ("inf_elements", inf),
    ];
    if let Some((field, _)) = bounded.iter().find(|(_, count)| *count > MOST) {
        return wrong(field, "more than 2^53");
    }
    let sum = parts.finite.iter().try_fold(nan + inf, |sum, &n| sum.checked_add(n));
    if sum != Some(elements) {
        return wrong("elements", "not the sum of finite, nan_elements and inf_elements");
    }
    if (batches == 0) != (elements == 0) || batches > elements {
        return wrong("batches", "does not go with the number of elements");
    }
    let slices = parts.finite.len();
    let fits = match batches {
        0 => slices == 0,
        _ if plan.granularity() == Granularity::Tensor => slices == 1,
        _ => slices > 0,
    };
    if fits { Ok(()) } else { wrong("finite", "not one entry for each slice") }
}

fn check_lengths(plan: Plan, parts: &Parts) -> Result<(), QuantError> {
    let slices = parts.finite.len();
    let averages = if plan.method().averages() { slices } else { 0 };
    let columns = [
        ("min", parts.min.len(), slices),
        ("max", parts.max.len(), slices),
        ("average_min", parts.average_min.len(), averages),
        ("average_max", parts.average_max.len(), averages),
    ];
    if let Some((field, ..)) = columns.iter().find(|(_, found, expected)| found != expected) {
        return wrong(field, "not one entry for each slice");
    }
    let most = if plan.method().counts() { slices * plan.bins() } else { 0 };
    let bins = parts.positive.len();
    if bins > most || (bins > 0 && !bins.is_multiple_of(slices)) {
        return wrong("positive", "not a number of bins that a slice has");
    }
    let kept = parts.distinct.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
    let counts = if plan.method().is_entropy() { slices } else { 0 };
    // Documents from before values were kept have none of the three.
    if ![0, counts].contains(&parts.distinct.len()) {
        return wrong("distinct", "not one entry for each slice");
    }
    if kept != Some(parts.values.len() as u64) {
        return wrong("values", "not as many as distinct says");
    }
    if parts.value_counts.len() != parts.values.len() {
        return wrong("value_counts", "not as many as there are values");
    }
    if parts.negative.len() != bins {
        return wrong("negative", "not as many bins as positive has");
    }
    Ok(())
}

/// The ends of slice `i`.
fn extent(parts: &Parts, i: usize) -> Result<[f64; 2], QuantError> {
    let [min, max] = [parts.min[i], parts.max[i]];
    for (field, end) in [("min", min), ("max", max)] {
        if !end.is_finite() {
            return wrong(field, "not a finite number");
        }
        if parts.finite[i] == 0 && end != 0.0 {
            return wrong(field, "not 0 for a slice without finite elements");
        }
    }
    if min > max {
        return wrong("min", "above max");
    }
    Ok([min, max])
}

/// Averages lie within what was seen, but for rounding.
fn average([min, max]: [f64; 2], extent: [f64; 2]) -> Result<[f64; 2], QuantError> {
    let slack = magnitude(extent) * 1e-6;
    for (field, end) in [("average_min", min), ("average_max", max)] {
        // NaN is in no range.
        if !(extent[0] - slack..=extent[1] + slack).contains(&end) {
            return wrong(field, "not between min and max");
        }
    }
    Ok([min, max])
}

/// Counts are of as many elements as there are, and reach as far as they do.
fn check_histogram(
    histogram: &Histogram,
    finite: u64,
    [min, max]: [f64; 2],
) -> Result<(), QuantError> {
    let sum = |side: &[u64]| side.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
    let counted = sum(&histogram.positive)
        .and_then(|positive| positive.checked_add(sum(&histogram.negative)?));
    if counted.is_none_or(|counted| counted > finite) {
        return wrong("positive", "more elements than finite says");
    }
    let sides = [("positive", &histogram.positive, max), ("negative", &histogram.negative, -min)];
    for (field, side, end) in sides {
        let last = side.iter().rposition(|&count| count > 0);
        let place = libm::ldexp(end, -histogram.top) * side.len() as f64;
        let expected = (end > 0.0).then(|| <f64 as quantd_kernels::real::Real>::truncate(place));
        if last.and_then(|bin| i32::try_from(bin).ok()) != expected {
            return wrong(field, "the last occupied bin is not that of the largest element");
        }
    }
    Ok(())
}

/// How many distinct values slice `i` has.
fn places(parts: &Parts, i: usize) -> usize {
    parts.distinct.get(i).and_then(|&n| usize::try_from(n).ok()).unwrap_or(0)
}

/// The distinct values of slice `i`, which must be what was counted.
fn distinct(
    parts: &Parts,
    i: usize,
    places: std::ops::Range<usize>,
    (histogram, extent): (&Histogram, [f64; 2]),
) -> Result<Option<Distinct>, QuantError> {
    let finite = parts.finite[i];
    if places.is_empty() {
        return Ok((finite == 0).then(Distinct::default));
    }
    let (values, counts) = (&parts.values[places.clone()], &parts.value_counts[places]);
    let Some(distinct) = Distinct::checked(values, counts) else {
        return wrong("values", "not distinct finite numbers in ascending order, or too many");
    };
    if distinct.ends() != Some(extent) {
        return wrong("values", "not from min to max");
    }
    let total = counts.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
    if total != Some(finite) || !histogram.is_of(distinct.pairs()) {
        return wrong("value_counts", "not what was counted");
    }
    Ok(Some(distinct))
}

fn sample(plan: Plan, parts: &Parts) -> Result<Option<Sample>, QuantError> {
    let is_sampled = matches!(plan.method(), super::Method::CrossEntropy { .. });
    if !is_sampled || parts.seen.batches == 0 {
        if parts.line != 0 || !parts.lines.is_empty() || !parts.line_counts.is_empty() {
            return wrong("lines", "given where no lines are kept");
        }
        return Ok(None);
    }
    let mut sample = Sample::new(parts.line)?;
    let count = parts.line_counts.len();
    if parts.line == 0
        || count == 0
        || count > sample.capacity()
        || parts.lines.len() != count * parts.line
    {
        return wrong("lines", "not as many lines as line_counts has, or more than are kept");
    }
    let total = parts.line_counts.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
    let most = parts.seen.elements / parts.line.max(1) as u64;
    if parts.line_counts.contains(&0) || total.is_none_or(|total| total > most) {
        return wrong("line_counts", "does not go with the number of elements");
    }
    for (line, &count) in parts.lines.chunks(parts.line.max(1)).zip(&parts.line_counts) {
        sample.insert(line, count);
    }
    if sample.len() != count {
        return wrong("lines", "the same line twice");
    }
    Ok(Some(sample))
}

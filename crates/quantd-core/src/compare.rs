//! One tensor under many schemes.

use crate::tensor::Tensor;
use quantd_kernels::real::Real;

use super::quantize::Prepared;
use super::report::Report;
use super::scheme::Scheme;
use super::source::{Source, Sources};
use super::{QuantError, Task};

/// Reports on each scheme, in the order given. The extents of the slices are
/// found once for each granularity, not once a scheme.
///
/// # Errors
/// The index of the first scheme that does not fit the tensor, and why.
pub fn compare(
    tensor: &Tensor,
    schemes: &[Scheme],
    task: &Task,
) -> Result<Vec<Report>, (usize, QuantError)> {
    match &Sources::of(tensor, task.isa()) {
        Sources::F32(x) => compare_reals(x, tensor, schemes, task),
        Sources::F64(x) => compare_reals(x, tensor, schemes, task),
    }
}

fn compare_reals<T: Real>(
    x: &Source<'_, T>,
    tensor: &Tensor,
    schemes: &[Scheme],
    task: &Task,
) -> Result<Vec<Report>, (usize, QuantError)> {
    let mut reports: Vec<Option<Report>> = vec![None; schemes.len()];
    // One granularity after the other, so that one table of slices is held at a time.
    for first in 0..schemes.len() {
        if reports[first].is_some() {
            continue;
        }
        let granularity = schemes[first].granularity;
        let prepared =
            Prepared::new(x, tensor, granularity, task).map_err(|error| (first, error))?;
        for i in first..schemes.len() {
            if schemes[i].granularity == granularity {
                let report = prepared.measure(&schemes[i], task).map_err(|error| (i, error))?;
                reports[i] = Some(report);
            }
            if task.is_cancelled() {
                return Ok(Vec::new());
            }
        }
    }
    Ok(reports.into_iter().flatten().collect())
}

/// Which reports no other one beats: none has at most as many bits and at most
/// as large an error, and less of one of them.
#[must_use]
pub fn pareto_front(reports: &[Report]) -> Vec<bool> {
    let point = |report: &Report| Some((report.bits_per_element?, report.mse?));
    reports
        .iter()
        .map(|report| {
            let Some((bits, mse)) = point(report) else { return true };
            !reports.iter().filter_map(point).any(|(other_bits, other_mse)| {
                other_bits <= bits && other_mse <= mse && (other_bits < bits || other_mse < mse)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Size;
    use quantd_kernels::sums::ErrorSums;

    #[test]
    fn the_front_keeps_what_nothing_beats() {
        let report = |bits: f64, error: f64| {
            let sums =
                ErrorSums { restored: 1.0, rounded: error, count: 1, ..ErrorSums::default() };
            Report::new(&sums, 0, 0, Size { elements: 1, bits, source_bits: 32 })
        };
        let reports = [
            report(8.0, 0.1),
            report(4.0, 0.5),
            report(8.0, 0.2),
            report(4.0, 0.5),
            report(2.0, 0.4),
        ];
        assert_eq!(pareto_front(&reports), [true, false, false, false, true]);
        let equal = [report(4.0, 0.5), report(4.0, 0.5)];
        assert_eq!(pareto_front(&equal), [true, true]);
    }
}

//! One tensor under many schemes.

use crate::tensor::Tensor;

use super::report::Report;
use super::scheme::Scheme;
use super::{QuantError, Task};

/// Reports on each scheme, in the order given; none once the task is cancelled. Schemes of one format share what
/// they have in common.
///
/// # Errors
/// The index of the first scheme that does not fit the tensor, and why.
pub fn compare(
    tensor: &Tensor,
    schemes: &[Scheme],
    task: &Task,
) -> Result<Vec<Report>, (usize, QuantError)> {
    let mut reports: Vec<Option<Report>> = vec![None; schemes.len()];
    for first in 0..schemes.len() {
        if reports[first].is_some() {
            continue;
        }
        let format = schemes[first].format;
        let same: Vec<usize> =
            (first..schemes.len()).filter(|&i| schemes[i].format == format).collect();
        let own: Vec<&Scheme> = same.iter().map(|&i| &schemes[i]).collect();
        let made = format.measure(tensor, &own, task).map_err(|(i, error)| (same[i], error))?;
        if task.is_cancelled() {
            return Ok(Vec::new());
        }
        for (i, report) in same.into_iter().zip(made) {
            reports[i] = Some(report);
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

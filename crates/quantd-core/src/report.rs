//! What quantizing lost, in the terms of docs/NUMERICS.md, "Reports".

use quantd_kernels::sums::ErrorSums;

/// A number of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A real number; `None` where it is not a finite one.
    Real(Option<f64>),
    /// A count.
    Count(u64),
}

/// What a number of a report is called, what it says, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub summary: &'static str,
    /// The number.
    pub of: fn(&Report) -> Figure,
}

/// The one list of what a report says: a structure, and what its members mean.
macro_rules! report {
    ($(#[$meta:meta])* $report:ident { $($summary:literal $name:ident: $kind:ident($type:ty),)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $report {
            $(#[doc = $summary] pub $name: $type,)+
        }

        impl $report {
            /// What it says, in the order in which it is written.
            pub const FIGURES: &'static [Meaning] = &[$(Meaning {
                name: stringify!($name),
                summary: $summary,
                of: |report| Figure::$kind(report.$name),
            },)+];
        }
    };
}

report! {
    /// Error metrics over the finite elements of a tensor or slice.
    ///
    /// A figure is `None` where it is not a finite number: there are no finite
    /// elements, or (`sqnr_db`) the error or the signal is exactly zero.
    Report {
        "Mean of (x - x̂)²; the sum of the next two." mse: Real(Option<f64>),
        "The part of `mse` lost where codes were saturated." mse_clipped: Real(Option<f64>),
        "The part of `mse` lost to rounding." mse_rounded: Real(Option<f64>),
        "Largest |x - x̂|." max_abs_error: Real(Option<f64>),
        "10 log10(Σx² / Σ(x - x̂)²), dB." sqnr_db: Real(Option<f64>),
        "Cosine of the angle between x and x̂." cosine: Real(Option<f64>),
        "Elements whose code was saturated." clipped: Count(u64),
        "NaN elements." nan: Count(u64),
        "Infinite elements." inf: Count(u64),
        "Elements other than 0 that came back as 0." zeroed: Count(u64),
        "Bits of codes, scales and zero points, packed, per element." bits_per_element: Real(Option<f64>),
        "Bits of a source element over `bits_per_element`." compression_ratio: Real(Option<f64>),
    }
}

/// What a report says beside the error sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Elements, NaN and infinite ones included.
    pub elements: usize,
    /// Bits of the packed result: codes, scales, zero points.
    pub bits: f64,
    /// Bits of one element of the source.
    pub source_bits: usize,
}

impl Report {
    /// The report of those sums.
    #[must_use]
    pub fn new(sums: &ErrorSums, nan: u64, inf: u64, size: Size) -> Self {
        let mean = |sum: f64| finite(sum / sums.count as f64);
        let (signal, error) = (sums.signal(), sums.error());
        let norms = (signal * sums.restored).sqrt();
        let cosine = if sums.count == 0 {
            None
        } else if signal == 0.0 && sums.restored == 0.0 {
            // Elements whose squares vanish are not zeros.
            Some(if sums.zeroed_count == 0 { 1.0 } else { 0.0 })
        } else if norms == 0.0 {
            Some(0.0)
        } else {
            finite(sums.product() / norms).map(|cosine| cosine.clamp(-1.0, 1.0))
        };
        let bits_per_element = finite(size.bits / size.elements as f64);
        Self {
            mse: mean(error),
            mse_clipped: mean(sums.clipped),
            mse_rounded: mean(sums.rounded),
            max_abs_error: (sums.count > 0).then_some(sums.max_abs).and_then(finite),
            sqnr_db: finite(10.0 * libm::log10(signal / error)),
            cosine,
            clipped: sums.clipped_count,
            nan,
            inf,
            zeroed: sums.zeroed_count,
            bits_per_element,
            compression_ratio: bits_per_element.map(|bits| size.source_bits as f64 / bits),
        }
    }
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { elements: 4, bits: 64.0, source_bits: 32 };

    #[test]
    fn exact_and_empty_results_have_no_infinite_figures() {
        let exact = ErrorSums { restored: 2.0, count: 4, ..ErrorSums::default() };
        let report = Report::new(&exact, 0, 0, SIZE);
        assert_eq!((report.mse, report.sqnr_db, report.cosine), (Some(0.0), None, Some(1.0)));
        assert_eq!((report.bits_per_element, report.compression_ratio), (Some(16.0), Some(2.0)));
        let empty = Report::new(&ErrorSums::default(), 3, 1, Size { elements: 0, ..SIZE });
        assert_eq!((empty.mse, empty.cosine, empty.max_abs_error), (None, None, None));
        assert_eq!((empty.nan, empty.inf, empty.bits_per_element), (3, 1, None));
    }

    #[test]
    fn an_error_is_split_into_its_two_causes() {
        let sums = ErrorSums {
            restored: 90.0,
            rounded: 1.0,
            clipped: 9.0,
            count: 10,
            ..ErrorSums::default()
        };
        let report = Report::new(&sums, 0, 0, SIZE);
        assert_eq!(report.mse, Some(1.0));
        assert_eq!((report.mse_clipped, report.mse_rounded), (Some(0.9), Some(0.1)));
        assert_eq!(report.sqnr_db, Some(10.0));
    }
}

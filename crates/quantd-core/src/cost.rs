//! What work costs, told from its sizes before any of it begins.
//!
//! Estimates, in time of one thread, by constants that were measured and are
//! all below. They are meant to be low: work that would end in time must not
//! be refused, and what takes longer than was thought is ended by whoever
//! waits for it. So the constants are those of a fast machine with the widest
//! instructions, rounded down.

use std::iter::Sum;
use std::ops::{Add, Mul};

use crate::tensor::Shape;

use super::calibrate::{Method, Plan};
use super::params::Numerics;
use super::range::entropy::BINS;
use super::scheme::{Coding, RangeMethod, Scheme};

/// Time of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Cost {
    nanoseconds: f64,
}

/// Reading or writing a byte of a format.
const BYTE: f64 = 0.1;
/// A byte of a name that a pattern is held against.
const MATCHED: f64 = 10.0;
/// A number as text.
const NUMBER: f64 = 5.0;
/// Extent, code and errors of an element.
const ELEMENT: f64 = 0.2;
/// What a slice takes by itself: its place, its parameters.
const SLICE: f64 = 20.0;
/// An element whose rank is looked for.
const RANKED: f64 = 1.0;
/// An element in the search for the least squared error, of symmetric and of asymmetric codes. Bounds
/// leave few candidates for the elements of a slice beyond the first thousand.
const SQUARED: [f64; 2] = [2.0, 10.0];
const SQUARED_ELEMENTS: f64 = 1024.0;
/// An element in the search of floats.
const SQUARED_FLOAT: f64 = 10.0;
/// A bin of a histogram in the same search.
const SQUARED_BIN: [f64; 2] = [50.0, 500.0];
/// An element in the search for the least cross-entropy, likewise.
const SOFTMAX: [f64; 2] = [20.0, 45.0];
/// The candidates of ONNX Runtime's search by entropy, of which there are as many however few elements
/// there are, and an element beyond that, as long as there are not so many that each bin has several.
const ESTIMATED: f64 = 200_000.0;
const ESTIMATED_ELEMENT: f64 = 60.0;
const ESTIMATED_ELEMENTS: f64 = 16.0 * BINS as f64;
/// A bin in TensorRT's search, and a bin of one of its candidates.
const COMPARED_BIN: f64 = 50.0;
const COMPARED: f64 = 1.0;
/// Elements that a calibrator keeps for the softmax.
const KEPT: f64 = (1 << 18) as f64;
/// A multiplication of 8-bit integers, and of real numbers.
const PRODUCT: f64 = 0.005;
const REAL_PRODUCT: f64 = 0.02;
/// A weight in the order that the products of a layer read it in.
const PACKED: f64 = 0.5;

impl Cost {
    /// No work at all.
    pub const NONE: Self = Self::new(0.0);

    /// Of so many nanoseconds.
    const fn new(nanoseconds: f64) -> Self {
        Self { nanoseconds }
    }

    /// How often it fits into so many seconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast that saturates, of what is not negative"
    )]
    pub fn fits(self, seconds: f64) -> usize {
        (seconds / self.seconds()) as usize
    }

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.nanoseconds * 1e-9
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.nanoseconds + other.nanoseconds)
    }
}

impl Mul<usize> for Cost {
    type Output = Self;

    fn mul(self, count: usize) -> Self {
        Self::new(self.nanoseconds * count as f64)
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// Reading or writing so many bytes.
#[must_use]
pub fn bytes(count: usize) -> Cost {
    Cost::new(BYTE) * count
}

/// A pattern held against names of so many bytes.
#[must_use]
pub fn matching(count: usize) -> Cost {
    Cost::new(MATCHED) * count
}

/// So many numbers as text.
#[must_use]
pub fn text(numbers: usize) -> Cost {
    Cost::new(NUMBER) * numbers
}

/// Codes, parameters and a report of a tensor of so many elements in so many slices.
#[must_use]
pub fn quantize([elements, slices]: [usize; 2], scheme: &Scheme) -> Cost {
    let length = elements as f64 / slices.max(1) as f64;
    let search = Cost::new(match &scheme.coding {
        Coding::Integer(numerics) => search(&scheme.range, length, numerics),
        Coding::Float { .. } | Coding::Microscaling { .. } | Coding::TwoLevel { .. } => {
            search_of_floats(&scheme.range, length)
        }
    });
    Cost::new(ELEMENT) * elements + (Cost::new(SLICE) + search) * slices
}

/// Finding the range of a slice of `n` elements.
fn search(method: &RangeMethod, n: f64, numerics: &Numerics) -> f64 {
    match method {
        RangeMethod::MinMax | RangeMethod::Explicit { .. } | RangeMethod::Given { .. } => 0.0,
        RangeMethod::Percentile(_) => n * RANKED,
        RangeMethod::Mse => n.min(SQUARED_ELEMENTS) * for_codes(SQUARED, numerics) + n * ELEMENT,
        RangeMethod::EntropyOrt => entropy_ort(n),
        RangeMethod::EntropyTensorrt | RangeMethod::EntropyModelopt => entropy_tensorrt(n),
        RangeMethod::CrossEntropy { .. } => n * for_codes(SOFTMAX, numerics),
    }
}

/// The same for floats, whose candidates are all tried.
fn search_of_floats(method: &RangeMethod, n: f64) -> f64 {
    match method {
        RangeMethod::Percentile(_) => n * RANKED,
        RangeMethod::Mse => n * SQUARED_FLOAT,
        RangeMethod::MinMax | RangeMethod::Explicit { .. } | RangeMethod::Given { .. } => 0.0,
        RangeMethod::EntropyOrt
        | RangeMethod::EntropyTensorrt
        | RangeMethod::EntropyModelopt
        | RangeMethod::CrossEntropy { .. } => 0.0,
    }
}

/// Symmetric codes have fewer candidates.
const fn for_codes([symmetric, asymmetric]: [f64; 2], numerics: &Numerics) -> f64 {
    if numerics.symmetric { symmetric } else { asymmetric }
}

fn entropy_ort(n: f64) -> f64 {
    ESTIMATED + n.min(ESTIMATED_ELEMENTS) * ESTIMATED_ELEMENT + n * ELEMENT
}

/// Elements that are alone in their bins make candidates of their own, and each looks at all of them.
fn entropy_tensorrt(n: f64) -> f64 {
    let bins = n.min(BINS as f64);
    bins * COMPARED_BIN + bins * bins * COMPARED + n * ELEMENT
}

/// Real numbers of so many codes.
#[must_use]
pub fn dequantize(elements: usize, slices: usize) -> Cost {
    Cost::new(ELEMENT) * elements + Cost::new(SLICE) * slices
}

/// Statistics of `slices` of `elements` in all, of each so many percentiles and bins.
#[must_use]
pub fn inspect(elements: usize, slices: usize, percentiles: usize, bins: usize) -> Cost {
    let ranked = Cost::new(RANKED) * elements * percentiles;
    let numbers = text(percentiles) + text(bins) * 2;
    ranked + Cost::new(RANKED) * elements + (Cost::new(SLICE) + numbers) * slices
}

/// A product of 8-bit integers with `cells` sums of `depth` products.
#[must_use]
pub fn product(cells: usize, depth: usize) -> Cost {
    (Cost::new(ELEMENT) + Cost::new(PRODUCT) * depth) * cells
}

/// The same product of real numbers.
#[must_use]
pub fn real_product(cells: usize, depth: usize) -> Cost {
    Cost::new(REAL_PRODUCT) * cells * depth
}

/// Bringing so many codes of weights into the order of products.
#[must_use]
pub fn pack(elements: usize) -> Cost {
    Cost::new(PACKED) * elements
}

/// What a batch of that shape teaches.
#[must_use]
pub fn learn(shape: &Shape, plan: &Plan) -> Cost {
    let slices = plan.slices(shape).unwrap_or(0);
    Cost::new(ELEMENT + RANKED) * shape.len() + Cost::new(SLICE) * slices
}

/// The ranges of so many slices, of what was learnt from `elements`, for codes of `numerics`.
#[must_use]
pub fn resolve(plan: &Plan, slices: usize, elements: u64, numerics: &Numerics) -> Cost {
    let (bins, seen) = (plan.bins() as f64, elements as f64);
    let of_slice = seen / slices.max(1) as f64;
    let one = match plan.method() {
        Method::MinMax | Method::MovingAverage { .. } => 0.0,
        Method::Percentile(_) => bins * RANKED,
        Method::Mse => bins * for_codes(SQUARED_BIN, numerics),
        Method::EntropyOrt => entropy_ort(of_slice.min(ESTIMATED_ELEMENTS)),
        Method::EntropyTensorrt | Method::EntropyModelopt => entropy_tensorrt(of_slice.min(bins)),
        Method::CrossEntropy { .. } => seen.min(KEPT) * for_codes(SOFTMAX, numerics),
    };
    (Cost::new(SLICE) + Cost::new(one)) * slices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::INTEGER;
    use crate::params::Profile;
    use crate::scheme::{Coding, Granularity, NanPolicy};

    fn scheme(range: RangeMethod, size: usize) -> Scheme {
        Scheme {
            format: &INTEGER,
            coding: Coding::Integer(Numerics {
                profile: Profile::Onnx,
                bits: 8,
                signed: true,
                symmetric: true,
                restricted: true,
            }),
            granularity: Granularity::Group { axis: 0, size },
            range,
            nan: NanPolicy::Refuse,
            packed: false,
        }
    }

    #[test]
    fn slices_and_searches_cost_more() {
        let elements = 1 << 20;
        let cost =
            |range: RangeMethod, size| quantize([elements, elements / size], &scheme(range, size));
        assert!(cost(RangeMethod::MinMax, 2) > cost(RangeMethod::MinMax, 1024));
        for method in [
            RangeMethod::Percentile(99.0),
            RangeMethod::Mse,
            RangeMethod::EntropyOrt,
            RangeMethod::EntropyTensorrt,
            RangeMethod::EntropyModelopt,
            RangeMethod::CrossEntropy { axis: -1 },
        ] {
            for size in [2, 128, 4096] {
                assert!(cost(method.clone(), size) > cost(RangeMethod::MinMax, size), "{method:?}");
            }
        }
        let explicit = RangeMethod::Explicit { min: vec![0.0], max: vec![1.0] };
        assert_eq!(cost(explicit, 2), cost(RangeMethod::MinMax, 2));
    }

    #[test]
    fn without_slices_there_are_only_elements() {
        let cost = quantize([1000, 0], &scheme(RangeMethod::EntropyOrt, 1));
        assert_eq!(cost, Cost::new(ELEMENT) * 1000);
    }

    #[test]
    fn fits_counts_whole_times_and_never_fails() {
        let one = Cost::new(4.0);
        assert_eq!([one.fits(3e-9), one.fits(9e-9)], [0, 2]);
        assert_eq!(Cost::NONE.fits(1.0), usize::MAX);
    }
}

//! The ranges of short slices, as granularity group has them, by each method that searches, on one
//! thread: `cargo bench --bench ranges`. A shape is groups x elements.

#[path = "support/harness.rs"]
mod harness;
#[path = "support/limits.rs"]
mod limits;

use std::hint::black_box;

use harness::{Call, Meter, Suite, reals};
use quantd_core::Task;
use quantd_core::params::{Numerics, Profile};
use quantd_core::range::{self, Slice};
use quantd_core::scheme::RangeMethod;
use quantd_kernels::Isa;

const METHODS: [(&str, RangeMethod); 4] = [
    ("mse", RangeMethod::Mse),
    ("entropy_ort", RangeMethod::EntropyOrt),
    ("entropy_tensorrt", RangeMethod::EntropyTensorrt),
    ("cross_entropy", RangeMethod::CrossEntropy { axis: -1 }),
];
/// Of the codes: their name, and whether their ranges are symmetric.
const KINDS: [(&str, bool); 2] = [("symmetric", true), ("asymmetric", false)];
const BITS: [u32; 2] = [8, 4];

struct Ranges;

/// `mse-symmetric-8` and so on.
fn parse(op: &str) -> Option<(RangeMethod, Numerics)> {
    let mut words = op.split('-');
    let (method, kind, bits) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    let (_, method) = METHODS.into_iter().find(|(name, _)| *name == method)?;
    let (_, symmetric) = KINDS.into_iter().find(|(name, _)| *name == kind)?;
    let profile = Profile::Onnx;
    let (signed, restricted) = (symmetric, symmetric);
    Some((method, Numerics { profile, bits, signed, symmetric, restricted }))
}

impl Suite for Ranges {
    fn ops(&self) -> Vec<String> {
        let kinds = || KINDS.iter().flat_map(|(kind, _)| BITS.map(|bits| format!("{kind}-{bits}")));
        METHODS
            .iter()
            .flat_map(|(name, _)| kinds().map(move |kind| format!("{name}-{kind}")))
            .collect()
    }

    fn shapes(&self) -> Vec<String> {
        [2, 8, 32, 128].map(|size| format!("{}x{size}", 1024 / size)).to_vec()
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        let &[groups, size] = shape else {
            return Err("a shape is groups x elements".to_owned());
        };
        let (method, numerics) = parse(op).ok_or_else(|| format!("no method {op}"))?;
        let x = reals(groups * size);
        Ok(Box::new(move || {
            for values in x.chunks(size) {
                let slice = Slice { values, extent: isa.extent(values), line: size };
                black_box(range::find(&method, slice, &numerics, &Task::new(isa)));
            }
        }))
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        limits::seconds(op, limits::Work { products: 0, numbers: shape.iter().product() }, meter)
    }

    fn line(&self, _: &str, shape: &[usize], seconds: f64, _: &Meter<'_>) -> String {
        let [groups, elements] = [shape[0], shape.iter().product()];
        let each = |count: usize| seconds * 1e9 / count as f64;
        format!("{:.0} ns a slice, {:.1} ns an element", each(groups), each(elements))
    }
}

fn main() {
    harness::run(&Ranges);
}

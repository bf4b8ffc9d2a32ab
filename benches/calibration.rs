//! The range of one tensor by each method that looks at more than its extent,
//! on all threads: `cargo bench --bench calibration`.

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
use quantd_kernels::scalar::Extent;
use rayon::prelude::*;

/// Elements that a thread looks through at a time for their extent.
const CHUNK: usize = 1 << 15;

/// Methods for symmetric signed codes, or asymmetric unsigned ones.
const METHODS: [(&str, RangeMethod, bool); 7] = [
    ("min_max", RangeMethod::MinMax, false),
    ("percentile-symmetric", RangeMethod::Percentile(99.99), true),
    ("percentile-asymmetric", RangeMethod::Percentile(99.99), false),
    ("mse-symmetric", RangeMethod::Mse, true),
    ("mse-asymmetric", RangeMethod::Mse, false),
    ("entropy_ort", RangeMethod::EntropyOrt, true),
    ("entropy_tensorrt", RangeMethod::EntropyTensorrt, true),
];

struct Calibration;

impl Suite for Calibration {
    fn ops(&self) -> Vec<String> {
        METHODS.iter().map(|(name, ..)| (*name).to_owned()).collect()
    }

    fn shapes(&self) -> Vec<String> {
        vec![(1 << 24).to_string()]
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        let &[count] = shape else {
            return Err("a shape is a number of elements".to_owned());
        };
        let found = METHODS.into_iter().find(|(name, ..)| *name == op);
        let (_, method, symmetric) = found.ok_or_else(|| format!("no method {op}"))?;
        let numerics = Numerics {
            profile: Profile::Onnx,
            bits: 8,
            signed: symmetric,
            symmetric,
            restricted: symmetric,
        };
        let x = reals(count);
        Ok(Box::new(move || {
            let parts = x.par_chunks(CHUNK).map(|x| isa.extent(x));
            let extent = parts.reduce(Extent::default, Extent::join);
            let slice = Slice { values: &x, extent, line: x.len() };
            black_box(range::find(&method, slice, &numerics, &Task::new(isa)));
        }))
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        limits::seconds(op, limits::Work { products: 0, numbers: shape.iter().product() }, meter)
    }

    fn line(&self, _: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String {
        let rate = shape.iter().product::<usize>() as f64 / seconds / 1e6;
        let mut line = format!("{seconds:.5} s, {rate:.0} million elements/s");
        if let Ok(pass) = self.limit("limit-extent", shape, meter) {
            line += &format!(", {:.1} times one pass over them", seconds / pass);
        }
        line
    }
}

fn main() {
    harness::run(&Calibration);
}

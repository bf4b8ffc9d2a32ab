//! Whole tensors to number formats with their report, and back, beside what the machine could do at most, measured in
//! the same run: `cargo bench --bench formats -- --shapes 16777216`.
//!
//! Operations are named `what-preset`, with `-row` behind it for a scale a row.
#![expect(clippy::cast_precision_loss, reason = "rates are rounded")]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/limits.rs"]
mod limits;

use std::hint::black_box;
use std::sync::Arc;

use bytemuck::cast_slice;
use harness::{Call, Meter, Suite, reals};
use quantd_core::Task;
use quantd_core::format::{Coded, FORMATS};
use quantd_core::scheme::{GranularityName, Options};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};
use quantd_kernels::Isa;

/// Elements of a row.
const COLUMNS: usize = 4096;
const SIZES: [&str; 3] = ["65536", "1048576", "16777216"];
const SCHEMES: [&str; 9] = [
    "fp8_e4m3",
    "fp8_e4m3-row",
    "fp8_e5m2",
    "mxfp8_e4m3",
    "mxfp6_e2m3",
    "mxfp4",
    "mxint8",
    "nvfp4",
    "bf16",
];

struct Formats;

fn count(shape: &[usize]) -> Result<usize, String> {
    let [count] = shape else { return Err("a shape is a number of elements".to_owned()) };
    Ok(*count)
}

/// What is done, and the options of the scheme.
fn parsed(op: &str) -> Option<(&str, Options)> {
    let mut parts = op.split('-');
    let (what, name) = (parts.next()?, parts.next()?);
    let format = FORMATS.into_iter().find(|format| format.name() == name)?;
    let row = parts.next().is_some().then_some(GranularityName::Channel);
    Some((what, Options { format: Some(format), granularity: row, ..Options::NONE }))
}

impl Suite for Formats {
    fn ops(&self) -> Vec<String> {
        let of = |what: &'static str| SCHEMES.map(|scheme| format!("{what}-{scheme}"));
        of("quantize").into_iter().chain(of("dequantize")).collect()
    }

    fn shapes(&self) -> Vec<String> {
        SIZES.map(str::to_owned).into()
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        let count = count(shape)?;
        let (what, options) = parsed(op).ok_or_else(|| format!("no operation {op}"))?;
        let scheme = options.resolve().map_err(|error| error.to_string())?;
        let shape = Shape::new(vec![count / COLUMNS, COLUMNS]).map_err(|e| e.to_string())?;
        let x = Arc::new(Buffer::copy_of(cast_slice(&reals(count))));
        let tensor = Tensor::view(DType::F32, shape.clone(), x, 0);
        let tensor = tensor.ok_or_else(|| format!("not a number of rows of {COLUMNS}"))?;
        let encode = move || scheme.quantize(&tensor, false, &Task::new(isa));
        let made = encode().map_err(|error| error.to_string())?;
        if made.report.sqnr_db.is_none_or(|db| db < 15.0) {
            return Err(format!("{op} loses too much: {:?}", made.report));
        }
        if what == "quantize" {
            return Ok(Box::new(move || drop(black_box(encode()))));
        }
        let coded = Coded { parts: made.parts, shape: Some(shape), options };
        Ok(Box::new(move || drop(black_box(coded.dequantize(DType::F32, &Task::new(isa))))))
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        limits::seconds(op, limits::Work { products: 0, numbers: count(shape)? }, meter)
    }

    fn line(&self, op: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String {
        let bytes = 4e-9 * shape.iter().product::<usize>() as f64;
        let back = op.starts_with("dequantize");
        let names: &[&str] = match back {
            true => &["limit-dequantize", "limit-dequantize-past"],
            false => &["limit-quantize", "limit-quantize-ahead", "limit-quantize-past"],
        };
        let limit = |name: &&str| self.limit(name, shape, meter).ok();
        let mut line = format!("{:.2} GB/s of f32", bytes / seconds);
        if let Some(mut least) = names.iter().filter_map(limit).reduce(f64::min) {
            if !back {
                // The scales are known only after a pass of their own.
                least += limit(&"limit-extent").unwrap_or_default();
            }
            line += &format!(", limit {:.2}, {:.1} %", bytes / least, 100.0 * least / seconds);
        }
        line
    }
}

fn main() {
    harness::run(&Formats);
}

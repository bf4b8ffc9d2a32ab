//! Real numbers to codes and back, beside what the machine could do at most,
//! measured in the same run: `cargo bench --bench elementwise -- --shapes 16777216`.
//!
//! Operations are named `what-granularity-codes`, with the type of the real
//! numbers behind where it is not F32. `quantize` and `dequantize` are the
//! kernels alone, into memory that is there; `explicit` and `min_max` are whole
//! tensors with their report, `restore` whole tensors back.
#![expect(clippy::cast_precision_loss, reason = "rates are rounded")]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/limits.rs"]
mod limits;

use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::cast_slice;
use half::{bf16, f16};
use harness::{Call, Meter, Suite, reals};
use quantd_core::Task;
use quantd_core::format::{Coded, INTEGER};
use quantd_core::params::{Numerics, Profile};
use quantd_core::partition::{CHUNK, Partition};
use quantd_core::scheme::{Coding, Granularity, NanPolicy, Options, RangeMethod, Scheme};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};
use quantd_core::walk::Walk;
use quantd_kernels::scalar::{Code, CodeRange, Extent, Params, QuantParams, Rounding};
use quantd_kernels::table::{Expanded, Table};
use quantd_kernels::{CodeSpec, Isa, Stores};
use rayon::prelude::*;

/// Elements of a row.
const COLUMNS: usize = 4096;
const SIZES: [&str; 4] = ["65536", "1048576", "16777216", "67108864"];
const GRANULARITIES: [(&str, Granularity); 7] = [
    ("tensor", Granularity::Tensor),
    ("row", Granularity::Channel { axis: 0 }),
    ("column", Granularity::Channel { axis: 1 }),
    ("group32", Granularity::Group { axis: 1, size: 32 }),
    ("group64", Granularity::Group { axis: 1, size: 64 }),
    ("group128", Granularity::Group { axis: 1, size: 128 }),
    ("block128", Granularity::Block { shape: [128, 128] }),
];
/// Operations of kernels alone.
const KERNELS: [&str; 3] = ["quantize", "dequantize", "extent"];
/// Of nearly normal numbers, none of whose codes saturate.
const SCALE: f32 = 0.04;

/// What an operation's name stands for.
#[derive(Clone, Copy, Debug)]
struct Op<'a> {
    what: &'a str,
    granularity: Granularity,
    numerics: Numerics,
    packed: bool,
    source: Source,
}

/// Types of the real numbers.
#[derive(Clone, Copy, Debug)]
enum Source {
    F32,
    F16,
    BF16,
}

impl<'a> Op<'a> {
    fn new(name: &'a str) -> Option<Self> {
        let mut parts = name.split('-');
        let what = parts.next()?;
        let granularity = parts.next()?;
        let (_, granularity) = *GRANULARITIES.iter().find(|(name, _)| *name == granularity)?;
        let (bits, signed) = match parts.next()? {
            "u8" => (8, false),
            "i8" => (8, true),
            "i4" => (4, true),
            _ => return None,
        };
        let source = parts.next().map_or(Some(Source::F32), |name| match name {
            "f16" => Some(Source::F16),
            "bf16" => Some(Source::BF16),
            _ => None,
        })?;
        let numerics =
            Numerics { profile: Profile::Onnx, bits, signed, symmetric: true, restricted: false };
        Some(Self { what, granularity, numerics, packed: bits < 8, source })
    }

    fn affine(&self) -> QuantParams<f32> {
        QuantParams { scale: SCALE, zero_point: self.numerics.middle() }
    }
}

/// Numbers, the parameters of their slices, and where codes or numbers go: in
/// the memory that tensors have, which is in huge pages where it is large.
struct Kernel<C> {
    isa: Isa,
    x: Buffer,
    partition: Partition,
    table: Table<f32>,
    range: CodeRange,
    codes: Buffer,
    code: PhantomData<C>,
}

impl<C: Code> Kernel<C> {
    fn new(isa: Isa, op: &Op<'_>, count: usize) -> Result<Self, String> {
        let partition =
            Partition::new(op.granularity, &shape(count)?).map_err(|e| e.to_string())?;
        let table = Table::new(&vec![op.affine(); partition.slices()]);
        let x = Buffer::copy_of(cast_slice(&reals(count)));
        let codes = Buffer::zeroed(count * size_of::<C>());
        let range = op.numerics.code_range();
        let mut kernel = Self { isa, x, partition, table, range, codes, code: PhantomData };
        kernel.quantize();
        kernel.check();
        kernel.dequantize();
        Ok(kernel)
    }

    fn numbers(&self) -> &[f32] {
        cast_slice(self.x.bytes())
    }

    fn codes(&self) -> &[C] {
        cast_slice(self.codes.bytes())
    }

    /// Each code is that of its number, by the plain formula.
    fn check(&self) {
        let QuantParams { scale, zero_point } = self.table.affine(0);
        for (x, code) in self.numbers().iter().zip(self.codes()).step_by(997) {
            let expect = f64::from(x / scale).round_ties_even() + f64::from(zero_point);
            let expect = expect.clamp(self.range.min.into(), self.range.max.into());
            let difference = f64::from(code.to_code()) - expect;
            assert!(difference.abs() < 0.5, "{x} became {}", code.to_code());
        }
    }

    fn quantize(&mut self) {
        let Self { isa, x, partition, table, range, codes, .. } = self;
        let walk = Walk { isa: *isa, partition, table };
        let codes: &mut [C] = codes.elements_mut();
        let stores = Stores::of(size_of_val(codes));
        let how = CodeSpec { range: *range, rounding: Rounding::DivideEven, stores };
        each_chunk(walk, cast_slice(x.bytes()), codes, |x, params, codes| {
            walk.isa.quantize(x, params, how, codes);
        });
    }

    fn dequantize(&mut self) {
        let Self { isa, x, partition, table, codes, .. } = self;
        let walk = Walk { isa: *isa, partition, table };
        let codes: &[C] = cast_slice(codes.bytes());
        let stores = Stores::of(4 * codes.len());
        each_chunk(walk, codes, x.elements_mut(), |codes, params, x| {
            walk.isa.dequantize(codes, params, stores, x);
        });
    }

    fn extent(&self) {
        let parts = self.numbers().par_chunks(CHUNK).map(|x| self.isa.extent(x));
        black_box(parts.reduce(Extent::default, Extent::join));
    }

    fn call(mut self, what: &str) -> Call {
        match what {
            "quantize" => Box::new(move || self.quantize()),
            "dequantize" => Box::new(move || self.dequantize()),
            _ => Box::new(move || self.extent()),
        }
    }
}

/// Hands out the elements of a partition with their parameters and their target.
fn each_chunk<T: Sync, U: Send>(
    walk: Walk<'_, f32>,
    from: &[T],
    to: &mut [U],
    work: impl Fn(&[T], Params<'_, f32>, &mut [U]) + Sync,
) {
    let chunks = from.par_chunks(CHUNK).zip(to.par_chunks_mut(CHUNK)).enumerate();
    chunks.for_each_init(Expanded::default, |spread, (i, (from, to))| {
        walk.spans([i * CHUNK, i * CHUNK + from.len()], spread, |[start, end], params| {
            work(&from[start..end], params, &mut to[start..end]);
        });
    });
}

fn shape(count: usize) -> Result<Shape, String> {
    if count == 0 || !count.is_multiple_of(COLUMNS) {
        return Err(format!("not a number of rows of {COLUMNS}"));
    }
    Shape::new(vec![count / COLUMNS, COLUMNS]).map_err(|error| format!("{error:?}"))
}

fn tensor(op: &Op<'_>, count: usize) -> Result<Tensor, String> {
    let (x, shape) = (reals(count), shape(count)?);
    let tensor = match op.source {
        Source::F16 => {
            let x: Vec<f16> = x.into_iter().map(f16::from_f32).collect();
            Tensor::from_elements(DType::F16, shape, &x)
        }
        Source::BF16 => {
            let x: Vec<bf16> = x.into_iter().map(bf16::from_f32).collect();
            Tensor::from_elements(DType::BF16, shape, &x)
        }
        Source::F32 => {
            Tensor::view(DType::F32, shape, Arc::new(Buffer::copy_of(cast_slice(&x))), 0)
        }
    };
    tensor.ok_or_else(|| "elements do not fit the shape".to_owned())
}

/// The operations on whole tensors.
fn whole(isa: Isa, op: &Op<'_>, count: usize) -> Result<Call, String> {
    let range = match op.what {
        "min_max" => RangeMethod::MinMax,
        "explicit" | "restore" => {
            let end = f64::from(SCALE) * 127.0;
            RangeMethod::Explicit { min: vec![-end], max: vec![end] }
        }
        _ => return Err(format!("no operation {}", op.what)),
    };
    let numerics = op.numerics;
    let packed = op.packed && op.what != "restore";
    let scheme = Scheme {
        format: &INTEGER,
        coding: Coding::Integer(numerics),
        granularity: op.granularity,
        range,
        nan: NanPolicy::Refuse,
        packed,
    };
    let tensor = tensor(op, count)?;
    let shape = Some(tensor.shape().clone());
    let encode = move || scheme.quantize(&tensor, false, &Task::new(isa));
    let parts = encode().map_err(|error| error.to_string())?.parts;
    if op.what == "restore" {
        let options = Options {
            bits: Some(numerics.bits),
            signed: Some(numerics.signed),
            ..Options::from(op.granularity)
        };
        let coded = Coded { parts, shape, options };
        return Ok(Box::new(move || {
            drop(black_box(coded.dequantize(DType::F32, &Task::new(isa))));
        }));
    }
    Ok(Box::new(move || {
        drop(black_box(encode()));
    }))
}

struct Elementwise;

fn count(shape: &[usize]) -> Result<usize, String> {
    let [count] = shape else { return Err("a shape is a number of elements".to_owned()) };
    Ok(*count)
}

impl Suite for Elementwise {
    fn ops(&self) -> Vec<String> {
        let mut ops = vec!["extent-tensor-u8".to_owned()];
        for (what, codes) in
            [("quantize", "u8"), ("quantize", "i8"), ("dequantize", "u8"), ("min_max", "i8")]
        {
            ops.extend(GRANULARITIES.iter().map(|(name, _)| format!("{what}-{name}-{codes}")));
        }
        let others =
            ["explicit-row-i8", "restore-row-i8", "min_max-row-i8-f16", "min_max-row-i8-bf16"];
        ops.extend(
            others
                .iter()
                .chain(&["min_max-group32-i4", "min_max-group128-i4"])
                .map(|&op| op.to_owned()),
        );
        ops
    }

    fn shapes(&self) -> Vec<String> {
        SIZES.map(str::to_owned).into()
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        let count = count(shape)?;
        let parsed = Op::new(op).ok_or_else(|| format!("no operation {op}"))?;
        if !KERNELS.contains(&parsed.what) {
            return whole(isa, &parsed, count);
        }
        if parsed.numerics.signed {
            Ok(Kernel::<i8>::new(isa, &parsed, count)?.call(parsed.what))
        } else {
            Ok(Kernel::<u8>::new(isa, &parsed, count)?.call(parsed.what))
        }
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        limits::seconds(op, limits::Work { products: 0, numbers: count(shape)? }, meter)
    }

    fn line(&self, op: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String {
        let bytes = 4e-9 * shape.iter().product::<usize>() as f64;
        if op.ends_with("16") || op.ends_with("i4") {
            // The limits are about numbers of four bytes and codes of one.
            return format!("{:.2} GB/s of f32", bytes / seconds);
        }
        let mut line = format!("{:.2} GB/s of f32", bytes / seconds);
        let names: &[&str] = match op.split('-').next() {
            Some("dequantize" | "restore") => &["limit-dequantize", "limit-dequantize-past"],
            Some("extent") => &["limit-extent"],
            _ => &["limit-quantize", "limit-quantize-ahead", "limit-quantize-past"],
        };
        let limit = |name: &&str| self.limit(name, shape, meter).ok();
        if let Some(mut least) = names.iter().filter_map(limit).reduce(f64::min) {
            if op.starts_with("min_max") {
                // The range is known only after a pass of its own.
                least += limit(&"limit-extent").unwrap_or_default();
            }
            line += &format!(", limit {:.2}, {:.1} %", bytes / least, 100.0 * least / seconds);
        }
        line
    }
}

fn main() {
    harness::run(&Elementwise);
}

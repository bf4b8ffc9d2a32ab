//! Integer products beside what the machine could do at most, measured in the
//! same run: `cargo bench --bench gemm -- --ops u8s8 --shapes 128x768x3072`.
//!
//! The weights are packed beforehand, the left operand within the time. `benches/compare`
//! measures the same in turns with other libraries.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "random codes are the low bits of random numbers, and rates are rounded"
)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/limits.rs"]
mod limits;

use std::sync::atomic::AtomicBool;

use harness::{Call, Meter, Suite, bits, reals};
use quantd_core::params::{Numerics, Profile, Range};
use quantd_kernels::Isa;
use quantd_kernels::gemm::{
    Codes, Dynamic, Elements, GroupedRhs, Lhs, Mode, Output, PackedInt4, PackedLhs, PackedRhs,
    Requantize, Rhs, RowParams, multiply, multiply_int4,
};
use quantd_kernels::scalar::{self, CodeRange, Extent, Params, QuantParams, Rounding};
use rayon::prelude::*;

/// Products of transformers, then sizes that fit no tile.
const SHAPES: [&str; 20] = [
    "1x768x768",
    "1x4096x4096",
    "1x4096x11008",
    "4x768x3072",
    "8x768x3072",
    "16x768x3072",
    "32x1024x1024",
    "128x768x3072",
    "128x4096x4096",
    "512x1024x1024",
    "1024x1024x1024",
    "2048x2048x2048",
    "1x1023x1000",
    "4x4096x4096",
    "16x1021x1000",
    "33x770x1000",
    "100x333x777",
    "197x768x2304",
    "384x1537x1000",
    "1000x1000x1000",
];

/// What is multiplied, and what comes out.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    left: LeftKind,
    signed_weights: bool,
    out: OutKind,
}

#[derive(Clone, Copy, Debug)]
enum LeftKind {
    U8,
    I8,
    /// Real numbers, quantized with one scale for all.
    Real,
    /// Real numbers, quantized with a scale for each row.
    RealRows,
}

#[derive(Clone, Copy, Debug)]
enum OutKind {
    I32,
    F32,
    U8,
}

const KINDS: [Kind; 7] = {
    const fn kind(name: &'static str, left: LeftKind, signed_weights: bool, out: OutKind) -> Kind {
        Kind { name, left, signed_weights, out }
    }
    [
        kind("u8s8", LeftKind::U8, true, OutKind::I32),
        kind("s8s8", LeftKind::I8, true, OutKind::I32),
        kind("u8u8", LeftKind::U8, false, OutKind::I32),
        kind("s8u8", LeftKind::I8, false, OutKind::I32),
        kind("dynamic", LeftKind::Real, true, OutKind::F32),
        kind("dynamic-rows", LeftKind::RealRows, true, OutKind::F32),
        kind("qlinear", LeftKind::U8, true, OutKind::U8),
    ]
};

const UNSIGNED: CodeRange = CodeRange { min: 0, max: 255 };
/// Scales of the operands and of the result, and the zero points of all that have one.
const SCALES: [f32; 3] = [0.02, 0.01, 0.5];
const ZERO_POINT: i32 = 128;
/// Numbers of the left operand that a thread looks through at a time for their extent.
const CHUNK: usize = 1 << 15;

enum Numbers {
    U8(Vec<u8>),
    I8(Vec<i8>),
    F32(Vec<f32>),
}

enum Target {
    I32(Vec<i32>),
    F32(Vec<f32>),
    U8(Vec<u8>),
}

/// One product, ready to be made again and again.
struct Product {
    isa: Isa,
    kind: Kind,
    dims: [usize; 3],
    left: Numbers,
    weights: PackedRhs,
    result: Target,
}

/// Scale and zero point as `DynamicQuantizeLinear` has them.
fn dynamic(extent: Extent<f32>) -> QuantParams<f32> {
    let numerics = Numerics {
        profile: Profile::Onnx,
        bits: 8,
        signed: false,
        symmetric: false,
        restricted: false,
    };
    numerics.affine(Range::around_zero(extent.min, extent.max))
}

impl Product {
    fn new(isa: Isa, kind: Kind, dims: [usize; 3]) -> (Self, Vec<i32>) {
        let [m, k, n] = dims;
        let mut random = bits();
        let mut codes = |count: usize| -> Vec<u8> {
            random.by_ref().map(|bits| bits as u8).take(count).collect()
        };
        let left = codes(m * k);
        let left = match kind.left {
            LeftKind::U8 => Numbers::U8(left),
            LeftKind::I8 => Numbers::I8(left.iter().map(|code| code.cast_signed()).collect()),
            LeftKind::Real | LeftKind::RealRows => Numbers::F32(reals(m * k)),
        };
        let weights = codes(k * n);
        let signed: Vec<i8> = weights.iter().map(|code| code.cast_signed()).collect();
        let (codes, wide) = if kind.signed_weights {
            (Codes::I8(&signed), signed.iter().map(|&code| i32::from(code)).collect())
        } else {
            (Codes::U8(&weights), weights.iter().map(|&code| i32::from(code)).collect())
        };
        let right = Rhs { codes, k, n, zero_points: &[0], scales: &SCALES[1..2] };
        let result = match kind.out {
            OutKind::I32 => Target::I32(vec![0; m * n]),
            OutKind::F32 => Target::F32(vec![0.0; m * n]),
            OutKind::U8 => Target::U8(vec![0; m * n]),
        };
        let weights = PackedRhs::new(isa, right, &AtomicBool::new(false));
        (Self { isa, kind, dims, left, weights, result }, wide)
    }

    /// Zero point of codes of the left operand.
    fn zero_point(&self) -> i32 {
        if matches!(self.kind.out, OutKind::U8) { ZERO_POINT } else { 0 }
    }

    fn run(&mut self) {
        let [m, k, _] = self.dims;
        let zero_point = [self.zero_point()];
        let elements = match &self.left {
            Numbers::U8(codes) => Elements::Codes {
                codes: Codes::U8(codes),
                zero_points: &zero_point,
                scales: &SCALES[..1],
            },
            Numbers::I8(codes) => Elements::Codes {
                codes: Codes::I8(codes),
                zero_points: &zero_point,
                scales: &SCALES[..1],
            },
            Numbers::F32(x) => {
                let params = match self.kind.left {
                    LeftKind::RealRows => RowParams::Row(&dynamic),
                    LeftKind::U8 | LeftKind::I8 | LeftKind::Real => {
                        let parts = x.par_chunks(CHUNK).map(|x| self.isa.extent(x));
                        RowParams::Same(dynamic(parts.reduce(Extent::default, Extent::join)))
                    }
                };
                Elements::Real(Dynamic {
                    x,
                    range: UNSIGNED,
                    rounding: Rounding::DivideEven,
                    params,
                })
            }
        };
        let left = PackedLhs::new(self.isa, Lhs { m, k, elements }, self.weights.has_zero_points());
        let output = match &mut self.result {
            Target::I32(out) => Output::I32(out),
            Target::F32(out) => Output::F32 { out, bias: None, relu: false },
            Target::U8(out) => {
                let requantize = Requantize {
                    mode: Mode::FloatOrt(SCALES[2]),
                    zero_point: ZERO_POINT,
                    range: UNSIGNED,
                    bias: None,
                };
                Output::U8(out, requantize)
            }
        };
        multiply(&left, &self.weights, output, &AtomicBool::new(false));
    }

    /// Holds some elements of the result against plain sums.
    fn check(&self, weights: &[i32]) {
        let [m, k, n] = self.dims;
        for (row, column) in [(0, 0), (m / 2, n / 3), (m - 1, n - 1), (m / 3, n - 1), (m - 1, 0)] {
            let (codes, affine) = self.row(row);
            let column_of_weights = weights.iter().skip(column).step_by(n);
            let terms = codes.iter().zip(column_of_weights).take(k);
            let sum: i32 = terms.map(|(a, b)| (a - affine.zero_point) * b).sum();
            let at = row * n + column;
            match &self.result {
                Target::I32(out) => assert_eq!(out[at], sum, "{row} {column}"),
                Target::F32(out) => {
                    let expect = sum as f32 * (affine.scale * SCALES[1]);
                    assert_eq!(out[at].to_bits(), expect.to_bits(), "{row} {column}");
                }
                Target::U8(out) => {
                    let scaled = sum as f32 * ((SCALES[0] * SCALES[1]) / SCALES[2]);
                    let code = scaled.round_ties_even() as i32 + ZERO_POINT;
                    assert_eq!(i32::from(out[at]), code.clamp(0, 255), "{row} {column}");
                }
            }
        }
    }

    /// Codes of a row of the left operand, and what they mean.
    fn row(&self, row: usize) -> (Vec<i32>, QuantParams<f32>) {
        let k = self.dims[1];
        let own = row * k..(row + 1) * k;
        let affine = QuantParams { scale: SCALES[0], zero_point: self.zero_point() };
        match &self.left {
            Numbers::U8(codes) => (codes[own].iter().map(|&code| code.into()).collect(), affine),
            Numbers::I8(codes) => (codes[own].iter().map(|&code| code.into()).collect(), affine),
            Numbers::F32(x) => {
                let measured = match self.kind.left {
                    LeftKind::RealRows => &x[own.clone()],
                    LeftKind::U8 | LeftKind::I8 | LeftKind::Real => &x[..],
                };
                let affine = dynamic(scalar::extent(measured));
                let mut codes = vec![0_u8; k];
                let params = Params::Same(affine);
                scalar::quantize(&x[own], params, UNSIGNED, Rounding::DivideEven, &mut codes);
                (codes.into_iter().map(i32::from).collect(), affine)
            }
        }
    }
}

/// Weights of 4 bits whose scales are shared by so many along K, times rows
/// that are quantized to int8 on the fly.
const GROUPS: [(&str, usize); 2] = [("nbits4-32", 32), ("nbits4-128", 128)];

fn grouped(isa: Isa, group: usize, [m, k, n]: [usize; 3]) -> Result<Call, String> {
    if k % group != 0 {
        return Err("K is not a multiple of the group".to_owned());
    }
    let x = reals(m * k);
    let codes: Vec<i8> =
        bits().map(|bits| (bits as u8 & 15).cast_signed() - 8).take(k * n).collect();
    let right = GroupedRhs {
        codes: Codes::I8(&codes),
        k,
        n,
        group,
        zero_points: &[0],
        scales: &SCALES[1..2],
    };
    let weights = PackedInt4::new(isa, right, &AtomicBool::new(false));
    let mut result = vec![0.0; m * n];
    let run = move |result: &mut [f32]| {
        let dynamic = Dynamic {
            x: &x,
            range: CodeRange { min: -127, max: 127 },
            rounding: Rounding::DivideEven,
            params: RowParams::Row(&symmetric),
        };
        let left = Lhs { m, k, elements: Elements::Real(dynamic) };
        multiply_int4(left, &weights, result, (None, false), &AtomicBool::new(false));
    };
    run(&mut result);
    // One element by hand, group by group.
    let (x, column) = (&reals(m * k)[(m - 1) * k..], n / 3);
    let affine = symmetric(scalar::extent(x));
    let mut row = vec![0_i8; k];
    let range = CodeRange { min: -127, max: 127 };
    scalar::quantize(x, Params::Same(affine), range, Rounding::DivideEven, &mut row);
    let sum = |g: usize| -> i32 {
        let own = g * group..(g + 1) * group;
        own.map(|k| i32::from(row[k]) * i32::from(codes[k * n + column])).sum()
    };
    let scaled = (0..k / group).map(|g| sum(g) as f32 * (affine.scale * SCALES[1]));
    let expect = scaled.fold(0.0_f32, |total, part| total + part);
    assert_eq!(result[(m - 1) * n + column].to_bits(), expect.to_bits());
    Ok(Box::new(move || run(&mut result)))
}

/// Scale of signed codes without a zero point.
fn symmetric(extent: Extent<f32>) -> QuantParams<f32> {
    let numerics = Numerics {
        profile: Profile::Onnx,
        bits: 8,
        signed: true,
        symmetric: true,
        restricted: true,
    };
    numerics.affine(Range::around_zero(extent.min, extent.max))
}

struct Gemm;

fn dims(shape: &[usize]) -> Result<[usize; 3], String> {
    let dims = <[usize; 3]>::try_from(shape).map_err(|_| "a shape is MxKxN".to_owned())?;
    if dims.contains(&0) { Err("an empty product".to_owned()) } else { Ok(dims) }
}

impl Suite for Gemm {
    fn ops(&self) -> Vec<String> {
        let groups = GROUPS.iter().map(|(name, _)| *name);
        KINDS.iter().map(|kind| kind.name).chain(groups).map(str::to_owned).collect()
    }

    fn shapes(&self) -> Vec<String> {
        SHAPES.map(str::to_owned).into()
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        if let Some((_, group)) = GROUPS.into_iter().find(|(name, _)| *name == op) {
            return grouped(isa, group, dims(shape)?);
        }
        let kind = KINDS.into_iter().find(|kind| kind.name == op);
        let kind = kind.ok_or_else(|| format!("no operation {op}"))?;
        let (mut product, weights) = Product::new(isa, kind, dims(shape)?);
        product.run();
        product.check(&weights);
        Ok(Box::new(move || product.run()))
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        let [m, k, n] = dims(shape)?;
        // Whatever else happens, the weights are read once: a byte each, or half of one.
        let (op, bytes) = match op.strip_suffix("-half") {
            Some(op) => (op, k * n / 2),
            None => (op, k * n),
        };
        let work = limits::Work { products: m * k * n, numbers: bytes / size_of::<f32>() };
        limits::seconds(op, work, meter)
    }

    fn line(&self, _: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String {
        let work = 2e-9 * shape.iter().product::<usize>() as f64;
        let limit = |name| self.limit(name, shape, meter).ok();
        let read = ["limit-read", "limit-read-ahead"].into_iter().filter_map(limit);
        let limits = [("peak", limit("limit-peak")), ("reading", read.reduce(f64::min))];
        let mut line = format!("{:.1} GOPS", work / seconds);
        for (name, limit) in limits {
            if let Some(limit) = limit {
                line += &format!(", {name} {:.1}", work / limit);
            }
        }
        if let Some(limit) = limits.into_iter().filter_map(|(_, limit)| limit).reduce(f64::max) {
            line += &format!(", {:.1} % of the lower", 100.0 * limit / seconds);
        }
        line
    }
}

fn main() {
    harness::run(&Gemm);
}

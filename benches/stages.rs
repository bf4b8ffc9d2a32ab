//! The stages between decoding and encoding, on both sides of a request:
//! range, quantize, report, dequantize. In bytes of the f32 tensor.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantd_core::Task;
use quantd_core::format::INTEGER;
use quantd_core::params::{Numerics, Profile};
use quantd_core::range;
use quantd_core::scheme::{Coding, Granularity, NanPolicy, RangeMethod, Scheme};
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_core::word::Word;
use quantd_kernels::scalar::{self, CodeRange, Params, QuantParams, Rounding};
use quantd_kernels::sums::LaneSums;
use quantd_kernels::table::Table;
use quantd_kernels::{CodeSpec, Isa, Stores};

/// 64 MiB: more than any cache.
const ROWS: usize = 4096;
const COLUMNS: usize = 4096;
/// What a thread works on at a time; fits its cache.
const CHUNK: usize = 1 << 15;

/// Weights as they are: mostly small, a few large.
fn weights() -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..ROWS * COLUMNS)
        .map(|_| {
            let x = uniform() + uniform() + uniform();
            x * x * x * 0.01
        })
        .collect()
}

const NUMERICS: Numerics =
    Numerics { profile: Profile::Onnx, bits: 8, signed: true, symmetric: true, restricted: true };

fn scheme(range: RangeMethod, granularity: Granularity) -> Scheme {
    let coding = Coding::Integer(NUMERICS);
    Scheme { format: &INTEGER, coding, granularity, range, nan: NanPolicy::Refuse, packed: false }
}

/// The kernels of every instruction set of the machine, one thread, on a chunk
/// that stays in the cache. A copy of the same bytes stands beside them.
fn kernels(criterion: &mut Criterion) {
    let x = &weights()[..CHUNK];
    let affine = QuantParams { scale: 0.001_f32, zero_point: 0 };
    let table = Table::new(&vec![affine; CHUNK]);
    let (same, each) = (Params::Same(affine), Params::Each(table.columns(0..CHUNK)));
    let range = CodeRange { min: -127, max: 127 };
    let how = CodeSpec::new(range, Rounding::DivideEven);
    let mut codes = vec![0_i8; CHUNK];
    let mut restored = vec![0.0_f32; CHUNK];
    for isa in Isa::available() {
        let mut group = criterion.benchmark_group(format!("in cache, {}", isa.name()));
        group.throughput(Throughput::Bytes(4 * CHUNK as u64));
        group.bench_function("extent", |bencher| bencher.iter(|| isa.extent(black_box(x))));
        for (name, rounding) in [
            ("quantize onnx", Rounding::DivideEven),
            ("quantize torch", Rounding::ReciprocalEven),
            ("quantize compressed-tensors", Rounding::ZeroPointFirst),
            ("quantize tflite", Rounding::DivideAway),
        ] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    isa.quantize(black_box(x), same, CodeSpec::new(range, rounding), &mut codes)
                });
            });
        }
        group.bench_function("quantize columns", |bencher| {
            bencher.iter(|| isa.quantize(black_box(x), each, how, &mut codes));
        });
        for (name, params) in [("", same), (" columns", each)] {
            group.bench_function(format!("quantize and report{name}"), |bencher| {
                bencher.iter(|| {
                    let mut lanes = LaneSums::default();
                    isa.encode(black_box(x), params, how, &mut codes, &mut lanes);
                    lanes.total()
                });
            });
            group.bench_function(format!("dequantize{name}"), |bencher| {
                bencher.iter(|| {
                    isa.dequantize(black_box(&codes), params, Stores::Temporal, &mut restored)
                });
            });
        }
        group.bench_function("squared error", |bencher| {
            bencher.iter(|| isa.squared_error(black_box(x), affine, range, how.rounding));
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("in cache, copy");
    group.throughput(Throughput::Bytes(4 * CHUNK as u64));
    group.bench_function("f32", |bencher| {
        bencher.iter(|| restored.copy_from_slice(black_box(x)));
    });
    group.finish();
}

/// The kernels of the best instruction set on memory, one thread.
fn streaming(criterion: &mut Criterion) {
    let x = weights();
    let isa = Isa::best();
    let same = Params::Same(QuantParams { scale: 0.002_f32, zero_point: 0 });
    let range = CodeRange { min: -127, max: 127 };
    let how = CodeSpec { range, rounding: Rounding::DivideEven, stores: Stores::Streaming };
    let mut codes = vec![0_i8; x.len()];
    let mut restored = vec![0.0_f32; x.len()];
    let mut group = criterion.benchmark_group("streaming, one thread");
    group.throughput(Throughput::Bytes(4 * x.len() as u64)).sample_size(10);
    group.bench_function("extent", |bencher| bencher.iter(|| isa.extent(black_box(&x))));
    group.bench_function("quantize", |bencher| {
        bencher.iter(|| isa.quantize(black_box(&x), same, how, &mut codes));
    });
    group.bench_function("quantize and report", |bencher| {
        bencher.iter(|| {
            let mut lanes = LaneSums::default();
            isa.encode(black_box(&x), same, how, &mut codes, &mut lanes);
            lanes.total()
        });
    });
    group.bench_function("dequantize", |bencher| {
        bencher.iter(|| isa.dequantize(black_box(&codes), same, Stores::Streaming, &mut restored));
    });
    group.bench_function("copy of f32", |bencher| {
        bencher.iter(|| restored.copy_from_slice(black_box(&x)));
    });
    group.finish();
}

fn ranges(criterion: &mut Criterion) {
    let x = weights();
    let slice = range::Slice { values: &x, extent: scalar::extent(&x), line: COLUMNS };
    let mut group = criterion.benchmark_group("range of 64 MiB, all threads");
    group.throughput(Throughput::Bytes(4 * x.len() as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for method in [
        RangeMethod::Percentile(99.9),
        RangeMethod::Mse,
        RangeMethod::EntropyOrt,
        RangeMethod::EntropyTensorrt,
        RangeMethod::CrossEntropy { axis: -1 },
    ] {
        group.bench_function(method.word().name(), |bencher| {
            bencher.iter(|| {
                range::find(&method, black_box(slice), &NUMERICS, &Task::new(Isa::best()))
            });
        });
    }
    group.finish();
}

fn given() -> RangeMethod {
    RangeMethod::Given { scale: vec![0.002], zero_point: Vec::new() }
}

fn tensors(criterion: &mut Criterion) {
    let shape = Shape::new(vec![ROWS, COLUMNS]).expect("a valid shape");
    let tensor = Tensor::from_elements(DType::F32, shape, &weights()).expect("elements of a shape");
    let mut group = criterion.benchmark_group("range, codes and report of 64 MiB, all threads");
    group.throughput(Throughput::Bytes(4 * (ROWS * COLUMNS) as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let tensor_wide = Granularity::Tensor;
    for (name, scheme) in [
        ("given, tensor", scheme(given(), tensor_wide)),
        ("given, channel 0", scheme(given(), Granularity::Channel { axis: 0 })),
        ("given, channel 1", scheme(given(), Granularity::Channel { axis: 1 })),
        ("given, group 128", scheme(given(), Granularity::Group { axis: 1, size: 128 })),
        ("given, group 32", scheme(given(), Granularity::Group { axis: 1, size: 32 })),
        ("given, block 128", scheme(given(), Granularity::Block { shape: [128, 128] })),
        ("min_max, tensor", scheme(RangeMethod::MinMax, tensor_wide)),
        ("min_max, channel 0", scheme(RangeMethod::MinMax, Granularity::Channel { axis: 0 })),
        ("min_max, channel 1", scheme(RangeMethod::MinMax, Granularity::Channel { axis: 1 })),
        (
            "min_max, group 128",
            scheme(RangeMethod::MinMax, Granularity::Group { axis: 1, size: 128 }),
        ),
        (
            "min_max, group 32",
            scheme(RangeMethod::MinMax, Granularity::Group { axis: 1, size: 32 }),
        ),
        (
            "min_max, block 128",
            scheme(RangeMethod::MinMax, Granularity::Block { shape: [128, 128] }),
        ),
        (
            "percentile, channel 0",
            scheme(RangeMethod::Percentile(99.9), Granularity::Channel { axis: 0 }),
        ),
        ("mse, group 128", scheme(RangeMethod::Mse, Granularity::Group { axis: 1, size: 128 })),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(scheme.quantize(&tensor, false, &Task::new(Isa::best()))));
        });
    }
    group.finish();
}

criterion_group!(benches, kernels, streaming, ranges, tensors);
criterion_main!(benches);

//! The stages between decoding and encoding, on both sides of a request:
//! range, quantize, report, dequantize. In bytes of the f32 tensor.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantd::kernels::scalar::{self, Affine, CodeRange, Params, Rounding};
use quantd::quant::Cancel;
use quantd::quant::params::{Numerics, Profile};
use quantd::quant::quantize::quantize;
use quantd::quant::range;
use quantd::quant::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};
use quantd::tensor::{DType, Shape, Tensor};

const ROWS: usize = 1024;
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

fn scheme(range: RangeMethod, granularity: Granularity) -> Scheme {
    let numerics = Numerics {
        profile: Profile::Onnx,
        bits: 8,
        signed: true,
        symmetric: true,
        restricted: true,
    };
    Scheme { numerics, granularity, range, nan: NanPolicy::Refuse, packed: false }
}

fn kernels(criterion: &mut Criterion) {
    let x = &weights()[..CHUNK];
    let params = Params::Same(Affine { scale: 0.001_f32, zero_point: 0 });
    let codes_in_use = CodeRange { min: -127, max: 127 };
    let mut codes = vec![0_i8; CHUNK];
    let mut restored = vec![0.0_f32; CHUNK];
    let mut group = criterion.benchmark_group("one thread, in cache");
    group.throughput(Throughput::Bytes(4 * CHUNK as u64));
    group.bench_function("extent", |bencher| bencher.iter(|| scalar::extent(black_box(x))));
    for (name, rounding) in [
        ("quantize onnx", Rounding::DivideEven),
        ("quantize torch", Rounding::ReciprocalEven),
        ("quantize compressed-tensors", Rounding::ZeroPointFirst),
        ("quantize tflite", Rounding::DivideAway),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                scalar::quantize(black_box(x), params, codes_in_use, rounding, &mut codes)
            });
        });
    }
    group.bench_function("report", |bencher| {
        bencher.iter(|| scalar::measure(black_box(x), params, codes_in_use, Rounding::DivideEven));
    });
    group.bench_function("dequantize", |bencher| {
        bencher.iter(|| scalar::dequantize(black_box(&codes), params, &mut restored));
    });
    group.finish();
}

fn ranges(criterion: &mut Criterion) {
    let x = weights();
    let slice = range::Slice { values: &x, extent: scalar::extent(&x), line: COLUMNS };
    let numerics = scheme(RangeMethod::MinMax, Granularity::Tensor).numerics;
    let mut group = criterion.benchmark_group("range of 16 MiB, all threads");
    group.throughput(Throughput::Bytes(4 * x.len() as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for method in [
        RangeMethod::Percentile(99.9),
        RangeMethod::Mse,
        RangeMethod::EntropyOrt,
        RangeMethod::EntropyTensorrt,
        RangeMethod::CrossEntropy { axis: -1 },
    ] {
        group.bench_function(method.name(), |bencher| {
            bencher.iter(|| range::find(&method, black_box(slice), &numerics, &Cancel::default()));
        });
    }
    group.finish();
}

fn tensors(criterion: &mut Criterion) {
    let shape = Shape::new(vec![ROWS, COLUMNS]).expect("a valid shape");
    let tensor = Tensor::from_elements(DType::F32, shape, &weights()).expect("elements of a shape");
    let mut group = criterion.benchmark_group("range, codes and report of 16 MiB, all threads");
    group.throughput(Throughput::Bytes(4 * (ROWS * COLUMNS) as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let tensor_wide = Granularity::Tensor;
    for (name, scheme) in [
        ("min_max, tensor", scheme(RangeMethod::MinMax, tensor_wide)),
        ("min_max, channel 0", scheme(RangeMethod::MinMax, Granularity::Channel { axis: 0 })),
        ("min_max, channel 1", scheme(RangeMethod::MinMax, Granularity::Channel { axis: 1 })),
        (
            "min_max, group 128",
            scheme(RangeMethod::MinMax, Granularity::Group { axis: 1, size: 128 }),
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
            bencher.iter(|| black_box(quantize(&tensor, &scheme, false, &Cancel::default())));
        });
    }
    group.finish();
}

criterion_group!(benches, kernels, ranges, tensors);
criterion_main!(benches);

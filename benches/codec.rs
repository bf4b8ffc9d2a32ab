//! Text in and out: bytes of JSON per second and core.

#![expect(clippy::cast_possible_truncation, reason = "f32 test data is made from f64")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quantd_codec::json::{Text, read_tensor, write_tensor};
use quantd_codec::{CodecError, Limits};
use quantd_core::tensor::{DType, Shape, Tensor};

const COUNT: usize = 1 << 18;

/// Bits of a small generator: the same numbers in every run.
fn bits() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// Numbers in (-1, 1).
fn reals() -> impl Iterator<Item = f64> {
    bits().map(|bits| (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0).take(COUNT)
}

fn array(numbers: impl Iterator<Item = String>) -> String {
    format!("[{}]", numbers.collect::<Vec<_>>().join(", "))
}

fn read(text: &[u8], dtype: DType) -> Result<Tensor, CodecError> {
    read_tensor(text, dtype, None, "/data", (&Limits::default(), &mut |_| Ok(())))
}

/// The pieces of the text of a tensor.
fn write(tensor: &Tensor) -> Vec<bytes::Bytes> {
    let mut room = |_| Ok(());
    let mut text = Text::new(&mut room);
    write_tensor(&mut text, tensor).expect("there is room");
    text.finish()
}

fn bench_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let texts = [
        (
            "f32 as f64 repr",
            DType::F32,
            array(reals().map(|x| format!("{:?}", f64::from(x as f32)))),
        ),
        ("f64 of 17 digits", DType::F64, array(reals().map(|x| format!("{x:.17}")))),
        ("f32 of 4 decimals", DType::F32, array(reals().map(|x| format!("{x:.4}")))),
        ("bf16 of 4 decimals", DType::BF16, array(reals().map(|x| format!("{x:.4}")))),
        ("u8", DType::U8, array(bits().take(COUNT).map(|x| (x >> 56).to_string()))),
    ];
    for (name, dtype, text) in &texts {
        let parse = || read(text.as_bytes(), *dtype);
        assert_eq!(parse().map(|tensor| tensor.shape().len()), Ok(COUNT), "{name}");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(parse())));
    }
    group.finish();
}

fn bench_write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    let codes: Vec<u64> = bits().take(COUNT).collect();
    let shape = Shape::new(vec![COUNT / 1024, 1024]).expect("a valid shape");
    for dtype in [DType::I8, DType::U8, DType::I16, DType::I32, DType::F32, DType::F64] {
        let bytes: Vec<u8> = if dtype == DType::F32 {
            reals().flat_map(|x| (x as f32).to_le_bytes()).collect()
        } else if dtype == DType::F64 {
            reals().flat_map(f64::to_le_bytes).collect()
        } else {
            codes.iter().flat_map(|x| x.to_le_bytes()).take(COUNT * dtype.size()).collect()
        };
        let buffer = std::sync::Arc::new(quantd_core::tensor::Buffer::copy_of(&bytes));
        let tensor =
            Tensor::view(dtype, shape.clone(), buffer, 0).expect("the bytes fill the shape");
        let out = write(&tensor).concat();
        let back = read(&out, dtype);
        assert_eq!(back.expect("what was written is read").bytes(), tensor.bytes(), "{dtype}");
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(dtype.name(), |bencher| {
            bencher.iter(|| black_box(write(&tensor)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench_read, bench_write);
criterion_main!(benches);

//! Products of codes of any shape, sign and zero point are the plain sums, or are refused.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use quantd_core::Task;
use quantd_core::format::integer::Stated;
use quantd_core::matmul::{Form, Operand, Product, matmul};
use quantd_core::scheme::Granularity;
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_kernels::Isa;

#[derive(Arbitrary, Debug)]
struct Input {
    m: u8,
    k: u8,
    n: u8,
    /// Of A and B: signed codes, a zero point for each row or column.
    kinds: [(bool, bool); 2],
    transpose_b: bool,
    /// Whether the model of the tile unit multiplies.
    tiles: bool,
}

/// An operand as the product takes it, and its codes less their zero points.
struct Side {
    codes: Tensor,
    zero_points: Tensor,
    granularity: Granularity,
    differences: Vec<i64>,
}

fn side(
    bytes: &mut Unstructured<'_>,
    dims: [usize; 2],
    axis: usize,
    (signed, each): (bool, bool),
) -> Option<Side> {
    let dtype = if signed { DType::I8 } else { DType::U8 };
    let mut take = |count: usize| -> Vec<u8> {
        (0..count).map(|_| bytes.arbitrary().unwrap_or(255)).collect()
    };
    let (codes, zero_points) = (take(dims[0] * dims[1]), take(if each { dims[axis] } else { 1 }));
    let real = |byte: u8| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
    let zero = |i: usize| {
        let place = [i / dims[1].max(1), i % dims[1].max(1)][axis];
        real(zero_points[if each { place } else { 0 }])
    };
    let differences = codes.iter().enumerate().map(|(i, &code)| real(code) - zero(i)).collect();
    Some(Side {
        differences,
        codes: Tensor::from_elements(dtype, Shape::new(dims.to_vec()).ok()?, &codes)?,
        zero_points: Tensor::from_elements(
            dtype,
            Shape::vector(zero_points.len()).ok()?,
            &zero_points,
        )?,
        granularity: if each {
            Granularity::Channel { axis: axis as i64 }
        } else {
            Granularity::Tensor
        },
    })
}

fn operand(side: &Side) -> Operand<'_> {
    Operand::Coded {
        codes: &side.codes,
        scale: None,
        zero_point: Some(&side.zero_points),
        granularity: side.granularity,
        stated: Stated::default(),
    }
}

fn check(data: &[u8]) -> Option<()> {
    let mut bytes = Unstructured::new(data);
    let Input { m, k, n, kinds, transpose_b, tiles } = bytes.arbitrary().ok()?;
    let [m, k, n] = [m, k, n].map(usize::from);
    let m = m % 40;
    let a = side(&mut bytes, [m, k], 0, kinds[0])?;
    let (dims, axis) = if transpose_b { ([n, k], 0) } else { ([k, n], 1) };
    let b = side(&mut bytes, dims, axis, kinds[1])?;
    let product = Product {
        a: operand(&a),
        b: operand(&b),
        transpose_b,
        bias: None,
        relu: false,
        form: Form::I32,
        report: false,
    };
    // At such a K nothing can overflow, and everything fits together.
    let isa = if tiles { Isa::best().with_tile_model() } else { Isa::best() };
    let made = matmul(&product, &Task::new(isa)).expect("a product that can be made");
    let sums = made.result.elements::<i32>();
    assert_eq!(sums.len(), m * n);
    for (i, &sum) in sums.iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let right = |k_: usize| if transpose_b { column * k + k_ } else { k_ * n + column };
        let plain: i64 =
            (0..k).map(|k_| a.differences[row * k + k_] * b.differences[right(k_)]).sum();
        assert_eq!(i64::from(sum), plain, "row {row}, column {column}");
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    check(data);
});

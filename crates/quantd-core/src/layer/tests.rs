use super::*;

use crate::Task;
use crate::format::INTEGER;
use crate::format::integer::Stated;
use crate::matmul::Operand;
use crate::params::{Numerics, Profile};
use crate::scheme::{Coding, Granularity, NanPolicy, RangeMethod, Scheme};
use crate::tensor::{DType, Reals};
use quantd_kernels::Isa;
use quantd_kernels::scalar::QuantParams;

fn tensor(dims: &[usize], x: &[f32]) -> Tensor {
    Tensor::from_elements(DType::F32, Shape::new(dims.to_vec()).unwrap(), x).unwrap()
}

/// Numbers of a linear congruential generator, in -1..1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn numerics(bits: u32, signed: bool, symmetric: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed, symmetric, restricted: false }
}

fn scheme(numerics: Numerics, granularity: Granularity) -> Scheme {
    let (range, nan) = (RangeMethod::MinMax, NanPolicy::Refuse);
    Scheme {
        format: &INTEGER,
        coding: Coding::Integer(numerics),
        granularity,
        range,
        nan,
        packed: false,
    }
}

fn weight(order: Order, w: &Tensor, scheme: &Scheme) -> Weight {
    let operand = Operand::Real { tensor: w, scheme };
    Weight::new(&operand, order, &Task::default()).unwrap()
}

fn fixed(numerics: Numerics, scale: f32, zero_point: i32) -> Input {
    let parameters = Parameters::Static(QuantParams { scale, zero_point });
    Input { numerics, parameters, nan: NanPolicy::Refuse }
}

fn definition(geometry: Geometry, weight: Weight, input: Input) -> Definition {
    let (output, activation) = (Output::F32, Activation::None);
    Definition { geometry, weight, bias: None, float: None, input, output, activation }
}

fn run(layer: &Layer, x: &Tensor) -> Vec<f32> {
    let y = layer.forward(x, &Task::default()).unwrap();
    super::forward::reals(&y).into_owned()
}

fn codes(w: &Weight) -> Vec<i32> {
    let bytes = w.codes().bytes().iter();
    bytes.map(|&b| if w.is_unsigned() { b.into() } else { b.cast_signed().into() }).collect()
}

/// `clamp(rne(x / scale) + zero)`, the ONNX formula in plain code.
#[expect(clippy::cast_possible_truncation, reason = "a small integer")]
fn quantized(x: f32, affine: QuantParams<f32>, numerics: &Numerics) -> i32 {
    let range = numerics.code_range();
    ((x / affine.scale).round_ties_even() as i32 + affine.zero_point).clamp(range.min, range.max)
}

#[test]
fn a_linear_layer_is_the_plain_formula_for_all_signs() {
    let (m, n, k) = (5, 19, 37);
    let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
    let bias = numbers(n, 3);
    for (own, other) in (0..16).map(|i| ((i & 1 != 0, i & 2 != 0), (i & 4 != 0, i & 8 != 0))) {
        let own = numerics(8, own.0, own.1);
        for granularity in [Granularity::Tensor, Granularity::Channel { axis: 0 }] {
            let w = weight(Order::OutIn, &tensor(&[n, k], &w), &scheme(own, granularity));
            let other = numerics(8, other.0, other.1);
            let zero = if other.symmetric { other.middle() } else { other.middle() + 3 };
            let affine = QuantParams { scale: 0.011, zero_point: zero };
            let mut definition =
                definition(Geometry::Linear, w.clone(), fixed(other, affine.scale, zero));
            definition.bias = Some(bias.clone());
            definition.activation = Activation::Relu;
            let layer = Layer::new(&definition, &Task::default()).unwrap();
            let made = run(&layer, &tensor(&[m, k], &x));
            let codes = codes(&w);
            let pick = |len: usize, j: usize| if len == 1 { 0 } else { j };
            for (i, made) in made.iter().enumerate() {
                let (row, j) = (i / n, i % n);
                let zero_w = w.zero_points()[pick(w.zero_points().len(), j)];
                let sum: i32 = (0..k)
                    .map(|l| {
                        let a = quantized(x[row * k + l], affine, &other) - zero;
                        a * (codes[j * k + l] - zero_w)
                    })
                    .sum();
                let scale = affine.scale * w.scales()[pick(w.scales().len(), j)];
                let expect = (sum as f32 * scale + bias[j]).max(0.0);
                assert_eq!(made.to_bits(), expect.to_bits(), "{own:?} {other:?} {i}");
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_other_rows_unless_quantized_together() {
    let (n, k) = (33, 70);
    let w = tensor(&[n, k], &numbers(n * k, 4));
    let channel = scheme(numerics(8, true, true), Granularity::Channel { axis: 0 });
    let group = scheme(numerics(4, true, true), Granularity::Group { axis: -1, size: 32 });
    let mut x = numbers(9 * k, 5);
    x[..k].iter_mut().for_each(|x| *x *= 50.0);
    for own in [channel, group] {
        let w = weight(Order::OutIn, &w, &own);
        for (parameters, independent) in [
            (Parameters::Token, true),
            (Parameters::Static(QuantParams { scale: 0.01, zero_point: 128 }), true),
            (Parameters::Tensor, false),
        ] {
            let numerics = numerics(8, false, false);
            let input = Input { numerics, parameters, nan: NanPolicy::Refuse };
            let mut definition = definition(Geometry::Linear, w.clone(), input);
            definition.activation = Activation::Gelu;
            let layer = Layer::new(&definition, &Task::default()).unwrap();
            assert_eq!(layer.is_row_independent(), independent);
            let all = run(&layer, &tensor(&[9, k], &x));
            let each: Vec<f32> = x.chunks(k).flat_map(|x| run(&layer, &tensor(&[k], x))).collect();
            assert_eq!(all == each, independent, "{parameters:?}");
        }
    }
}

#[test]
fn groups_along_k_are_the_plain_formula() {
    let (m, n, k, size) = (3, 18, 70, 32);
    let (x, w) = (numbers(m * k, 6), numbers(n * k, 7));
    for signed in [true, false] {
        let own = scheme(numerics(4, signed, signed), Granularity::Group { axis: 1, size });
        let w_rows = weight(Order::OutIn, &tensor(&[n, k], &w), &own);
        let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
        let other = Scheme { granularity: Granularity::Group { axis: 0, size }, ..own.clone() };
        let w_columns = weight(Order::InOut, &tensor(&[k, n], &turned), &other);
        assert_eq!(codes(&w_rows), codes(&w_columns));
        assert_eq!(w_rows.scales(), w_columns.scales());
        assert_eq!(w_rows.zero_points(), w_columns.zero_points());
        let input = numerics(8, true, true);
        let affine = QuantParams { scale: 0.008, zero_point: 0 };
        let layer = definition(Geometry::Linear, w_rows.clone(), fixed(input, 0.008, 0));
        let made = run(&Layer::new(&layer, &Task::default()).unwrap(), &tensor(&[m, k], &x));
        let (codes, groups) = (codes(&w_rows), k.div_ceil(size));
        for (i, made) in made.iter().enumerate() {
            let (row, j) = (i / n, i % n);
            let total = (0..groups).fold(0.0_f32, |total, g| {
                let zero = w_rows.zero_points()[j * groups + g];
                let sum: i32 = (g * size..k.min((g + 1) * size))
                    .map(|l| quantized(x[row * k + l], affine, &input) * (codes[j * k + l] - zero))
                    .sum();
                total + sum as f32 * (affine.scale * w_rows.scales()[j * groups + g])
            });
            assert_eq!(made.to_bits(), total.to_bits(), "{signed} {i}");
        }
    }
}

#[test]
fn a_convolution_is_the_plain_formula() {
    let dims = [2, 4, 7, 6];
    let x = numbers(dims.iter().product(), 8);
    let other = numerics(8, false, false);
    let affine = QuantParams { scale: 0.01, zero_point: 90 };
    for (conv, kernel) in [
        (Conv::PLAIN, [3, 4, 2, 3]),
        (Conv { stride: [2, 1], padding: [1, 2, 0, 1], dilation: [1, 2], groups: 2 }, [4, 2, 3, 3]),
        (Conv { groups: 4, padding: [1; 4], ..Conv::PLAIN }, [8, 1, 3, 3]),
    ] {
        let w = numbers(kernel.iter().product(), 9);
        let own = scheme(numerics(8, true, false), Granularity::Channel { axis: 0 });
        let w = weight(Order::Oihw, &tensor(&kernel, &w), &own);
        let layer = definition(Geometry::Conv(conv), w.clone(), fixed(other, 0.01, 90));
        let layer = Layer::new(&layer, &Task::default()).unwrap();
        let shape = layer.output_shape(&dims).unwrap();
        let made = run(&layer, &tensor(&dims, &x));
        let (codes, k) = (codes(&w), w.depth());
        let &[_, outputs, down, across] = shape.dims() else { panic!("not of images") };
        for (i, made) in made.iter().enumerate() {
            let (image, o) = (i / (outputs * down * across), i / (down * across) % outputs);
            let (y, c) = (i / across % down, i % across);
            let mut sum = 0;
            for l in 0..k {
                let [channel, row, column] =
                    [l / (kernel[2] * kernel[3]), l / kernel[3] % kernel[2], l % kernel[3]];
                let channel = o / (outputs / conv.groups) * kernel[1] + channel;
                let at = |i: usize, step: usize, part: usize, dilation: usize, pad: usize| {
                    (i * step + part * dilation).checked_sub(pad)
                };
                let row = at(y, conv.stride[0], row, conv.dilation[0], conv.padding[0]);
                let column = at(c, conv.stride[1], column, conv.dilation[1], conv.padding[1]);
                let (Some(row), Some(column)) = (row, column) else { continue };
                if row < dims[2] && column < dims[3] {
                    let x = x[((image * dims[1] + channel) * dims[2] + row) * dims[3] + column];
                    let code = quantized(x, affine, &other) - affine.zero_point;
                    sum += code * (codes[o * k + l] - w.zero_points()[o]);
                }
            }
            let expect = sum as f32 * (affine.scale * w.scales()[o]);
            assert_eq!(made.to_bits(), expect.to_bits(), "{conv:?} {i}");
        }
    }
}

#[test]
fn images_do_not_depend_on_other_images() {
    let own = scheme(numerics(8, true, true), Granularity::Tensor);
    let w = weight(Order::Oihw, &tensor(&[2, 3, 3, 3], &numbers(54, 1)), &own);
    let mut x = numbers(4 * 3 * 25, 2);
    x[..75].iter_mut().for_each(|x| *x *= 9.0);
    let input = Input {
        numerics: numerics(8, true, false),
        parameters: Parameters::Token,
        nan: NanPolicy::Refuse,
    };
    let conv = Conv { padding: [1; 4], ..Conv::PLAIN };
    let layer = Layer::new(&definition(Geometry::Conv(conv), w, input), &Task::default()).unwrap();
    let all = run(&layer, &tensor(&[4, 3, 5, 5], &x));
    let each = x.chunks(75).flat_map(|x| run(&layer, &tensor(&[1, 3, 5, 5], x)));
    assert_eq!(all, each.collect::<Vec<_>>());
}

#[test]
fn a_chain_is_its_layers_one_by_one() {
    let own = scheme(numerics(8, true, true), Granularity::Channel { axis: 0 });
    let unsigned = numerics(8, false, false);
    let make = |n: usize, k: usize, zero: i32, output: Output, activation: Activation| {
        let w = weight(Order::OutIn, &tensor(&[n, k], &numbers(n * k, 3)), &own);
        let mut layer = definition(Geometry::Linear, w, fixed(unsigned, 0.02, zero));
        (layer.output, layer.activation) = (output, activation);
        layer.bias = Some(numbers(n, 4));
        Layer::new(&layer, &Task::default()).unwrap()
    };
    let codes = |zero_point| Output::Codes {
        numerics: unsigned,
        affine: QuantParams { scale: 0.02, zero_point },
        requantization: None,
    };
    let first = make(20, 12, 100, codes(7), Activation::Relu);
    let same = make(16, 20, 7, codes(50), Activation::Gelu);
    let last = make(5, 16, 51, Output::F32, Activation::None);
    assert!(passes_codes(&first, &same) && !passes_codes(&same, &last));
    assert!(!passes_codes(&last, &first));
    let task = Task::default();
    let x = tensor(&[3, 12], &numbers(36, 5));
    let chain = chain_forward(&[&first, &same, &last], &x, &task).unwrap();
    let mut y = same.forward(&first.forward(&x, &task).unwrap(), &task).unwrap();
    assert_eq!(y.dtype(), DType::U8);
    let Reals::F32(codes) = y.reals() else { panic!("not f32") };
    let back: Vec<f32> = codes.iter().map(|code| (code - 50.0) * 0.02).collect();
    y = last.forward(&tensor(&[3, 16], &back), &task).unwrap();
    assert_eq!(chain.bytes(), y.bytes());
    let error = chain_forward(&[&first, &last], &x, &task).unwrap_err();
    assert_eq!((error.link, error.error.field), (1, "shape"));
}

#[test]
fn codes_and_the_numbers_they_stand_for_give_the_same() {
    let w = tensor(&[7, 9], &numbers(63, 6));
    let w = weight(Order::OutIn, &w, &scheme(numerics(8, true, true), Granularity::Tensor));
    let signed = numerics(8, true, false);
    let layer =
        Layer::new(&definition(Geometry::Linear, w, fixed(signed, 0.25, -5)), &Task::default())
            .unwrap();
    let codes: Vec<i8> = (-9..9).map(|i| i * 14).collect();
    let x: Vec<f32> = codes.iter().map(|&code| (f32::from(code) + 5.0) * 0.25).collect();
    let codes = Tensor::from_elements(DType::I8, Shape::new(vec![2, 9]).unwrap(), &codes).unwrap();
    assert_eq!(run(&layer, &codes), run(&layer, &tensor(&[2, 9], &x)));
    let unsigned = Tensor::from_elements(DType::U8, Shape::vector(9).unwrap(), &[0_u8; 9]);
    let error = layer.forward(&unsigned.unwrap(), &Task::default()).unwrap_err();
    assert_eq!(error.field, "dtype");
}

#[test]
fn the_error_functions_are_those_of_published_tables() {
    // Abramowitz and Stegun, table 7.1: erf(1) and erf(0.5); tanh(1) from table 4.15.
    let apply = |function: Activation, x: f32| {
        let mut made = [x];
        function.apply(Isa::best(), &mut made);
        made[0]
    };
    let root = std::f32::consts::SQRT_2;
    for (x, erf) in [(1.0, 0.842_700_8), (0.5, 0.520_499_9)] {
        let x: f32 = x * root;
        let expect = 0.5 * x * (1.0 + erf);
        assert!((apply(Activation::Gelu, x) - expect).abs() < 1e-6, "{x}");
        let expect = -0.5 * x * (1.0 - erf);
        assert!((apply(Activation::Gelu, -x) - expect).abs() < 1e-6, "-{x}");
    }
    // Where sqrt(2 / pi) (x + 0.044715 x^3) is 1.
    let x = 1.179_870_2_f32;
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    assert!((inner - 1.0).abs() < 1e-6, "{inner}");
    let expect = 0.5 * x * (1.0 + 0.761_594_2);
    assert!((apply(Activation::GeluTanh, x) - expect).abs() < 1e-6);
    assert!(apply(Activation::Gelu, f32::NAN).is_nan());
}

#[test]
fn what_does_not_fit_is_named() {
    let w = tensor(&[2, 3], &numbers(6, 1));
    let per_tensor = scheme(numerics(8, true, true), Granularity::Tensor);
    let weight = weight(Order::OutIn, &w, &per_tensor);
    let input = fixed(numerics(8, false, false), 0.1, 0);
    let good = definition(Geometry::Linear, weight.clone(), input);
    let field =
        |definition: &Definition| Layer::new(definition, &Task::default()).unwrap_err().field;
    assert_eq!(field(&Definition { bias: Some(vec![0.0]), ..good.clone() }), "bias");
    assert_eq!(field(&Definition { bias: Some(vec![0.0, f32::NAN]), ..good.clone() }), "bias");
    let output = Output::Codes {
        numerics: numerics(8, false, false),
        affine: QuantParams { scale: 0.1, zero_point: 0 },
        requantization: Some(Requantization::Gemmlowp),
    };
    let smooth = Definition { output, activation: Activation::Gelu, ..good.clone() };
    assert_eq!(field(&smooth), "requantize");
    let large = Definition { output, bias: Some(vec![1e9, 0.0]), ..good.clone() };
    assert_eq!(field(&large), "bias");
    let layer = Layer::new(&good, &Task::default()).unwrap();
    let forward = |x: &Tensor| layer.forward(x, &Task::default()).unwrap_err().to_string();
    assert_eq!(forward(&tensor(&[4], &[0.0; 4])), "shape: [4] does not end in the K of the layer");
    assert_eq!(forward(&tensor(&[3], &[0.0, f32::NAN, 0.0])), "data: element 1 is NaN");
    let scalar = tensor(&[], &[1.0]);
    assert_eq!(forward(&scalar), "shape: [] does not end in the K of the layer");
    let float = layer.float_forward(&tensor(&[3], &[0.0; 3]), &Task::default());
    assert_eq!(float.unwrap_err().field, "keep_float");
    let conv = Conv { groups: 3, ..Conv::PLAIN };
    let kernels = self::weight(Order::Oihw, &tensor(&[2, 1, 3, 3], &numbers(18, 1)), &per_tensor);
    assert_eq!(field(&definition(Geometry::Conv(conv), kernels.clone(), input)), "groups");
    let layer =
        Layer::new(&definition(Geometry::Conv(Conv::PLAIN), kernels, input), &Task::default())
            .unwrap();
    for dims in [&[1, 1, 2, 3][..], &[1, 2, 3, 3], &[1, 3, 3]] {
        assert_eq!(layer.output_shape(dims).unwrap_err().field, "shape", "{dims:?}");
    }
}

#[test]
fn codes_of_weights_are_checked() {
    let refuse = |codes: &[i8], scale: &[f32], zero: &[i32], bits, granularity| {
        let codes =
            Tensor::from_elements(DType::I8, Shape::new(vec![2, 2]).unwrap(), codes).unwrap();
        let scale = tensor(&[scale.len()], scale);
        let zero =
            Tensor::from_elements(DType::I32, Shape::vector(zero.len()).unwrap(), zero).unwrap();
        let operand = Operand::Coded {
            codes: &codes,
            scale: Some(&scale),
            zero_point: Some(&zero),
            granularity,
            stated: Stated { bits: Some(bits), signed: None },
        };
        Weight::new(&operand, Order::OutIn, &Task::default()).map(drop).map_err(|e| e.field)
    };
    let (all, rows) = (Granularity::Tensor, Granularity::Channel { axis: 0 });
    let group = Granularity::Group { axis: 1, size: 1 };
    assert_eq!(refuse(&[1, 2, 3, -8], &[0.1], &[0], 4, all), Ok(()));
    assert_eq!(refuse(&[1, 2, 3, 8], &[0.1], &[0], 4, all), Err("codes"));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[8], 4, all), Err("zero_point"));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[128], 8, all), Err("zero_point"));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(refuse(&[1, 2, 3, 4], &[scale], &[0], 8, all), Err("scale"));
    }
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1, 0.2, 0.3], &[0], 8, rows), Err("scale"));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[0, 0, 0], 8, rows), Err("zero_point"));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[0], 8, group), Err("bits"));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1; 4], &[0; 4], 4, group), Ok(()));
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[0], 8, Granularity::Token), Ok(()));
    let channel = Granularity::Channel { axis: 1 };
    assert_eq!(refuse(&[1, 2, 3, 4], &[0.1], &[0], 8, channel), Err("granularity"));
}

//! Whole runs of linear layers as the service does them, from real rows to the
//! result, beside the same layer in real numbers: `cargo bench --bench layers`.
//! `benches/compare` compares them with ONNX Runtime.

#[path = "support/harness.rs"]
mod harness;
#[path = "support/limits.rs"]
mod limits;

use std::hint::black_box;

use harness::{Call, Meter, Suite, reals};
use quantd_core::Task;
use quantd_core::format::INTEGER;
use quantd_core::layer::{
    Activation, Definition, Geometry, Input, Layer, Order, Output, Parameters, Weight,
};
use quantd_core::matmul::Operand;
use quantd_core::params::{Numerics, Profile};
use quantd_core::scheme::{Coding, Granularity, NanPolicy, RangeMethod, Scheme};
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_kernels::Isa;
use quantd_kernels::scalar::QuantParams;

/// Operations: bits of the weights and their group, the input, what follows.
const OPS: [(&str, u32, Option<usize>, Parameters, Activation); 7] = [
    ("layer-dynamic", 8, None, Parameters::Tensor, Activation::None),
    ("layer-per-token", 8, None, Parameters::Token, Activation::None),
    ("layer-static", 8, None, STATIC, Activation::Relu),
    ("layer-gelu", 8, None, Parameters::Token, Activation::Gelu),
    ("layer-int4-g32", 4, Some(32), Parameters::Token, Activation::None),
    ("layer-int4-g128", 4, Some(128), Parameters::Token, Activation::None),
    ("layer-float", 8, None, Parameters::Token, Activation::None),
];
const STATIC: Parameters = Parameters::Static(QuantParams { scale: 0.03, zero_point: 128 });

struct Layers;

fn numerics(bits: u32, signed: bool) -> Numerics {
    Numerics { profile: Profile::Onnx, bits, signed, symmetric: signed, restricted: false }
}

fn tensor(rows: usize, columns: usize) -> Result<Tensor, String> {
    let shape = Shape::new(vec![rows, columns]).map_err(|error| error.to_string())?;
    let x = reals(rows * columns);
    Tensor::from_elements(DType::F32, shape, &x).ok_or_else(|| "too large".to_owned())
}

impl Suite for Layers {
    fn ops(&self) -> Vec<String> {
        OPS.iter().map(|(name, ..)| (*name).to_owned()).collect()
    }

    fn shapes(&self) -> Vec<String> {
        ["1x768x3072", "128x768x3072"].map(str::to_owned).into()
    }

    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String> {
        let &[m, k, n] = shape else { return Err("a shape is MxKxN".to_owned()) };
        let found = OPS.into_iter().find(|(name, ..)| *name == op);
        let (_, bits, group, parameters, activation) =
            found.ok_or_else(|| format!("no operation {op}"))?;
        let granularity = match group {
            Some(size) => Granularity::Group { axis: 1, size },
            None => Granularity::Channel { axis: 0 },
        };
        let (range, nan) = (RangeMethod::MinMax, NanPolicy::Refuse);
        let scheme = Scheme {
            format: &INTEGER,
            coding: Coding::Integer(numerics(bits, true)),
            granularity,
            range,
            nan,
            packed: false,
        };
        let (weight, x) = (tensor(n, k)?, tensor(m, k)?);
        let operand = Operand::Real { tensor: &weight, scheme: &scheme };
        let (task, error) = (Task::new(isa), |error| format!("{error:?}"));
        let definition = Definition {
            geometry: Geometry::Linear,
            weight: Weight::new(&operand, Order::OutIn, &task).map_err(error)?,
            bias: Some(reals(n)),
            float: Some(weight.clone()),
            input: Input { numerics: numerics(8, false), parameters, nan },
            output: Output::F32,
            activation,
        };
        let layer = Layer::new(&definition, &Task::new(isa)).map_err(error)?;
        let float = op == "layer-float";
        layer.forward(&x, &task).map_err(error)?;
        Ok(Box::new(move || {
            let made =
                if float { layer.float_forward(&x, &task) } else { layer.forward(&x, &task) };
            drop(black_box(made));
        }))
    }

    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String> {
        let &[m, k, n] = shape else { return Err("a shape is MxKxN".to_owned()) };
        let work = limits::Work { products: m * k * n, numbers: k * n / size_of::<f32>() };
        limits::seconds(op, work, meter)
    }

    fn line(&self, _: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String {
        let rate = 2e-9 * shape.iter().product::<usize>() as f64 / seconds;
        let mut line = format!("{:.1} us, {rate:.1} GOPS", seconds * 1e6);
        if let Ok(peak) = self.limit("limit-peak", shape, meter) {
            line += &format!(", {:.0} % of the peak of the product", 100.0 * peak / seconds);
        }
        line
    }
}

fn main() {
    harness::run(&Layers);
}

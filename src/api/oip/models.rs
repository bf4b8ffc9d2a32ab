//! The built-in models: one for each preset and direction, and the product.

use std::sync::LazyLock;

use crate::api::presets::{self, PRESETS};
use quantd_core::format::PartShape;
use quantd_core::format::integer::ZERO_POINT;
use quantd_core::scheme::{Granularity, Scheme};
use quantd_core::tensor::{DType, Shape};

use super::builtin::input_name;

/// The version of every built-in model.
pub const VERSION: u64 = 1;

/// What a built-in model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Quantizes by the preset of that name.
    Quantize(&'static str),
    /// Restores codes that the preset of that name made.
    Dequantize(&'static str),
    /// Multiplies in 8-bit integers.
    Matmul,
}

/// A tensor that a model takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Type of its elements by default.
    pub dtype: DType,
    /// Its dimensions; -1 where any size will do.
    pub dims: Vec<i64>,
}

/// A built-in model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it does.
    pub operation: Operation,
    /// What it needs.
    pub inputs: Vec<Spec>,
    /// What it gives.
    pub outputs: Vec<Spec>,
}

/// Every built-in model.
pub static CATALOG: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let schemes = PRESETS.iter().filter_map(|preset| {
        let scheme = presets::find(preset.name)?.resolve().ok()?;
        Some((preset.name, scheme))
    });
    let schemes: Vec<_> = schemes.collect();
    let quantize = schemes.iter().filter_map(|(name, scheme)| quantize(name, scheme));
    let dequantize = schemes.iter().filter_map(|(name, scheme)| dequantize(name, scheme));
    quantize.chain(dequantize).chain([matmul()]).collect()
});

/// The built-in model of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Model> {
    CATALOG.iter().find(|model| model.name == name)
}

fn spec(name: &'static str, dtype: DType, dims: &[i64]) -> Spec {
    Spec { name, dtype, dims: dims.to_vec() }
}

/// Dimensions of the usual tensor: those of any rank are taken.
const fn dims(granularity: Granularity) -> &'static [i64] {
    match granularity {
        Granularity::Tensor => &[-1],
        Granularity::Channel { .. }
        | Granularity::Group { .. }
        | Granularity::Block { .. }
        | Granularity::Token => &[-1, -1],
    }
}

/// The parts of a tensor as models name them.
fn parts(scheme: &Scheme, tensor: &[i64]) -> Option<Vec<Spec>> {
    /// A shape that every format can hold.
    const SIZE: usize = 256;
    let shape = Shape::new(vec![SIZE; tensor.len()]).ok()?;
    let parts = scheme.format.plan(scheme, &shape, DType::F32).ok()?.parts;
    let part = |part: PartShape| Spec {
        name: input_name(part.name),
        dtype: if part.name == ZERO_POINT { DType::I32 } else { part.dtype },
        // One number is a vector, as the protocol's clients expect.
        dims: if part.dims.is_empty() { vec![1] } else { vec![-1; part.dims.len()] },
    };
    Some(parts.into_iter().map(part).collect())
}

fn quantize(preset: &'static str, scheme: &Scheme) -> Option<Model> {
    let tensor = dims(scheme.granularity);
    let mut outputs = parts(scheme, tensor)?;
    outputs.push(spec("metrics", DType::F64, &[-1]));
    let name = format!("quantize_{preset}");
    let inputs = vec![spec("x", DType::F32, tensor)];
    Some(Model { name, operation: Operation::Quantize(preset), inputs, outputs })
}

fn dequantize(preset: &'static str, scheme: &Scheme) -> Option<Model> {
    let tensor = dims(scheme.granularity);
    let inputs = parts(scheme, tensor)?;
    let name = format!("dequantize_{preset}");
    let outputs = vec![spec("x", DType::F32, tensor)];
    Some(Model { name, operation: Operation::Dequantize(preset), inputs, outputs })
}

fn matmul() -> Model {
    Model {
        name: "matmul_int8".to_owned(),
        operation: Operation::Matmul,
        inputs: vec![spec("a", DType::F32, &[-1, -1]), spec("b", DType::F32, &[-1, -1])],
        outputs: vec![spec("y", DType::F32, &[-1, -1])],
    }
}

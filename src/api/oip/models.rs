//! The built-in models: one for each preset and direction, and the product.

use std::sync::LazyLock;

use crate::api::fields::Origin;
use crate::api::presets::{self, PRESETS};
use quantd_core::scheme::{Granularity, Scheme};
use quantd_core::tensor::DType;

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
        let scheme = presets::find(preset.name)?.resolve(&Origin::Query).ok()?;
        Some((preset.name, scheme))
    });
    let schemes: Vec<_> = schemes.collect();
    let quantize = schemes.iter().map(|(name, scheme)| quantize(name, scheme));
    let dequantize = schemes.iter().map(|(name, scheme)| dequantize(name, scheme));
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

/// Dimensions of the tensor and of its scales. Tensors of any rank are taken:
/// these are those of the usual one.
const fn dims(granularity: Granularity) -> (&'static [i64], &'static [i64]) {
    match granularity {
        Granularity::Tensor => (&[-1], &[1]),
        Granularity::Channel { .. } => (&[-1, -1], &[-1]),
        Granularity::Group { .. } | Granularity::Block { .. } | Granularity::Token => {
            (&[-1, -1], &[-1, -1])
        }
    }
}

fn quantize(preset: &'static str, scheme: &Scheme) -> Model {
    let (tensor, scale) = dims(scheme.granularity);
    Model {
        name: format!("quantize_{preset}"),
        operation: Operation::Quantize(preset),
        inputs: vec![spec("x", DType::F32, tensor)],
        outputs: vec![
            spec("q", scheme.numerics.code_type().dtype(), tensor),
            spec("scale", DType::F32, scale),
            spec("zero_point", DType::I32, scale),
            spec("metrics", DType::F64, &[-1]),
        ],
    }
}

fn dequantize(preset: &'static str, scheme: &Scheme) -> Model {
    let (tensor, scale) = dims(scheme.granularity);
    Model {
        name: format!("dequantize_{preset}"),
        operation: Operation::Dequantize(preset),
        inputs: vec![
            spec("q", scheme.numerics.code_type().dtype(), tensor),
            spec("scale", DType::F32, scale),
            spec("zero_point", DType::I32, scale),
        ],
        outputs: vec![spec("x", DType::F32, tensor)],
    }
}

fn matmul() -> Model {
    Model {
        name: "matmul_int8".to_owned(),
        operation: Operation::Matmul,
        inputs: vec![spec("a", DType::F32, &[-1, -1]), spec("b", DType::F32, &[-1, -1])],
        outputs: vec![spec("y", DType::F32, &[-1, -1])],
    }
}

//! The words that options take.

use serde::Serialize;
use utoipa::ToSchema;

/// Element types of tensors. The names that `NumPy`, `PyTorch` and Rust have for them are taken as
/// well: `float32`, `torch.float16`, `<f4`, `bf16`.
#[derive(Serialize, ToSchema)]
pub(in crate::http) enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
}

/// Names of range methods.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum RangeName {
    MinMax,
    Percentile,
    Mse,
    EntropyOrt,
    EntropyTensorrt,
    EntropyModelopt,
    CrossEntropy,
    Explicit,
}

/// Names of granularities.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum GranularityName {
    Tensor,
    Channel,
    Group,
    Block,
    Token,
}

/// Names of profiles.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum ProfileName {
    Onnx,
    Torch,
    CompressedTensors,
    Tflite,
}

/// Names of NaN policies.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum NanName {
    Refuse,
    Zero,
    Min,
    Max,
}

/// Names of common schemes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum PresetName {
    Int8,
    Uint8,
    Int4,
    Uint4,
    Int2,
    Int16,
    Uint16,
    Int8PerChannel,
    Int8PerToken,
    #[serde(rename = "int8_block128")]
    Int8Block128,
    Int4PerChannel,
    #[serde(rename = "int4_g32")]
    Int4G32,
    #[serde(rename = "int4_g128")]
    Int4G128,
    #[serde(rename = "uint4_g128")]
    Uint4G128,
}

/// Names of tensors to try things on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum SampleName {
    Weights,
    Outliers,
    Kernel,
    Activations,
}

/// The tensors of an answer of quantize.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum OutputName {
    Codes,
    Scale,
    ZeroPoint,
}

/// Floating-point types that dequantize writes, by any name that they have.
#[derive(Serialize, ToSchema)]
pub(in crate::http) enum RealDtype {
    F32,
    F64,
    F16,
    BF16,
}

/// Element types of scales, by any name that they have.
#[derive(Serialize, ToSchema)]
pub(in crate::http) enum ScaleDtype {
    F32,
    F64,
}

/// Columns to sort a comparison by.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum SortName {
    Sqnr,
    Bits,
    Mse,
    Cosine,
}

/// Element types of products, by any name that they have.
#[derive(Serialize, ToSchema)]
pub(in crate::http) enum ProductDtype {
    I32,
    F32,
    U8,
    I8,
}

/// Names of definitions of requantization.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum RequantizeName {
    FloatOrt,
    FloatOnnx,
    Gemmlowp,
    SingleRound,
}

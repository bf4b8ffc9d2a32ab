//! Schemas and examples of the `OpenAPI` document. The types here are never
//! made: bodies are decoded and written by `api`, field by field, and the
//! contract tests hold both against one another.
#![expect(dead_code, reason = "the types exist for their schemas")]

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use crate::api::documents::{ReportDoc, SchemeDoc};

use super::problem::Problem;

/// Bytes.
pub(super) struct BinaryBody;

impl PartialSchema for BinaryBody {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .description(Some("Raw bytes of the media type."))
            .into()
    }
}

impl ToSchema for BinaryBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "Binary".into()
    }
}

/// Numbers nested in arrays, one level a dimension; a bare number is a scalar.
/// NaN and infinities are the strings "NaN", "Infinity" and "-Infinity".
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(no_recursion)]
pub(super) enum Numbers {
    /// A number.
    Number(f64),
    /// NaN or an infinity.
    NonFinite(NonFinite),
    /// An array of the same, all of one length.
    Array(Vec<Self>),
}

/// Numbers that JSON has no way to write.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) enum NonFinite {
    /// Not a number.
    NaN,
    /// Positive infinity.
    Infinity,
    /// Negative infinity.
    #[serde(rename = "-Infinity")]
    NegativeInfinity,
}

/// Element types of tensors.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) enum Dtype {
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

/// One number, or arrays of them: one for each slice, in order.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(no_recursion)]
pub(super) enum OneOrMore {
    /// For all slices.
    One(f64),
    /// One a slice.
    More(Vec<Self>),
}

/// Names of range methods.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RangeName {
    MinMax,
    Percentile,
    Mse,
    EntropyOrt,
    EntropyTensorrt,
    CrossEntropy,
    Explicit,
}

/// Names of granularities.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GranularityName {
    Tensor,
    Channel,
    Group,
    Block,
    Token,
}

/// Names of profiles.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ProfileName {
    Onnx,
    Torch,
    CompressedTensors,
    Tflite,
}

/// Names of NaN policies.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NanName {
    Refuse,
    Zero,
    Min,
    Max,
}

/// Names of common schemes.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PresetName {
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

/// How to quantize. Every field may be left out; what is given is checked
/// against the rest, and contradictions are refused.
#[derive(Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
#[schema(as = Scheme)]
pub(super) struct SchemeQuery {
    /// A common scheme to start from; other fields override it.
    #[param(inline)]
    preset: Option<PresetName>,
    /// Bits of a code: 2 to 8, or 16. Default 8.
    #[schema(minimum = 2, maximum = 16)]
    #[param(minimum = 2, maximum = 16)]
    bits: Option<u32>,
    /// Two's complement codes. Default true.
    signed: Option<bool>,
    /// Zero point fixed in the middle. Default: as `signed`.
    symmetric: Option<bool>,
    /// Leave out the most negative code (-127..127). Default: for signed
    /// symmetric codes of the profiles `onnx` and `tflite`.
    restricted: Option<bool>,
    /// Which elements share a scale. Default: implied by `axis`, `group_size` or `block_shape`, else tensor.
    #[param(inline)]
    granularity: Option<GranularityName>,
    /// Axis of channels (default 0) or groups (default -1); of the softmax for `cross_entropy` over a tensor.
    axis: Option<i64>,
    /// Elements of a group along the axis.
    #[schema(minimum = 1)]
    #[param(minimum = 1)]
    group_size: Option<u64>,
    /// Rows and columns of a block of the last two axes.
    #[schema(min_items = 2, max_items = 2)]
    #[param(explode = false, min_items = 2, max_items = 2)]
    block_shape: Option<Vec<u64>>,
    /// How the clipping range is found. Default `min_max`.
    #[param(inline)]
    range: Option<RangeName>,
    /// Percentile of range percentile.
    #[schema(minimum = 50, maximum = 100)]
    #[param(minimum = 50, maximum = 100)]
    percentile: Option<f64>,
    /// Lower end of range explicit: one number, or one a slice.
    #[param(value_type = Option<Vec<f64>>, explode = false)]
    min: Option<OneOrMore>,
    /// Upper end of range explicit: one number, or one a slice.
    #[param(value_type = Option<Vec<f64>>, explode = false)]
    max: Option<OneOrMore>,
    /// Scale of range explicit: one number, or one a slice.
    #[param(value_type = Option<Vec<f64>>, explode = false)]
    scale: Option<OneOrMore>,
    /// Zero point beside `scale`: one integer, or one a slice.
    #[param(value_type = Option<Vec<i64>>, explode = false)]
    zero_point: Option<OneOrMore>,
    /// Whose numerics. Default onnx.
    #[param(inline)]
    profile: Option<ProfileName>,
    /// What happens to NaN: refused (default), or given a code.
    #[param(inline)]
    nan: Option<NanName>,
    /// Codes below 8 bits leave as a bit stream, low bits first, as ONNX packs.
    packed: Option<bool>,
}

/// Type and shape of an `application/octet-stream` body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TensorQuery {
    /// Element type of an `application/octet-stream` body.
    #[param(inline)]
    dtype: Option<Dtype>,
    /// Dimensions of such a body, such as `2,3`; empty for a scalar.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
}

/// Options of quantize beside the scheme.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct QuantizeQuery {
    /// Element type of an `application/octet-stream` body.
    #[param(inline)]
    dtype: Option<Dtype>,
    /// Dimensions of such a body, such as `2,3`; empty for a scalar.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
    /// Short for `preset`.
    #[param(inline)]
    scheme: Option<PresetName>,
    /// Report on each slice too.
    per_slice: Option<bool>,
    /// Which tensor an npy or octet-stream answer holds. Default codes.
    #[param(inline)]
    output: Option<OutputName>,
}

/// The tensors of an answer of quantize.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputName {
    Codes,
    Scale,
    ZeroPoint,
}

/// Floating-point types that dequantize writes.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) enum RealDtype {
    F32,
    F64,
    F16,
    BF16,
}

/// Element types of scales.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) enum ScaleDtype {
    F32,
    F64,
}

/// Options of dequantize beside the scheme.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DequantizeQuery {
    /// Element type of the codes of an `application/octet-stream` body.
    #[param(inline)]
    dtype: Option<Dtype>,
    /// Dimensions of such a body, or of packed codes.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
    /// Type of the scale, and of the arithmetic. Default F32.
    #[param(inline)]
    scale_dtype: Option<ScaleDtype>,
    /// Element type of the answer. Default: that of the scale.
    #[param(inline)]
    output_dtype: Option<RealDtype>,
}

/// Options of compare.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CompareQuery {
    /// Presets to compare, such as `int8,int4_g128`; a sweep when left out.
    #[param(explode = false, inline)]
    schemes: Option<Vec<PresetName>>,
    /// What the table is sorted by, best first. Default sqnr.
    #[param(inline)]
    sort: Option<SortName>,
}

/// Columns to sort a comparison by.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SortName {
    Sqnr,
    Bits,
    Mse,
    Cosine,
}

/// Options of inspect.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct InspectQuery {
    /// Bins of the histogram. Default 64.
    #[param(minimum = 1, maximum = 4096)]
    bins: Option<u32>,
    /// Percentiles to find, 0 to 100.
    #[param(explode = false)]
    percentiles: Option<Vec<f64>>,
    /// Slices to look at one by one.
    #[param(inline)]
    granularity: Option<GranularityName>,
    /// Axis of channels or groups.
    axis: Option<i64>,
    /// Elements of a group.
    #[param(minimum = 1)]
    group_size: Option<u64>,
    /// Rows and columns of a block.
    #[param(explode = false, min_items = 2, max_items = 2)]
    block_shape: Option<Vec<u64>>,
}

/// A scheme, or the name of a preset.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SchemeOrPreset {
    /// Fields.
    Fields(Box<SchemeQuery>),
    /// Name of a preset.
    Preset(PresetName),
}

/// A tensor: numbers nested in arrays, or flat with a shape, or base64.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct TensorBody {
    /// The numbers.
    data: Option<Numbers>,
    /// The elements, little-endian, in base64; instead of `data`, with `shape`.
    data_b64: Option<String>,
    /// Dimensions; needed for flat data that is not a vector.
    #[schema(max_items = 8)]
    shape: Option<Vec<u64>>,
    /// Element type. Default F32.
    dtype: Option<Dtype>,
}

/// One tensor or several, and a scheme.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct QuantizeRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Several tensors by name, instead of one.
    tensors: Option<std::collections::HashMap<String, TensorBody>>,
    /// How to quantize. Default: the preset int8.
    scheme: Option<SchemeOrPreset>,
    /// Report on each slice too.
    per_slice: Option<bool>,
}

/// Codes, parameters and report of one tensor.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct QuantizedTensor {
    /// Type of the codes: I8, U8, I16 or U16; U8 for packed codes.
    dtype: Dtype,
    /// Dimensions of the tensor.
    shape: Vec<u64>,
    /// The codes in that shape; a flat list of bytes when packed.
    codes: Numbers,
    /// A number for one scale, else an array: 1-D for channels, the rank of
    /// the tensor for groups, blocks and tokens.
    scale: Numbers,
    /// In the shape of `scale`.
    zero_point: Numbers,
    /// F64 for F64 tensors, else F32.
    scale_dtype: ScaleDtype,
    /// The scheme as resolved.
    #[schema(value_type = SchemeDoc)]
    scheme: Value,
    /// What was lost.
    #[schema(value_type = ReportDoc)]
    report: Value,
}

/// Quantized tensors by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct QuantizedTensors {
    /// One entry a tensor.
    tensors: std::collections::HashMap<String, QuantizedTensor>,
}

/// The answer for one tensor, or for several by name.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum QuantizeAnswer {
    /// For one tensor.
    One(Box<QuantizedTensor>),
    /// For several.
    Several(QuantizedTensors),
}

/// A quantized tensor as `quantize` answers it; `report` is ignored.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct CodesBody {
    /// The codes, or bytes when packed.
    codes: Option<Numbers>,
    /// Type of the codes. Default I8, or U8 for unsigned schemes.
    dtype: Option<Dtype>,
    /// Dimensions of the tensor; needed for packed codes.
    #[schema(max_items = 8)]
    shape: Option<Vec<u64>>,
    /// One scale, or one a slice.
    scale: Option<Numbers>,
    /// One zero point, or one a slice. Default 0.
    zero_point: Option<Numbers>,
    /// Type of the scale, and of the arithmetic. Default F32.
    scale_dtype: Option<ScaleDtype>,
    /// The scheme: bits, sign, packing and granularity count.
    scheme: Option<SchemeOrPreset>,
    /// Ignored.
    report: Option<Value>,
}

/// One quantized tensor, or several by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct DequantizeRequest {
    #[serde(flatten)]
    codes: CodesBody,
    /// Several by name, instead of one.
    tensors: Option<std::collections::HashMap<String, CodesBody>>,
    /// Element type of the answer. Default: that of the scale.
    output_dtype: Option<RealDtype>,
}

/// A restored tensor.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct RestoredTensor {
    /// Element type.
    dtype: RealDtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The numbers.
    data: Numbers,
}

/// Restored tensors by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct RestoredTensors {
    /// One entry a tensor.
    tensors: std::collections::HashMap<String, RestoredTensor>,
}

/// The answer for one tensor, or for several by name.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum DequantizeAnswer {
    /// For one tensor.
    One(RestoredTensor),
    /// For several.
    Several(RestoredTensors),
}

/// One tensor and the schemes to compare.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct CompareRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Up to 256 schemes; a sweep of common ones when left out.
    #[schema(min_items = 1, max_items = 256)]
    schemes: Option<Vec<SchemeOrPreset>>,
    /// What the table is sorted by, best first. Default sqnr.
    sort: Option<SortName>,
}

/// One tensor and what to find out about it.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct InspectRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Bins of the histogram. Default 64.
    #[schema(minimum = 1, maximum = 4096)]
    bins: Option<u32>,
    /// Percentiles to find, 0 to 100.
    #[schema(max_items = 64)]
    percentiles: Option<Vec<f64>>,
    /// Slices to look at one by one.
    granularity: Option<GranularityName>,
    /// Axis of channels or groups.
    axis: Option<i64>,
    /// Elements of a group.
    #[schema(minimum = 1)]
    group_size: Option<u64>,
    /// Rows and columns of a block.
    #[schema(min_items = 2, max_items = 2)]
    block_shape: Option<Vec<u64>>,
}

/// Every failure of the tensor routes.
#[derive(IntoResponses)]
pub(super) enum Problems {
    /// The body or an option is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(#[to_schema] Problem),
    /// No key, or not a known one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The method is not one of the route's.
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(#[to_schema] Problem),
    /// No acceptable type of answer.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(#[to_schema] Problem),
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(#[to_schema] Problem),
    /// Above a limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// The body is of a type or coding that is not read.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(#[to_schema] Problem),
    /// The tensor holds NaN or is of a kind that is not read.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] Problem),
    /// A defect of the server.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// No room at the moment, or stopping; try again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}

/// An example request that runs.
pub(super) fn quantize_example() -> Value {
    json!({
        "data": [[0.1, -2.0], [3.3, 0.0]],
        "dtype": "F32",
        "scheme": {"bits": 8, "signed": true, "symmetric": true, "granularity": "channel", "axis": 0}
    })
}

/// What the example answers.
pub(super) fn quantize_answer_example() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[6, -127], [127, 0]],
        "scale": [0.015_748_031, 0.025_984_252],
        "zero_point": [0, 0],
        "scale_dtype": "F32",
        "scheme": {
            "bits": 8, "signed": true, "symmetric": true, "restricted": true,
            "granularity": "channel", "axis": 0, "group_size": null, "block_shape": null,
            "range": "min_max", "percentile": null, "min": null, "max": null,
            "profile": "onnx", "nan": "refuse", "packed": false
        },
        "report": {
            "mse": 7.6e-6, "mse_clipped": 0.0, "mse_rounded": 7.6e-6, "max_abs_error": 0.005_512,
            "sqnr_db": 56.9, "cosine": 0.999_999, "clipped": 0, "nan": 0, "inf": 0, "zeroed": 0,
            "bits_per_element": 24.0, "compression_ratio": 1.333
        }
    })
}

/// An example request that runs.
pub(super) fn dequantize_example() -> Value {
    json!({
        "dtype": "I8",
        "shape": [2, 2],
        "codes": [[6, -127], [127, 0]],
        "scale": [0.015_748_031, 0.025_984_252],
        "zero_point": [0, 0],
        "scheme": {"granularity": "channel", "axis": 0}
    })
}

/// An example request that runs.
pub(super) fn compare_example() -> Value {
    json!({
        "data": [[0.1, -2.0, 0.7, 1.5], [3.3, 0.0, -0.4, 0.9]],
        "schemes": ["int8", "int4", {"bits": 4, "granularity": "channel", "axis": 0, "range": "mse"}],
        "sort": "bits"
    })
}

/// An example request that runs.
pub(super) fn inspect_example() -> Value {
    json!({"data": [[0.1, -2.0], [3.3, 0.0]], "bins": 4, "granularity": "channel", "axis": 0})
}

//! Bodies of requests and answers.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::documents::{ProductReportDoc, ReportDoc, SchemeDoc};

use super::query::SchemeQuery;
use crate::api::words::{
    Dtype, GranularityName, PresetName, ProductDtype, RealDtype, RequantizeName, ScaleDtype,
    SortName,
};

/// Bytes.
pub(in crate::http) struct BinaryBody;

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

/// One file, as `curl -F` and file buttons send it. Other fields are options, as in the query.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct FileForm {
    /// A file of npy, safetensors, JSON, or bare elements: its type, its first bytes or the end of its
    /// name tell which.
    #[schema(value_type = BinaryBody)]
    file: Vec<u8>,
}

/// Numbers nested in arrays, one level a dimension; a bare number is a scalar.
///
/// Not a recursive schema, which says more and which most generators of
/// clients cannot read.
#[derive(Serialize)]
pub(in crate::http) struct Numbers;

impl PartialSchema for Numbers {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number);
        let non_finite = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["NaN", "Infinity", "-Infinity"]))
            .description(Some("Numbers that JSON has no way to write."));
        OneOfBuilder::new()
            .item(number)
            .item(non_finite)
            .item(any_array("Of the same, all of one length."))
            .description(Some(
                "Numbers nested in arrays, one level a dimension; a bare number is a scalar. \
                 NaN and infinities are the strings \"NaN\", \"Infinity\" and \"-Infinity\".",
            ))
            .into()
    }
}

impl ToSchema for Numbers {
    fn name() -> std::borrow::Cow<'static, str> {
        "Numbers".into()
    }
}

fn any_array(description: &str) -> ArrayBuilder {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    ArrayBuilder::new().items(any).description(Some(description))
}

/// One number, or arrays of them: one for each slice, in order.
#[derive(Serialize)]
pub(in crate::http) struct OneOrMore;

impl PartialSchema for OneOrMore {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Number))
            .item(any_array("One number a slice, in order; may be nested like the scales."))
            .description(Some("A number for all slices, or arrays with one for each."))
            .into()
    }
}

impl ToSchema for OneOrMore {
    fn name() -> std::borrow::Cow<'static, str> {
        "OneOrMore".into()
    }
}

/// One pattern of names, or several.
#[derive(Serialize)]
pub(in crate::http) struct Patterns;

impl PartialSchema for Patterns {
    fn schema() -> RefOr<Schema> {
        let pattern = || ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new()
            .item(pattern())
            .item(ArrayBuilder::new().items(pattern()).max_items(Some(256)))
            .description(Some(
                "Patterns of names, each of which must match one: a name, a glob (`*` and `?`, which match dots too), \
                 or `re:` and a regular expression for the start of the name.",
            ))
            .into()
    }
}

impl ToSchema for Patterns {
    fn name() -> std::borrow::Cow<'static, str> {
        "Patterns".into()
    }
}

/// A scheme, or the name of a preset.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum SchemeOrPreset {
    /// Fields.
    Fields(Box<SchemeQuery>),
    /// Name of a preset.
    Preset(PresetName),
}

/// A tensor: numbers nested in arrays, or flat with a shape, or base64.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct TensorBody {
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
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct QuantizeRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Several tensors by name, instead of one.
    tensors: Option<std::collections::HashMap<String, TensorBody>>,
    /// How to quantize. Default: the preset int8.
    scheme: Option<SchemeOrPreset>,
    /// Report on each slice too.
    per_slice: Option<bool>,
    /// Which of `tensors` are quantized. Default: all.
    include: Option<Patterns>,
    /// Which of those are not, but pass as they are.
    exclude: Option<Patterns>,
}

/// Codes, parameters and report of one tensor.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct QuantizedTensor {
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

/// A tensor as numbers.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct PlainTensor {
    /// Element type.
    dtype: Dtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The numbers.
    data: Numbers,
}

/// A tensor that was quantized, or passed as it came.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum QuantizedOrPassed {
    /// Its codes.
    Quantized(Box<QuantizedTensor>),
    /// As it came.
    Passed(PlainTensor),
}

/// Quantized tensors by name.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct QuantizedTensors {
    /// One entry a tensor.
    tensors: std::collections::HashMap<String, QuantizedOrPassed>,
}

/// The answer for one tensor, or for several by name.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum QuantizeAnswer {
    /// For one tensor.
    One(Box<QuantizedTensor>),
    /// For several.
    Several(QuantizedTensors),
}

/// A quantized tensor as `quantize` answers it; `report` is ignored.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CodesBody {
    /// The codes, or bytes when packed.
    codes: Option<Numbers>,
    /// Type of the codes. Default I8, or U8 for unsigned schemes and packed codes.
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
    /// The scheme: bits, sign, packing and granularity count. Several scales without a granularity are those of the
    /// only axis that their shape fits.
    scheme: Option<SchemeOrPreset>,
    /// Ignored.
    report: Option<Value>,
}

/// A quantized tensor among several, or one that passed as it came.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct NamedCodesBody {
    #[serde(flatten)]
    codes: CodesBody,
    /// The numbers of a tensor without codes, which passes as it is.
    data: Option<Numbers>,
    /// The same in base64.
    data_b64: Option<String>,
}

/// One quantized tensor, or several by name.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct DequantizeRequest {
    #[serde(flatten)]
    codes: CodesBody,
    /// Several by name, instead of one.
    tensors: Option<std::collections::HashMap<String, NamedCodesBody>>,
    /// Element type of the answer. Default: that of the scale.
    output_dtype: Option<RealDtype>,
}

/// A restored tensor.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct RestoredTensor {
    /// Element type.
    dtype: RealDtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The numbers.
    data: Numbers,
}

/// Restored tensors by name, and those that passed as they came.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct RestoredTensors {
    /// One entry a tensor.
    tensors: std::collections::HashMap<String, PlainTensor>,
}

/// The answer for one tensor, or for several by name.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum DequantizeAnswer {
    /// For one tensor.
    One(RestoredTensor),
    /// For several.
    Several(RestoredTensors),
}

/// One tensor and the schemes to compare.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CompareRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Several tensors by name, of which `include` and `exclude` leave one.
    tensors: Option<std::collections::HashMap<String, TensorBody>>,
    /// Which of them is meant.
    include: Option<Patterns>,
    /// Which of them are not.
    exclude: Option<Patterns>,
    /// Up to 256 schemes; a sweep of common ones when left out.
    #[schema(min_items = 1, max_items = 256)]
    schemes: Option<Vec<SchemeOrPreset>>,
    /// What the table is sorted by, best first. Default sqnr.
    sort: Option<SortName>,
}

/// One tensor and what to find out about it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct InspectRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Several tensors by name, of which `include` and `exclude` leave one.
    tensors: Option<std::collections::HashMap<String, TensorBody>>,
    /// Which of them is meant.
    include: Option<Patterns>,
    /// Which of them are not.
    exclude: Option<Patterns>,
    /// Bins of the histogram. Default 64.
    #[schema(minimum = 1, maximum = 4096)]
    bins: Option<u32>,
    /// Percentiles to find, 0 to 100.
    #[schema(min_items = 1, max_items = 64)]
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

/// An operand of a product: real numbers with a scheme, or a quantized tensor
/// as `quantize` answers it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct OperandBody {
    /// The numbers.
    data: Option<Numbers>,
    /// The elements, little-endian, in base64; instead of `data`, with `shape`.
    data_b64: Option<String>,
    /// Codes, I8 or U8, instead of `data`.
    codes: Option<Numbers>,
    /// Dimensions; needed for flat data.
    #[schema(max_items = 8)]
    shape: Option<Vec<u64>>,
    /// Element type. Default F32; of codes I8, or U8 for unsigned schemes.
    dtype: Option<Dtype>,
    /// Scales of codes; without them the product is I32. Several without a granularity are those of the rows of `a`
    /// and of the columns of `b`.
    scale: Option<Numbers>,
    /// Zero points of codes. Default 0.
    zero_point: Option<Numbers>,
    /// Type of the scales of codes. Default F32.
    scale_dtype: Option<ScaleDtype>,
    /// How real numbers are quantized, or codes were. Default for `a`: uint8
    /// with one scale; for `b`: int8 with one scale a column. What is given is read as quantize reads it.
    scheme: Option<SchemeOrPreset>,
    /// Ignored.
    report: Option<Value>,
}

/// Numbers, or a tensor.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum NumbersOrTensor {
    /// Numbers as they are.
    Numbers(Numbers),
    /// A tensor.
    Tensor(TensorBody),
}

/// Two operands and what to make of their product.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct MatmulRequest {
    /// `[.., m, k]`. Granularity tensor or token.
    a: OperandBody,
    /// `[.., k, n]`. Granularity tensor, channel along n, or group along k.
    b: OperandBody,
    /// One a column: real numbers, or integers in units of the sums for codes.
    bias: Option<NumbersOrTensor>,
    /// Whether B is `[.., n, k]`, as weights of linear layers are stored.
    transpose_b: Option<bool>,
    /// What the product is: sums (I32), real numbers (F32), or codes. Default F32, or I32 without scales.
    output_dtype: Option<ProductDtype>,
    /// Scale of the codes of the product.
    output_scale: Option<f64>,
    /// Zero point of the codes of the product. Default 0.
    output_zero_point: Option<i64>,
    /// Whose definition of requantization. Default `float_ort`.
    requantize: Option<RequantizeName>,
    /// Whether negative results become 0.
    relu: Option<bool>,
    /// Whether to compare with the product of the real numbers.
    report: Option<bool>,
}

/// Parameters that were found for an operand.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct FoundParameters {
    /// Its scales.
    scale: Numbers,
    /// Its zero points.
    zero_point: Numbers,
    /// The scheme as resolved.
    #[schema(value_type = SchemeDoc)]
    scheme: Value,
}

/// A product.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct MatmulAnswer {
    /// Element type.
    dtype: ProductDtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The product.
    data: Numbers,
    /// What was found for `a`, if it was real.
    a: Option<FoundParameters>,
    /// What was found for `b`, if it was real.
    b: Option<FoundParameters>,
    /// Error against the real product, when asked for.
    report: Option<ProductReportDoc>,
}

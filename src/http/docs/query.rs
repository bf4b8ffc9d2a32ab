//! Options in the query string.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::OneOrMore;
use crate::api::words::{
    Dtype, FormatName, GranularityName, NanName, OutputName, PresetName, ProductDtype, ProfileName,
    RangeName, RealDtype, RequantizeName, SampleName, ScaleDtype, SortName,
};

/// How to quantize. Every field may be left out; what is given is checked
/// against the rest, and contradictions are refused.
#[derive(Serialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
#[schema(as = Scheme)]
pub(in crate::http) struct SchemeQuery {
    /// A common scheme to start from; other fields override it.
    preset: Option<PresetName>,
    /// How numbers are stored. Default int.
    format: Option<FormatName>,
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
    /// Which elements share a scale. Default: implied by `axis` (but with `range=cross_entropy`, where it is that of
    /// the softmax), `group_size` or `block_shape`, else tensor.
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
    profile: Option<ProfileName>,
    /// What happens to NaN: refused (default), or given a code.
    nan: Option<NanName>,
    /// Codes below 8 bits leave as a bit stream, low bits first, as ONNX packs; wider ones as they are.
    packed: Option<bool>,
}

/// Type and shape of an `application/octet-stream` body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct TensorQuery {
    /// Element type of an `application/octet-stream` body.
    dtype: Option<Dtype>,
    /// Dimensions of such a body, such as `2,3`; empty for a scalar.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
}

/// Options of quantize beside the scheme.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct QuantizeQuery {
    /// Element type of an `application/octet-stream` body.
    dtype: Option<Dtype>,
    /// Dimensions of such a body, such as `2,3`; empty for a scalar.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
    /// Short for `preset`.
    scheme: Option<PresetName>,
    /// Report on each slice too.
    per_slice: Option<bool>,
    /// Which tensor an npy or octet-stream answer holds. Default codes.
    #[param(inline)]
    output: Option<OutputName>,
    /// Tensors that are quantized, whatever their type and shape, where the request names several: names, globs (`*`
    /// and `?`, which match dots too), or `re:` and a regular expression for the start of the name. Default: of JSON
    /// `tensors` all; of a safetensors file the weights, which are the tensors of a floating-point type with at least
    /// two dimensions, or all if there are none. The others pass as they are.
    #[param(explode = false)]
    include: Option<Vec<String>>,
    /// Tensors that pass as they are, of those that would be quantized.
    #[param(explode = false)]
    exclude: Option<Vec<String>>,
}

/// Options of dequantize beside the scheme.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DequantizeQuery {
    /// Element type of the codes of an `application/octet-stream` body.
    dtype: Option<Dtype>,
    /// Dimensions of such a body, or of packed codes.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
    /// Type of the scale, and of the arithmetic. Default F32.
    scale_dtype: Option<ScaleDtype>,
    /// Element type of the answer. Default: that of the scale.
    output_dtype: Option<RealDtype>,
}

/// Options of compare.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CompareQuery {
    /// Presets to compare, such as `int8,int4_g128`; a sweep when left out.
    #[param(explode = false)]
    schemes: Option<Vec<PresetName>>,
    /// What the table is sorted by, best first. Default sqnr.
    sort: Option<SortName>,
    /// The tensor of several that is looked at: its name, a glob or `re:` and a regular expression, as for quantize.
    /// Default: of a safetensors file the only weight.
    #[param(explode = false)]
    include: Option<Vec<String>>,
    /// Tensors that are not meant, of those that would be.
    #[param(explode = false)]
    exclude: Option<Vec<String>>,
}

/// Options of inspect.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct InspectQuery {
    /// Bins of the histogram. Default 64.
    #[param(minimum = 1, maximum = 4096)]
    bins: Option<u32>,
    /// Percentiles to find, 0 to 100.
    #[param(explode = false)]
    percentiles: Option<Vec<f64>>,
    /// Slices to look at one by one.
    granularity: Option<GranularityName>,
    /// Axis of channels or groups.
    axis: Option<i64>,
    /// Elements of a group.
    #[param(minimum = 1)]
    group_size: Option<u64>,
    /// Rows and columns of a block.
    #[param(explode = false, min_items = 2, max_items = 2)]
    block_shape: Option<Vec<u64>>,
    /// The tensor of several that is looked at: its name, a glob or `re:` and a regular expression, as for quantize.
    #[param(explode = false)]
    include: Option<Vec<String>>,
    /// Tensors that are not meant.
    #[param(explode = false)]
    exclude: Option<Vec<String>>,
}

/// Options of matmul for a safetensors body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct MatmulQuery {
    /// How `a` is quantized where it is real. Default: uint8, one scale.
    a_scheme: Option<PresetName>,
    /// How `b` is quantized where it is real. Default: int8, one scale a column.
    b_scheme: Option<PresetName>,
    /// Whether B is `[.., n, k]`.
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

/// The name of a sample.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct SamplePath {
    /// What the tensor is like.
    #[param(inline, example = "weights")]
    name: SampleName,
}

//! Bodies and options of the routes of layers.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::body::{Numbers, NumbersOrTensor, OperandBody, TensorBody};
use crate::api::words::{ActivationName, Dtype, LayerKind, PresetName, RequantizeName};

/// The name in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct NamePath {
    /// Letters, digits and `. _ -`, a letter or digit first, at most 128.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    name: String,
}

/// Options of a run.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RunQuery {
    /// Whether the request may be run together with others, which changes no byte of the answer.
    /// Default true.
    batch: Option<bool>,
}

/// One tensor, and how to run it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct RunRequest {
    #[serde(flatten)]
    tensor: TensorBody,
    /// Whether the request may be run together with others, which changes no byte of the answer.
    /// Default true.
    batch: Option<bool>,
}

/// One size for all sides, or one for each.
#[derive(Serialize)]
pub(in crate::http) struct Steps;

impl PartialSchema for Steps {
    fn schema() -> RefOr<Schema> {
        let size = || ObjectBuilder::new().schema_type(utoipa::openapi::Type::Integer);
        let list = utoipa::openapi::ArrayBuilder::new().items(size());
        OneOfBuilder::new()
            .item(size())
            .item(list)
            .description(Some(
                "One size, or down and across; of padding also top, left, bottom, right.",
            ))
            .into()
    }
}

impl ToSchema for Steps {
    fn name() -> std::borrow::Cow<'static, str> {
        "Steps".into()
    }
}

/// A scheme, the name of a preset, or a calibrator.
#[derive(Serialize)]
pub(in crate::http) struct Coding;

impl PartialSchema for Coding {
    fn schema() -> RefOr<Schema> {
        let name = || ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        let fields = ObjectBuilder::new()
            .schema_type(SchemaType::Type(utoipa::openapi::Type::Object))
            .property("calibrator", name())
            .property("requantize", RequantizeName::schema())
            .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(
                true,
            )));
        OneOfBuilder::new()
            .item(name().description(Some("Name of a preset; for an output also F32.")))
            .item(fields.description(Some(
                "Fields of a scheme; `calibrator` in place of a range; of an output also `requantize`.",
            )))
            .into()
    }
}

impl ToSchema for Coding {
    fn name() -> std::borrow::Cow<'static, str> {
        "Coding".into()
    }
}

/// A layer to make.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct LayerRequest {
    /// Its name; may stand in the path instead.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    name: Option<String>,
    /// What it is. Default linear, or chain where `chain` is given.
    kind: Option<LayerKind>,
    /// `[outputs, inputs]`, or `[outputs, inputs / groups, height, width]`.
    /// Default scheme: int8; one scale an output wherever no granularity is named.
    weight: Option<OperandBody>,
    /// One an output.
    bias: Option<NumbersOrTensor>,
    /// Whether the weight of a linear layer is `[inputs, outputs]`.
    transpose: Option<bool>,
    /// How the input becomes codes: granularity tensor (all rows together) or
    /// token (each row, each image), or static with scale and `zero_point`, min
    /// and max, or a calibrator. Default, and for `{}`: uint8, a scale and zero point for each row.
    input: Option<Coding>,
    /// Codes of that scale, or F32 (default).
    output: Option<Coding>,
    /// What is applied to the result. Default none.
    activation: Option<ActivationName>,
    /// Step of a kernel. Default 1.
    stride: Option<Steps>,
    /// Pixels of value 0 around an image. Default 0.
    padding: Option<Steps>,
    /// Step between the elements of a kernel. Default 1.
    dilation: Option<Steps>,
    /// Parts of the channels that do not see one another. Default 1.
    #[schema(minimum = 1)]
    groups: Option<u64>,
    /// Keep the real weights, which evaluate compares with. Default true.
    keep_float: Option<bool>,
    /// Names of layers that follow one another, instead of a weight.
    #[schema(min_items = 1, max_items = 256)]
    chain: Option<Vec<String>>,
}

/// Options of a layer for a body that is not JSON.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct LayerQuery {
    /// Element type of an `application/octet-stream` body.
    dtype: Option<Dtype>,
    /// Dimensions of such a body, such as `2,3`.
    #[param(explode = false)]
    shape: Option<Vec<u64>>,
    /// Name of the layer; may stand in the path instead.
    name: Option<String>,
    /// What it is. Default linear.
    #[param(inline)]
    kind: Option<LayerKind>,
    /// How the weight is quantized; fields of a scheme as `scheme.bits=4`.
    scheme: Option<PresetName>,
    /// Whether the weight of a linear layer is `[inputs, outputs]`.
    transpose: Option<bool>,
    /// How the input becomes codes; fields as `input.scale=0.1`.
    input: Option<PresetName>,
    /// Scale of codes of the result.
    #[param(rename = "output.scale")]
    output_scale: Option<f64>,
    /// Zero point of codes of the result.
    #[param(rename = "output.zero_point")]
    output_zero_point: Option<i64>,
    /// What is applied to the result.
    #[param(inline)]
    activation: Option<ActivationName>,
    /// Step of a kernel.
    #[param(explode = false)]
    stride: Option<Vec<u64>>,
    /// Pixels of value 0 around an image.
    #[param(explode = false)]
    padding: Option<Vec<u64>>,
    /// Step between the elements of a kernel.
    #[param(explode = false)]
    dilation: Option<Vec<u64>>,
    /// Parts of the channels that do not see one another.
    #[param(minimum = 1)]
    groups: Option<u64>,
    /// Keep the real weights, which evaluate compares with. Default true.
    keep_float: Option<bool>,
}

/// The result of a layer.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ForwardAnswer {
    /// Name of the layer.
    layer: String,
    /// Its version.
    version: u64,
    /// Element type: F32, or U8 or I8 for codes.
    dtype: Dtype,
    /// Dimensions.
    shape: Vec<u64>,
    /// The result.
    data: Numbers,
    /// Scale of codes.
    scale: Option<f64>,
    /// Zero point of codes.
    zero_point: Option<i64>,
}

/// Weights in real numbers.
pub(in crate::http) fn layer_real() -> Value {
    json!({
        "name": "fc1",
        "weight": {"data": [[0.5, -0.25], [1.0, 0.75], [-0.6, 0.2]], "scheme": "int8_per_channel"},
        "bias": [0.1, 0.0, -0.1],
        "activation": "relu"
    })
}

/// Weights as quantize answers them, and an input whose range is known.
pub(in crate::http) fn layer_codes() -> Value {
    json!({
        "name": "fc1_codes",
        "weight": {"codes": [[127, -64], [127, 95], [-127, 42]], "scale": [0.003_9, 0.007_9, 0.004_7],
            "scheme": {"granularity": "channel", "axis": 0}},
        "input": {"min": -2, "max": 2, "signed": false}
    })
}

//! Schemas and examples of `/v2`. Those of bodies that are decoded and written
//! field by field are never made.
#![expect(dead_code, reason = "the types exist for their schemas")]

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use quantd_codec::oip::datatypes;

pub(super) use crate::http::docs::{
    BinaryBody, Failures, ModelFailures, ReadFailures, ReadinessFailures,
};

/// The model of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ModelPath {
    /// Name of the model.
    #[param(example = "quantize_int8")]
    model: String,
}

/// The model and version of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct VersionPath {
    /// Name of the model.
    #[param(example = "quantize_int8")]
    model: String,
    /// Its version: digits.
    #[param(example = "1")]
    version: String,
}

/// Headers of an inference request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct InferHeaders {
    /// Bytes of the JSON at the start of the body, before compression; the elements of binary inputs
    /// follow. Without it all of the body is JSON; with 0 the body is the elements of the only input.
    #[param(rename = "Inference-Header-Content-Length")]
    inference_header_content_length: Option<u64>,
}

/// Strings, numbers and booleans by name.
struct Parameters;

impl PartialSchema for Parameters {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(SchemaType::from_iter([
            Type::String,
            Type::Number,
            Type::Boolean,
        ]));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(value))
            .description(Some("Strings, numbers and booleans by name."))
            .into()
    }
}

impl ToSchema for Parameters {
    fn name() -> std::borrow::Cow<'static, str> {
        "InferParameters".into()
    }
}

/// Elements in row-major order.
struct Elements;

impl PartialSchema for Elements {
    fn schema() -> RefOr<Schema> {
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        ArrayBuilder::new()
            .items(any)
            .description(Some(
                "Numbers in row-major order; those of a request may be nested like the shape. \
                 In an answer null is NaN.",
            ))
            .into()
    }
}

impl ToSchema for Elements {
    fn name() -> std::borrow::Cow<'static, str> {
        "InferElements".into()
    }
}

/// Names of element types.
#[derive(Serialize)]
struct Datatype;

impl PartialSchema for Datatype {
    fn schema() -> RefOr<Schema> {
        let names: Vec<_> = datatypes().collect();
        let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        words.description(Some("Names of element types.")).into()
    }
}

impl ToSchema for Datatype {
    fn name() -> std::borrow::Cow<'static, str> {
        "Datatype".into()
    }
}

/// A tensor of a request.
#[derive(Serialize, ToSchema)]
struct InferInput {
    /// Its name.
    #[schema(example = "x")]
    name: String,
    /// Its dimensions.
    #[schema(max_items = 8)]
    shape: Vec<u64>,
    /// Type of its elements.
    datatype: Datatype,
    /// `binary_data_size`: bytes of its elements behind the JSON, instead of `data`.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
    /// Its elements. FP16 and BF16 travel as binary data only.
    #[schema(value_type = Option<Elements>)]
    data: Option<Value>,
}

/// An output that is wanted.
#[derive(Serialize, ToSchema)]
struct WantedOutput {
    /// Its name.
    #[schema(example = "q")]
    name: String,
    /// `binary_data`: whether its elements are to follow the JSON.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
}

/// Inputs, options, and the outputs that are wanted.
#[derive(Serialize, ToSchema)]
pub(super) struct InferRequest {
    /// Repeated in the answer.
    id: Option<String>,
    /// Options of the model; `binary_data_output`: whether outputs are to be binary.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
    /// The inputs.
    inputs: Vec<InferInput>,
    /// The outputs that are wanted; all when left out.
    #[schema(max_items = 64)]
    outputs: Option<Vec<WantedOutput>>,
}

/// A tensor of an answer.
#[derive(Serialize, ToSchema)]
struct InferOutput {
    /// Its name.
    name: String,
    /// Type of its elements.
    datatype: Datatype,
    /// Its dimensions.
    shape: Vec<u64>,
    /// `metric_names` of metrics; `quantd_dtype`, `quantd_packing` and `quantd_shape` of packed codes.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
    /// Its elements.
    #[schema(value_type = Elements)]
    data: Value,
}

/// The outputs of a model.
#[derive(Serialize, ToSchema)]
pub(super) struct InferAnswer {
    /// The model.
    model_name: String,
    /// Its version.
    model_version: String,
    /// The id of the request.
    id: Option<String>,
    /// The outputs.
    outputs: Vec<InferOutput>,
}

/// Which models to list.
#[derive(Serialize, ToSchema)]
pub(super) struct IndexRequest {
    /// Only those that are ready.
    ready: Option<bool>,
}

/// How to load a model.
#[derive(Serialize, ToSchema)]
pub(super) struct LoadRequest {
    /// `config` and `file:` are refused.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
}

/// How to unload a model.
#[derive(Serialize, ToSchema)]
pub(super) struct UnloadRequest {
    /// `unload_dependents` changes nothing.
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Value>,
}

/// A request to `quantize_int8` that works.
pub(super) fn infer_example() -> Value {
    json!({
        "id": "1",
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [0.1, -2.0, 3.3, 0.0]}],
        "outputs": [{"name": "q"}, {"name": "scale"}]
    })
}

/// Its answer.
pub(super) fn infer_answer_example() -> Value {
    json!({
        "model_name": "quantize_int8", "model_version": "1", "id": "1",
        "outputs": [
            {"name": "q", "datatype": "INT8", "shape": [2, 2], "data": [4, -77, 127, 0]},
            {"name": "scale", "datatype": "FP32", "shape": [1], "data": [0.025_984_251]}
        ]
    })
}

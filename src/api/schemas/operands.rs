//! Schemas of what stands for a tensor in a request. The types are never made: what is read member by member,
//! the contract tests hold against them.

use std::borrow::Cow;

use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, ObjectBuilder, OneOfBuilder, SchemaType, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Dtype, Numbers, RequantizeName, ScaleDtype, SchemeOrPreset, TensorBody};

/// An operand of a product: real numbers with a scheme, or a quantized tensor
/// as `quantize` answers it.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct OperandBody {
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
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(untagged)]
pub enum NumbersOrTensor {
    /// Numbers as they are.
    Numbers(Numbers),
    /// A tensor.
    Tensor(TensorBody),
}

/// A scheme, the name of a preset, or a calibrator.
#[derive(Debug, serde::Serialize)]
pub struct Coding;

impl PartialSchema for Coding {
    fn schema() -> RefOr<Schema> {
        let name = || ObjectBuilder::new().schema_type(Type::String);
        let fields = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .property("calibrator", name())
            .property("requantize", RequantizeName::schema())
            .additional_properties(Some(AdditionalProperties::FreeForm(true)));
        OneOfBuilder::new()
            .item(name().description(Some("Name of a preset; for an output also F32.")))
            .item(fields.description(Some(
                "Fields of a scheme; `calibrator` in place of a range; of an output also `requantize`.",
            )))
            .into()
    }
}

impl ToSchema for Coding {
    fn name() -> Cow<'static, str> {
        "Coding".into()
    }
}

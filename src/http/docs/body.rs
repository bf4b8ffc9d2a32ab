//! Bodies of requests and answers.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::documents::{ProductReportDoc, ReportDoc, SchemeDoc};

use crate::api::formats;
use crate::api::schemas::{Dtype, Numbers, ProductDtype, RealDtype, SchemeOrPreset};

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

/// What formats have beside codes, of each of them what it has.
pub(in crate::http) struct Parts;

impl PartialSchema for Parts {
    fn schema() -> RefOr<Schema> {
        let about = "What a format has beside codes: a number, or an array of as many as there are slices; floats of \
                     eight bits are their bit patterns.";
        let mut parts = ObjectBuilder::new().description(Some(about));
        for name in formats::parts_beside_codes() {
            let typed = format!("{name}_dtype");
            parts = parts
                .property(name, Ref::from_schema_name(Numbers::name()))
                .property(typed, Ref::from_schema_name(Dtype::name()));
        }
        parts.into()
    }
}

impl ToSchema for Parts {
    fn name() -> std::borrow::Cow<'static, str> {
        "Parts".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Numbers::name().into(), Numbers::schema()));
        schemas.push((Dtype::name().into(), Dtype::schema()));
    }
}

impl Serialize for Parts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// Codes, what stands beside them and report of one tensor.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct QuantizedTensor {
    /// Type of the codes; U8 for packed ones.
    dtype: Dtype,
    /// Dimensions of the tensor.
    shape: Vec<u64>,
    /// The codes in that shape, as bit patterns where they are floats; bytes when packed.
    codes: Numbers,
    #[serde(flatten)]
    parts: Parts,
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
    #[serde(flatten)]
    parts: Parts,
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

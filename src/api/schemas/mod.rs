//! Schemas that options refer to by name: words, from the lists that parse them, and numbers.

mod operands;

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::calibrators::NanLearnt;
use super::fields::field::{self, How};
use super::layers::options as layer;
use super::presets::PRESETS;
use super::samples::SAMPLES;
use super::{compare, dequantize, formats, matmul, options, payload};
use quantd_core::calibrate::MethodName;
use quantd_core::layer::Activation;
use quantd_core::matmul::Requantization;
use quantd_core::params::Profile;
use quantd_core::scheme::{
    GranularityName as GranularityWord, NanPolicy, RangeName as RangeWord, ScaleRounding,
};
use quantd_core::tensor::DType;
use quantd_core::word::Word;

pub use operands::{Coding, NumbersOrTensor, OperandBody};

/// Schemas of words: `Name: "description", words;`.
macro_rules! words {
    ($($name:ident: $description:literal, $words:expr;)+) => {$(
        #[doc = $description]
        #[derive(Debug, serde::Serialize)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some($words));
                words.description(Some($description)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

fn type_names(dtypes: &[DType]) -> Vec<&'static str> {
    dtypes.iter().map(|dtype| dtype.name()).collect()
}

words! {
    Dtype: "Element types of tensors. The names that `NumPy`, `PyTorch` and Rust have for them are taken as\nwell: `float32`, `torch.float16`, `<f4`, `bf16`.", type_names(&DType::ALL);
    FormatName: "Names of number formats.", formats::all().map(|format| format.name());
    RangeName: "Names of range methods.", RangeWord::names();
    GranularityName: "Names of granularities.", GranularityWord::names();
    ProfileName: "Names of profiles.", Profile::names();
    NanName: "Names of NaN policies.", NanPolicy::names();
    ScaleRoundingName: "Names of the ways in which scales that are powers of two are found.", ScaleRounding::names();
    PresetName: "Names of common schemes.", PRESETS.iter().map(|preset| preset.name);
    SampleName: "Names of tensors to try things on.", SAMPLES.map(|sample| sample.name);
    OutputName: "The tensors of an answer of quantize.", formats::parts();
    RealDtype: "Floating-point types that dequantize writes, by any name that they have.", type_names(&dequantize::OUTPUTS);
    ScaleDtype: "Element types of scales, by any name that they have.", type_names(&[DType::F32, DType::F64]);
    SortName: "Columns to sort a comparison by.", compare::Sort::names();
    ProductDtype: "Element types of products, by any name that they have.", type_names(&matmul::PRODUCTS);
    RequantizeName: "Names of definitions of requantization.", Requantization::names();
    LearntRange: "Names of the ways in which calibrators find ranges.", MethodName::names();
    LearntGranularity: "Names of the granularities that calibrators have.", LEARNT.map(Word::name);
    LearntNan: "What calibrators make of NaN.", NanLearnt::names();
    LayerKind: "Kinds of layers.", layer::LayerKind::names();
    ActivationName: "Functions applied to results.", Activation::names();
}

/// The granularities that batches have again and again.
const LEARNT: [GranularityWord; 2] = [GranularityWord::Tensor, GranularityWord::Channel];

/// Numbers nested in arrays, one level a dimension; a bare number is a scalar.
///
/// Not a recursive schema, which says more and which most generators of
/// clients cannot read.
#[derive(Debug, serde::Serialize)]
pub struct Numbers;

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
    fn name() -> Cow<'static, str> {
        "Numbers".into()
    }
}

fn any_array(description: &str) -> ArrayBuilder {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    ArrayBuilder::new().items(any).description(Some(description))
}

/// One number, or arrays of them: one for each slice, in order.
#[derive(Debug, serde::Serialize)]
pub struct OneOrMore;

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
    fn name() -> Cow<'static, str> {
        "OneOrMore".into()
    }
}

/// One pattern of names, or several.
#[derive(Debug, serde::Serialize)]
pub struct Patterns;

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
    fn name() -> Cow<'static, str> {
        "Patterns".into()
    }
}

/// One size for all sides, or one for each.
#[derive(Debug, serde::Serialize)]
pub struct Steps;

impl PartialSchema for Steps {
    fn schema() -> RefOr<Schema> {
        let size = || ObjectBuilder::new().schema_type(Type::Integer);
        let list = ArrayBuilder::new().items(size());
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
    fn name() -> Cow<'static, str> {
        "Steps".into()
    }
}

field::objects! {
    pub Scheme: "How to quantize. Every field may be left out; what is given is checked\nagainst the rest, and contradictions are refused.", How::CLOSED, options::SCHEME;
    pub Codes: "The codes that scales and zero points are for. Without any of these fields,\nthose that the calibrator was created for.", How::CLOSED, options::CODES;
    pub TensorBody: "A tensor: numbers nested in arrays, or flat with a shape, or base64.", How::OPEN, payload::TENSOR;
}

/// A scheme, or the name of a preset.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(untagged)]
pub enum SchemeOrPreset {
    /// Fields.
    Fields(Scheme),
    /// Name of a preset.
    Preset(PresetName),
}

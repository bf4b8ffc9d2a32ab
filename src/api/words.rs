//! Schemas of the words that options take, from the lists that parse them.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::calibrators::NanLearnt;
use super::layers::create;
use super::presets::PRESETS;
use super::samples::SAMPLES;
use super::{compare, dequantize, formats, matmul};
use quantd_core::calibrate::MethodName;
use quantd_core::layer::Activation;
use quantd_core::matmul::Requantization;
use quantd_core::params::Profile;
use quantd_core::scheme::{GranularityName as GranularityWord, NanPolicy, RangeName as RangeWord};
use quantd_core::tensor::DType;
use quantd_core::word::Word;

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

fn names(dtypes: &[DType]) -> Vec<&'static str> {
    dtypes.iter().map(|dtype| dtype.name()).collect()
}

words! {
    Dtype: "Element types of tensors. The names that `NumPy`, `PyTorch` and Rust have for them are taken as\nwell: `float32`, `torch.float16`, `<f4`, `bf16`.", names(&DType::ALL);
    FormatName: "Names of number formats.", formats::all().map(|format| format.name());
    RangeName: "Names of range methods.", RangeWord::names();
    GranularityName: "Names of granularities.", GranularityWord::names();
    ProfileName: "Names of profiles.", Profile::names();
    NanName: "Names of NaN policies.", NanPolicy::names();
    PresetName: "Names of common schemes.", PRESETS.iter().map(|preset| preset.name);
    SampleName: "Names of tensors to try things on.", SAMPLES.map(|sample| sample.name);
    OutputName: "The tensors of an answer of quantize.", formats::parts();
    RealDtype: "Floating-point types that dequantize writes, by any name that they have.", names(&dequantize::OUTPUTS);
    ScaleDtype: "Element types of scales, by any name that they have.", names(&[DType::F32, DType::F64]);
    SortName: "Columns to sort a comparison by.", compare::Sort::names();
    ProductDtype: "Element types of products, by any name that they have.", names(&matmul::PRODUCTS);
    RequantizeName: "Names of definitions of requantization.", Requantization::names();
    LearntRange: "Names of the ways in which calibrators find ranges.", MethodName::names();
    LearntGranularity: "Names of the granularities that calibrators have.", LEARNT.map(Word::name);
    LearntNan: "What calibrators make of NaN.", NanLearnt::names();
    LayerKind: "Kinds of layers.", create::LayerKind::names();
    ActivationName: "Functions applied to results.", Activation::names();
}

/// The granularities that batches have again and again.
const LEARNT: [GranularityWord; 2] = [GranularityWord::Tensor, GranularityWord::Channel];

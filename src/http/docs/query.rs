//! Options in the query string, and bodies of options beside a tensor, from the tables that parse them.

use std::borrow::Cow;

use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::api::fields::field::{self, Component, How};
use crate::api::schemas::{SampleName, TensorBody};
use crate::api::{
    calibrators, compare, dequantize, inspect, layers, matmul, options, payload, quantize,
};

/// Parameters of queries: `Name: tables`.
macro_rules! queries {
    ($($name:ident: $($table:expr),+;)+) => {$(
        #[doc = "Options in the query string."]
        pub(in crate::http) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                [$($table),+].into_iter().flat_map(field::parameters).collect()
            }
        }
    )+};
}

queries! {
    SchemeQuery: options::SCHEME;
    TensorQuery: payload::BARE;
    QuantizeQuery: quantize::QUERY;
    DequantizeQuery: dequantize::QUERY;
    CompareQuery: compare::QUERY;
    InspectQuery: inspect::QUERY;
    MatmulQuery: matmul::OPERANDS, matmul::OPTIONS;
    CalibratorQuery: calibrators::QUERY[0], calibrators::QUERY[1];
    BatchQuery: calibrators::BATCH;
    LayerQuery: payload::BARE, layers::options::QUERY;
    RunQuery: layers::run::RUN;
}

/// Bodies of the members of tables: `Name: "description", how, tables`.
macro_rules! bodies {
    ($($name:ident: $description:literal, $how:expr, $($table:expr),+;)+) => {$(
        #[doc = $description]
        #[derive(serde::Serialize)]
        pub(in crate::http) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                field::object($description, &[$($table),+], $how)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $how.flattened.iter().for_each(|component| component.add_to(schemas));
                [$($table),+].into_iter().for_each(|table| field::add_components(table, schemas));
            }
        }
    )+};
}

/// With the members of a tensor.
const TENSOR: How = How { flattened: Some(Component::of::<TensorBody>()), ..How::OPEN };
/// With a name, and nothing else beside its members.
const NAMED: How = How { required: &["name"], ..How::CLOSED };
/// With both operands.
const OPERANDS: How = How { required: &["a", "b"], ..How::OPEN };

bodies! {
    QuantizeRequest: "One tensor or several, and a scheme.", TENSOR, quantize::MEMBERS;
    CompareRequest: "One tensor and the schemes to compare.", TENSOR, compare::MEMBERS;
    InspectRequest: "One tensor and what to find out about it.", TENSOR, inspect::MEMBERS, inspect::QUERY;
    MatmulRequest: "Two operands and what to make of their product.", OPERANDS, matmul::MEMBERS, matmul::OPTIONS;
    BatchRequest: "One batch.", TENSOR, calibrators::BATCH;
    LayerRequest: "A layer to make.", How::OPEN, layers::options::MEMBERS;
    CalibratorRequest: "A calibrator to be.", NAMED, calibrators::CREATION;
    MergeRequest: "The other calibrator of a merge: one of the two.", How::CLOSED, calibrators::MERGER;
    RunRequest: "One tensor, and how to run it.", TENSOR, layers::run::RUN;
}

/// The name of a sample.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct SamplePath {
    /// What the tensor is like.
    #[param(inline, example = "weights")]
    name: SampleName,
}

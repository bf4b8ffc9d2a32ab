//! Options in the query string, and bodies of options beside a tensor, from the tables that parse them.

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

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
    CalibratorQuery: calibrators::QUERY[0], calibrators::QUERY[1], calibrators::QUERY[2];
    BatchQuery: calibrators::BATCH;
    LayerQuery: payload::BARE, layers::options::QUERY;
    RunQuery: layers::run::RUN;
}

/// With the members of a tensor.
const TENSOR: How = How { flattened: Some(Component::of::<TensorBody>()), ..How::OPEN };
/// With a name, and nothing else beside its members.
const NAMED: How = How { required: &["name"], ..How::CLOSED };
/// With both operands.
const OPERANDS: How = How { required: &["a", "b"], ..How::OPEN };

field::objects! {
    pub(in crate::http) QuantizeRequest: "One tensor or several, and a scheme.", TENSOR, quantize::MEMBERS;
    pub(in crate::http) CompareRequest: "One tensor and the schemes to compare.", TENSOR, compare::MEMBERS;
    pub(in crate::http) InspectRequest: "One tensor and what to find out about it.", TENSOR, inspect::MEMBERS, inspect::QUERY;
    pub(in crate::http) MatmulRequest: "Two operands and what to make of their product.", OPERANDS, matmul::MEMBERS, matmul::OPTIONS;
    pub(in crate::http) BatchRequest: "One batch.", TENSOR, calibrators::BATCH;
    pub(in crate::http) LayerRequest: "A layer to make.", How::OPEN, layers::options::MEMBERS;
    pub(in crate::http) CalibratorRequest: "A calibrator to be.", NAMED, calibrators::CREATION;
    pub(in crate::http) MergeRequest: "The other calibrator of a merge: one of the two.", How::CLOSED, calibrators::MERGER;
    pub(in crate::http) RunRequest: "One tensor, and how to run it.", TENSOR, layers::run::RUN;
}

/// The name of a sample.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct SamplePath {
    /// What the tensor is like.
    #[param(inline, example = "weights")]
    name: SampleName,
}

//! The documents of `/v2` as they are written and described.

use serde::Serialize;
use utoipa::ToSchema;

use quantd_codec::oip::datatype;

use super::models::Spec;

/// The server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    /// `quantd`.
    #[schema(example = "quantd")]
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Extensions of the protocol that it speaks.
    pub extensions: Vec<&'static str>,
}

/// A tensor of a model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    /// Its name.
    #[schema(example = "x")]
    pub name: String,
    /// Type of its elements.
    #[schema(example = "FP32")]
    pub datatype: &'static str,
    /// Its dimensions; -1 where any size will do.
    pub shape: Vec<i64>,
}

impl From<&Spec> for TensorMetadata {
    fn from(spec: &Spec) -> Self {
        Self {
            name: spec.name.to_owned(),
            datatype: datatype(spec.dtype),
            shape: spec.dims.clone(),
        }
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// Its versions, the oldest first.
    pub versions: Vec<String>,
    /// What carries it out.
    #[schema(example = "quantd_builtin")]
    pub platform: &'static str,
    /// Inputs it needs.
    pub inputs: Vec<TensorMetadata>,
    /// Outputs it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor in a configuration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    #[schema(example = "TYPE_FP32")]
    pub data_type: String,
    /// Its dimensions; -1 where any size will do.
    pub dims: Vec<i64>,
}

impl From<&TensorMetadata> for TensorConfig {
    fn from(tensor: &TensorMetadata) -> Self {
        Self {
            name: tensor.name.clone(),
            data_type: format!("TYPE_{}", tensor.datatype),
            dims: tensor.shape.clone(),
        }
    }
}

/// A model in the terms of Triton's configuration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// What carries it out.
    pub platform: &'static str,
    /// `quantd`.
    pub backend: &'static str,
    /// 0: no dimension of the inputs is that of a batch by contract.
    pub max_batch_size: u64,
    /// Inputs it needs.
    pub input: Vec<TensorConfig>,
    /// Outputs it gives.
    pub output: Vec<TensorConfig>,
}

impl From<ModelMetadata> for ModelConfig {
    fn from(model: ModelMetadata) -> Self {
        Self {
            input: model.inputs.iter().map(TensorConfig::from).collect(),
            output: model.outputs.iter().map(TensorConfig::from).collect(),
            name: model.name,
            platform: model.platform,
            backend: "quantd",
            max_batch_size: 0,
        }
    }
}

/// A model of the repository.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IndexEntry {
    /// Its name.
    pub name: String,
    /// A version of it.
    pub version: String,
    /// `READY`, or `UNAVAILABLE`.
    #[schema(example = "READY")]
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: &'static str,
}

/// Names of models.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelNames {
    /// The names.
    pub models: Vec<String>,
}

/// How often something happened, and for how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StatisticDuration)]
pub struct Duration {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// What requests to a model took.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct InferStatistics {
    /// Requests that were answered, from the first byte to the answer.
    pub success: Duration,
    /// Requests that were not.
    pub fail: Duration,
    /// Waiting for a compute thread.
    pub queue: Duration,
    /// Decoding.
    pub compute_input: Duration,
    /// Computing.
    pub compute_infer: Duration,
    /// Encoding.
    pub compute_output: Duration,
    /// Nothing is cached.
    pub cache_hit: Duration,
    /// Nothing is cached.
    pub cache_miss: Duration,
}

/// What executions with that many rows took.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct BatchStatistics {
    /// Rows of an execution.
    pub batch_size: u64,
    /// Decoding.
    pub compute_input: Duration,
    /// Computing.
    pub compute_infer: Duration,
    /// Encoding.
    pub compute_output: Duration,
}

/// Memory that a model takes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemoryUsage {
    /// `CPU`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// 0.
    pub id: i64,
    /// Bytes.
    pub byte_size: u64,
}

/// Counts and durations of a model since the server started.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelStatistics {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When the last request was made, milliseconds since 1970; 0 if there was none.
    pub last_inference: u64,
    /// Requests, each row of a batch counted.
    pub inference_count: u64,
    /// Executions.
    pub execution_count: u64,
    /// Durations of requests.
    pub inference_stats: InferStatistics,
    /// Nothing is streamed.
    #[schema(value_type = Object)]
    pub response_stats: serde_json::Map<String, serde_json::Value>,
    /// Durations of executions by their rows.
    pub batch_stats: Vec<BatchStatistics>,
    /// Memory that the model holds.
    pub memory_usage: Vec<MemoryUsage>,
}

/// Statistics of models.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ModelsStatistics)]
pub struct Statistics {
    /// One entry a model and version.
    pub model_stats: Vec<ModelStatistics>,
}

//! Descriptions of layers.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::documents::ProductReportDoc;
use quantd_core::layer::{Definition, Geometry, Layer, Output};
use quantd_core::word::Word;

use super::options::LayerKind;
use quantd_kernels::scalar::QuantParams;

/// Codes of weights.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LayerWeight)]
pub struct WeightDoc {
    /// `[outputs, inputs]`, or `[outputs, inputs / groups, height, width]`.
    pub shape: Vec<usize>,
    /// Type of the codes, I8 or U8.
    #[schema(example = "I8")]
    pub dtype: &'static str,
    /// Bits of a code.
    pub bits: u32,
    /// Which weights share a scale: tensor, channel or group.
    #[schema(example = "channel")]
    pub granularity: &'static str,
    /// Neighbours along the inputs that share one.
    pub group_size: Option<usize>,
}

/// How an input becomes codes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LayerInput)]
pub struct InputDoc {
    /// `dynamic`, `dynamic_per_token` or `static`.
    #[schema(example = "dynamic_per_token")]
    pub mode: &'static str,
    /// Type of the codes; static ones are taken as such too.
    #[schema(example = "U8")]
    pub dtype: &'static str,
    /// Bits of a code.
    pub bits: u32,
    /// Zero point fixed in the middle of the codes.
    pub symmetric: bool,
    /// Scale of a static input.
    pub scale: Option<f32>,
    /// Zero point of a static input.
    pub zero_point: Option<i32>,
}

/// How a result leaves.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LayerOutput)]
pub struct OutputDoc {
    /// F32, U8 or I8.
    #[schema(example = "F32")]
    pub dtype: &'static str,
    /// Scale of codes.
    pub scale: Option<f32>,
    /// Zero point of codes.
    pub zero_point: Option<i32>,
    /// Whose definition of requantization is followed; `null` where a real
    /// result is quantized.
    pub requantize: Option<&'static str>,
}

/// How a kernel moves over images.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LayerConvolution)]
pub struct ConvDoc {
    /// Down and across.
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// Down and across.
    pub dilation: [usize; 2],
    /// Parts of the channels that do not see one another.
    pub groups: usize,
}

/// How large a layer is. All but `memory_bytes` is the same on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LayerMemory)]
pub struct MemoryDoc {
    /// Weights as codes of their bits, their scales and zero points, the bias.
    pub packed_bytes: usize,
    /// The same weights and bias in F32.
    pub float_bytes: usize,
    /// `packed_bytes`, and the real weights where they are kept.
    pub held_bytes: usize,
    /// Memory that it takes here, as the instructions of this machine read it.
    pub memory_bytes: usize,
}

/// A layer of a chain.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChainLink)]
pub struct LinkDoc {
    /// Its name.
    pub name: String,
    /// Its version at the moment.
    pub version: Option<u64>,
    /// Whether its codes go on to the next layer as they are.
    pub passes_codes: Option<bool>,
}

/// A layer, or a chain of layers; fields of the other kinds are `null`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Layer)]
pub struct LayerDoc {
    /// Its name.
    #[schema(example = "fc1")]
    pub name: String,
    /// 1, and one more each time it is replaced.
    pub version: u64,
    /// `linear`, `conv2d` or `chain`.
    #[schema(example = "linear")]
    pub kind: &'static str,
    /// Whether it is in memory, or a file that is read when it is used.
    pub loaded: bool,
    /// Codes of the weights.
    pub weight: Option<WeightDoc>,
    /// Whether there is a bias.
    pub bias: Option<bool>,
    /// How the input becomes codes.
    pub input: Option<InputDoc>,
    /// How the result leaves.
    pub output: Option<OutputDoc>,
    /// `none`, `relu`, `gelu` or `gelu_tanh`.
    pub activation: Option<&'static str>,
    /// How the kernel moves.
    pub convolution: Option<ConvDoc>,
    /// The layers of a chain.
    pub chain: Option<Vec<LinkDoc>>,
    /// Whether each row, or image, has the result that it has alone.
    pub row_independent: Option<bool>,
    /// Memory; that of a chain is the sum of its layers' once they are loaded.
    pub memory: MemoryDoc,
}

/// All layers.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Layers)]
pub struct LayersDoc {
    /// In the order of their names.
    pub layers: Vec<LayerDoc>,
    /// `held_bytes` of those in memory.
    pub held_bytes: usize,
    /// Memory that they take here.
    pub memory_bytes: usize,
    /// Memory that they may take.
    pub max_bytes: usize,
    /// What happens when they are not enough: `refuse` or `lru`.
    #[schema(example = "refuse")]
    pub eviction: &'static str,
}

/// Times of the same input in integers and in real numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = EvaluationTime)]
pub struct TimeDoc {
    /// Best time of the integers, milliseconds.
    pub integer_ms: f64,
    /// Best time of the real numbers on the same threads, milliseconds.
    pub float_ms: f64,
    /// The second over the first.
    pub speed_up: Option<f64>,
    /// Runs of each.
    pub runs: u32,
}

/// Integers beside real numbers, on the caller's data.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Evaluation)]
pub struct EvaluationDoc {
    /// Name of the layer.
    pub layer: String,
    /// Its version.
    pub version: u64,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// How far the results of integers are from those of real numbers.
    pub error: ProductReportDoc,
    /// Memory, the sum over a chain.
    pub memory: MemoryDoc,
    /// `float_bytes` over `packed_bytes`.
    pub compression_ratio: f64,
    /// Times.
    pub time: TimeDoc,
}

const fn parts(affine: Option<QuantParams<f32>>) -> (Option<f32>, Option<i32>) {
    match affine {
        Some(QuantParams { scale, zero_point }) => (Some(scale), Some(zero_point)),
        None => (None, None),
    }
}

impl From<&Layer> for MemoryDoc {
    fn from(layer: &Layer) -> Self {
        Self {
            packed_bytes: layer.packed_bytes(),
            float_bytes: layer.float_bytes(),
            held_bytes: layer.held_bytes(),
            memory_bytes: layer.memory_bytes(),
        }
    }
}

impl std::iter::Sum for MemoryDoc {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |total, one| Self {
            packed_bytes: total.packed_bytes + one.packed_bytes,
            float_bytes: total.float_bytes + one.float_bytes,
            held_bytes: total.held_bytes + one.held_bytes,
            memory_bytes: total.memory_bytes + one.memory_bytes,
        })
    }
}

impl LayerDoc {
    /// A layer without a name yet.
    #[must_use]
    pub fn of_layer(definition: &Definition, layer: &Layer) -> Self {
        let weight = &definition.weight;
        let input = layer.input();
        let (scale, zero_point) = parts(input.fixed());
        let (own_scale, own_zero_point) = parts(layer.output().affine());
        let requantize = layer.requantization().map(|definition| definition.name());
        let (kind, convolution) = match layer.geometry() {
            Geometry::Linear => (LayerKind::Linear, None),
            Geometry::Conv(conv) => {
                let (stride, padding, dilation) = (conv.stride, conv.padding, conv.dilation);
                (
                    LayerKind::Conv2d,
                    Some(ConvDoc { stride, padding, dilation, groups: conv.groups }),
                )
            }
        };
        let requantize = requantize.filter(|_| matches!(layer.output(), Output::Codes { .. }));
        Self {
            name: String::new(),
            version: 0,
            kind: kind.name(),
            loaded: true,
            weight: Some(WeightDoc {
                shape: layer.weight_dims().to_vec(),
                dtype: weight.codes().dtype().name(),
                bits: weight.bits(),
                granularity: weight.granularity(),
                group_size: weight.group(),
            }),
            bias: Some(layer.has_bias()),
            input: Some(InputDoc {
                mode: input.parameters.name(),
                dtype: input.dtype().name(),
                bits: input.numerics.bits,
                symmetric: input.numerics.symmetric,
                scale,
                zero_point,
            }),
            output: Some(OutputDoc {
                dtype: layer.output().dtype().name(),
                scale: own_scale,
                zero_point: own_zero_point,
                requantize,
            }),
            activation: Some(layer.activation().name()),
            convolution,
            chain: None,
            row_independent: Some(layer.is_row_independent()),
            memory: MemoryDoc::from(layer),
        }
    }

    /// A chain without a name yet.
    #[must_use]
    pub fn of_chain() -> Self {
        Self {
            name: String::new(),
            version: 0,
            kind: LayerKind::Chain.name(),
            loaded: true,
            weight: None,
            bias: None,
            input: None,
            output: None,
            activation: None,
            convolution: None,
            chain: Some(Vec::new()),
            row_independent: None,
            memory: MemoryDoc::default(),
        }
    }
}

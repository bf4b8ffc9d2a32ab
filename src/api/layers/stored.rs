//! Layers as files: safetensors with a description and checksums, so that a
//! file that is torn or damaged is known for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::error::Place;
use crate::api::name::Name;
use quantd_codec::{Limits, safetensors};
use quantd_core::Task;
use quantd_core::format::integer::Stated;
use quantd_core::layer::{
    Activation, Conv, Definition, Geometry, Input, Layer, Order, Output, Parameters, Weight,
};
use quantd_core::matmul::{Operand, Requantization};
use quantd_core::params::{Numerics, Profile};
use quantd_core::scheme::{Granularity, NanPolicy};
use quantd_core::tensor::{Buffer, DType, Reals, Shape, Tensor};
use quantd_core::word::Word;
use quantd_kernels::scalar::QuantParams;

use super::documents::LayerDoc;

/// What the metadata of such a file says it is.
const FORMAT: &str = "quantd-layer-1";

/// A layer on its way to a file; its name and version are given when it is written.
#[derive(Debug)]
pub struct Stored {
    description: Description,
    tensors: Vec<(String, Tensor)>,
}

/// A file that was read.
#[derive(Debug)]
pub struct Restored {
    /// The name in it.
    pub name: Name,
    /// The version in it.
    pub version: u64,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug)]
pub enum Content {
    /// A layer and its description.
    Layer(Box<(Layer, LayerDoc)>),
    /// The names of a chain.
    Chain(Vec<Name>),
}

/// Everything about a layer but its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    version: u64,
    /// Of the bytes of all tensors.
    data_sha256: String,
    chain: Option<Vec<String>>,
    layer: Option<Kind>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    convolution: Option<Convolution>,
    bits: u32,
    group: Option<usize>,
    input: Coding,
    output: Option<Coding>,
    requantize: Option<String>,
    activation: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Convolution {
    stride: [usize; 2],
    padding: [usize; 4],
    dilation: [usize; 2],
    groups: usize,
}

/// Codes of an input or an output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coding {
    profile: String,
    bits: u32,
    signed: bool,
    symmetric: bool,
    restricted: bool,
    nan: String,
    per_token: bool,
    scale: Option<f32>,
    zero_point: Option<i32>,
}

impl Coding {
    fn new(numerics: &Numerics, nan: NanPolicy, parameters: Parameters) -> Self {
        let fixed = match parameters {
            Parameters::Static(affine) => Some(affine),
            Parameters::Tensor | Parameters::Token => None,
        };
        Self {
            profile: numerics.profile.name().to_owned(),
            bits: numerics.bits,
            signed: numerics.signed,
            symmetric: numerics.symmetric,
            restricted: numerics.restricted,
            nan: nan.name().to_owned(),
            per_token: parameters == Parameters::Token,
            scale: fixed.map(|affine| affine.scale),
            zero_point: fixed.map(|affine| affine.zero_point),
        }
    }

    fn numerics(&self) -> Option<Numerics> {
        let profile = Profile::find(&self.profile)?;
        let Self { bits, signed, symmetric, restricted, .. } = *self;
        (2..=8).contains(&bits).then_some(Numerics { profile, bits, signed, symmetric, restricted })
    }

    /// The scale and zero point: `Some(None)` where there are none, `None` where they are wrong.
    fn affine(&self) -> Option<Option<QuantParams<f32>>> {
        let codes = self.numerics()?.code_range();
        match (self.scale, self.zero_point) {
            (None, None) => Some(None),
            (Some(scale), Some(zero_point))
                if scale > 0.0
                    && scale.is_finite()
                    && (codes.min..=codes.max).contains(&zero_point) =>
            {
                Some(Some(QuantParams { scale, zero_point }))
            }
            _ => None,
        }
    }

    fn input(&self) -> Option<Input> {
        let nan = NanPolicy::find(&self.nan)?;
        let parameters = match (self.affine()?, self.per_token) {
            (Some(affine), _) => Parameters::Static(affine),
            (None, true) => Parameters::Token,
            (None, false) => Parameters::Tensor,
        };
        Some(Input { numerics: self.numerics()?, parameters, nan })
    }
}

impl Kind {
    fn output(&self) -> Option<Output> {
        let Some(coding) = &self.output else { return Some(Output::F32) };
        let requantization = match &self.requantize {
            None => None,
            Some(name) => Some(Requantization::find(name.as_str())?),
        };
        Some(Output::Codes {
            numerics: coding.numerics()?,
            affine: coding.affine()??,
            requantization,
        })
    }
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    parts.for_each(|part| digest.update(part));
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A vector of elements as a tensor.
fn vector<T: bytemuck::Pod>(dtype: DType, elements: &[T]) -> Option<Tensor> {
    Tensor::from_elements(dtype, Shape::vector(elements.len()).ok()?, elements)
}

impl Stored {
    /// Of a layer.
    #[must_use]
    pub fn layer(definition: &Definition) -> Self {
        let Definition { weight, bias, float, input, output, activation, .. } = definition;
        let tensors = [
            ("weight.codes", Some(weight.codes().clone())),
            ("weight.scale", vector(DType::F32, weight.scales())),
            ("weight.zero_point", vector(DType::I32, weight.zero_points())),
            ("bias", bias.as_ref().and_then(|bias| vector(DType::F32, bias))),
            ("float", float.clone()),
        ];
        let tensors = tensors.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t?)));
        let convolution = match definition.geometry {
            Geometry::Linear => None,
            Geometry::Conv(Conv { stride, padding, dilation, groups }) => {
                Some(Convolution { stride, padding, dilation, groups })
            }
        };
        let (output, requantize) = match output {
            Output::F32 => (None, None),
            Output::Codes { numerics, affine, requantization } => (
                Some(Coding::new(numerics, NanPolicy::Zero, Parameters::Static(*affine))),
                requantization.map(|one| one.name().to_owned()),
            ),
        };
        let kind = Kind {
            convolution,
            bits: weight.bits(),
            group: weight.group(),
            input: Coding::new(&input.numerics, input.nan, input.parameters),
            output,
            requantize,
            activation: activation.name().to_owned(),
        };
        Self::new(tensors.collect(), None, Some(kind))
    }

    /// Of a chain.
    #[must_use]
    pub fn chain(names: &[Name]) -> Self {
        let names = names.iter().map(|name| name.as_str().to_owned()).collect();
        Self::new(Vec::new(), Some(names), None)
    }

    fn new(
        tensors: Vec<(String, Tensor)>,
        chain: Option<Vec<String>>,
        layer: Option<Kind>,
    ) -> Self {
        let data_sha256 = digest(tensors.iter().map(|(_, tensor)| tensor.bytes()));
        let description =
            Description { name: String::new(), version: 0, data_sha256, chain, layer };
        Self { description, tensors }
    }

    /// The bytes of the file, in order.
    ///
    /// # Errors
    /// [`serde_json::Error`], which none of ours gives.
    pub fn segments(&self, name: &Name, version: u64) -> Result<Vec<Bytes>, serde_json::Error> {
        let own =
            Description { name: name.as_str().to_owned(), version, ..self.description.clone() };
        let text = serde_json::to_string(&own)?;
        let metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("sha256".to_owned(), digest([text.as_bytes()].into_iter())),
            ("description".to_owned(), text),
        ]);
        let entries: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, tensor)| safetensors::Entry {
                name,
                dtype: tensor.dtype().name(),
                shape: tensor.shape().dims(),
                byte_len: tensor.bytes().len(),
            })
            .collect();
        let header = Bytes::from(safetensors::header(&entries, &metadata));
        let tensors = self.tensors.iter().map(|(_, t)| Bytes::from_owner(t.clone()));
        Ok(std::iter::once(header).chain(tensors).collect())
    }
}

/// Reads a file and packs what it holds.
///
/// # Errors
/// What is wrong with it, for the log.
pub fn read(buffer: Buffer, task: &Task) -> Result<Restored, String> {
    let bytes = buffer.bytes().len();
    let limits = Limits {
        max_bytes: bytes,
        max_elements: bytes,
        max_header_bytes: bytes,
        ..Limits::default()
    };
    let document =
        safetensors::read(Arc::new(buffer), &limits).map_err(|error| error.to_string())?;
    let entry = |name: &str| document.metadata.get(name).map_or("", String::as_str);
    if entry("format") != FORMAT {
        return Err("not a file of a layer".to_owned());
    }
    let text = entry("description");
    if digest([text.as_bytes()].into_iter()) != entry("sha256") {
        return Err("the description has another checksum".to_owned());
    }
    let description: Description =
        serde_json::from_str(text).map_err(|_| "the description is not readable".to_owned())?;
    let data = document.tensors.iter().map(|(_, tensor)| tensor.bytes());
    if digest(data) != description.data_sha256 {
        return Err("the tensors have another checksum".to_owned());
    }
    let name = |text: &str| {
        Name::new(text, Place::Pointer("/name".to_owned())).map_err(|error| error.to_string())
    };
    let content = match (&description.chain, &description.layer) {
        (Some(chain), None) if !chain.is_empty() => {
            Content::Chain(chain.iter().map(|text| name(text)).collect::<Result<_, _>>()?)
        }
        (None, Some(kind)) => {
            let definition = definition(kind, document.tensors.into_iter().collect(), task)
                .ok_or_else(|| "the description contradicts itself".to_owned())??;
            let layer = Layer::new(&definition, task).map_err(|error| error.to_string())?;
            let doc = LayerDoc::of_layer(&definition, &layer);
            Content::Layer(Box::new((layer, doc)))
        }
        _ => return Err("neither a layer nor a chain".to_owned()),
    };
    // What comes after it is a number as well.
    let version = description.version;
    if !(1..i64::MAX.cast_unsigned()).contains(&version) {
        return Err("the version is none that a layer can have".to_owned());
    }
    Ok(Restored { name: name(&description.name)?, version, content })
}

/// `None` for words and numbers that are none of ours.
fn definition(
    kind: &Kind,
    mut tensors: BTreeMap<String, Tensor>,
    task: &Task,
) -> Option<Result<Definition, String>> {
    let (geometry, order) = match kind.convolution {
        None => (Geometry::Linear, Order::OutIn),
        Some(Convolution { stride, padding, dilation, groups }) => {
            (Geometry::Conv(Conv { stride, padding, dilation, groups }), Order::Oihw)
        }
    };
    let codes = tensors.remove("weight.codes")?;
    let scale = tensors.remove("weight.scale")?;
    let zero_point = tensors.remove("weight.zero_point")?;
    let granularity = match kind.group {
        Some(0) => return None,
        Some(size) => Granularity::Group { axis: 1, size },
        None if scale.shape().len().max(zero_point.shape().len()) == 1 => Granularity::Tensor,
        None => Granularity::Channel { axis: 0 },
    };
    let operand = Operand::Coded {
        codes: &codes,
        scale: Some(&scale),
        zero_point: Some(&zero_point),
        granularity,
        stated: Stated { bits: Some(kind.bits), signed: None },
    };
    if !(2..=8).contains(&kind.bits) {
        return None;
    }
    let weight = match Weight::new(&operand, order, task) {
        Ok(weight) => weight,
        Err(error) => return Some(Err(error.to_string())),
    };
    let output = kind.output()?;
    let bias = match tensors.remove("bias") {
        None => None,
        Some(bias) => match bias.reals() {
            Reals::F32(bias) => Some(bias.into_owned()),
            Reals::F64(_) => return None,
        },
    };
    let float = tensors.remove("float");
    let fits =
        |float: &Tensor| float.dtype() == DType::F32 && float.shape() == weight.codes().shape();
    if !float.as_ref().is_none_or(fits) || !tensors.is_empty() {
        return None;
    }
    // A copy: a view would keep the whole file.
    let float = float.and_then(|float| {
        Tensor::from_elements(DType::F32, float.shape().clone(), &float.elements::<f32>())
    });
    let activation = Activation::find(&kind.activation)?;
    let input = kind.input.input()?;
    Some(Ok(Definition { geometry, weight, bias, float, input, output, activation }))
}

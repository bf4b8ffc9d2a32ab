//! Answers: segments of bytes in one of the formats.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use quantd_codec::json::{Room, Text};
use quantd_codec::safetensors::AnyTensor;
use quantd_codec::{encoding, json, npy, safetensors};
use quantd_core::tensor::{DType, Reals, Tensor};

use super::context::Context;
use super::error::{Error, Kind};
use super::formats;
use super::payload::Format;

pub use quantd_codec::encoding::Encoding;

/// What a bare tensor cannot say: its name, as that of a field, and its text.
pub type Fact = (&'static str, String);

/// The names of all facts.
#[must_use]
pub fn facts() -> Vec<&'static str> {
    let own = ["dtype", "shape", "logical_shape", "scheme", "report", "omitted"];
    let layers = ["layer", "layer_version"];
    own.into_iter().chain(formats::parts_beside_codes()).chain(layers).collect()
}

/// How the text of an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Laid out for people.
    pub pretty: bool,
    /// In that content coding, where it pays.
    pub encoding: Encoding,
}

impl Style {
    /// As it is written.
    pub const PLAIN: Self = Self { pretty: false, encoding: Encoding::Identity };
}

/// A complete answer, in pieces so that no tensor is copied into it.
#[derive(Debug)]
pub struct Answer {
    /// The bytes, in order.
    pub segments: Vec<Bytes>,
    /// Their format.
    pub format: Format,
    /// Their content coding.
    pub encoding: Encoding,
    /// Facts that a bare tensor cannot carry, to go beside it.
    pub facts: Vec<Fact>,
    /// Bytes of JSON that the elements of tensors follow, in the inference protocol.
    pub json_len: Option<usize>,
    /// The name of what was made, if anything was.
    pub created: Option<String>,
    /// Tensors in it that are as they came.
    pub passed: usize,
    /// Bytes of memory that the segments keep beside their own: they are views of larger pieces.
    pub(super) behind: usize,
}

/// NumPy has no name for bfloat16: its values are widened, which is exact.
fn named_by_numpy(tensor: Tensor) -> Tensor {
    if tensor.dtype() != DType::BF16 {
        return tensor;
    }
    match tensor.reals() {
        Reals::F32(reals) => Tensor::from_elements(DType::F32, tensor.shape().clone(), &reals),
        Reals::F64(_) => None,
    }
    .unwrap_or(tensor)
}

impl Answer {
    fn new(segments: Vec<Bytes>, format: Format) -> Self {
        let encoding = Encoding::Identity;
        let facts = Vec::new();
        Self {
            segments,
            format,
            encoding,
            facts,
            json_len: None,
            created: None,
            passed: 0,
            behind: 0,
        }
    }

    /// A JSON text, and a line end behind it.
    ///
    /// # Errors
    /// There is no room.
    pub fn json(mut text: Text<'_>) -> Result<Self, Error> {
        text.push(b"\n")?;
        Ok(Self::head(text))
    }

    /// A JSON text that is not all of an answer.
    #[must_use]
    pub fn head(text: Text<'_>) -> Self {
        Self::new(text.finish(), Format::Json)
    }

    /// A JSON document, whose text takes of that room.
    ///
    /// # Errors
    /// There is no room.
    pub fn document(document: &impl Serialize, room: Room<'_>) -> Result<Self, Error> {
        let mut text = Text::new(room);
        write_value(&mut text, document)?;
        Self::json(text)
    }

    /// A JSON object written by `write`, whose text takes of that room.
    ///
    /// # Errors
    /// There is no room, or those of `write`.
    pub fn object(
        room: Room<'_>,
        write: impl FnOnce(&mut ObjectWriter<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut writer = ObjectWriter { text: Text::new(room), first: true };
        writer.braces(write)?;
        Self::json(writer.text)
    }

    /// A safetensors file.
    #[must_use]
    pub fn safetensors(
        tensors: Vec<(String, impl Into<AnyTensor>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let tensors: Vec<_> = tensors.into_iter().map(|(name, x)| (name, x.into())).collect();
        let entries: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| safetensors::Entry {
                name,
                dtype: tensor.dtype_name(),
                shape: tensor.shape().dims(),
                byte_len: tensor.as_ref().len(),
            })
            .collect();
        let header = Bytes::from(safetensors::header(&entries, metadata));
        let behind = behind(&tensors);
        let payloads = tensors.into_iter().map(|(_, tensor)| Bytes::from_owner(tensor));
        let segments = std::iter::once(header).chain(payloads).collect();
        Self { behind, ..Self::new(segments, Format::Safetensors) }
    }

    /// One tensor as npy or as bare elements, with facts about it.
    #[must_use]
    pub fn tensor(tensor: Tensor, format: Format, facts: Vec<Fact>) -> Self {
        let mut segments = Vec::with_capacity(2);
        let tensor = if format == Format::Npy { named_by_numpy(tensor) } else { tensor };
        if format == Format::Npy {
            segments.push(Bytes::from(npy::header(tensor.dtype(), tensor.shape())));
        }
        let mut all = vec![
            ("dtype", tensor.dtype().name().to_owned()),
            ("shape", dims_text(tensor.shape().dims())),
        ];
        all.extend(facts);
        segments.push(Bytes::from_owner(tensor));
        Self { facts: all, ..Self::new(segments, format) }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }

    /// Bytes of memory that it holds until it is written.
    #[must_use]
    pub fn held(&self) -> usize {
        self.len().saturating_add(self.behind)
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same answer in that style.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn styled(self, style: Style, context: &mut Context<'_>) -> Result<Self, Error> {
        let answer = match style.pretty {
            true => self.laid_out(&mut |bytes| context.take(bytes))?,
            false => self,
        };
        answer.compressed(style.encoding, context)
    }

    /// The same answer laid out for people, if it is JSON, with text of that room.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn laid_out(self, room: Room<'_>) -> Result<Self, Error> {
        if self.format != Format::Json {
            return Ok(self);
        }
        // One piece for as long as it is read: a row is looked at to its end.
        room(self.len())?;
        let Self { segments, format, encoding, facts, created, passed, .. } = self;
        let whole = segments.concat();
        drop(segments);
        let mut text = Text::new(room);
        json::write_pretty(&mut text, &whole)?;
        Ok(Self { encoding, facts, created, passed, format, ..Self::head(text) })
    }

    /// The same answer compressed, where that pays: codes are noise to a
    /// compressor, so only JSON of some length is.
    ///
    /// # Errors
    /// There is no room for the compressed text.
    pub fn compressed(self, encoding: Encoding, context: &mut Context<'_>) -> Result<Self, Error> {
        if self.format != Format::Json {
            return Ok(self);
        }
        self.compressed_as(encoding, context)
    }

    /// The same answer compressed whatever it holds, unless it is short.
    ///
    /// # Errors
    /// As [`compressed`](Self::compressed).
    pub fn compressed_as(
        self,
        encoding: Encoding,
        context: &mut Context<'_>,
    ) -> Result<Self, Error> {
        const WORTHWHILE: usize = 1024;
        let wanted = encoding != Encoding::Identity;
        if !wanted || self.len() < WORTHWHILE || context.task.is_cancelled() {
            return Ok(self);
        }
        let mut room = |bytes| context.take(bytes);
        let segments = encoding::encode(encoding, self.segments, &mut room)?;
        Ok(Self { segments, encoding, ..self })
    }
}

/// Bytes of the memory that tensors are views of, beside their own.
fn behind(tensors: &[(String, AnyTensor)]) -> usize {
    let buffers = tensors.iter().map(|(_, tensor)| tensor.buffer());
    let buffers = buffers.map(|buffer| (Arc::as_ptr(buffer), buffer.bytes().len()));
    let whole: usize = BTreeMap::from_iter(buffers).into_values().sum();
    whole.saturating_sub(tensors.iter().map(|(_, tensor)| tensor.as_ref().len()).sum())
}

/// Most bytes of text that a tensor becomes in JSON, brackets aside.
#[must_use]
pub fn text_bytes(tensor: &Tensor) -> usize {
    tensor.shape().len().saturating_mul(json::text_of_one(tensor.dtype()))
}

/// `2,3` for dimensions `[2, 3]`: as `shape` is written in a query.
#[must_use]
pub fn dims_text(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// A small document as JSON.
///
/// # Errors
/// [`Kind::Internal`] if it cannot be written, which none of ours is.
pub fn to_json_text(document: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(document)
        .map_err(|_| Error::new(Kind::Internal, "an answer could not be written"))
}

fn write_value(text: &mut Text<'_>, value: &impl Serialize) -> Result<(), Error> {
    match serde_json::to_writer(&mut *text, value) {
        Ok(()) => Ok(()),
        Err(error) if error.is_io() => Err(text.refusal().into()),
        Err(_) => Err(Error::new(Kind::Internal, "an answer could not be written")),
    }
}

/// Writes a JSON object member by member, for documents that hold tensors.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    text: Text<'a>,
    first: bool,
}

impl ObjectWriter<'_> {
    fn key(&mut self, key: &str) -> Result<(), Error> {
        if !std::mem::take(&mut self.first) {
            self.text.push(b",")?;
        }
        let mut quoted = Vec::with_capacity(key.len() + 3);
        json::write_string(&mut quoted, key);
        quoted.push(b':');
        Ok(self.text.push(&quoted)?)
    }

    /// A member that is a tensor, as nested arrays.
    ///
    /// # Errors
    /// There is no room.
    pub fn tensor(&mut self, key: &str, tensor: &Tensor) -> Result<(), Error> {
        self.key(key)?;
        Ok(json::write_tensor(&mut self.text, tensor)?)
    }

    /// The members of a tensor of real numbers or integers.
    ///
    /// # Errors
    /// There is no room.
    pub fn numbers(&mut self, tensor: &Tensor) -> Result<(), Error> {
        self.value("dtype", &tensor.dtype().name())?;
        self.value("shape", &tensor.shape().dims())?;
        self.tensor("data", tensor)
    }

    /// A member.
    ///
    /// # Errors
    /// There is no room.
    pub fn value(&mut self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.key(key)?;
        write_value(&mut self.text, value)
    }

    /// A member that is an object written by `write`.
    ///
    /// # Errors
    /// There is no room, or those of `write`.
    pub fn object(
        &mut self,
        key: &str,
        write: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.key(key)?;
        self.braces(write)
    }

    fn braces(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.text.push(b"{")?;
        self.first = true;
        write(self)?;
        self.first = false;
        Ok(self.text.push(b"}")?)
    }
}

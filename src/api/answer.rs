//! Answers: segments of bytes in one of the formats.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::codec::{encoding, json, npy, safetensors};
use crate::quant::Cancel;
use crate::tensor::{DType, Reals, Tensor};

use super::error::{Error, Kind};
use super::payload::Format;

pub use crate::codec::encoding::Encoding;

/// Every header of an answer that says what a bare tensor cannot.
pub const FACTS: [&str; 9] = [
    "quantd-dtype",
    "quantd-shape",
    "quantd-logical-shape",
    "quantd-scheme",
    "quantd-scale",
    "quantd-zero-point",
    "quantd-report",
    "quantd-layer",
    "quantd-layer-version",
];

/// A complete answer, in pieces so that no tensor is copied into it.
#[derive(Debug)]
pub struct Answer {
    /// The bytes, in order.
    pub segments: Vec<Bytes>,
    /// Their format.
    pub format: Format,
    /// Their content coding.
    pub encoding: Encoding,
    /// Facts that a bare tensor cannot carry, for headers: name and text.
    pub facts: Vec<(&'static str, String)>,
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
        Self { segments, format, encoding: Encoding::Identity, facts: Vec::new() }
    }

    /// A JSON text.
    #[must_use]
    pub fn json(text: Vec<u8>) -> Self {
        Self::new(vec![Bytes::from(text)], Format::Json)
    }

    /// A JSON document.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it cannot be written, which none of ours is.
    pub fn document(document: &impl Serialize) -> Result<Self, Error> {
        Ok(Self::json(to_json(document)?))
    }

    /// A safetensors file.
    #[must_use]
    pub fn safetensors(
        tensors: Vec<(String, Tensor)>,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let entries: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| safetensors::Entry {
                name,
                dtype: tensor.dtype(),
                shape: tensor.shape().dims(),
                byte_len: tensor.bytes().len(),
            })
            .collect();
        let header = Bytes::from(safetensors::header(&entries, metadata));
        let payloads = tensors.into_iter().map(|(_, tensor)| Bytes::from_owner(tensor));
        Self::new(std::iter::once(header).chain(payloads).collect(), Format::Safetensors)
    }

    /// One tensor as npy or as bare elements, with facts about it.
    #[must_use]
    pub fn tensor(tensor: Tensor, format: Format, facts: Vec<(&'static str, String)>) -> Self {
        let mut segments = Vec::with_capacity(2);
        let tensor = if format == Format::Npy { named_by_numpy(tensor) } else { tensor };
        if format == Format::Npy {
            segments.push(Bytes::from(npy::header(tensor.dtype(), tensor.shape())));
        }
        let mut all = vec![
            ("quantd-dtype", tensor.dtype().name().to_owned()),
            ("quantd-shape", dims_text(tensor.shape().dims())),
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

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same answer compressed, where that pays: codes are noise to a
    /// compressor, so only JSON of some length is.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the compressor fails.
    pub fn compressed(self, encoding: Encoding, cancel: &Cancel) -> Result<Self, Error> {
        if self.format != Format::Json {
            return Ok(self);
        }
        self.compressed_as(encoding, cancel)
    }

    /// The same answer compressed whatever it holds, unless it is short.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the compressor fails.
    pub fn compressed_as(self, encoding: Encoding, cancel: &Cancel) -> Result<Self, Error> {
        const WORTHWHILE: usize = 1024;
        let wanted = encoding != Encoding::Identity;
        if !wanted || self.len() < WORTHWHILE || cancel.is_cancelled() {
            return Ok(self);
        }
        let text = self.segments.concat();
        let bytes = encoding::encode(encoding, &text)
            .map_err(|_| Error::new(Kind::Internal, "the answer could not be compressed"))?;
        Ok(Self { segments: vec![Bytes::from(bytes)], encoding, ..self })
    }
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
pub fn to_json(document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document)
        .map_err(|_| Error::new(Kind::Internal, "an answer could not be written"))
}

/// The same as text.
///
/// # Errors
/// [`Kind::Internal`] as [`to_json`].
pub fn to_json_text(document: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(document)
        .map_err(|_| Error::new(Kind::Internal, "an answer could not be written"))
}

/// Writes a JSON object member by member, for documents that hold tensors.
#[derive(Debug)]
pub struct ObjectWriter {
    text: Vec<u8>,
    first: bool,
}

impl ObjectWriter {
    /// Begins an object at the end of `text`.
    #[must_use]
    pub fn begin(mut text: Vec<u8>) -> Self {
        text.push(b'{');
        Self { text, first: true }
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.text.push(b',');
        }
        self.first = false;
        json::write_string(&mut self.text, key);
        self.text.push(b':');
    }

    /// A member that is a tensor, as nested arrays.
    pub fn tensor(&mut self, key: &str, tensor: &Tensor) {
        self.key(key);
        json::write_tensor(&mut self.text, tensor);
    }

    /// A small member.
    ///
    /// # Errors
    /// [`Kind::Internal`] as [`to_json`].
    pub fn value(&mut self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        let value = to_json(value)?;
        self.key(key);
        self.text.extend_from_slice(&value);
        Ok(())
    }

    /// A member that is an object written by `write`.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn object(
        &mut self,
        key: &str,
        write: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.key(key);
        let mut inner = Self::begin(std::mem::take(&mut self.text));
        write(&mut inner)?;
        self.text = inner.end();
        Ok(())
    }

    /// Ends the object.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }
}

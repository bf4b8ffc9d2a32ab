//! Safetensors files: a JSON header and the bytes of all tensors.
//!
//! Names, sizes and counts are judged here before anything is allocated by
//! them; that the tensors cover the data exactly, without holes, overlaps or a
//! second file behind, is checked with the `safetensors` crate, so that this
//! service accepts what the Python package accepts. Tensors are views: no byte
//! is copied.

mod any;

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};

use super::json::{self, Member, members_up_to};
use super::sniff::{self, Known};
use super::{CodecError, Limits, names};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use any::unread;

pub use any::{AnyTensor, Opaque};

/// Entries of `__metadata__` beside one for each tensor that a file may hold.
const MAX_METADATA: usize = 1024;
/// Members of one tensor's description, of which three are known.
const MAX_FIELDS: usize = 16;
/// Bytes of the length before the header, and its alignment.
const PREFIX: usize = 8;
/// Name of the member that is no tensor.
pub const METADATA: &str = "__metadata__";

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Document<T = Tensor> {
    /// Tensors and their names, in the order of their bytes.
    pub tensors: Vec<(String, T)>,
    /// Free text beside them.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name.
    pub name: &'a str,
    /// Name of the type of the elements.
    pub dtype: &'a str,
    /// Extents.
    pub shape: &'a [usize],
    /// Bytes of the elements.
    pub byte_len: usize,
}

/// Reads a whole file; the tensors are views of `buffer`.
///
/// # Errors
/// Those of [`read_any`], and a tensor is of a type that is not read here.
pub fn read(buffer: Arc<Buffer>, limits: &Limits) -> Result<Document, CodecError> {
    let Document { tensors, metadata } = read_any(buffer, limits)?;
    let known = |(name, tensor): (String, AnyTensor)| match tensor.known() {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(error.at(name)),
    };
    let tensors = tensors.into_iter().map(known).collect::<Result<_, _>>()?;
    Ok(Document { tensors, metadata })
}

/// Reads a whole file with tensors of every type that the format has; they are views of `buffer`.
///
/// # Errors
/// The file is malformed, not covered exactly by its tensors, holds a dtype that
/// the format does not have, or is above `limits`.
#[expect(clippy::needless_pass_by_value, reason = "every reader takes the body over")]
pub fn read_any(buffer: Arc<Buffer>, limits: &Limits) -> Result<Document<AnyTensor>, CodecError> {
    let (text, start) = split(buffer.bytes(), limits)?;
    // The metadata takes the place of one tensor more.
    let members = members_up_to(text, limits.max_tensors.saturating_add(1)).map_err(in_header)?;
    let mut metadata = BTreeMap::new();
    let mut infos = Vec::with_capacity(members.len());
    for member in members {
        if member.key == METADATA {
            metadata = read_metadata(member.value, limits)?;
        } else {
            let info = read_info(&member)?;
            infos.push((member.key.into_owned(), info));
        }
    }
    if infos.len() > limits.max_tensors {
        let detail = format!("the file holds more than {} tensors", limits.max_tensors);
        return Err(CodecError::too_large(detail).cure("split the file"));
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let shapes = check_sizes(&infos, limits)?;
    check_coverage(&infos, buffer.bytes().len().saturating_sub(start))?;
    let mut tensors = Vec::with_capacity(infos.len());
    for ((name, info), shape) in infos.into_iter().zip(shapes) {
        let tensor = view(&info, shape, &buffer, start);
        let tensor = tensor.ok_or_else(|| uncovered().at(name.clone()))?;
        tensors.push((name, tensor));
    }
    Ok(Document { tensors, metadata })
}

/// The tensor that `info` describes, of the data that begins at `start`.
fn view(info: &TensorInfo, shape: Shape, buffer: &Arc<Buffer>, start: usize) -> Option<AnyTensor> {
    let (begin, end) = info.data_offsets;
    let (offset, buffer) = (start.checked_add(begin)?, Arc::clone(buffer));
    let dtype = info.dtype.to_string();
    match DType::from_name(&dtype) {
        Some(dtype) => Tensor::view(dtype, shape, buffer, offset).map(AnyTensor::Known),
        None => Opaque::view((dtype, shape), buffer, offset, end.checked_sub(begin)?)
            .map(AnyTensor::Opaque),
    }
}

/// Length and header of a file whose payloads follow in the given order, padded
/// with spaces so that they start at a multiple of 8.
#[must_use]
pub fn header(entries: &[Entry<'_>], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = vec![0; PREFIX];
    out.push(b'{');
    if !metadata.is_empty() {
        json::write_string(&mut out, METADATA);
        out.extend(b":{");
        for (key, value) in metadata {
            json::write_string(&mut out, key);
            out.push(b':');
            json::write_string(&mut out, value);
            out.push(b',');
        }
        close(&mut out, b"},");
    }
    let mut offset = 0_usize;
    for entry in entries {
        let end = offset.saturating_add(entry.byte_len);
        let dims: Vec<String> = entry.shape.iter().map(ToString::to_string).collect();
        json::write_string(&mut out, entry.name);
        let (dtype, dims) = (entry.dtype, dims.join(","));
        let rest = format!(
            ":{{\"dtype\":\"{dtype}\",\"shape\":[{dims}],\"data_offsets\":[{offset},{end}]}},"
        );
        out.extend(rest.as_bytes());
        offset = end;
    }
    close(&mut out, b"}");
    out.resize(out.len().next_multiple_of(PREFIX), b' ');
    let length = (out.len().saturating_sub(PREFIX) as u64).to_le_bytes();
    if let Some(prefix) = out.first_chunk_mut() {
        *prefix = length;
    }
    out
}

/// Appends `end` in place of the comma behind the last member, if there is one.
fn close(out: &mut Vec<u8>, end: &[u8]) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend(end);
}

/// Header text and offset of the data.
fn split<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(&'a [u8], usize), CodecError> {
    let ended = || {
        CodecError::malformed("the safetensors file ends inside its header")
            .at("header")
            .cure("send the whole file")
    };
    let Some((length, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(sniff::mistaken(Known::Safetensors, bytes, ended()));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if !matches!(rest, [] | [b'{', ..]) {
        let error = CodecError::malformed("the safetensors header does not start with a brace");
        let error = error.at("header").cure(
            "send a safetensors file; bare elements are application/octet-stream with dtype= and shape=",
        );
        return Err(sniff::mistaken(Known::Safetensors, bytes, error));
    }
    if !rest.is_empty() && length > limits.max_header_bytes {
        let detail =
            format!("the safetensors header is longer than {} bytes", limits.max_header_bytes);
        return Err(CodecError::too_large(detail).at("header"));
    }
    let parts = rest.split_at_checked(length).filter(|(text, _)| !text.is_empty());
    let (text, data) = parts.ok_or_else(ended)?;
    Ok((text, bytes.len().saturating_sub(data.len())))
}

/// Errors of the JSON scanner count bytes of the header, not of the file.
fn in_header(error: CodecError) -> CodecError {
    let place = error.at.as_deref().unwrap_or_default();
    let at = format!("header {place}");
    error.at(at)
}

fn read_metadata(text: &[u8], limits: &Limits) -> Result<BTreeMap<String, String>, CodecError> {
    let strings = || {
        CodecError::malformed("the metadata is not an object of strings")
            .at(METADATA)
            .cure("convert every metadata value to a string")
    };
    if text.first() != Some(&b'{') {
        return Err(strings());
    }
    let members = members_up_to(text, limits.max_tensors.saturating_add(MAX_METADATA))
        .map_err(|error| error.at(METADATA))?;
    let entries = members.into_iter().map(|member| {
        let value: String = serde_json::from_slice(member.value).map_err(|_| strings())?;
        Ok((member.key.into_owned(), value))
    });
    entries.collect()
}

/// The description of one tensor, whose dtype is one of the format's.
fn read_info(member: &Member<'_>) -> Result<TensorInfo, CodecError> {
    let name = &*member.key;
    if !names::is_printable(name) {
        return Err(CodecError::malformed("a tensor name holds control characters").at("header"));
    }
    let described =
        || CodecError::malformed("the tensor lacks a valid dtype, shape or data_offsets").at(name);
    let fields = members_up_to(member.value, MAX_FIELDS).map_err(|error| CodecError {
        detail: format!("the description of the tensor is malformed: {}", error.detail).into(),
        at: Some(name.to_owned()),
        ..error
    })?;
    let dtype = fields.iter().find(|field| field.key == "dtype").ok_or_else(described)?;
    let _: String = serde_json::from_slice(dtype.value).map_err(|_| described())?;
    if serde_json::from_slice::<Dtype>(dtype.value).is_err() {
        return Err(unread().at(name));
    }
    // A deep unknown member ends serde_json's recursion at 128, as an error.
    serde_json::from_slice(member.value).map_err(|_| described())
}

/// Compares each shape with its offsets, so that the message names the tensor.
fn check_sizes(infos: &[(String, TensorInfo)], limits: &Limits) -> Result<Vec<Shape>, CodecError> {
    let check = |(name, info): &(String, TensorInfo)| {
        let shape = Shape::new(info.shape.clone())
            .map_err(|error| CodecError::too_large(error.to_string()).at(name.clone()))?;
        limits.check(&shape).map_err(|error| error.at(name.clone()))?;
        let dtype = info.dtype;
        // Of some types an element is less than a byte.
        let bits = shape.len().saturating_mul(dtype.bitsize());
        if !bits.is_multiple_of(8) {
            let detail = format!("shape {shape} of {dtype} does not end with a whole byte");
            return Err(CodecError::malformed(detail).at(name.clone()));
        }
        let ((begin, end), expected) = (info.data_offsets, bits / 8);
        if end.checked_sub(begin) != Some(expected) {
            return Err(CodecError::malformed(format!(
                "the data_offsets do not span the {expected} bytes of shape {shape} of {dtype}"
            ))
            .at(name.clone()));
        }
        Ok(shape)
    };
    infos.iter().map(check).collect()
}

fn check_coverage(infos: &[(String, TensorInfo)], data: usize) -> Result<(), CodecError> {
    match Metadata::new(None, infos.to_vec()) {
        Ok(metadata) if metadata.data_len() == data => Ok(()),
        Err(SafeTensorError::InvalidOffset(name)) => Err(uncovered().at(name)),
        Ok(_) | Err(_) => Err(uncovered()),
    }
}

fn uncovered() -> CodecError {
    CodecError::malformed("the tensors overlap, leave holes, or do not end where the file ends")
        .cure(
            "send the file as the safetensors library writes it, whole and with nothing behind it",
        )
}

#[cfg(test)]
mod tests;

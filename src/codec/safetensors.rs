//! The safetensors format: named tensors in one buffer.
//!
//! The `safetensors` crate checks headers (offsets within the buffer, no holes,
//! no overlaps, lengths that fit shapes); what it does not bound or would pass
//! over silently is checked here first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::safetensors::SafeTensorError;
use ::safetensors::tensor::{Dtype as FileDtype, SafeTensors};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::tensor::{Buffer, DType, Shape, Tensor};

use super::{CodecError, Limits, json};

/// Longest tensor name.
const MAX_NAME: usize = 512;
/// Bytes of the header length.
const PREFIX: usize = 8;

/// A file: its tensors in the order of their bytes, and its metadata.
#[derive(Clone, Debug)]
pub struct Document {
    /// Names and tensors.
    pub tensors: Vec<(String, Tensor)>,
    /// The text pairs of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a file. The tensors are views of `buffer`.
///
/// # Errors
/// [`CodecError`] names the tensor or the part of the header at fault.
pub fn read(buffer: Arc<Buffer>, limits: &Limits) -> Result<Document, CodecError> {
    let header = header_text(buffer.bytes(), limits)?;
    check_members(header, limits)?;
    let data_start = PREFIX.saturating_add(header.len());
    let (_, parsed) =
        SafeTensors::read_metadata(buffer.bytes()).map_err(|error| describe(&error))?;
    let data_len = buffer.bytes().len().saturating_sub(data_start);
    if parsed.data_len() != data_len {
        return Err(CodecError::malformed(format!(
            "the header describes {} bytes of tensors, there are {data_len}",
            parsed.data_len()
        )));
    }
    let mut infos: Vec<_> = parsed.tensors().into_iter().collect();
    infos.sort_by(|(a_name, a), (b_name, b)| {
        (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name))
    });
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let dtype = dtype(info.dtype).ok_or_else(|| unsupported(&name))?;
        let at = |error: CodecError| error.at(format!("tensor {name:?}"));
        let shape = Shape::new(info.shape.clone())
            .map_err(|error| at(CodecError::malformed(error.to_string())))?;
        if shape.len() > limits.max_elements {
            let detail = format!("more than {} elements", limits.max_elements);
            return Err(at(CodecError::too_large(detail)));
        }
        let offset = data_start.saturating_add(info.data_offsets.0);
        let tensor = Tensor::view(dtype, shape, Arc::clone(&buffer), offset)
            .ok_or_else(|| at(CodecError::malformed("its bytes are not in the file")))?;
        tensors.push((name, tensor));
    }
    let metadata = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Document { tensors, metadata })
}

fn header_text<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a [u8], CodecError> {
    let short = || CodecError::malformed("shorter than a safetensors header").at_offset(0);
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or_else(short)?;
    let len = u64::from_le_bytes(*prefix);
    if len > limits.max_header_bytes as u64 {
        let detail = format!("the header is longer than {} bytes", limits.max_header_bytes);
        return Err(CodecError::too_large(detail).at_offset(0));
    }
    usize::try_from(len)
        .ok()
        .and_then(|len| rest.get(..len))
        .ok_or_else(|| CodecError::malformed("the header length exceeds the file").at_offset(0))
}

/// Count, names and duplicates: the crate keeps the last of two equal names.
fn check_members(header: &[u8], limits: &Limits) -> Result<(), CodecError> {
    let in_header = |error: CodecError| CodecError {
        at: Some(error.at.map_or_else(|| "header".to_owned(), |at| format!("header, {at}"))),
        ..error
    };
    // Room for `__metadata__` beside the tensors.
    let text = header.trim_ascii_end();
    let members =
        json::members_up_to(text, limits.max_tensors.saturating_add(1)).map_err(in_header)?;
    for member in &members {
        if member.key == "__metadata__" {
            json::members_up_to(member.value, usize::MAX)
                .map_err(|error| in_header(error.at("__metadata__")))?;
        } else if member.key.len() > MAX_NAME || member.key.chars().any(char::is_control) {
            let detail = "a tensor name is too long or has control characters";
            return Err(in_header(CodecError::malformed(detail).at_offset(member.offset)));
        } else {
            json::members(member.value).map_err(in_header)?;
        }
    }
    Ok(())
}

fn unsupported(name: &str) -> CodecError {
    let known: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
    CodecError::unsupported("an element type that is not read")
        .at(format!("tensor {name:?}"))
        .cure(format!("convert it to one of {}", known.join(", ")))
}

/// The crate's errors without its words, some of which quote the header.
fn describe(error: &SafeTensorError) -> CodecError {
    let detail = match error {
        SafeTensorError::InvalidHeader(_) => "the header is not UTF-8",
        SafeTensorError::InvalidHeaderDeserialization(_) => {
            "the header is not a JSON object of tensors"
        }
        SafeTensorError::HeaderTooLarge | SafeTensorError::HeaderTooSmall => {
            "the header has no sensible length"
        }
        SafeTensorError::InvalidHeaderLength => "the header length exceeds the file",
        SafeTensorError::InvalidOffset(name) => {
            return CodecError::malformed("its offsets leave a hole, overlap or run backwards")
                .at(format!("tensor {:?}", name.chars().take(MAX_NAME).collect::<String>()));
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's shape does not fit its offsets",
        SafeTensorError::MetadataIncompleteBuffer => {
            "the tensors do not cover the bytes after the header"
        }
        SafeTensorError::ValidationOverflow => "a tensor's size overflows",
        _ => "the header is not valid",
    };
    CodecError::malformed(detail)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may learn types that are not read here"
)]
const fn dtype(dtype: FileDtype) -> Option<DType> {
    Some(match dtype {
        FileDtype::F64 => DType::F64,
        FileDtype::F32 => DType::F32,
        FileDtype::F16 => DType::F16,
        FileDtype::BF16 => DType::BF16,
        FileDtype::I64 => DType::I64,
        FileDtype::I32 => DType::I32,
        FileDtype::I16 => DType::I16,
        FileDtype::I8 => DType::I8,
        FileDtype::U64 => DType::U64,
        FileDtype::U32 => DType::U32,
        FileDtype::U16 => DType::U16,
        FileDtype::U8 => DType::U8,
        _ => return None,
    })
}

/// A tensor to be written: its header entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: &'a [usize],
    /// Bytes of its elements.
    pub byte_len: usize,
}

/// Length and header of a file whose tensors' bytes follow in the order of
/// `entries`; padded so that they start at a multiple of 8.
#[must_use]
pub fn header(entries: &[Entry<'_>], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut file = vec![0; PREFIX];
    let header = Header { entries, metadata };
    // A map of text and numbers into memory: no error is possible.
    if serde_json::to_writer(&mut file, &header).is_err() {
        file.truncate(PREFIX);
    }
    file.resize(file.len().next_multiple_of(8), b' ');
    let len = (file.len().saturating_sub(PREFIX) as u64).to_le_bytes();
    if let Some(prefix) = file.first_chunk_mut::<PREFIX>() {
        *prefix = len;
    }
    file
}

struct Header<'a> {
    entries: &'a [Entry<'a>],
    metadata: &'a BTreeMap<String, String>,
}

#[derive(serde::Serialize)]
struct Info<'a> {
    dtype: &'a str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry("__metadata__", self.metadata)?;
        }
        let mut start = 0_usize;
        for entry in self.entries {
            let end = start.saturating_add(entry.byte_len);
            let (dtype, shape) = (entry.dtype.name(), entry.shape);
            map.serialize_entry(entry.name, &Info { dtype, shape, data_offsets: [start, end] })?;
            start = end;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Arc<Buffer> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        Arc::new(Buffer::copy_of(&bytes))
    }

    #[track_caller]
    fn refused(buffer: Arc<Buffer>, expect: &str) {
        let limits = Limits {
            max_header_bytes: 1000,
            max_tensors: 3,
            max_elements: 100,
            ..Limits::default()
        };
        assert_eq!(read(buffer, &limits).unwrap_err().to_string(), expect);
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = BTreeMap::from([("report".to_owned(), "{\"é\": 1}".to_owned())]);
        let entries = [
            Entry { name: "a.codes", dtype: DType::I8, shape: &[3], byte_len: 3 },
            Entry { name: "é", dtype: DType::F32, shape: &[], byte_len: 4 },
            Entry { name: "none", dtype: DType::F64, shape: &[0, 2], byte_len: 0 },
        ];
        let mut bytes = header(&entries, &metadata);
        assert_eq!(bytes.len() % 8, 0);
        bytes.extend([1, 2, 3]);
        bytes.extend(1.5_f32.to_le_bytes());
        let document = read(Arc::new(Buffer::copy_of(&bytes)), &Limits::default()).unwrap();
        assert_eq!(document.metadata, metadata);
        let names: Vec<_> = document.tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.codes", "é", "none"]);
        assert_eq!(document.tensors[1].1.bytes(), 1.5_f32.to_le_bytes());
        assert!(SafeTensors::deserialize(&bytes).is_ok());
    }

    #[test]
    fn hostile_headers_are_named() {
        refused(Arc::new(Buffer::copy_of(b"1234")), "byte 0: shorter than a safetensors header");
        refused(
            Arc::new(Buffer::copy_of(&[255; 20])),
            "byte 0: the header is longer than 1000 bytes",
        );
        refused(
            Arc::new(Buffer::copy_of(&[99, 0, 0, 0, 0, 0, 0, 0, b'{'])),
            "byte 0: the header length exceeds the file",
        );
        let one = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(read(file(one, &[0; 4]), &Limits::default()).is_ok());
        refused(file(one, &[0; 3]), "the tensors do not cover the bytes after the header");
        refused(
            file(one, b"\0\0\0\0PK zip"),
            "the tensors do not cover the bytes after the header",
        );
        let entry = |offsets: &str, shape: &str| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
        };
        let two =
            |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, entry(a, "[1]"), entry(b, "[1]"));
        refused(
            file(&two("[0,4]", "[8,12]"), &[0; 12]),
            "tensor \"b\": its offsets leave a hole, overlap or run backwards",
        );
        refused(
            file(&two("[0,4]", "[2,6]"), &[0; 6]),
            "tensor \"b\": its offsets leave a hole, overlap or run backwards",
        );
        refused(
            file(&format!(r#"{{"a":{}}}"#, entry("[0,4]", "[2]")), &[0; 4]),
            "a tensor's shape does not fit its offsets",
        );
        let twice = format!(r#"{{"a":{0},"\u0061":{0}}}"#, entry("[0,4]", "[1]"));
        refused(file(&twice, &[0; 4]), "header, /a: given twice");
        refused(
            file(r#"{"__metadata__":{"x":1}}"#, &[]),
            "the header is not a JSON object of tensors",
        );
        refused(
            file(r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#, &[0]),
            "tensor \"a\": an element type that is not read",
        );
        let bad = r#"{"a\n":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        refused(
            file(bad, &[0; 4]),
            "header, byte 7: a tensor name is too long or has control characters",
        );
        let huge = r#"{"a":{"dtype":"U8","shape":[101],"data_offsets":[0,101]}}"#;
        refused(file(huge, &[0; 101]), "tensor \"a\": more than 100 elements");
    }
}

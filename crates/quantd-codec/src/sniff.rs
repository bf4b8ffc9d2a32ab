//! What a file looks like by its first bytes.
//!
//! A client that sends a file of another kind is told which one it sent: what
//! its bytes would mean as the format that was asked for helps nobody.

use super::{CodecError, npy};

/// A format that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// An object of JSON.
    Json,
    /// A NumPy array.
    Npy,
    /// A safetensors file.
    Safetensors,
}

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The format, where it is one that is read here.
    pub known: Option<Known>,
    /// What it is, with an article.
    pub what: &'static str,
    /// What to send instead of it.
    pub cure: &'static str,
}

/// First bytes, and what begins with them.
type Magic = (&'static [u8], &'static str, &'static str);

/// What plain text is called.
pub const TEXT: &str = "text";
const ARRAY: &str = "a JSON array";
const CONVERT: &str = "save its tensors as safetensors, or one array with numpy.save";
const UNPACK: &str = "unpack it and send the file that is in it";
const DECODE: &str = "send it uncompressed, or say in Content-Encoding how it is compressed";
const AGAIN: &str = "it may be the answer to another request, saved under this name: look into it";
const PICKLE: &str = "a pickle is a program and is not run: load it in Python and use safetensors.torch.save_file or numpy.save";

/// Long enough that no length of a safetensors header looks like them.
const LONG: [Magic; 14] = [
    (b"GGUF", "a GGUF model", CONVERT),
    (b"tjgg", "a GGML model", CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", CONVERT),
    (b"PAR1", "a Parquet file", CONVERT),
    (b"ARROW1", "an Arrow file", CONVERT),
    (b"\x89PNG", "a PNG image", CONVERT),
    (b"GIF8", "a GIF image", CONVERT),
    (b"%PDF", "a PDF document", CONVERT),
    (b"MATLAB 5.0", "a MATLAB file", CONVERT),
    (b"\x28\xb5\x2f\xfd", "a zstd stream", DECODE),
    (b"\xfd7zXZ\0", "an xz stream", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"\x04\x22\x4d\x18", "an lz4 stream", UNPACK),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
];

/// So short that they are looked at last.
const SHORT: [Magic; 7] = [
    (b"\x1f\x8b", "a gzip stream", DECODE),
    (b"BZh", "a bzip2 stream", UNPACK),
    (b"\x80\x02", "a pickle", PICKLE),
    (b"\x80\x03", "a pickle", PICKLE),
    (b"\x80\x04", "a pickle", PICKLE),
    (b"\x80\x05", "a pickle", PICKLE),
    (b"\xff\xd8\xff", "a JPEG image", CONVERT),
];

impl Known {
    const fn look(self) -> Look {
        let (what, cure) = match self {
            Self::Json => (
                "a JSON document",
                "send it as application/json; it may also be the error that an earlier request was answered with",
            ),
            Self::Npy => ("an npy file", "send it as application/x-npy"),
            Self::Safetensors => ("a safetensors file", "send it as application/x-safetensors"),
        };
        Look { known: Some(self), what, cure }
    }
}

/// What bytes look like; `None` where nothing is known of them, as of bare elements.
#[must_use]
pub fn look(bytes: &[u8]) -> Option<Look> {
    let of = |magics: &[Magic]| {
        let found = magics.iter().find(|(magic, ..)| bytes.starts_with(magic));
        found.map(|&(_, what, cure)| other(what, cure))
    };
    if bytes.is_empty() {
        return Some(other("empty", "send the file: with curl, --data-binary @FILE"));
    }
    if bytes.starts_with(npy::MAGIC) {
        return Some(Known::Npy.look());
    }
    of(&LONG).or_else(|| zip(bytes)).or_else(|| {
        if bytes.get(8) == Some(&b'{') && bytes.first() != Some(&b'{') {
            return Some(Known::Safetensors.look());
        }
        of(&SHORT).or_else(|| model(bytes)).or_else(|| text(bytes))
    })
}

const fn other(what: &'static str, cure: &'static str) -> Look {
    Look { known: None, what, cure }
}

/// Archives, by the name of their first file.
fn zip(bytes: &[u8]) -> Option<Look> {
    /// Bytes before that name.
    const HEAD: usize = 30;
    const LENGTH: usize = 26;
    if bytes.starts_with(b"PK\x05\x06") {
        return Some(other("an empty zip archive", UNPACK));
    }
    bytes.strip_prefix(b"PK\x03\x04")?;
    let length = bytes.get(LENGTH..).and_then(|rest| rest.first_chunk());
    let length = length.map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
    let name = bytes.get(HEAD..).unwrap_or_default();
    let name = name.get(..length).unwrap_or(name);
    Some(if name.ends_with(b".npy") {
        other(
            "an npz archive of arrays",
            "send one of them: numpy.save('w.npy', numpy.load('w.npz')['NAME']); or all as safetensors",
        )
    } else if name.ends_with(b"data.pkl") || name.ends_with(b".format_version") {
        other("a PyTorch checkpoint", PICKLE)
    } else {
        other("a zip archive", UNPACK)
    })
}

/// Models in formats that begin with no fixed bytes.
fn model(bytes: &[u8]) -> Option<Look> {
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some(other("a TensorFlow Lite model", CONVERT));
    }
    // A protocol buffer: the version of the format, then one of the next fields.
    match bytes {
        [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => {
            Some(other("an ONNX model", "send its initializers: onnx.numpy_helper.to_array"))
        }
        _ => None,
    }
}

/// Text, by how it begins.
fn text(bytes: &[u8]) -> Option<Look> {
    /// Bytes that are looked at.
    const START: usize = 512;
    let start = bytes.get(..START).unwrap_or(bytes);
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut, but nothing before it.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(start.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    if valid.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return None;
    }
    Some(match valid.trim_start().as_bytes() {
        [b'{', ..] => Known::Json.look(),
        [b'[', ..] => other(ARRAY, "send an object, such as {\"data\": [[1, 2]]}"),
        [b'<', ..] => other("an HTML or XML document", AGAIN),
        _ => other(TEXT, AGAIN),
    })
}

/// The error about bytes that are not what they were said to be: what they look like instead, or
/// `otherwise` where that is not known.
pub(super) fn mistaken(wanted: Known, bytes: &[u8], otherwise: CodecError) -> CodecError {
    // Text may be meant to be JSON, and then where it goes wrong says more.
    let is_meant = |found: &Look| wanted == Known::Json && [ARRAY, TEXT].contains(&found.what);
    match look(bytes) {
        Some(found) if found.known != Some(wanted) && !is_meant(&found) => {
            let detail = format!("the body is {}, not {}", found.what, wanted.look().what);
            CodecError::malformed(detail).cure(found.cure)
        }
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(bytes: &[u8]) -> Option<&'static str> {
        look(bytes).map(|look| look.what)
    }

    fn archive(name: &str) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(26, 0);
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
        bytes.extend([0x93; 40]);
        bytes
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (bytes, expect) in [
            (&b""[..], "empty"),
            (b"\x93NUMPY\x01\x00", "an npy file"),
            (b"\x08\0\0\0\0\0\0\0{}      ", "a safetensors file"),
            (b" {\"data\": 1}", "a JSON document"),
            (b"\xef\xbb\xbf{}", "a JSON document"),
            (b"[1, 2]", "a JSON array"),
            (b"\n<!doctype html>", "an HTML or XML document"),
            (b"no such bucket\n", "text"),
            (b"1,2,3\n4,5,6\n", "text"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
            (b"\x1f\x8b\x08\0", "a gzip stream"),
            (b"\x28\xb5\x2f\xfd\x04", "a zstd stream"),
            (b"GGUF\x03\0\0\0", "a GGUF model"),
            (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file"),
            (b"\x80\x04\x95\x10", "a pickle"),
            (b"\x80\x02\x8a\x0al\xfc", "a pickle"),
            (b"\x08\x07\x12\x07pytorch", "an ONNX model"),
            (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
            (b"PK\x05\x06\0\0", "an empty zip archive"),
            (b"PK\x03\x04", "a zip archive"),
            (&archive("arr_0.npy"), "an npz archive of arrays"),
            (&archive("archive/data.pkl"), "a PyTorch checkpoint"),
            (&archive("notes.txt"), "a zip archive"),
        ] {
            assert_eq!(what(bytes), Some(expect), "{}", bytes.escape_ascii());
        }
        // Elements look like nothing.
        assert_eq!(what(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]), None);
        assert_eq!(what(b"caf\xe9 au lait"), None);
    }

    /// However long the header is: the number looks like some of these.
    #[test]
    fn a_safetensors_file_is_one_whatever_its_length() {
        for start in [&b"\x1f\x8b"[..], b"BZh", b"\x80\x04", b"\x08\x07\x12", b"{{", b"AB"] {
            let mut bytes = start.to_vec();
            bytes.resize(8, 0);
            bytes.extend(b"{\"w\":{");
            let expect = if start == b"{{" { None } else { Some(Known::Safetensors) };
            assert_eq!(look(&bytes).and_then(|look| look.known), expect, "{start:?}");
        }
    }

    /// A character that is cut by the end of what is looked at.
    #[test]
    fn long_text_is_text() {
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "\u{20ac}".repeat(400));
            assert_eq!(what(text.as_bytes()), Some("text"));
        }
    }
}

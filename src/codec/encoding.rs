//! Content codings: gzip, deflate (the zlib format) and zstd, with limits.
//!
//! A compressed body may stand for far more bytes than arrived. What comes out
//! is counted while it is produced, and room is asked for before it is taken.

use std::io::{self, Read};

use flate2::Compression;
use flate2::read::{GzEncoder, MultiGzDecoder, ZlibDecoder};

use crate::tensor::Buffer;

use super::CodecError;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP means `deflate`; read only.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// Output that any input may give, however small.
const FREE: usize = 1 << 20;
/// Most bytes that one byte of input may stand for beyond [`FREE`]. A tensor of
/// zeros compresses by a thousand, but nobody needs to send one.
const MAX_RATIO: usize = 200;
/// Largest zstd window, as a power of two: 8 MiB, as RFC 9659 allows on the web.
const MAX_WINDOW_LOG: u32 = 23;
/// Bytes produced between two looks at the limits.
const STEP: usize = 256 << 10;

impl Encoding {
    /// Token in `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The coding of that token, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Decompresses `input` to at most `max` bytes. `grow` is asked for each piece
/// of memory, in bytes, before it is taken.
///
/// # Errors
/// [`Reason::TooLarge`](super::Reason) above a limit, otherwise
/// [`Reason::Malformed`](super::Reason) for a broken, truncated or overlong stream.
pub fn decode(
    encoding: Encoding,
    input: &[u8],
    max: usize,
    grow: &mut dyn FnMut(usize) -> Result<(), CodecError>,
) -> Result<Buffer, CodecError> {
    let broken = |_| CodecError::malformed(format!("the {} stream is broken", encoding.name()));
    match encoding {
        Encoding::Identity => Ok(Buffer::copy_of(input)),
        // Gzip members may follow one another (RFC 1952 2.2); anything else after one is an error.
        Encoding::Gzip => drain(MultiGzDecoder::new(input), encoding, input.len(), max, grow),
        Encoding::Deflate => {
            let mut decoder = ZlibDecoder::new(input);
            let output = drain(&mut decoder, encoding, input.len(), max, grow)?;
            let consumed = usize::try_from(decoder.total_in()).unwrap_or(usize::MAX);
            if consumed != input.len() {
                return Err(CodecError::malformed("bytes follow the deflate stream"));
            }
            Ok(output)
        }
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(broken)?;
            drain(decoder, encoding, input.len(), max, grow)
        }
    }
}

fn drain(
    mut decoder: impl Read,
    encoding: Encoding,
    input: usize,
    max: usize,
    grow: &mut dyn FnMut(usize) -> Result<(), CodecError>,
) -> Result<Buffer, CodecError> {
    let bound = input.saturating_mul(MAX_RATIO).max(FREE).min(max);
    let mut step = vec![0; STEP];
    let mut output = Buffer::default();
    loop {
        let read = decoder.read(&mut step).map_err(|_| {
            CodecError::malformed(format!("the {} stream is broken or cut short", encoding.name()))
        })?;
        let Some(piece) = step.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok(output);
        };
        let total = output.bytes().len().saturating_add(read);
        if total > bound {
            return Err(CodecError::too_large("the body is too large once decompressed")
                .cure(format!("at most {max} bytes, and {MAX_RATIO} for each compressed one")));
        }
        if total > output.capacity() {
            // The new block while the old one is still there.
            grow(total.saturating_mul(2))?;
        }
        output.extend(piece);
    }
}

/// Compresses `input` at a level that keeps up with a network.
///
/// # Errors
/// Those of the compressor, which reading from memory gives no cause for.
pub fn encode(encoding: Encoding, input: &[u8]) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Identity => Ok(input.to_vec()),
        Encoding::Gzip => {
            let mut output = Vec::with_capacity(input.len() / 2);
            GzEncoder::new(input, Compression::fast()).read_to_end(&mut output)?;
            Ok(output)
        }
        Encoding::Deflate => {
            let mut output = Vec::with_capacity(input.len() / 2);
            flate2::read::ZlibEncoder::new(input, Compression::fast()).read_to_end(&mut output)?;
            Ok(output)
        }
        Encoding::Zstd => zstd::bulk::compress(input, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Reason;

    const CODINGS: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    fn decode_all(encoding: Encoding, input: &[u8], max: usize) -> Result<Buffer, CodecError> {
        decode(encoding, input, max, &mut |_| Ok(()))
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let text: Vec<u8> =
            (0..100_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for encoding in CODINGS {
            for input in [&text[..], b"", b"x"] {
                let packed = encode(encoding, input).unwrap();
                let back = decode_all(encoding, &packed, 1 << 20).unwrap();
                assert_eq!(back.bytes(), input, "{encoding:?}");
            }
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 64 << 20];
        for encoding in CODINGS {
            let bomb = encode(encoding, &zeros).unwrap();
            assert!(bomb.len() < 1 << 20);
            let mut asked = 0;
            let result = decode(encoding, &bomb, 1 << 30, &mut |bytes| {
                asked = asked.max(bytes);
                Ok(())
            });
            assert_eq!(result.unwrap_err().reason, Reason::TooLarge, "{encoding:?}");
            assert!(asked < 40 << 20, "{encoding:?} asked for {asked}");
            let small = decode_all(encoding, &encode(encoding, &zeros[..2000]).unwrap(), 1000);
            assert_eq!(small.unwrap_err().reason, Reason::TooLarge);
        }
    }

    #[test]
    fn a_refusal_of_room_is_passed_on() {
        let packed = encode(Encoding::Zstd, &[1; 1000]).unwrap();
        let refuse = &mut |_| Err(CodecError::too_large("no room"));
        let error = decode(Encoding::Zstd, &packed, 1 << 20, refuse).unwrap_err();
        assert_eq!(error.detail, "no room");
    }

    #[test]
    fn broken_streams_are_malformed() {
        for encoding in CODINGS {
            let packed = encode(encoding, b"some text that is compressed").unwrap();
            let cut = &packed[..packed.len() - 3];
            let mut longer = packed.clone();
            longer.extend(b"garbage!");
            for bad in [cut, &longer, b"not compressed at all"] {
                let error = decode_all(encoding, bad, 1 << 20).unwrap_err();
                assert_eq!(error.reason, Reason::Malformed, "{encoding:?} {error}");
            }
        }
        let twice = [encode(Encoding::Gzip, b"a").unwrap(), encode(Encoding::Gzip, b"b").unwrap()];
        assert_eq!(decode_all(Encoding::Gzip, &twice.concat(), 99).unwrap().bytes(), b"ab");
    }
}

//! Content codings of HTTP bodies, decoded under a bound.
//!
//! One coding at a time: stacked codings are not undone here. The decoded size
//! is limited before anything is decoded, to the smaller of the caller's maximum
//! and [`MAX_RATIO`] times the input, so a bomb costs no more than an honest
//! body of that limit. The first [`FREE_BYTES`] are exempt from the ratio: a
//! small tensor of equal values compresses a thousandfold and is no attack,
//! whereas a large one can be sent uncompressed.

use std::io::{self, ErrorKind, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::CodecError;
use super::json::{Room, Text};
use quantd_core::tensor::Buffer;

/// Decoded bytes per encoded byte that are accepted above [`FREE_BYTES`].
pub const MAX_RATIO: usize = 200;
/// Decoded bytes to which [`MAX_RATIO`] does not apply.
pub const FREE_BYTES: usize = 1 << 20;
/// Largest zstd window, as a power of two (8 MiB): memory the decoder takes
/// because the input says so. RFC 8878 recommends that decoders support it.
const ZSTD_WINDOW_LOG: u32 = 23;
/// First output capacity when the input does not tell its decoded size.
const FIRST_CAPACITY: usize = 64 << 10;
/// Bytes between two looks at whether to go on.
const PART: usize = 256 << 10;
/// Both favour speed: quantized codes hardly compress at any level.
const GZIP_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// A content coding, as in `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// No coding.
    Identity,
    /// RFC 1952, possibly of several members.
    Gzip,
    /// RFC 8878, possibly of several frames.
    Zstd,
    /// RFC 1950: deflate in a zlib wrapper, as RFC 9110 defines the name.
    Deflate,
}

impl Encoding {
    /// Every coding, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Zstd, Self::Deflate];

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of that name in any case; `x-gzip` is an alias (RFC 9110, 8.4.1.3).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|encoding| encoding.name().eq_ignore_ascii_case(name))
    }
}

/// Decodes a whole body of at most `max` decoded bytes.
///
/// `grow` is called before output memory is taken, with its size, and with 0 now and then, and may
/// refuse; its error is passed on. While one allocation replaces another both
/// exist, which happens only when the input does not tell its decoded size.
///
/// # Errors
/// The input is corrupt, truncated or followed by other bytes, its output is
/// over the limit, its window is above 8 MiB, or `grow` refused.
pub fn decode(
    encoding: Encoding,
    input: &[u8],
    max: usize,
    grow: &mut dyn FnMut(usize) -> Result<(), CodecError>,
) -> Result<Buffer, CodecError> {
    let by_ratio = input.len().saturating_mul(MAX_RATIO).max(FREE_BYTES);
    let mut sink = Sink { buffer: Buffer::default(), len: 0, limit: max.min(by_ratio), max, grow };
    if encoding == Encoding::Identity {
        sink.copy(input)?;
        return Ok(sink.finish());
    }
    let mut rest = input;
    let mut decoder = decoder(encoding, &mut rest)?;
    sink.expect_len(declared_size(encoding, input))?;
    sink.drain(encoding, &mut decoder)?;
    drop(decoder);
    if rest.is_empty() { Ok(sink.finish()) } else { Err(corrupt(encoding)) }
}

/// The first `len` bytes of what a body decodes to, or all where there are fewer.
///
/// # Errors
/// The input is corrupt or truncated before they end, or its window is above 8 MiB.
pub fn start(encoding: Encoding, mut input: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
    let mut start = Vec::new();
    let mut decoder = decoder(encoding, &mut input)?.take(u64::try_from(len).unwrap_or(u64::MAX));
    decoder.read_to_end(&mut start).map_err(|error| failed(encoding, &error))?;
    Ok(start)
}

fn decoder<'a>(encoding: Encoding, input: &'a mut &[u8]) -> Result<Box<dyn Read + 'a>, CodecError> {
    if encoding != Encoding::Identity && input.is_empty() {
        return Err(CodecError::malformed(format!("the {} body is empty", encoding.name())));
    }
    Ok(match encoding {
        Encoding::Identity => Box::new(input),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(input)),
        Encoding::Deflate => Box::new(ZlibDecoder::new(input)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)
                .map_err(|error| failed(encoding, &error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|error| failed(encoding, &error))?;
            Box::new(decoder)
        }
    })
}

/// Encodes what the pieces hold together at the fastest level, in pieces that take of that room. Each piece is
/// let go once it is read.
///
/// # Errors
/// There is no room, or the encoder failed, as when it runs out of memory.
pub fn encode(
    encoding: Encoding,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
    room: Room<'_>,
) -> Result<Vec<Bytes>, CodecError> {
    fn feed<E: Write>(
        pieces: impl IntoIterator<Item: AsRef<[u8]>>,
        encoder: &mut E,
        goes_on: impl Fn(&mut E) -> io::Result<()>,
    ) -> io::Result<()> {
        pieces.into_iter().try_for_each(|piece| {
            piece.as_ref().chunks(PART).try_for_each(|part| {
                goes_on(encoder)?;
                encoder.write_all(part)
            })
        })
    }
    let level = Compression::new(GZIP_LEVEL);
    let mut text = Text::new(room);
    let done = match encoding {
        Encoding::Identity => feed(pieces, &mut text, Text::goes_on),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(&mut text, level);
            feed(pieces, &mut encoder, |encoder| encoder.get_mut().goes_on())
                .and_then(|()| encoder.finish().map(drop))
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(&mut text, level);
            feed(pieces, &mut encoder, |encoder| encoder.get_mut().goes_on())
                .and_then(|()| encoder.finish().map(drop))
        }
        Encoding::Zstd => {
            zstd::stream::write::Encoder::new(&mut text, ZSTD_LEVEL).and_then(|mut encoder| {
                feed(pieces, &mut encoder, |encoder| encoder.get_mut().goes_on())?;
                encoder.finish().map(drop)
            })
        }
    };
    match done {
        Ok(()) => Ok(text.finish()),
        Err(_) => Err(text.refusal()),
    }
}

/// Output of a decoder: `len` bytes of a zeroed buffer are used.
struct Sink<'a> {
    buffer: Buffer,
    len: usize,
    /// Bytes at which decoding stops.
    limit: usize,
    /// What the caller allows, to tell which limit was hit.
    max: usize,
    grow: &'a mut dyn FnMut(usize) -> Result<(), CodecError>,
}

impl Sink<'_> {
    /// Takes memory for a declared size at once. A lie costs nothing: it is
    /// bounded by the limit, and untouched pages of a zeroed buffer are not there.
    fn expect_len(&mut self, declared: Option<usize>) -> Result<(), CodecError> {
        match declared {
            // One byte more, so that the end is seen without another allocation.
            Some(len) if len <= self.limit => self.raise(len.saturating_add(1)),
            Some(_) | None => Ok(()),
        }
    }

    fn raise(&mut self, capacity: usize) -> Result<(), CodecError> {
        (self.grow)(capacity)?;
        let mut larger = Buffer::zeroed(capacity);
        if let Some(start) = larger.bytes_mut().get_mut(..self.len) {
            start.copy_from_slice(self.used());
        }
        self.buffer = larger;
        Ok(())
    }

    fn used(&self) -> &[u8] {
        self.buffer.bytes().get(..self.len).unwrap_or_default()
    }

    fn copy(&mut self, input: &[u8]) -> Result<(), CodecError> {
        if input.len() > self.max {
            return Err(self.too_large());
        }
        (self.grow)(input.len())?;
        self.buffer = Buffer::copy_of(input);
        self.len = input.len();
        Ok(())
    }

    /// Reads to the end of the decoder, one byte past the limit at most.
    fn drain(&mut self, encoding: Encoding, decoder: &mut dyn Read) -> Result<(), CodecError> {
        loop {
            if self.len > self.limit {
                return Err(self.too_large());
            }
            let mut capacity = self.buffer.bytes().len();
            if self.len == capacity {
                let doubled = capacity.saturating_mul(2).max(FIRST_CAPACITY);
                capacity = doubled.min(self.limit.saturating_add(1));
                self.raise(capacity)?;
            }
            // Some milliseconds of work, after which there may be nobody who wants more of it.
            (self.grow)(0)?;
            let end = self.len.saturating_add(PART).min(capacity);
            let free = self.buffer.bytes_mut().get_mut(self.len..end).unwrap_or_default();
            match decoder.read(free) {
                Ok(0) => return Ok(()),
                Ok(count) => self.len = self.len.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(encoding, &error)),
            }
        }
    }

    fn too_large(&self) -> CodecError {
        if self.limit < self.max {
            return CodecError::too_large(format!(
                "the body decodes to more than {MAX_RATIO} times its size"
            ))
            .cure("send it without content coding");
        }
        CodecError::too_large(format!("the body decodes to more than {} bytes", self.max))
            .cure("send fewer elements in one request")
    }

    fn finish(mut self) -> Buffer {
        self.buffer.truncate(self.len);
        self.buffer
    }
}

/// Size that the last gzip member declares, modulo 2^32, or the first zstd frame: only a hint.
fn declared_size(encoding: Encoding, input: &[u8]) -> Option<usize> {
    match encoding {
        Encoding::Identity | Encoding::Deflate => None,
        Encoding::Gzip => usize::try_from(u32::from_le_bytes(*input.last_chunk()?)).ok(),
        Encoding::Zstd => {
            let declared = zstd::zstd_safe::get_frame_content_size(input).ok().flatten()?;
            usize::try_from(declared).ok()
        }
    }
}

fn corrupt(encoding: Encoding) -> CodecError {
    CodecError::malformed(format!(
        "the {} body is corrupt or followed by other bytes",
        encoding.name()
    ))
    .cure("send one complete stream, or no content-encoding header when the body is plain")
}

fn failed(encoding: Encoding, error: &io::Error) -> CodecError {
    // zstd reports an oversized window by text only; a test holds it to that.
    if error.to_string().contains("too much memory") {
        return CodecError::unsupported("the zstd window is above 8 MiB")
            .cure("compress without --long, at level 19 or below");
    }
    if error.kind() == ErrorKind::OutOfMemory {
        return CodecError::too_large("no memory for the decoder");
    }
    if error.kind() != ErrorKind::UnexpectedEof {
        return corrupt(encoding);
    }
    CodecError::malformed(format!("the {} body is truncated", encoding.name()))
        .cure("send the complete stream")
}

#[cfg(test)]
mod tests;

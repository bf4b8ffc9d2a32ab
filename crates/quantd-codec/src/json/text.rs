//! Text in pieces, each of which asks for room before it is there.
//!
//! How long the text of a tensor becomes is known only once it is written, and a
//! vector that doubles takes three times that while it grows. So text is written
//! into pieces that never move, and whoever counts bytes is asked for each. The
//! longest are copied, still in the cache, into memory that goes back to the
//! system once they are sent; an allocator would keep it.

use std::io::{self, ErrorKind};

use bytes::Bytes;

use crate::{CodecError, Reason};
use quantd_core::tensor::Buffer;

/// The first piece, enough for a small document.
const FIRST: usize = 1 << 10;
/// The longest: what is lost at the end of a piece is little of it.
const LONGEST: usize = 1 << 20;
/// Bytes that are copied before there is another look at the room.
const BLOCK: usize = 4 << 10;

/// Who is asked for room for so many bytes.
pub type Room<'a> = &'a mut dyn FnMut(usize) -> Result<(), CodecError>;

/// Text that is being written.
pub struct Text<'a> {
    full: Vec<Bytes>,
    /// The piece that is being written.
    open: Vec<u8>,
    /// Bytes of all pieces.
    taken: usize,
    room: Room<'a>,
    /// Why there was no room.
    refusal: Option<CodecError>,
}

impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<'a> Text<'a> {
    /// No text yet.
    pub fn new(room: Room<'a>) -> Self {
        Self { full: Vec::new(), open: Vec::new(), taken: 0, room, refusal: None }
    }

    /// Where the next `bytes` go without another look, and without moving what is there.
    #[inline]
    pub(super) fn next(&mut self, bytes: usize) -> Result<&mut Vec<u8>, CodecError> {
        if self.open.capacity().wrapping_sub(self.open.len()) < bytes {
            self.turn(bytes)?;
        }
        Ok(&mut self.open)
    }

    #[cold]
    fn turn(&mut self, bytes: usize) -> Result<(), CodecError> {
        let capacity = self.taken.clamp(FIRST, LONGEST).max(bytes);
        (self.room)(capacity)?;
        self.taken = self.taken.saturating_add(capacity);
        if self.open.capacity() < capacity {
            let full = std::mem::replace(&mut self.open, Vec::with_capacity(capacity));
            self.close(Bytes::from(full));
        } else {
            let mut full = Buffer::with_capacity(capacity);
            full.extend(&self.open);
            self.open.clear();
            self.close(Bytes::from_owner(full));
        }
        Ok(())
    }

    fn close(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.full.push(piece);
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        bytes.chunks(BLOCK).try_for_each(|part| {
            self.next(part.len())?.extend_from_slice(part);
            Ok(())
        })
    }

    /// Whether to go on, for who writes much into little text: whoever gives room may want no more of it.
    ///
    /// # Errors
    /// For [`io::Write`]: [`refusal`](Self::refusal) tells why.
    pub fn goes_on(&mut self) -> io::Result<()> {
        (self.room)(0).map_err(|refusal| self.refuse(refusal))
    }

    fn refuse(&mut self, refusal: CodecError) -> io::Error {
        self.refusal = Some(refusal);
        io::Error::from(ErrorKind::OutOfMemory)
    }

    /// Takes the last byte back, which [`next`](Self::next) gave the place of.
    pub(super) fn pop(&mut self) {
        self.open.pop();
    }

    /// Why writing through [`io::Write`] failed.
    #[must_use]
    pub fn refusal(&mut self) -> CodecError {
        let unknown = || CodecError::new(Reason::Malformed, "the text could not be written");
        self.refusal.take().unwrap_or_else(unknown)
    }

    /// The pieces in their order, none of which is empty.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        let mut open = std::mem::take(&mut self.open);
        open.shrink_to_fit();
        self.close(Bytes::from(open));
        self.full
    }
}

impl io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(|refusal| self.refuse(refusal))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pieces_are_asked_for_and_never_moved() {
        let mut asked = Vec::new();
        let mut room = |bytes| {
            asked.push(bytes);
            Ok(())
        };
        let mut text = Text::new(&mut room);
        let bytes: Vec<u8> = (0..=255).cycle().take(5 << 20).collect();
        bytes.chunks(777).for_each(|part| text.push(part).unwrap());
        let pieces = text.finish();
        assert_eq!(pieces.concat(), bytes);
        assert_eq!(asked.len(), pieces.len());
        assert!(asked.iter().all(|&bytes| (FIRST..=LONGEST).contains(&bytes)));
        assert!(asked.iter().sum::<usize>() < bytes.len() + LONGEST + (LONGEST >> 3));
    }

    #[test]
    fn no_room_is_an_error_in_either_way() {
        let refused = || CodecError::new(Reason::NoRoom, "a test");
        let mut room = |bytes| if bytes > FIRST { Err(refused()) } else { Ok(()) };
        let mut text = Text::new(&mut room);
        assert_eq!(text.push(&[b' '; FIRST + 1]), Err(refused()));
        assert!(text.write_all(&[b' '; FIRST + 1]).is_err());
        assert_eq!(text.refusal(), refused());
        assert!(text.finish().is_empty());
    }
}

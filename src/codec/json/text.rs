//! Text in pieces, each of which asks for room before it is there.
//!
//! How long the text of a tensor becomes is known only once it is written, and a
//! vector that doubles takes three times that while it grows. So text is written
//! into pieces that never move, and whoever counts bytes is asked for each.

use std::io::{self, ErrorKind};

use crate::codec::{CodecError, Reason};

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
    full: Vec<Vec<u8>>,
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
        let full = std::mem::replace(&mut self.open, Vec::with_capacity(capacity));
        if !full.is_empty() {
            self.full.push(full);
        }
        Ok(())
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
    pub fn finish(self) -> Vec<Vec<u8>> {
        let Self { mut full, mut open, .. } = self;
        if !open.is_empty() {
            open.shrink_to_fit();
            full.push(open);
        }
        full
    }
}

impl io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(|refusal| {
            self.refusal = Some(refusal);
            io::Error::from(ErrorKind::OutOfMemory)
        })?;
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

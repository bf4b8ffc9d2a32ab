//! Memory that is written in parts before anybody may read it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;
use rayon::prelude::*;

use super::Buffer;

/// Memory that may hold what an earlier buffer left, perhaps another caller's, until all of it is
/// written: only then does it become a [`Buffer`] as it is.
#[derive(Debug)]
pub struct Filling {
    buffer: Buffer,
    written: Written,
}

/// How much of a [`Filling`] is written.
#[derive(Debug, Default)]
pub struct Written(AtomicUsize);

impl Written {
    /// Says that every element of a part of it was written.
    pub fn whole<T>(&self, part: &[T]) {
        self.0.fetch_add(size_of_val(part), Ordering::Relaxed);
    }
}

impl Filling {
    /// Memory for `len` elements of type `T`.
    #[must_use]
    pub fn of<T: Pod>(len: usize) -> Self {
        let mut buffer = Buffer::to_fill(len * size_of::<T>());
        if cfg!(debug_assertions) {
            // Whoever says that more was written than was is found by any test, not only by those
            // of large tensors.
            buffer.bytes_mut().fill(0xa5);
        }
        Self { buffer, written: Written::default() }
    }

    /// Bytes of it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parts of `size` elements, the last of which may be shorter, to be written and then said so.
    pub fn parts<T: Pod + Send>(
        &mut self,
        size: usize,
    ) -> (impl IndexedParallelIterator<Item = &mut [T]>, &Written) {
        (self.buffer.elements_mut().par_chunks_mut(size), &self.written)
    }

    /// All of it, to be written and then said so.
    pub fn elements<T: Pod>(&mut self) -> (&mut [T], &Written) {
        (self.buffer.elements_mut(), &self.written)
    }

    /// What was written; other memory, of zeros, if that is not all: whoever was stopped has no
    /// time to write them.
    #[must_use]
    pub fn finish(self) -> Buffer {
        let len = self.len();
        if self.written.0.into_inner() < len {
            drop(self.buffer);
            return Buffer::zeroed(len);
        }
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(parts_that_are_written: usize) -> Buffer {
        let mut filling = Filling::of::<u16>(1000);
        let (parts, written) = filling.parts::<u16>(64);
        parts.enumerate().filter(|(i, _)| *i < parts_that_are_written).for_each(|(_, part)| {
            part.fill(7);
            written.whole(part);
        });
        filling.finish()
    }

    #[test]
    fn what_is_left_out_shows_nothing_of_an_earlier_buffer() {
        assert!(filled(16).elements_mut::<u16>().iter().all(|&x| x == 7));
        assert!(filled(15).bytes().iter().all(|&byte| byte == 0));
        assert!(filled(0).bytes().iter().all(|&byte| byte == 0));
        assert!(Filling::of::<f64>(0).finish().bytes().is_empty());
    }
}

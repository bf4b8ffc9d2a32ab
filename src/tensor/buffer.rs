//! Byte storage aligned for every element type.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

/// One cache line: the unit of allocation, so that the first byte of a
/// [`Buffer`] is aligned for any element type and any vector load.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

const LINE: usize = size_of::<Line>();
/// From here on, memory is asked of the system in huge pages: a large body
/// would otherwise cost a page fault every 4 KiB, which is most of the time it
/// takes to receive it.
const HUGE: usize = 4 << 20;

#[derive(Debug)]
enum Storage {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Storage {
    fn zeroed(len: usize) -> Self {
        let pages = if len < HUGE { None } else { MmapMut::map_anon(len).ok() };
        let Some(pages) = pages else {
            return Self::Lines(bytemuck::zeroed_vec(len.div_ceil(LINE)));
        };
        #[cfg(target_os = "linux")]
        // Without huge pages it is the same, only slower.
        drop(pages.advise(memmap2::Advice::HugePage));
        Self::Pages(pages)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice(lines),
            Self::Pages(pages) => pages,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Self::Pages(pages) => pages,
        }
    }
}

/// Growable bytes that start at a 64-byte boundary.
///
/// Bodies are received into one of these and the tensors of the request are
/// views of it, so that the bytes of a tensor are copied once, from the socket.
#[derive(Debug)]
pub struct Buffer {
    storage: Storage,
    len: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Buffer {
    /// `len` zero bytes. Untouched pages of a large buffer cost no memory.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { storage: Storage::zeroed(len), len }
    }

    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { len: 0, ..Self::zeroed(capacity) }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        // Copied line by line there is nothing to fill with zeros before.
        let whole = bytes.len() - bytes.len() % LINE;
        let lines = bytemuck::try_cast_slice::<u8, Line>(&bytes[..whole]);
        if let Ok(lines) = lines
            && bytes.len() < HUGE
        {
            let mut storage = Vec::with_capacity(bytes.len().div_ceil(LINE));
            storage.extend_from_slice(lines);
            let mut buffer = Self { storage: Storage::Lines(storage), len: whole };
            buffer.extend(&bytes[whole..]);
            return buffer;
        }
        let mut buffer = Self::zeroed(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Appends `bytes`, growing geometrically when the capacity is used up.
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        let needed = start.saturating_add(bytes.len());
        if needed > self.capacity() {
            let mut grown = Storage::zeroed(needed.max(self.capacity().saturating_mul(2)));
            grown.bytes_mut()[..start].copy_from_slice(self.bytes());
            self.storage = grown;
        }
        self.len = needed;
        self.bytes_mut()[start..].copy_from_slice(bytes);
    }

    /// Drops all bytes from `len` on; does nothing when the buffer is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes that fit without another allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.storage.bytes().len()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[..self.len]
    }

    /// The bytes, to write to.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage.bytes_mut()[..self.len]
    }

    /// The bytes as elements of type `T`; a last part shorter than one element is left out.
    #[must_use]
    pub fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        let whole = self.len - self.len % size_of::<T>();
        bytemuck::cast_slice_mut(&mut self.bytes_mut()[..whole])
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_stays_aligned() {
        let mut buffer = Buffer::with_capacity(3);
        for piece in [&[1_u8, 2, 3][..], &[], &[4; 200], &[5]] {
            buffer.extend(piece);
        }
        assert_eq!(buffer.bytes().len(), 204);
        assert_eq!(&buffer.bytes()[..4], &[1, 2, 3, 4]);
        assert_eq!(buffer.bytes()[203], 5);
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        buffer.truncate(2);
        assert_eq!(buffer.bytes(), &[1, 2]);
    }

    #[test]
    fn large_buffers_are_like_small_ones() {
        let piece = [7_u8; 1000];
        let mut buffer = Buffer::with_capacity(HUGE - 500);
        while buffer.bytes().len() < 2 * HUGE + 1 {
            buffer.extend(&piece);
        }
        assert!(buffer.bytes().iter().all(|&byte| byte == 7));
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        assert!(Buffer::zeroed(HUGE + 1).bytes().iter().all(|&byte| byte == 0));
        assert_eq!(Buffer::zeroed(HUGE + 1).bytes().len(), HUGE + 1);
    }

    #[test]
    fn elements_leave_out_a_rest() {
        assert_eq!(Buffer::zeroed(11).elements_mut::<f32>().len(), 2);
        assert_eq!(Buffer::zeroed(0).elements_mut::<f64>().len(), 0);
    }
}

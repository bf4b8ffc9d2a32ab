//! Byte storage aligned for every element type.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use super::stock;

/// One cache line: the unit of allocation, so that the first byte of a
/// [`Buffer`] is aligned for any element type and any vector load.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

const LINE: usize = size_of::<Line>();
/// From here on, memory is asked of the system in huge pages: a large body
/// would otherwise cost a page fault every 4 KiB, which is most of the time it
/// takes to receive it. It is kept for the next request when it is given back.
const HUGE: usize = 4 << 20;

#[derive(Debug)]
enum Storage {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Storage {
    fn zeroed(len: usize) -> Self {
        let pages = if len < HUGE {
            None
        } else {
            stock::make_way(len);
            MmapMut::map_anon(len).ok()
        };
        let Some(pages) = pages else {
            return Self::Lines(bytemuck::zeroed_vec(len.div_ceil(LINE)));
        };
        #[cfg(target_os = "linux")]
        // Without huge pages it is the same, only slower.
        drop(pages.advise(memmap2::Advice::HugePage));
        Self::Pages(pages)
    }

    /// The same with whatever the memory holds, which is faster where it was used before.
    fn to_fill(len: usize) -> Self {
        let kept = if len < HUGE { None } else { stock::take(len) };
        kept.map_or_else(|| Self::zeroed(len), Self::Pages)
    }

    fn give_back(self) {
        if let Self::Pages(pages) = self {
            stock::keep(pages);
        }
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

    /// `len` bytes with any content, that of an earlier buffer for instance: for those who write every one of
    /// them before anybody reads it.
    #[must_use]
    pub fn to_fill(len: usize) -> Self {
        let mut buffer = Self { storage: Storage::to_fill(len), len };
        if cfg!(debug_assertions) {
            // Whoever takes it for zeros is found by any test, not only by those of large tensors.
            buffer.bytes_mut().fill(0xa5);
        }
        buffer
    }

    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { storage: Storage::to_fill(capacity), len: 0 }
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
        let mut buffer = Self::to_fill(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Appends `bytes`, growing geometrically when the capacity is used up.
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        let needed = start.saturating_add(bytes.len());
        if needed > self.capacity() {
            let mut grown = Storage::to_fill(needed.max(self.capacity().saturating_mul(2)));
            grown.bytes_mut()[..start].copy_from_slice(self.bytes());
            std::mem::replace(&mut self.storage, grown).give_back();
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

impl Drop for Buffer {
    fn drop(&mut self) {
        std::mem::replace(&mut self.storage, Storage::Lines(Vec::new())).give_back();
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
    fn memory_of_a_buffer_before_shows_nowhere() {
        stock::allow(|| 8 * HUGE);
        for len in [HUGE, HUGE + 1, 2 * HUGE] {
            drop(Buffer::copy_of(&vec![7; len]));
            assert!(Buffer::zeroed(len).bytes().iter().all(|&byte| byte == 0));
            drop(Buffer::copy_of(&vec![7; len]));
            let mut buffer = Buffer::with_capacity(len);
            assert!(buffer.capacity() >= len && buffer.bytes().is_empty());
            buffer.extend(&[1, 2, 3]);
            assert_eq!(buffer.bytes(), [1, 2, 3]);
            // Moving to larger memory takes only what was written.
            buffer.extend(&vec![4; 2 * len]);
            assert_eq!(buffer.bytes()[..4], [1, 2, 3, 4]);
            assert!(buffer.bytes()[3..].iter().all(|&byte| byte == 4));
            assert_eq!(Buffer::to_fill(len).bytes().len(), len);
        }
    }

    #[test]
    fn elements_leave_out_a_rest() {
        assert_eq!(Buffer::zeroed(11).elements_mut::<f32>().len(), 2);
        assert_eq!(Buffer::zeroed(0).elements_mut::<f64>().len(), 0);
    }
}

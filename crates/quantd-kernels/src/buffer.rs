//! Byte storage aligned for every element type.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use super::buffer_pool::{BufferPool, entered};

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
/// The same, in pages of any size, where there is a pool, which counts what is kept: an allocator keeps what it
/// was given back as well, on top of what requests hold.
const MAPPED: usize = 1 << 20;

/// Memory of the system's, which goes back to the pool that it came through.
#[derive(Debug)]
struct Pages {
    map: MmapMut,
    pool: Option<BufferPool>,
}

#[derive(Debug)]
enum Storage {
    Lines(Vec<Line>),
    Pages(Pages),
}

/// The pool of this thread, where memory of that size may come from one: the others need not count who uses it.
fn pool_for(len: usize) -> Option<BufferPool> {
    if len >= MAPPED { entered() } else { None }
}

/// Whether memory of that size comes from the system.
const fn is_mapped(len: usize, pool: Option<&BufferPool>) -> bool {
    len >= HUGE || len >= MAPPED && pool.is_some()
}

impl Storage {
    /// Zeros. Memory that is kept is faster to fill with them than pages of the system's are to get.
    fn zeroed(len: usize, pool: Option<BufferPool>) -> Self {
        match Self::kept(len, pool) {
            Ok(mut kept) => {
                kept.bytes_mut().fill(0);
                kept
            }
            Err(pool) => Self::new(len, pool),
        }
    }

    /// The same with whatever the memory holds, which is faster where it was used before.
    fn to_fill(len: usize, pool: Option<BufferPool>) -> Self {
        Self::kept(len, pool).unwrap_or_else(|pool| Self::new(len, pool))
    }

    /// Memory that the pool has kept, as it is; gives back the pool where there is none.
    fn kept(len: usize, pool: Option<BufferPool>) -> Result<Self, Option<BufferPool>> {
        let taken = pool.as_ref().filter(|pool| is_mapped(len, Some(pool)));
        match taken.and_then(|pool| pool.take(len)) {
            Some(map) => Ok(Self::Pages(Pages { map, pool })),
            None => Err(pool),
        }
    }

    /// Zeros of the system's.
    fn new(len: usize, pool: Option<BufferPool>) -> Self {
        let map = if is_mapped(len, pool.as_ref()) {
            pool.iter().for_each(|pool| pool.evict_smaller(len));
            MmapMut::map_anon(len).ok()
        } else {
            None
        };
        let Some(map) = map else {
            return Self::Lines(bytemuck::zeroed_vec(len.div_ceil(LINE)));
        };
        #[cfg(target_os = "linux")]
        if len >= HUGE {
            // Without huge pages it is the same, only slower.
            drop(map.advise(memmap2::Advice::HugePage));
        }
        Self::Pages(Pages { map, pool })
    }

    fn give_back(self) {
        if let Self::Pages(Pages { map, pool: Some(pool) }) = self {
            pool.release(map);
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice(lines),
            Self::Pages(pages) => &pages.map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Self::Pages(pages) => &mut pages.map,
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
        Self { storage: Storage::zeroed(len, pool_for(len)), len }
    }

    /// `len` bytes with any content, that of an earlier buffer for instance: for a
    /// [`Filling`](super::Filling) only.
    pub(super) fn to_fill(len: usize) -> Self {
        Self { storage: Storage::to_fill(len, pool_for(len)), len }
    }

    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self::with_capacity_of(capacity, pool_for(capacity))
    }

    /// The same on a thread that has entered no pool.
    #[must_use]
    pub fn with_capacity_in(capacity: usize, pool: &BufferPool) -> Self {
        Self::with_capacity_of(capacity, Some(pool.clone()))
    }

    fn with_capacity_of(capacity: usize, pool: Option<BufferPool>) -> Self {
        let storage = if is_mapped(capacity, pool.as_ref()) {
            Storage::to_fill(capacity, pool)
        } else {
            Storage::Lines(Vec::with_capacity(capacity.div_ceil(LINE)))
        };
        Self { storage, len: 0 }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }

    /// Appends `bytes`, growing geometrically when the capacity is used up.
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        let needed = start.saturating_add(bytes.len());
        if needed > self.capacity() {
            let mut grown = Self::with_capacity(needed.max(self.capacity().saturating_mul(2)));
            grown.extend(self.bytes());
            *self = grown;
        }
        self.len = needed;
        match &mut self.storage {
            Storage::Pages(pages) => pages.map[start..needed].copy_from_slice(bytes),
            Storage::Lines(lines) => {
                let there = &mut bytemuck::cast_slice_mut::<_, u8>(lines)[start..];
                let (first, rest) = bytes.split_at(bytes.len().min(there.len()));
                there[..first.len()].copy_from_slice(first);
                // Line by line there is nothing to fill with zeros before.
                let (whole, last) = rest.as_chunks::<LINE>();
                lines.extend(whole.iter().map(|&line| Line(line)));
                if !last.is_empty() {
                    let mut line = Line::zeroed();
                    line.0[..last.len()].copy_from_slice(last);
                    lines.push(line);
                }
            }
        }
    }

    /// Drops all bytes from `len` on; does nothing when the buffer is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops all bytes but those of a range, which move to the start; does nothing when the buffer
    /// has not all of them.
    pub fn keep(&mut self, range: Range<usize>) {
        if self.bytes().get(range.clone()).is_some() {
            self.bytes_mut().copy_within(range.clone(), 0);
            self.truncate(range.len());
        }
    }

    /// Bytes that fit without another allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Lines(lines) => lines.capacity() * LINE,
            Storage::Pages(pages) => pages.map.len(),
        }
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
        buffer.extend(&[3, 4, 5]);
        buffer.keep(1..4);
        assert_eq!(buffer.bytes(), &[2, 3, 4]);
        buffer.keep(2..4);
        assert_eq!(buffer.bytes(), &[2, 3, 4]);
    }

    #[test]
    fn pieces_of_any_length_follow_one_another() {
        let bytes: Vec<u8> = (0..=255).collect();
        for first in 0..=2 * LINE + 1 {
            for second in [0, 1, LINE - 1, LINE, LINE + 1, 100] {
                let mut buffer = Buffer::with_capacity(first);
                buffer.extend(&bytes[1..][..first]);
                // What is cut off is written over, and shows no more.
                buffer.truncate(first.saturating_sub(3));
                let mut expected = bytes[1..][..first.saturating_sub(3)].to_vec();
                for piece in [&bytes[..second], &bytes[7..][..second]] {
                    buffer.extend(piece);
                    expected.extend(piece);
                    assert_eq!(buffer.bytes(), expected, "{first} and {second}");
                }
                assert_eq!(Buffer::copy_of(&expected).bytes(), expected);
            }
        }
    }

    #[test]
    fn room_that_was_asked_for_is_there() {
        for capacity in [0, 1, LINE, LINE + 1, 1000] {
            let mut buffer = Buffer::with_capacity(capacity);
            assert!(buffer.capacity() >= capacity);
            buffer.extend(&[1]);
            let start = buffer.bytes().as_ptr();
            buffer.extend(&vec![2; capacity.saturating_sub(1)]);
            assert_eq!(buffer.bytes().as_ptr(), start);
        }
    }

    #[test]
    fn large_buffers_are_like_small_ones() {
        let piece = [7_u8; 1000];
        let mut buffer = Buffer::with_capacity(MAPPED - 500);
        while buffer.bytes().len() < 2 * MAPPED + 1 {
            buffer.extend(&piece);
        }
        assert!(buffer.bytes().iter().all(|&byte| byte == 7));
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        assert!(Buffer::zeroed(MAPPED + 1).bytes().iter().all(|&byte| byte == 0));
        assert_eq!(Buffer::zeroed(MAPPED + 1).bytes().len(), MAPPED + 1);
    }

    #[test]
    fn memory_of_a_buffer_before_shows_nowhere() {
        let pool = BufferPool::default();
        pool.set_limit(|| 8 * HUGE);
        pool.enter();
        for len in [MAPPED, MAPPED + 1, HUGE, HUGE + 1] {
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
        }
    }

    #[test]
    fn memory_goes_back_to_the_pool_that_it_came_from() {
        let pools = [BufferPool::default(), BufferPool::default()];
        pools.iter().for_each(|pool| pool.set_limit(|| 4 * HUGE));
        pools[0].enter();
        let buffers = [Buffer::zeroed(HUGE), Buffer::with_capacity_in(HUGE, &pools[1])];
        // Wherever it is dropped.
        std::thread::spawn(move || drop(buffers)).join().unwrap();
        for pool in pools {
            assert!(pool.take(HUGE).is_some());
            assert!(pool.take(HUGE).is_none());
        }
    }

    /// Otherwise a result of zeros that is dropped is kept for nobody, again and again.
    #[test]
    fn zeros_are_made_of_what_is_kept() {
        let pool = BufferPool::default();
        pool.set_limit(|| 4 * HUGE);
        pool.enter();
        for len in [MAPPED + 1, HUGE + 1] {
            let mut buffer = Buffer::zeroed(len);
            buffer.bytes_mut().fill(7);
            drop(buffer);
            let buffer = Buffer::zeroed(len - 1);
            assert!(pool.take(len).is_none());
            assert!(buffer.bytes().iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn elements_leave_out_a_rest() {
        assert_eq!(Buffer::zeroed(11).elements_mut::<f32>().len(), 2);
        assert_eq!(Buffer::zeroed(0).elements_mut::<f64>().len(), 0);
    }
}

//! Elements in the type they are computed in: where they lie, or made of what was sent a part at a time. That saves a
//! copy of the tensor that is twice as large as what was sent, and the time that the system takes to find the memory.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::{pod_collect_to_vec, try_cast_slice};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::tensor::{DType, Tensor, ToF32};
use quantd_kernels::Isa;
use quantd_kernels::eighths::{F8E4M3, F8E4M3Fnuz, F8E5M2, F8E5M2Fnuz, F8E8M0};
use quantd_kernels::real::Real;

use super::gather;
use super::partition::{CHUNK, Partition};

/// Elements that are made at a time, a multiple of the elements that kernels take: they are read again where they were
/// written, in a cache of the first level.
const PART: usize = 1 << 12;

/// The elements of a tensor in their compute type.
#[derive(Clone, Debug)]
pub(crate) enum Source<'a, T: Real> {
    /// They are there.
    Borrowed(Cow<'a, [T]>),
    /// They are made when they are asked for.
    Converted(Converted<'a, T>),
}

/// A source of either type.
#[derive(Clone, Debug)]
pub(super) enum Sources<'a> {
    /// Elements of every type but `F64`.
    F32(Source<'a, f32>),
    /// Elements of an `F64` tensor.
    F64(Source<'a, f64>),
}

/// Elements of another type and how they are converted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Converted<'a, T> {
    tensor: &'a Tensor,
    isa: Isa,
    part: fn(Isa, &[u8], &mut [T]),
    slice: fn(Isa, &Tensor, &Partition, usize) -> Vec<T>,
}

impl<'a> Sources<'a> {
    /// The elements of that tensor, made with that instruction set.
    #[must_use]
    pub(super) fn of(tensor: &'a Tensor, isa: Isa) -> Self {
        let made = match tensor.dtype() {
            DType::F64 => return Self::F64(Source::Borrowed(tensor.elements())),
            DType::F32 => return Self::F32(Source::Borrowed(tensor.elements())),
            DType::F16 => Converted::from::<f16>(tensor, isa),
            DType::BF16 => Converted::from::<bf16>(tensor, isa),
            DType::I64 => Converted::from::<i64>(tensor, isa),
            DType::I32 => Converted::from::<i32>(tensor, isa),
            DType::I16 => Converted::from::<i16>(tensor, isa),
            DType::I8 => Converted::from::<i8>(tensor, isa),
            DType::U64 => Converted::from::<u64>(tensor, isa),
            DType::U32 => Converted::from::<u32>(tensor, isa),
            DType::U16 => Converted::from::<u16>(tensor, isa),
            DType::U8 => Converted::from::<u8>(tensor, isa),
            DType::F8E4M3 => Converted::from::<F8E4M3>(tensor, isa),
            DType::F8E5M2 => Converted::from::<F8E5M2>(tensor, isa),
            DType::F8E4M3Fnuz => Converted::from::<F8E4M3Fnuz>(tensor, isa),
            DType::F8E5M2Fnuz => Converted::from::<F8E5M2Fnuz>(tensor, isa),
            DType::F8E8M0 => Converted::from::<F8E8M0>(tensor, isa),
        };
        Self::F32(Source::Converted(made))
    }
}

impl<'a, T: Real> From<&'a [T]> for Source<'a, T> {
    fn from(x: &'a [T]) -> Self {
        Self::Borrowed(Cow::Borrowed(x))
    }
}

impl<T: Real> Source<'_, T> {
    /// Number of elements.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Borrowed(x) => x.len(),
            Self::Converted(made) => made.tensor.shape().len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of chunks, the last of which may be shorter than [`CHUNK`].
    #[must_use]
    pub(crate) fn chunks(&self) -> usize {
        self.len().div_ceil(CHUNK)
    }

    /// Hands out the elements of chunk `i` with their places in it: all at once where they are there.
    pub(crate) fn parts_of_chunk(
        &self,
        i: usize,
        room: &mut Vec<T>,
        mut visit: impl FnMut(Range<usize>, &[T]),
    ) {
        let start = i * CHUNK;
        let len = CHUNK.min(self.len() - start);
        let part = match self {
            Self::Borrowed(_) => CHUNK,
            Self::Converted(_) => PART,
        };
        for at in (0..len).step_by(part) {
            let end = len.min(at + part);
            visit(at..end, self.part(start + at, end - at, room));
        }
    }

    /// `len` elements from `start` on, in `room` if they have to be made.
    pub(crate) fn part<'s>(&'s self, start: usize, len: usize, room: &'s mut Vec<T>) -> &'s [T] {
        match self {
            Self::Borrowed(x) => &x[start..start + len],
            Self::Converted(made) => {
                if room.len() < len {
                    room.resize(len, T::ZERO);
                }
                made.fill(start, &mut room[..len]);
                &room[..len]
            }
        }
    }

    /// The elements of slice `slice` in memory order: borrowed where they lie side by side.
    #[must_use]
    pub(crate) fn slice(&self, partition: &Partition, slice: usize) -> Cow<'_, [T]> {
        match self {
            Self::Borrowed(x) => gather::slice(x, partition, slice),
            Self::Converted(made) => {
                Cow::Owned((made.slice)(made.isa, made.tensor, partition, slice))
            }
        }
    }

    /// Index of the first element that is NaN.
    #[must_use]
    pub(crate) fn first_nan(&self) -> Option<usize> {
        let in_chunk = |i| {
            let (mut room, mut found) = (Vec::new(), None);
            self.parts_of_chunk(i, &mut room, |places, x| {
                let first = x.iter().position(|x| x.is_nan());
                found = found.or(first.map(|first| i * CHUNK + places.start + first));
            });
            found
        };
        (0..self.chunks()).into_par_iter().find_map_first(in_chunk)
    }
}

impl<T> Converted<'_, T> {
    /// Makes the elements from `start` on.
    pub(crate) fn fill(&self, start: usize, to: &mut [T]) {
        let size = self.tensor.dtype().size();
        (self.part)(self.isa, &self.tensor.bytes()[start * size..(start + to.len()) * size], to);
    }
}

impl<'a> Converted<'a, f32> {
    fn from<E: ToF32>(tensor: &'a Tensor, isa: Isa) -> Self {
        Self { tensor, isa, part: convert::<E>, slice: convert_slice::<E> }
    }
}

fn convert<E: ToF32>(isa: Isa, bytes: &[u8], to: &mut [f32]) {
    match try_cast_slice::<u8, E>(bytes) {
        Ok(x) => isa.convert(x, to),
        Err(_) => isa.convert(&pod_collect_to_vec::<u8, E>(bytes), to),
    }
}

fn convert_slice<E: ToF32>(
    isa: Isa,
    tensor: &Tensor,
    partition: &Partition,
    slice: usize,
) -> Vec<f32> {
    let elements = tensor.elements::<E>();
    let own = gather::slice(&elements, partition, slice);
    let mut reals = vec![0.0; own.len()];
    let parts = reals.par_chunks_mut(CHUNK).zip(own.par_chunks(CHUNK));
    parts.for_each(|(reals, own)| isa.convert(own, reals));
    reals
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Task;
    use crate::format::{Format, INTEGER};
    use crate::params::{Numerics, Profile};
    use crate::scheme::{Coding, Granularity, NanPolicy, RangeMethod, Scheme};
    use crate::tensor::{Buffer, Shape};

    const GRANULARITIES: [Granularity; 6] = [
        Granularity::Tensor,
        Granularity::Channel { axis: 0 },
        Granularity::Channel { axis: 1 },
        Granularity::Group { axis: 1, size: 32 },
        Granularity::Group { axis: 0, size: 3 },
        Granularity::Block { shape: [16, 48] },
    ];

    fn scheme(granularity: Granularity, range: RangeMethod) -> Scheme {
        let numerics = Numerics {
            profile: Profile::Onnx,
            bits: 8,
            signed: true,
            symmetric: true,
            restricted: false,
        };
        Scheme {
            format: &INTEGER,
            coding: Coding::Integer(numerics),
            granularity,
            range,
            nan: NanPolicy::Refuse,
            packed: false,
        }
    }

    /// Numbers of that type, from an address that is no multiple of its size if `odd`.
    fn tensor(dtype: DType, dims: [usize; 2], odd: bool) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let start = usize::from(odd);
        let mut buffer = Buffer::zeroed(start + shape.len() * dtype.size());
        for (i, bytes) in buffer.bytes_mut()[start..].chunks_exact_mut(dtype.size()).enumerate() {
            let x = (i * 7919 % 1009) as f32 / 4.0 - 126.0;
            if dtype == DType::F16 {
                bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes());
            } else if dtype == DType::BF16 {
                bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes());
            } else {
                // No NaN of floats of eight bits, and no infinity.
                bytes[0] = (31 * i % if dtype.is_eighth() { 0x7b } else { 0x100 }).to_le_bytes()[0];
            }
        }
        Tensor::view(dtype, shape, Arc::new(buffer), start).unwrap()
    }

    fn in_f32(tensor: &Tensor) -> Tensor {
        let crate::tensor::Reals::F32(x) = tensor.reals() else { panic!("not f32") };
        Tensor::from_elements(DType::F32, tensor.shape().clone(), &x).unwrap()
    }

    #[test]
    fn what_is_made_is_quantized_as_what_is_there() {
        let task = Task::default();
        for dtype in DType::ALL.into_iter().filter(|&x| x != DType::F64 && x != DType::F32) {
            // Of E8M0 there are scales alone.
            if dtype == DType::F8E8M0 {
                continue;
            }
            for (dims, odd) in [([3, 96], true), ([40, 1000], false), ([2, 40_000], true)] {
                let tensor = tensor(dtype, dims, odd);
                let reals = in_f32(&tensor);
                for granularity in GRANULARITIES {
                    let scheme = scheme(granularity, RangeMethod::MinMax);
                    let [made, there] = [&tensor, &reals]
                        .map(|tensor| scheme.quantize(tensor, true, &task).unwrap());
                    let at = format!("{dtype} {dims:?} {granularity:?}");
                    for (a, b) in made.parts.iter().zip(there.parts.iter()) {
                        assert!(a.tensor.bytes() == b.tensor.bytes(), "{at} {}", a.name);
                    }
                    let sums = |report: &crate::report::Report| {
                        let mut report = report.clone();
                        report.compression_ratio = None;
                        report
                    };
                    assert_eq!(sums(&made.report), sums(&there.report), "{at}");
                    assert_eq!(made.slices.len(), there.slices.len());
                    let slices = made.slices.iter().zip(&there.slices);
                    slices.for_each(|(a, b)| assert_eq!(sums(a), sums(b), "{at}"));
                }
            }
        }
    }

    #[test]
    fn a_search_sees_the_same_elements() {
        let tensor = tensor(DType::F16, [9, 70], true);
        let reals = in_f32(&tensor);
        for granularity in GRANULARITIES {
            let scheme = scheme(granularity, RangeMethod::Mse);
            let [made, there] = [&tensor, &reals]
                .map(|tensor| scheme.quantize(tensor, false, &Task::default()).unwrap());
            let scale = |made: &crate::format::Quantized| made.parts.get("scale").unwrap().clone();
            assert_eq!(scale(&made).bytes(), scale(&there).bytes());
        }
    }

    #[test]
    fn the_first_nan_is_found_where_it_is() {
        for first in [0, PART - 1, PART, CHUNK + 3] {
            let mut x = vec![f16::ONE; CHUNK + 4];
            x[first..].fill(f16::NAN);
            let shape = Shape::vector(x.len()).unwrap();
            let tensor = Tensor::from_elements(DType::F16, shape, &x).unwrap();
            let scheme = scheme(Granularity::Tensor, RangeMethod::MinMax);
            let error = scheme.quantize(&tensor, false, &Task::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("data: element {first} is NaN"));
        }
    }

    #[test]
    fn only_a_search_needs_a_copy_of_the_elements() {
        let tensor = tensor(DType::F16, [1, 1000], false);
        let bytes = |range| {
            let (shape, dtype) = (tensor.shape(), tensor.dtype());
            let scheme = scheme(Granularity::Tensor, range);
            INTEGER.plan(&scheme, shape, dtype).unwrap().working_bytes
        };
        assert!(bytes(RangeMethod::MinMax) < 200);
        assert!(bytes(RangeMethod::Mse) >= 4 * 1000);
    }
}

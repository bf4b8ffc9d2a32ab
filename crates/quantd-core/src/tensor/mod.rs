//! Tensors: an element type, a shape and aligned little-endian bytes.
//!
//! There are no strides: the layout is row-major by contract, and a codec that
//! reads another order (Fortran npy) rearranges once. Nothing here knows about
//! quantization or file formats.

mod dtype;
mod shape;

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use quantd_kernels::eighths::{F8E4M3, F8E4M3Fnuz, F8E5M2, F8E5M2Fnuz, F8E8M0};
use rayon::prelude::*;

pub use dtype::DType;
pub use quantd_kernels::{Buffer, Filling, ToF32};
pub use shape::{MAX_DIM, MAX_RANK, Shape, ShapeError};

/// A row-major tensor that views part of a shared [`Buffer`].
///
/// ```
/// use quantd_core::tensor::{DType, Shape, ShapeError, Tensor};
///
/// let x = Tensor::from_elements(DType::I16, Shape::new(vec![2, 3])?, &[1_i16, 2, 3, 4, 5, 6]);
/// let x = x.expect("as many elements as the shape has");
/// // The second row lies in the same memory.
/// let row = x.part(3, Shape::new(vec![3])?).expect("within the tensor");
/// assert_eq!(*row.elements::<i16>(), [4, 5, 6]);
/// # Ok::<(), ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    buffer: Arc<Buffer>,
    offset: usize,
}

/// The elements of a tensor in the type they are computed in: f64 for `F64`,
/// f32 for all others (docs/NUMERICS.md). Borrowed when no conversion is needed.
#[derive(Clone, Debug)]
pub enum Reals<'a> {
    /// Elements of every type but `F64`.
    F32(Cow<'a, [f32]>),
    /// Elements of an `F64` tensor.
    F64(Cow<'a, [f64]>),
}

impl Tensor {
    /// A view of `shape.len() * dtype.size()` bytes of `buffer` from `offset`
    /// on, or `None` when the buffer ends before.
    #[must_use]
    pub fn view(dtype: DType, shape: Shape, buffer: Arc<Buffer>, offset: usize) -> Option<Self> {
        let end = shape.len().checked_mul(dtype.size())?.checked_add(offset)?;
        (end <= buffer.bytes().len()).then_some(Self { dtype, shape, buffer, offset })
    }

    /// A tensor that owns a copy of `elements`, or `None` when their number is
    /// not the shape's or their size not the dtype's.
    #[must_use]
    pub fn from_elements<T: Pod>(dtype: DType, shape: Shape, elements: &[T]) -> Option<Self> {
        if size_of::<T>() != dtype.size() || elements.len() != shape.len() {
            return None;
        }
        let buffer = Buffer::copy_of(bytemuck::cast_slice(elements));
        Self::view(dtype, shape, Arc::new(buffer), 0)
    }

    /// The elements from `first` on as a tensor of that shape in the same memory, or `None` when
    /// there are not so many.
    #[must_use]
    pub fn part(&self, first: usize, shape: Shape) -> Option<Self> {
        if first.checked_add(shape.len())? > self.shape.len() {
            return None;
        }
        let offset = self.offset + first * self.dtype.size();
        Self::view(self.dtype, shape, Arc::clone(&self.buffer), offset)
    }

    /// Type of the elements.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The memory that it is a view of.
    #[must_use]
    pub const fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// The same elements under another shape, or `None` when the counts differ.
    #[must_use]
    pub fn reshaped(self, shape: Shape) -> Option<Self> {
        (shape.len() == self.shape.len()).then_some(Self { shape, ..self })
    }

    /// The same bytes as elements of another type, or `None` when its size is another.
    #[must_use]
    pub fn viewed(self, dtype: DType) -> Option<Self> {
        (dtype.size() == self.dtype.size()).then_some(Self { dtype, ..self })
    }

    /// The elements as little-endian bytes, row-major.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = self.shape.len() * self.dtype.size();
        &self.buffer.bytes()[self.offset..self.offset + len]
    }

    /// Whether the elements lie where their type wants them, so that
    /// [`elements`](Self::elements) need not copy.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        self.bytes().as_ptr().addr().is_multiple_of(self.dtype.size())
    }

    /// The same elements where their type wants them.
    #[must_use]
    pub fn aligned(self) -> Self {
        if self.is_aligned() {
            return self;
        }
        let buffer = Arc::new(Buffer::copy_of(self.bytes()));
        Self { buffer, offset: 0, ..self }
    }

    /// The elements as `T`, copied only when the view is not aligned for `T`.
    /// `T` must have the size of the dtype.
    #[must_use]
    pub fn elements<T: Pod>(&self) -> Cow<'_, [T]> {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        match bytemuck::try_cast_slice(self.bytes()) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.bytes())),
        }
    }

    /// The elements in their compute type.
    #[must_use]
    pub fn reals(&self) -> Reals<'_> {
        match self.dtype {
            DType::F64 => Reals::F64(self.elements()),
            DType::F32 => Reals::F32(self.elements()),
            DType::F16 => self.convert::<f16>(),
            DType::BF16 => self.convert::<bf16>(),
            DType::I64 => self.convert::<i64>(),
            DType::I32 => self.convert::<i32>(),
            DType::I16 => self.convert::<i16>(),
            DType::I8 => self.convert::<i8>(),
            DType::U64 => self.convert::<u64>(),
            DType::U32 => self.convert::<u32>(),
            DType::U16 => self.convert::<u16>(),
            DType::U8 => self.convert::<u8>(),
            DType::F8E4M3 => self.convert::<F8E4M3>(),
            DType::F8E5M2 => self.convert::<F8E5M2>(),
            DType::F8E4M3Fnuz => self.convert::<F8E4M3Fnuz>(),
            DType::F8E5M2Fnuz => self.convert::<F8E5M2Fnuz>(),
            DType::F8E8M0 => self.convert::<F8E8M0>(),
        }
    }

    fn convert<E: ToF32>(&self) -> Reals<'_> {
        /// Elements that a thread converts at a time, at least.
        const PART: usize = 1 << 15;
        let elements = self.elements::<E>();
        let parts = elements.par_iter().with_min_len(PART);
        Reals::F32(Cow::Owned(parts.map(|x| x.to_f32()).collect()))
    }
}

impl AsRef<[u8]> for Tensor {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_and_share_the_elements() {
        let shape = |len| Shape::vector(len).unwrap();
        let all = Tensor::from_elements(DType::I16, shape(5), &[1_i16, 2, 3, 4, 5]).unwrap();
        let part = all.part(1, shape(3)).unwrap();
        assert_eq!(part.elements::<i16>(), [2, 3, 4].as_slice());
        assert_eq!(part.part(2, shape(1)).unwrap().elements::<i16>(), [4].as_slice());
        assert_eq!(part.part(3, shape(0)).unwrap().bytes().len(), 0);
        // What lies behind a part is not its own.
        assert!(part.part(2, shape(2)).is_none());
        assert!(part.part(4, shape(0)).is_none());
        assert!(all.part(usize::MAX, shape(1)).is_none());
        assert!(all.part(usize::MAX, shape(0)).is_none());
    }

    #[test]
    fn views_are_bounded() {
        let buffer = Arc::new(Buffer::zeroed(16));
        let view = |len, offset| {
            Tensor::view(DType::F32, Shape::vector(len).unwrap(), Arc::clone(&buffer), offset)
        };
        assert!(view(4, 0).is_some());
        assert!(view(3, 4).is_some());
        assert!(view(4, 1).is_none());
        assert!(view(0, 16).is_some());
        assert!(view(0, 17).is_none());
        assert!(view(1, usize::MAX).is_none());
    }

    #[test]
    fn misaligned_elements_are_copied() {
        let mut buffer = Buffer::zeroed(9);
        buffer.bytes_mut()[1..].copy_from_slice(bytemuck::bytes_of(&[1.5_f32, -2.0]));
        let tensor =
            Tensor::view(DType::F32, Shape::vector(2).unwrap(), Arc::new(buffer), 1).unwrap();
        assert_eq!(&*tensor.elements::<f32>(), &[1.5, -2.0]);
    }

    #[test]
    fn every_half_is_converted() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let shape = Shape::vector(all.len()).unwrap();
        for (dtype, expect) in [
            (DType::F16, all.iter().map(|&x| f16::from_bits(x).to_f32()).collect::<Vec<_>>()),
            (DType::BF16, all.iter().map(|&x| bf16::from_bits(x).to_f32()).collect()),
        ] {
            let tensor = Tensor::from_elements(dtype, shape.clone(), &all).unwrap();
            let Reals::F32(reals) = tensor.reals() else { panic!("not f32") };
            for (real, expect) in reals.iter().zip(&expect) {
                assert!(real.to_bits() == expect.to_bits() || real.is_nan() && expect.is_nan());
            }
        }
    }

    #[test]
    fn half_and_integers_become_f32() {
        let shape = Shape::vector(2).unwrap();
        let check = |tensor: Option<Tensor>, expect: [f32; 2]| {
            let tensor = tensor.unwrap();
            let Reals::F32(reals) = tensor.reals() else { panic!("not f32") };
            assert_eq!(&*reals, &expect);
        };
        let halves = [f16::from_f32(0.5), f16::from_f32(-65504.0)];
        check(Tensor::from_elements(DType::F16, shape.clone(), &halves), [0.5, -65504.0]);
        let halves = [bf16::from_f32(0.5), bf16::from_f32(-3e38)];
        check(
            Tensor::from_elements(DType::BF16, shape.clone(), &halves),
            [0.5, bf16::from_f32(-3e38).to_f32()],
        );
        check(
            Tensor::from_elements(DType::I64, shape.clone(), &[16_777_217_i64, -3]),
            [16_777_216.0, -3.0],
        );
        check(Tensor::from_elements(DType::U8, shape, &[255_u8, 0]), [255.0, 0.0]);
    }
}

//! Shapes whose element count is known not to overflow.

use std::fmt;

/// Largest number of dimensions a tensor may have.
pub const MAX_RANK: usize = 8;
/// Largest extent of one dimension.
pub const MAX_DIM: usize = 1 << 31;

/// Why a list of dimensions is not a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More than [`MAX_RANK`] dimensions.
    #[error("{0} dimensions, at most {MAX_RANK} are allowed")]
    Rank(usize),
    /// One dimension above [`MAX_DIM`].
    #[error("dimension {0} is above 2^31")]
    Dim(usize),
    /// The product of the dimensions, zeros left out, does not fit in memory.
    #[error("the product of the dimensions is too large")]
    Product,
}

/// Row-major dimensions; `[]` is a scalar. The product is checked once, here,
/// so that no later size computation can overflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<usize>,
    len: usize,
    span: usize,
}

impl Shape {
    /// Checks rank, extents and product. A zero dimension does not hide an
    /// overflow of the others: `[2^31, 2^31, 2^31, 0]` is refused.
    ///
    /// # Errors
    /// [`ShapeError`] names what is out of bounds.
    pub fn new(dims: Vec<usize>) -> Result<Self, ShapeError> {
        if dims.len() > MAX_RANK {
            return Err(ShapeError::Rank(dims.len()));
        }
        if let Some(position) = dims.iter().position(|&dim| dim > MAX_DIM) {
            return Err(ShapeError::Dim(position));
        }
        // 16 bytes an element leave room for every buffer derived from a shape.
        let bound = isize::MAX.unsigned_abs() / 16;
        let mut product = 1_usize;
        for &dim in dims.iter().filter(|&&dim| dim != 0) {
            product =
                product.checked_mul(dim).filter(|&p| p <= bound).ok_or(ShapeError::Product)?;
        }
        let len = if dims.contains(&0) { 0 } else { product };
        Ok(Self { dims, len, span: product })
    }

    /// The shape of a vector of `len` elements.
    ///
    /// # Errors
    /// [`ShapeError::Dim`] when `len` is above [`MAX_DIM`].
    pub fn vector(len: usize) -> Result<Self, ShapeError> {
        Self::new(vec![len])
    }

    /// The shape of a scalar: no dimensions, one element.
    #[must_use]
    pub const fn scalar() -> Self {
        Self { dims: Vec::new(), len: 1, span: 1 }
    }

    /// Extents, slowest-varying first.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Number of elements if dimensions of 0 were 1: no count of rows, columns or slices is more.
    #[must_use]
    pub const fn span(&self) -> usize {
        self.span
    }

    /// Whether there are no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_checked() {
        let check = |dims: &[usize], expect: Result<usize, ShapeError>| {
            assert_eq!(Shape::new(dims.to_vec()).map(|shape| shape.len()), expect, "{dims:?}");
        };
        let span = |dims: &[usize]| Shape::new(dims.to_vec()).map(|shape| shape.span());
        assert_eq!([span(&[]), span(&[2, 3]), span(&[4, 0, 5, 0])], [Ok(1), Ok(6), Ok(20)]);
        check(&[], Ok(1));
        check(&[0], Ok(0));
        check(&[3, 0, 5], Ok(0));
        check(&[2, 3, 4], Ok(24));
        check(&[1; 8], Ok(1));
        check(&[1; 9], Err(ShapeError::Rank(9)));
        check(&[2, MAX_DIM + 1], Err(ShapeError::Dim(1)));
        check(&[usize::MAX], Err(ShapeError::Dim(0)));
        check(&[MAX_DIM, MAX_DIM], Err(ShapeError::Product));
        check(&[MAX_DIM, MAX_DIM, 0], Err(ShapeError::Product));
    }
}

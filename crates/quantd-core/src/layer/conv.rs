//! 2-D convolutions as products: each output pixel of each image is a row of
//! the pixels under the kernel (im2col), made block by block.

use std::ops::Range;

use rayon::prelude::*;

use super::super::{QuantError, Task};

/// Elements of the rows that are made at a time.
const BLOCK: usize = 1 << 20;

/// How a kernel moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Step between output pixels, down and across.
    pub stride: [usize; 2],
    /// Pixels of value 0 around the image: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Step between the elements of the kernel, down and across.
    pub dilation: [usize; 2],
    /// Parts of the channels that do not see one another.
    pub groups: usize,
}

/// Multiplies rows of a group: the group, the rows, their elements, and where
/// `[rows, outputs]` goes.
pub(super) type Product<'a, S, T> = dyn FnMut(usize, Range<usize>, &[S], &mut [T]) + 'a;

/// A convolution of images of one size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    conv: Conv,
    /// Images, channels, height, width.
    x: [usize; 4],
    /// Outputs, channels of a group, height, width.
    kernel: [usize; 4],
    /// Height and width of the result.
    out: [usize; 2],
}

impl Conv {
    /// One pixel at a time, nothing around, all channels together.
    pub const PLAIN: Self = Self { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };

    pub(super) fn check(&self, outputs: usize) -> Result<(), QuantError> {
        if self.groups == 0 || !outputs.is_multiple_of(self.groups) {
            let detail = format!("{} groups do not divide {outputs} outputs", self.groups);
            return Err(QuantError::field("groups", detail));
        }
        for (field, values) in [("stride", self.stride), ("dilation", self.dilation)] {
            if values.contains(&0) {
                return Err(QuantError::field(field, "not positive"));
            }
        }
        Ok(())
    }

    /// The geometry for images of those dimensions.
    pub(super) fn plan(&self, kernel: &[usize], dims: &[usize]) -> Result<Plan, QuantError> {
        let (&[outputs, channels, rows, columns], &[_, own, height, width]) = (kernel, dims) else {
            let detail = format!("{dims:?} is not a batch of images");
            return Err(
                QuantError::field("shape", detail).cure("send [batch, channels, height, width]")
            );
        };
        let all = channels.saturating_mul(self.groups);
        if own != all {
            let detail = format!("{dims:?} has {own} channels, the layer takes {all}");
            return Err(QuantError::field("shape", detail));
        }
        let [top, left, bottom, right] = self.padding;
        let extent = |size: usize, around: usize, kernel: usize, i: usize| {
            let span = self.dilation[i].saturating_mul(kernel - 1).saturating_add(1);
            let room = size.saturating_add(around).checked_sub(span)?;
            Some(room / self.stride[i] + 1)
        };
        let down = extent(height, top.saturating_add(bottom), rows, 0);
        let across = extent(width, left.saturating_add(right), columns, 1);
        let (Some(down), Some(across)) = (down, across) else {
            let detail = format!("images of {height} x {width} are smaller than the kernel");
            return Err(QuantError::field("shape", detail).cure("send larger images, or pad them"));
        };
        let x = [dims[0], own, height, width];
        let kernel = [outputs, channels, rows, columns];
        Ok(Plan { conv: *self, x, kernel, out: [down, across] })
    }
}

impl Plan {
    pub(super) fn output_dims(&self) -> [usize; 4] {
        [self.x[0], self.kernel[0], self.out[0], self.out[1]]
    }

    /// Pixels of a result of one image.
    fn pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// K.
    pub(super) fn depth(&self) -> usize {
        self.kernel[1] * self.kernel[2] * self.kernel[3]
    }

    /// Outputs of a group.
    pub(super) fn outputs(&self) -> usize {
        self.kernel[0] / self.conv.groups
    }

    /// The image that a row is of.
    pub(super) fn image_of(&self, row: usize) -> usize {
        row / self.pixels()
    }

    fn rows(&self) -> usize {
        self.x[0].saturating_mul(self.pixels())
    }

    fn rows_of_a_block(&self) -> usize {
        (BLOCK / (self.depth() + self.outputs())).clamp(1, self.rows().max(1))
    }

    /// Bytes of a block: its rows in f32 or packed, their parameters, the result.
    pub(super) fn block_bytes(&self) -> usize {
        let row = (4 * self.depth()).saturating_add(4 * self.outputs()).saturating_add(96);
        self.rows_of_a_block().saturating_mul(row)
    }

    /// Makes the rows block by block and group by group, has `product` multiply
    /// them, and puts the result where it belongs in `[batch, out, ..]`. `pad`
    /// is the value of 0 in an image.
    pub(super) fn run<S: Copy + Send + Sync, T: Copy + Default>(
        &self,
        source: &[S],
        pad: &(dyn Fn(usize) -> S + Sync),
        out: &mut [T],
        product: &mut Product<'_, S, T>,
        task: &Task,
    ) {
        let (k, n, all) = (self.depth(), self.outputs(), self.rows());
        let step = self.rows_of_a_block();
        if all == 0 {
            return;
        }
        // Images without pixels have a result where there is padding around them.
        let mut elements = vec![pad(0); step * k];
        let mut results = vec![T::default(); step * n];
        for first in (0..all).step_by(step) {
            let rows = first..all.min(first + step);
            let elements = &mut elements[..rows.len() * k];
            let results = &mut results[..rows.len() * n];
            for group in 0..self.conv.groups {
                if task.is_cancelled() {
                    return;
                }
                let parts = elements.par_chunks_exact_mut(k).with_min_len(16).enumerate();
                parts.for_each(|(i, to)| {
                    let row = first + i;
                    self.row(source, row, group, pad(self.image_of(row)), to);
                });
                product(group, rows.clone(), elements, results);
                self.scatter(results, first, group, out);
            }
        }
    }

    /// The elements under the kernel at one output pixel.
    fn row<S: Copy>(&self, source: &[S], row: usize, group: usize, pad: S, to: &mut [S]) {
        let [_, channels, height, width] = self.x;
        let [_, own, rows, columns] = self.kernel;
        let Conv { stride, padding, dilation, .. } = self.conv;
        let (image, pixel) = (self.image_of(row), row % self.pixels());
        let (y, x) = (pixel / self.out[1] * stride[0], pixel % self.out[1] * stride[1]);
        let mut lines = to.chunks_exact_mut(columns);
        for channel in group * own..(group + 1) * own {
            let plane = &source[(image * channels + channel) * height * width..][..height * width];
            for i in 0..rows {
                let Some(line) = lines.next() else { return };
                let y = (y + i * dilation[0]).checked_sub(padding[0]).filter(|y| *y < height);
                let Some(y) = y else {
                    line.fill(pad);
                    continue;
                };
                let from = &plane[y * width..][..width];
                for (j, to) in line.iter_mut().enumerate() {
                    let x = (x + j * dilation[1]).checked_sub(padding[1]);
                    *to = x.and_then(|x| from.get(x)).copied().unwrap_or(pad);
                }
            }
        }
    }

    /// Puts `[rows, outputs]` of a group where they belong.
    fn scatter<T: Copy>(&self, results: &[T], first: usize, group: usize, out: &mut [T]) {
        let (n, pixels) = (self.outputs(), self.pixels());
        for (i, cells) in results.chunks_exact(n).enumerate() {
            let (image, pixel) = (self.image_of(first + i), (first + i) % pixels);
            let start = (image * self.kernel[0] + group * n) * pixels + pixel;
            for (cell, to) in cells.iter().zip(out[start..].iter_mut().step_by(pixels)) {
                *to = *cell;
            }
        }
    }
}

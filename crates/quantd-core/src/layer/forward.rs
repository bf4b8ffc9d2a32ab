//! One run of a layer: codes, products, result.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::tensor::{Buffer, DType, Reals, Shape, Tensor};
use quantd_kernels::CodeSpec;
use quantd_kernels::gemm::{
    self, Codes, Dynamic, Elements, Lhs, Mode, Output as Target, PackedLhs, Requantize, RowParams,
    multiply_int4,
};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{CodeRange, Extent, QuantParams};
use quantd_kernels::table::Table;

use super::super::extent::extents;
use super::super::matmul::Requantization;
use super::super::params::{self, Numerics};
use super::super::partition::{CHUNK, Partition};
use super::super::scheme::{Granularity, NanPolicy};
use super::super::walk::Walk;
use super::super::{QuantError, Task};
use super::conv::Plan;
use super::weight::Packed;
use super::{Activation, Geometry, Layer, Output, Parameters};
use crate::format::integer::first_outside;

/// What a caller sent.
enum Source<'a> {
    Codes(&'a [u8]),
    Real(Cow<'a, [f32]>),
}

/// Cells of a product.
enum Cells<'a> {
    Real(&'a mut [f32]),
    Unsigned(&'a mut [u8]),
    Signed(&'a mut [i8]),
}

/// Images as codes: bytes of the request, or made of its numbers.
enum Pixels<'a> {
    Sent(&'a [u8]),
    Made(Buffer),
}

/// Codes of images; one scale and zero point, or one an image.
struct Images<'a> {
    pixels: Pixels<'a>,
    affines: Vec<QuantParams<f32>>,
}

impl Images<'_> {
    fn codes(&self) -> &[u8] {
        match &self.pixels {
            Pixels::Sent(bytes) => bytes,
            Pixels::Made(buffer) => buffer.bytes(),
        }
    }

    fn affine(&self, image: usize) -> QuantParams<f32> {
        self.affines[if self.affines.len() == 1 { 0 } else { image }]
    }

    /// Zero points and scales of rows, or the one of all.
    fn of_rows(&self, rows: Range<usize>, plan: &Plan) -> (Vec<i32>, Vec<f32>) {
        let rows = if self.affines.len() == 1 { 0..1 } else { rows };
        let affines = rows.map(|row| self.affine(plan.image_of(row)));
        affines.map(|affine| (affine.zero_point, affine.scale)).unzip()
    }
}

impl Layer {
    /// Runs the layer on `[.., k]` or `[batch, channels, height, width]`: real
    /// numbers of any type (F64 is rounded to F32), or, where the parameters of
    /// the input are static, its codes.
    ///
    /// # Errors
    /// [`QuantError`] about `shape`, `dtype` or `data`.
    pub fn forward(&self, x: &Tensor, task: &Task) -> Result<Tensor, QuantError> {
        let shape = self.output_shape(x.shape().dims())?;
        let source = self.source(x)?;
        let size = if self.direct.is_some() { 1 } else { 4 };
        let mut out = Buffer::zeroed(shape.len() * size);
        if !shape.is_empty() {
            let cells = match (&self.direct, self.output.dtype()) {
                (Some(_), DType::U8) => Cells::Unsigned(out.bytes_mut()),
                (Some(_), _) => Cells::Signed(out.elements_mut()),
                (None, _) => Cells::Real(out.elements_mut()),
            };
            match self.geometry {
                Geometry::Linear => self.linear(&source, x.shape(), cells, task)?,
                Geometry::Conv(_) => self.convolve(&source, x.shape(), cells, task)?,
            }
        }
        let out = if self.direct.is_some() { out } else { self.finish(out, &shape, task)? };
        Tensor::view(self.output.dtype(), shape, Arc::new(out), 0)
            .ok_or_else(|| QuantError::field("shape", "the result is too large"))
    }

    fn source<'a>(&self, x: &'a Tensor) -> Result<Source<'a>, QuantError> {
        if self.input.fixed().is_some() && x.dtype() == self.input.dtype() {
            self.check_codes(x)?;
            return Ok(Source::Codes(x.bytes()));
        }
        if !x.dtype().is_float() {
            let detail = format!("{} is not what the layer takes", x.dtype());
            let cure = match self.input.fixed() {
                Some(_) => {
                    format!("send F32, F16, BF16 or F64, or codes of {}", self.input.dtype())
                }
                None => "send F32, F16, BF16 or F64".to_owned(),
            };
            return Err(QuantError::field("dtype", detail).cure(cure));
        }
        let x = reals(x);
        match self.input.nan {
            // Integers have no NaN to keep.
            NanPolicy::Refuse | NanPolicy::Keep => match first_nan(&x) {
                None => Ok(Source::Real(x)),
                Some(i) => Err(QuantError::nan(i)
                    .cure("send finite numbers, or choose nan: zero, min or max for the input")),
            },
            policy @ (NanPolicy::Zero | NanPolicy::Min | NanPolicy::Max) => {
                Ok(Source::Real(without_nan(x, policy)))
            }
        }
    }

    /// Codes of fewer than 8 bits must be such.
    fn check_codes(&self, x: &Tensor) -> Result<(), QuantError> {
        let numerics = &self.input.numerics;
        if numerics.bits == 8 {
            return Ok(());
        }
        let range @ CodeRange { min, max } = numerics.code_range();
        match first_outside(x, range) {
            None => Ok(()),
            Some(i) => {
                let detail = format!("element {i} is not a code of {} bits", numerics.bits);
                Err(QuantError::field("data", detail).cure(format!("use {min} to {max}")))
            }
        }
    }

    /// The bytes of codes as codes.
    fn codes<'a>(&self, bytes: &'a [u8]) -> Codes<'a> {
        if self.input.numerics.signed {
            Codes::I8(bytemuck::cast_slice(bytes))
        } else {
            Codes::U8(bytes)
        }
    }

    /// Scale and zero point of what has that extent.
    fn affine(&self, extent: Extent<f32>) -> QuantParams<f32> {
        self.input.numerics.affine(params::Range::around_zero(extent.min, extent.max))
    }

    fn linear(
        &self,
        source: &Source<'_>,
        shape: &Shape,
        cells: Cells<'_>,
        task: &Task,
    ) -> Result<(), QuantError> {
        let k = shape.dims().last().copied().unwrap_or(1);
        let m = shape.len() / k.max(1);
        let each = |extent| self.affine(extent);
        let CodeSpec { range, rounding, .. } = self.input.how();
        let params = match self.input.parameters {
            Parameters::Static(affine) => RowParams::Same(affine),
            Parameters::Token => RowParams::Row(&each),
            Parameters::Tensor => {
                let Source::Real(x) = source else { return Ok(()) };
                let extents =
                    extents(&(&**x).into(), &Partition::new(Granularity::Tensor, shape)?, task);
                RowParams::Same(self.affine(extents.first().copied().unwrap_or_default()))
            }
        };
        let own = self.input.fixed().map(|affine| ([affine.zero_point], [affine.scale]));
        let elements = match (source, &own) {
            (Source::Real(x), _) => Elements::Real(Dynamic { x, range, rounding, params }),
            (Source::Codes(bytes), Some((zero_points, scales))) => {
                Elements::Codes { codes: self.codes(bytes), zero_points, scales }
            }
            (Source::Codes(_), None) => return Ok(()),
        };
        self.multiply(0, Lhs { m, k, elements }, cells, task);
        Ok(())
    }

    fn convolve(
        &self,
        source: &Source<'_>,
        shape: &Shape,
        cells: Cells<'_>,
        task: &Task,
    ) -> Result<(), QuantError> {
        let Geometry::Conv(conv) = self.geometry else { return Ok(()) };
        let plan = conv.plan(&self.weight_dims, shape.dims())?;
        let images = self.images(source, shape, task)?;
        match cells {
            Cells::Real(out) => self.blocks(&plan, &images, out, |out| Cells::Real(out), task),
            Cells::Unsigned(out) => {
                self.blocks(&plan, &images, out, |out| Cells::Unsigned(out), task)
            }
            Cells::Signed(out) => self.blocks(&plan, &images, out, |out| Cells::Signed(out), task),
        }
        Ok(())
    }

    /// Runs a convolution on cells of one type.
    fn blocks<T: Copy + Default>(
        &self,
        plan: &Plan,
        images: &Images<'_>,
        out: &mut [T],
        cells: impl Fn(&mut [T]) -> Cells<'_>,
        task: &Task,
    ) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a code of 8 bits"
        )]
        let pad = |image: usize| images.affine(image).zero_point as u8;
        let product = &mut |group: usize, rows: Range<usize>, bytes: &[u8], out: &mut [T]| {
            let m = rows.len();
            let (zero_points, scales) = images.of_rows(rows, plan);
            let (zero_points, scales) = (zero_points.as_slice(), scales.as_slice());
            let elements = Elements::Codes { codes: self.codes(bytes), zero_points, scales };
            self.multiply(group, Lhs { m, k: plan.depth(), elements }, cells(out), task);
        };
        plan.run(images.codes(), &pad, out, product, task);
    }

    /// Images as codes: an output pixel reads each of them many times.
    fn images<'a>(
        &self,
        source: &'a Source<'_>,
        shape: &Shape,
        task: &Task,
    ) -> Result<Images<'a>, QuantError> {
        let x = match source {
            Source::Real(x) => x,
            Source::Codes(bytes) => {
                let affines = self.input.fixed().into_iter().collect();
                return Ok(Images { pixels: Pixels::Sent(bytes), affines });
            }
        };
        let granularity = match self.input.parameters {
            Parameters::Static(_) | Parameters::Tensor => Granularity::Tensor,
            Parameters::Token => Granularity::Channel { axis: 0 },
        };
        let partition = Partition::new(granularity, shape)?;
        let affines: Vec<_> = match self.input.fixed() {
            Some(affine) => vec![affine],
            None => {
                let extents = extents(&(&**x).into(), &partition, task);
                extents.into_iter().map(|extent| self.affine(extent)).collect()
            }
        };
        let pixels = codes(x, &partition, &affines, &self.input.numerics, task);
        Ok(Images { pixels: Pixels::Made(pixels), affines })
    }

    /// Multiplies rows by the weights of a group.
    fn multiply(&self, group: usize, left: Lhs<'_>, cells: Cells<'_>, task: &Task) {
        let stop = task.flag();
        let relu = self.activation == Activation::Relu;
        let n = self.weight_dims[0] / self.packed.len();
        let own =
            |all: &'_ Option<Vec<f32>>| all.as_ref().map(|all| all[group * n..][..n].to_vec());
        match (&self.packed[group], cells) {
            (Packed::Groups(right), Cells::Real(out)) => {
                multiply_int4(left, right, out, (self.bias.as_deref(), relu), stop);
            }
            (Packed::Groups(_), Cells::Unsigned(_) | Cells::Signed(_)) => {}
            (Packed::Columns(right), cells) => {
                let a = PackedLhs::new(right.isa(), left, right.has_zero_points());
                let bias = if self.packed.len() == 1 { None } else { own(&self.bias) };
                let bias = bias.as_deref().or(self.bias.as_deref());
                let output = match cells {
                    Cells::Real(out) => Target::F32 { out, bias, relu },
                    Cells::Unsigned(out) => match self.requantize(group * n, n) {
                        Some(requantize) => Target::U8(out, requantize),
                        None => return,
                    },
                    Cells::Signed(out) => match self.requantize(group * n, n) {
                        Some(requantize) => Target::I8(out, requantize),
                        None => return,
                    },
                };
                gemm::multiply(&a, right, output, stop);
            }
        }
    }

    /// How the sums of `n` outputs from `first` on become codes.
    fn requantize(&self, first: usize, n: usize) -> Option<Requantize<'_>> {
        let (direct, Output::Codes { numerics, affine, .. }) = (self.direct.as_ref()?, self.output)
        else {
            return None;
        };
        let multipliers = direct.multipliers.get(first..first + n).unwrap_or_default();
        let mode = match direct.requantization {
            Requantization::FloatOrt => Mode::FloatOrt(affine.scale),
            Requantization::FloatOnnx => Mode::FloatOnnx(affine.scale),
            Requantization::Gemmlowp => Mode::Gemmlowp(multipliers),
            Requantization::SingleRound => Mode::SingleRound(multipliers),
        };
        let CodeRange { mut min, max } = numerics.code_range();
        if self.activation == Activation::Relu {
            min = min.max(affine.zero_point);
        }
        let bias = direct.bias.as_ref().map(|bias| &bias[first..first + n]);
        let range = CodeRange { min, max };
        Some(Requantize { mode, zero_point: affine.zero_point, range, bias })
    }

    /// What is left to do to real results: a smooth activation, and codes.
    fn finish(&self, mut real: Buffer, shape: &Shape, task: &Task) -> Result<Buffer, QuantError> {
        if self.activation.is_smooth() {
            let parts = real.elements_mut::<f32>().par_chunks_mut(CHUNK);
            parts.for_each(|part| self.activation.apply(task.isa(), part));
        }
        let Output::Codes { numerics, affine, .. } = self.output else { return Ok(real) };
        let partition = Partition::new(Granularity::Tensor, shape)?;
        Ok(codes(real.elements_mut(), &partition, &[affine], &numerics, task))
    }
}

/// Numbers as codes.
fn codes(
    x: &[f32],
    partition: &Partition,
    affines: &[QuantParams<f32>],
    numerics: &Numerics,
    task: &Task,
) -> Buffer {
    let table = &Table::new(affines);
    Walk { isa: task.isa(), partition, table }.codes(x, numerics, task)
}

/// The elements in f32.
pub(super) fn reals(x: &Tensor) -> Cow<'_, [f32]> {
    match x.reals() {
        Reals::F32(x) => x,
        Reals::F64(x) => x.iter().map(|&x| <f32 as Real>::from_f64(x)).collect(),
    }
}

/// Index of the first NaN.
fn first_nan(x: &[f32]) -> Option<usize> {
    // Without an early exit from a chunk, so that the loop becomes one of vectors.
    let has_nan = |part: &&[f32]| part.iter().fold(false, |found, x| found | x.is_nan());
    let part = x.chunks(CHUNK).position(|part| has_nan(&part))?;
    let at = part * CHUNK;
    x[at..].iter().position(|x| x.is_nan()).map(|i| at + i)
}

/// NaN as the number that has the code which the policy gives.
fn without_nan(x: Cow<'_, [f32]>, policy: NanPolicy) -> Cow<'_, [f32]> {
    if first_nan(&x).is_none() {
        return x;
    }
    let instead = match policy {
        NanPolicy::Zero | NanPolicy::Refuse | NanPolicy::Keep => 0.0,
        // Infinities count for no extent, and saturate.
        NanPolicy::Min => f32::NEG_INFINITY,
        NanPolicy::Max => f32::INFINITY,
    };
    x.iter().map(|&x| if x.is_nan() { instead } else { x }).collect()
}

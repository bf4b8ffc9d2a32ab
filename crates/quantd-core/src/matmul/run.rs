//! From checked operands to the sums and what is made of them.

use std::borrow::Cow;

use crate::tensor::{Buffer, DType, Reals, Tensor};
use quantd_kernels::gemm::{
    self, Codes, Elements, GroupedRhs, Lhs, Mode, Multiplier, Output, PackedInt4, PackedLhs,
    PackedRhs, Requantize, Rhs, multiply_int4,
};
use quantd_kernels::scalar::CodeRange;

use super::super::transpose::transposed;
use super::super::{QuantError, Task};
use super::operand::{Coded, ColumnParameters, RowParameters};
use super::{Dims, Fault, Form, Product, Requantization};

/// Everything that is known before the first sum.
pub(super) struct Work<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) dims: &'a Dims,
    pub(super) rows: RowParameters,
    pub(super) columns: ColumnParameters,
    pub(super) a: Coded,
    pub(super) b: Coded,
    pub(super) task: &'a Task,
}

/// Codes of one right operand as `[k, n]`, and its parameters.
struct Columns<'a> {
    bytes: Cow<'a, [u8]>,
    zero_points: Cow<'a, [i32]>,
    scales: Cow<'a, [f32]>,
}

/// A bias in either kind of number.
enum Bias {
    None,
    Real(Vec<f32>),
    Integer(Vec<i32>),
}

impl Work<'_> {
    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let Self { product, a, b, .. } = self;
        let fault = |side| move |error| Fault { side, error };
        let lead = product.a.dims().split_last().map_or(1, |(_, lead)| lead.iter().product());
        let rows = if self.rows == RowParameters::Each { lead } else { 1 };
        count(a, rows).map_err(fault("a"))?;
        count(b, self.column_slices()).map_err(fault("b"))?;
        if product.form == Form::I32 {
            if product.relu || product.bias.is_some() {
                let field = if product.relu { "relu" } else { "bias" };
                let error = QuantError::field(field, "does not apply to sums");
                return Err(error.cure("use another output_dtype").into());
            }
        } else {
            for (side, operand) in [("a", a), ("b", b)] {
                if operand.scales.is_none() {
                    let error = QuantError::field("scale", "missing");
                    let error = error.cure("add it, or use output_dtype I32");
                    return Err(Fault { side, error });
                }
            }
        }
        if let (ColumnParameters::Groups(_), Form::I32 | Form::Codes { .. }) =
            (self.columns, product.form)
        {
            let error = QuantError::field("output_dtype", "groups of b have no common scale");
            return Err(error.cure("use F32").into());
        }
        if let Form::Codes { requantization, .. } = product.form
            && matches!(requantization, Requantization::Gemmlowp | Requantization::SingleRound)
            && self.rows == RowParameters::Each
        {
            let error = QuantError::field("requantize", "needs one scale for all rows of a");
            return Err(error.cure("use granularity tensor for a, or float_ort").into());
        }
        self.check_depth()
    }

    /// Sums of so many products must fit 32 bits.
    fn check_depth(&self) -> Result<(), Fault> {
        let Self { dims, a, b, .. } = self;
        let (left, right) = (a.codes(0, 0), b.codes(0, 0));
        let most = gemm::max_depth(left, &a.zero_points, right, &b.zero_points);
        let depth = match self.columns {
            ColumnParameters::Groups(size) => size.min(dims.k),
            ColumnParameters::Same | ColumnParameters::Each => dims.k,
        };
        if depth > most {
            let detail = format!("a K of {depth} may overflow sums of 32 bits");
            let cure = format!("with these codes and zero points, split K into parts of {most}");
            return Err(QuantError::field("shape", detail).cure(cure).into());
        }
        if let Bias::Integer(bias) = self.bias()? {
            let room = i64::from(i32::MAX) / most.max(1) as i64 * (most - depth) as i64;
            if bias.iter().any(|&bias| i64::from(bias).abs() > room) {
                let detail = "the sums and the bias may overflow 32 bits";
                return Err(QuantError::field("bias", detail)
                    .cure("use a smaller bias or K")
                    .into());
            }
        }
        Ok(())
    }

    fn column_slices(&self) -> usize {
        let Dims { k, n, .. } = *self.dims;
        match self.columns {
            ColumnParameters::Same => 1,
            ColumnParameters::Each => n,
            ColumnParameters::Groups(size) => {
                let batch = self.b.codes.shape().len() / (k * n).max(1);
                batch * k.div_ceil(size) * n
            }
        }
    }

    fn bias(&self) -> Result<Bias, Fault> {
        let Some(bias) = self.product.bias else { return Ok(Bias::None) };
        let wrong = |detail: String| Err(QuantError::field("bias", detail).into());
        if bias.shape().len() != self.dims.n {
            return wrong(format!("{} values for {} columns", bias.shape().len(), self.dims.n));
        }
        match (self.product.form, bias.reals()) {
            (Form::Codes { .. }, _) if bias.dtype() == DType::I32 => {
                Ok(Bias::Integer(bias.elements::<i32>().into_owned()))
            }
            (Form::Codes { .. }, _) => wrong("of codes it is I32, in units of the sums".to_owned()),
            (_, Reals::F32(reals)) => Ok(Bias::Real(reals.into_owned())),
            (_, Reals::F64(_)) => wrong("of F64; use F32".to_owned()),
        }
    }

    /// Makes all products of the batch.
    pub(super) fn run(&self, out: &mut Buffer) -> Result<(), Fault> {
        let Dims { m, n, batch, .. } = self.dims;
        let bias = self.bias()?;
        // One right operand for all: the batch is a taller left operand.
        let (rows, count) =
            if batch.shares_right() { (m * batch.len, batch.len.min(1)) } else { (*m, batch.len) };
        let size = rows * n * (out.bytes().len() / (m * n * batch.len).max(1));
        let mut packed = None;
        for (i, (left, right)) in (0..count).map(|i| (i, batch.pair(i))) {
            if self.task.is_cancelled() {
                return Ok(());
            }
            // Neighbours in the batch often share it.
            let columns = match packed.take() {
                Some((own, columns)) if own == right => columns,
                _ => self.pack(right),
            };
            let out = &mut out.bytes_mut()[i * size..(i + 1) * size];
            self.multiply(self.left(left, rows), &columns, &bias, out)?;
            packed = Some((right, columns));
        }
        Ok(())
    }

    fn left(&self, index: usize, m: usize) -> Lhs<'_> {
        let k = self.dims.k;
        let first = index * self.dims.m;
        let scales = self.a.scales.as_deref().unwrap_or(&[1.0]);
        let elements = Elements::Codes {
            codes: self.a.codes(first * k, m * k),
            zero_points: part(&self.a.zero_points, first, m),
            scales: part(scales, first, m),
        };
        Lhs { m, k, elements }
    }

    /// The right operand of that index, packed.
    fn pack(&self, index: usize) -> Packed {
        let Dims { k, n, .. } = *self.dims;
        let isa = self.task.isa();
        let Columns { bytes, zero_points, scales } = self.columns_of(index);
        let codes = if self.b.is_unsigned() {
            Codes::U8(&bytes)
        } else {
            Codes::I8(bytemuck::cast_slice(&bytes))
        };
        let (zero_points, scales) = (&*zero_points, &*scales);
        let stop = self.task.flag();
        let ColumnParameters::Groups(group) = self.columns else {
            let right = Rhs { codes, k, n, zero_points, scales };
            return Packed::Columns(PackedRhs::new(isa, right, stop));
        };
        if fits_nibbles(codes, zero_points) {
            let right = GroupedRhs { codes, k, n, group, zero_points, scales };
            return Packed::Nibbles(PackedInt4::new(isa, right, stop));
        }
        let parts = (0..k.div_ceil(group)).map(|g| {
            let rows = g * group..k.min((g + 1) * group);
            let codes = match codes {
                Codes::U8(codes) => Codes::U8(&codes[rows.start * n..rows.end * n]),
                Codes::I8(codes) => Codes::I8(&codes[rows.start * n..rows.end * n]),
            };
            let zero_points = part(zero_points, g * n, n);
            let scales = part(scales, g * n, n);
            PackedRhs::new(isa, Rhs { codes, k: rows.len(), n, zero_points, scales }, stop)
        });
        Packed::Groups(parts.collect())
    }

    fn columns_of(&self, index: usize) -> Columns<'_> {
        let Dims { k, n, .. } = *self.dims;
        let bytes = &self.b.codes.bytes()[index * k * n..][..k * n];
        let scales = self.b.scales.as_deref().unwrap_or(&[1.0]);
        let (first, groups) = match self.columns {
            ColumnParameters::Groups(size) => (index * k.div_ceil(size) * n, k.div_ceil(size)),
            ColumnParameters::Same | ColumnParameters::Each => (0, 1),
        };
        let zero_points = part(&self.b.zero_points, first, groups * n);
        let scales = part(scales, first, groups * n);
        if self.product.transpose_b {
            Columns {
                bytes: transposed(bytes, [n, k], self.task),
                zero_points: transposed(zero_points, [n, groups], self.task),
                scales: transposed(scales, [n, groups], self.task),
            }
        } else {
            Columns { bytes: bytes.into(), zero_points: zero_points.into(), scales: scales.into() }
        }
    }

    fn multiply(
        &self,
        left: Lhs<'_>,
        right: &Packed,
        bias: &Bias,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let stop = self.task.flag();
        let real = if let Bias::Real(bias) = bias { Some(bias.as_slice()) } else { None };
        let relu = self.product.relu;
        match right {
            Packed::Columns(right) => {
                let a = PackedLhs::new(right.isa(), left, right.has_zero_points());
                match self.product.form {
                    Form::I32 => {
                        let out = bytemuck::cast_slice_mut(out);
                        gemm::multiply(&a, right, Output::I32(out), stop);
                    }
                    Form::F32 => {
                        let out = bytemuck::cast_slice_mut(out);
                        gemm::multiply(&a, right, Output::F32 { out, bias: real, relu }, stop);
                    }
                    Form::Codes { unsigned, .. } => {
                        let multipliers = self.multipliers(right)?;
                        let requantize = self.requantize(&multipliers, bias);
                        let output = if unsigned {
                            Output::U8(out, requantize)
                        } else {
                            Output::I8(bytemuck::cast_slice_mut(out), requantize)
                        };
                        gemm::multiply(&a, right, output, stop);
                    }
                }
            }
            Packed::Nibbles(right) => {
                let out = bytemuck::cast_slice_mut(out);
                multiply_int4(left, right, out, (real, relu), stop);
            }
            Packed::Groups(parts) => {
                self.multiply_parts(left, parts, (real, relu), bytemuck::cast_slice_mut(out));
            }
        }
        Ok(())
    }

    /// Groups of codes of more than 4 bits, one product each.
    fn multiply_parts(
        &self,
        left: Lhs<'_>,
        parts: &[PackedRhs],
        (bias, relu): (Option<&[f32]>, bool),
        out: &mut [f32],
    ) {
        let Elements::Codes { codes, zero_points, scales } = left.elements else { return };
        let mut one = vec![0.0; out.len()];
        let mut first = 0;
        for part in parts {
            let depth = part.depth();
            let cut = |bytes: &[u8]| -> Vec<u8> {
                let rows = bytes.chunks_exact(left.k);
                rows.flat_map(|row| &row[first..first + depth]).copied().collect()
            };
            let bytes = match codes {
                Codes::U8(codes) => cut(codes),
                Codes::I8(codes) => cut(bytemuck::cast_slice(codes)),
            };
            let codes = match codes {
                Codes::U8(_) => Codes::U8(&bytes),
                Codes::I8(_) => Codes::I8(bytemuck::cast_slice(&bytes)),
            };
            let elements = Elements::Codes { codes, zero_points, scales };
            let left = Lhs { m: left.m, k: depth, elements };
            let a = PackedLhs::new(part.isa(), left, part.has_zero_points());
            let output = Output::F32 { out: &mut one, bias: None, relu: false };
            gemm::multiply(&a, part, output, self.task.flag());
            out.iter_mut().zip(&one).for_each(|(out, one)| *out += one);
            first += depth;
        }
        for row in out.chunks_exact_mut(self.dims.n.max(1)) {
            for (i, x) in row.iter_mut().enumerate() {
                *x += bias.map_or(0.0, |bias| bias[i]);
                *x = if relu && *x < 0.0 { 0.0 } else { *x };
            }
        }
    }

    /// `scale_a * scale_b / scale_c` of each column, for the modes that need it so.
    fn multipliers(&self, right: &PackedRhs) -> Result<Vec<Multiplier>, Fault> {
        let Form::Codes { scale, requantization, .. } = self.product.form else {
            return Ok(Vec::new());
        };
        match requantization {
            Requantization::FloatOrt | Requantization::FloatOnnx => Ok(Vec::new()),
            Requantization::Gemmlowp | Requantization::SingleRound => {
                let scales = self.a.scales.as_deref().unwrap_or(&[1.0]);
                let one = |&own: &f32| {
                    let real = f64::from(scales[0]) * f64::from(own) / f64::from(scale);
                    Multiplier::new(real)
                };
                Ok(right.scales().iter().map(one).collect())
            }
        }
    }

    fn requantize<'b>(&self, multipliers: &'b [Multiplier], bias: &'b Bias) -> Requantize<'b> {
        let (unsigned, scale, zero_point, requantization) = match self.product.form {
            Form::Codes { unsigned, scale, zero_point, requantization } => {
                (unsigned, scale, zero_point, requantization)
            }
            Form::I32 | Form::F32 => (false, 1.0, 0, Requantization::FloatOrt),
        };
        let mode = match requantization {
            Requantization::FloatOrt => Mode::FloatOrt(scale),
            Requantization::FloatOnnx => Mode::FloatOnnx(scale),
            Requantization::Gemmlowp => Mode::Gemmlowp(multipliers),
            Requantization::SingleRound => Mode::SingleRound(multipliers),
        };
        let (min, max) = if unsigned { (0, 255) } else { (-128, 127) };
        let min = if self.product.relu { zero_point.max(min) } else { min };
        let bias = if let Bias::Integer(bias) = bias { Some(bias.as_slice()) } else { None };
        Requantize { mode, zero_point, range: CodeRange { min, max }, bias }
    }
}

/// A right operand, ready to be multiplied by.
enum Packed {
    Columns(PackedRhs),
    /// Groups of codes of at most 4 bits.
    Nibbles(PackedInt4),
    /// Groups of others.
    Groups(Vec<PackedRhs>),
}

/// The parameters of an operand must be one, or one a slice.
fn count(operand: &Coded, slices: usize) -> Result<(), QuantError> {
    let lens = [
        ("zero_point", operand.zero_points.len()),
        ("scale", operand.scales.as_ref().map_or(1, Vec::len)),
    ];
    for (field, len) in lens {
        if len != 1 && len != slices {
            return Err(QuantError::field(field, format!("{len} values for {slices} slices"))
                .cure("send one value, or one for each slice"));
        }
    }
    Ok(())
}

/// `len` of the values from `first` on, or the one there is.
pub(crate) fn part<T>(values: &[T], first: usize, len: usize) -> &[T] {
    if values.len() == 1 { values } else { &values[first..first + len] }
}

fn fits_nibbles(codes: Codes<'_>, zero_points: &[i32]) -> bool {
    match codes {
        Codes::U8(codes) => {
            codes.iter().all(|code| *code < 16) && zero_points.iter().all(|z| (0..16).contains(z))
        }
        Codes::I8(codes) => {
            codes.iter().all(|code| (-8..8).contains(code))
                && zero_points.iter().all(|z| (-8..8).contains(z))
        }
    }
}

/// The result in real numbers.
pub(super) fn reals_of(result: &Tensor, work: &Work<'_>) -> Vec<f64> {
    let n = work.dims.n.max(1);
    let pick = |scales: &Option<Vec<f32>>, i: usize| match scales.as_deref() {
        None => 1.0,
        Some(&[one]) => one,
        Some(all) => all[i],
    };
    let scale = |i: usize| pick(&work.a.scales, i / n) * pick(&work.b.scales, i % n);
    let Reals::F32(reals) = result.reals() else { return Vec::new() };
    match work.product.form {
        Form::F32 => reals.iter().map(|&x| f64::from(x)).collect(),
        Form::I32 => {
            let sums = result.elements::<i32>();
            sums.iter().enumerate().map(|(i, &sum)| f64::from(sum) * f64::from(scale(i))).collect()
        }
        Form::Codes { scale, zero_point, .. } => {
            let offset = f64::from(zero_point);
            reals.iter().map(|&x| (f64::from(x) - offset) * f64::from(scale)).collect()
        }
    }
}

//! Products of quantized tensors: `numpy.matmul` of integers, and what is made
//! of the sums (docs/NUMERICS.md, "Products").

mod operand;
mod report;
mod run;

use std::sync::Arc;

use crate::tensor::{Buffer, DType, Shape, Tensor};
use crate::words;

use super::{QuantError, Task};
use operand::RowParameters;
pub(crate) use operand::{Coded, ColumnParameters};
use run::Work;
pub(crate) use run::part;

pub use operand::Operand;
pub use report::Report;

/// A product that cannot be made: which operand, if one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `a`, `b`, or empty for what concerns both or the result.
    pub side: &'static str,
    /// The field at fault.
    pub error: QuantError,
}

impl From<QuantError> for Fault {
    fn from(error: QuantError) -> Self {
        Self { side: "", error }
    }
}

words! {
    /// Whose definition of requantization.
    pub enum Requantization {
        /// ONNX Runtime, in f32.
        FloatOrt = "float_ort",
        /// The reference of ONNX, in f64.
        FloatOnnx = "float_onnx",
        /// gemmlowp and TFLite, rounding twice.
        Gemmlowp = "gemmlowp",
        /// TFLite, rounding once.
        SingleRound = "single_round",
    }
}

/// What a product is answered as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// The sums.
    I32,
    /// `f32(sum) * (scale_a * scale_b)`, with bias and `ReLU`.
    F32,
    /// Codes of another scale.
    Codes {
        /// 0 to 255 rather than -128 to 127.
        unsigned: bool,
        /// Scale of the result, positive and finite.
        scale: f32,
        /// Zero point, a code.
        zero_point: i32,
        /// Whose definition.
        requantization: Requantization,
    },
}

impl Form {
    /// Type of the cells.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::I32 => DType::I32,
            Self::F32 => DType::F32,
            Self::Codes { unsigned: true, .. } => DType::U8,
            Self::Codes { unsigned: false, .. } => DType::I8,
        }
    }
}

/// A product to make.
#[derive(Debug)]
pub struct Product<'a> {
    /// `[.., m, k]`.
    pub a: Operand<'a>,
    /// `[.., k, n]`, or `[.., n, k]`.
    pub b: Operand<'a>,
    /// Whether B comes as `[.., n, k]`, as weights of linear layers are stored.
    pub transpose_b: bool,
    /// One a column: real numbers for [`Form::F32`], integers of scale
    /// `scale_a * scale_b` for codes.
    pub bias: Option<&'a Tensor>,
    /// Whether negative results become 0.
    pub relu: bool,
    /// What the result is.
    pub form: Form,
    /// Whether to say how far the result is from the product of the real numbers.
    pub report: bool,
}

/// A product.
#[derive(Debug)]
pub struct Multiplied {
    /// `[.., m, n]`: I32, F32, U8 or I8.
    pub result: Tensor,
    /// Scale and zero point of A, where it was quantized here.
    pub a: Option<[Tensor; 2]>,
    /// The same of B.
    pub b: Option<[Tensor; 2]>,
    /// How far the result is from the product of the real numbers.
    pub report: Option<Report>,
}

/// The geometry of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows of one product.
    pub m: usize,
    /// What is summed over.
    pub k: usize,
    /// Columns.
    pub n: usize,
    batch: Batch,
    /// Shape of the result.
    pub shape: Shape,
}

impl Dims {
    /// The geometry of the operands, or why there is none.
    ///
    /// # Errors
    /// [`Fault`] names the operand that does not fit.
    pub fn new(product: &Product<'_>) -> Result<Self, Fault> {
        let (a, b) = (product.a.dims(), product.b.dims());
        let few = |side| Fault {
            side,
            error: QuantError::field("shape", "a matrix has two dimensions or more")
                .cure("send a vector as a matrix of one row or column"),
        };
        let &[ref a_lead @ .., m, k] = a else { return Err(few("a")) };
        let &[ref b_lead @ .., rows, columns] = b else { return Err(few("b")) };
        let (depth, n) = if product.transpose_b { (columns, rows) } else { (rows, columns) };
        let wrong = |detail: String| Fault { side: "b", error: QuantError::field("shape", detail) };
        if depth != k {
            let detail = format!("{b:?} has a K of {depth}, a of shape {a:?} one of {k}");
            return Err(wrong(detail));
        }
        let rank = a_lead.len().max(b_lead.len());
        let dim =
            |lead: &[usize], i: usize| (i + lead.len()).checked_sub(rank).map_or(1, |i| lead[i]);
        let mut lead = Vec::with_capacity(rank);
        for i in 0..rank {
            lead.push(match (dim(a_lead, i), dim(b_lead, i)) {
                (a, b) if a == b => a,
                (1, other) | (other, 1) => other,
                _ => return Err(wrong(format!("{b:?} does not broadcast with a of shape {a:?}"))),
            });
        }
        let shape = Shape::new(lead.iter().copied().chain([m, n]).collect())
            .map_err(|error| wrong(format!("the product has {error}")))?;
        let len = if shape.is_empty() { 0 } else { lead.iter().product() };
        let own = |own: &[usize]| (0..rank).map(|axis| dim(own, axis)).collect();
        let batch = Batch { len, a: own(a_lead), b: own(b_lead), lead };
        Ok(Self { m, k, n, batch, shape })
    }

    /// Bytes that [`matmul`] takes for its result and on the way to it, beside the operands.
    ///
    /// # Errors
    /// [`Fault`] names the operand whose granularity does not fit.
    pub fn working_bytes(&self, product: &Product<'_>) -> Result<usize, Fault> {
        /// Bytes that a row has of its own: parameters, sums, what rounds it up to a step of a tile.
        const LINE: usize = 64;
        /// Bytes of a step in K of the last panel of columns, which is as wide as any.
        const PANEL: usize = 128;
        let at = |side| move |error| Fault { side, error };
        let a = product.a.working_bytes(product.report).map_err(at("a"))?;
        let b = product.b.working_bytes(product.report).map_err(at("b"))?;
        let cell = product.form.dtype().size() + if product.report { size_of::<f64>() } else { 0 };
        let rows = self.batch.len.max(1).saturating_mul(self.m);
        Ok([
            a,
            b,
            self.shape.len().saturating_mul(cell),
            rows.saturating_add(self.n).saturating_mul(LINE),
            self.k.saturating_mul(PANEL),
        ]
        .into_iter()
        .fold(0, usize::saturating_add))
    }
}

/// The products of a batch, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    len: usize,
    /// Leading dimensions of the result, and of the operands, of which 1 stands for any.
    lead: Vec<usize>,
    a: Vec<usize>,
    b: Vec<usize>,
}

impl Batch {
    /// Indices of the operands of product `i`.
    fn pair(&self, i: usize) -> (usize, usize) {
        (self.index(&self.a, i), self.index(&self.b, i))
    }

    fn index(&self, own: &[usize], mut i: usize) -> usize {
        let (mut at, mut step) = (0, 1);
        for (&own, &all) in own.iter().zip(&self.lead).rev() {
            at += if own == 1 { 0 } else { i % all * step };
            step *= own;
            i /= all;
        }
        at
    }

    /// Whether all have the same right operand, and each its own left one.
    fn shares_right(&self) -> bool {
        self.a == self.lead && self.b.iter().all(|&dim| dim == 1)
    }
}

/// Makes a product.
///
/// ```
/// use quantd_core::Task;
/// use quantd_core::format::integer::Stated;
/// use quantd_core::matmul::{Fault, Form, Operand, Product, matmul};
/// use quantd_core::scheme::Granularity;
/// use quantd_core::tensor::{DType, Shape, Tensor};
/// use quantd_kernels::Isa;
///
/// let codes = |dims: [usize; 2], codes: &[i8]| {
///     let shape = Shape::new(dims.to_vec()).expect("a small shape");
///     Tensor::from_elements(DType::I8, shape, codes).expect("as many as the shape has")
/// };
/// let (a, b) = (codes([1, 2], &[3, -4]), codes([2, 2], &[1, 2, 5, 6]));
/// let operand = |codes| Operand::Coded {
///     codes,
///     scale: None,
///     zero_point: None,
///     granularity: Granularity::Tensor,
///     stated: Stated::default(),
/// };
/// let product = Product {
///     a: operand(&a),
///     b: operand(&b),
///     transpose_b: false,
///     bias: None,
///     relu: false,
///     form: Form::I32,
///     report: false,
/// };
/// let sums = matmul(&product, &Task::new(Isa::best()))?.result;
/// assert_eq!(*sums.elements::<i32>(), [-17, -18]);
/// # Ok::<(), Fault>(())
/// ```
///
/// # Errors
/// [`Fault`] names the operand and the field at fault.
pub fn matmul(product: &Product<'_>, task: &Task) -> Result<Multiplied, Fault> {
    let dims = Dims::new(product)?;
    let at = |side| move |error| Fault { side, error };
    let b_dims = product.b.dims();
    let axis = b_dims.len() - if product.transpose_b { 2 } else { 1 };
    let rows = RowParameters::new(product.a.granularity(), product.a.dims()).map_err(at("a"))?;
    let columns = ColumnParameters::new(product.b.granularity(), b_dims, axis).map_err(at("b"))?;
    let a = Coded::new("a", &product.a, task)?;
    let b = Coded::new("b", &product.b, task)?;
    let work = Work { product, dims: &dims, rows, columns, a, b, task };
    work.check()?;
    let dtype = product.form.dtype();
    let mut out = Buffer::zeroed(dims.shape.len() * dtype.size());
    work.run(&mut out)?;
    let result = Tensor::view(dtype, dims.shape.clone(), Arc::new(out), 0)
        .ok_or_else(|| QuantError::field("shape", "the product is too large"))?;
    let report = if product.report { Some(report::report(&work, &result)?) } else { None };
    let Work { a, b, .. } = work;
    Ok(Multiplied { result, a: a.found, b: b.found, report })
}

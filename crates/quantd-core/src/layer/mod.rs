//! Layers: weights quantized ahead, inputs on the fly, products in integers
//! (docs/NUMERICS.md, "Layers").
//!
//! A [`Definition`] is what a caller gives and what is stored; a [`Layer`] is
//! made of it once and run many times. Rows of a linear layer, and images of a
//! convolution, do not influence one another, unless the input is quantized
//! over all of them ([`Parameters::Tensor`]).

mod chain;
mod conv;
mod float;
mod form;
mod forward;
mod weight;

use crate::tensor::{Shape, Tensor};
use quantd_kernels::gemm::{self, Codes, Multiplier};
use quantd_kernels::real::Real;

use super::cost::Cost;
use super::matmul::Requantization;
use super::{QuantError, Task};
use weight::Packed;

pub use chain::{ChainError, chain_cost, chain_float, chain_forward, chain_shape, passes_codes};
pub use conv::Conv;
pub use float::Comparison;
pub use form::{Activation, Input, Output, Parameters};
pub use weight::{Order, Weight};

/// The cost of a product of so many cells and of that depth.
pub type Price = fn(usize, usize) -> Cost;

/// What a layer does with its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geometry {
    /// `y[.., n] = sum over k of x[.., k] w[n, k]`.
    Linear,
    /// A 2-D convolution.
    Conv(Conv),
}

/// What a layer is made of.
#[derive(Clone, Debug)]
pub struct Definition {
    /// What it does.
    pub geometry: Geometry,
    /// Codes of the weights.
    pub weight: Weight,
    /// One an output, F32.
    pub bias: Option<Vec<f32>>,
    /// The weights as real numbers, F32 in the shape of the codes, for comparisons.
    pub float: Option<Tensor>,
    /// How the input becomes codes.
    pub input: Input,
    /// How the result leaves.
    pub output: Output,
    /// What is applied to the result.
    pub activation: Activation,
}

/// A layer that is ready to run.
///
/// ```
/// use quantd_core::layer::{
///     Activation, Definition, Geometry, Input, Layer, Order, Output, Parameters, Weight,
/// };
/// use quantd_core::matmul::Operand;
/// use quantd_core::scheme::{NanPolicy, Options};
/// use quantd_core::tensor::{DType, Shape, Tensor};
/// use quantd_core::{QuantError, Task};
/// use quantd_kernels::Isa;
///
/// let task = Task::new(Isa::best());
/// let tensor = |x: &[f32; 2]| {
///     let shape = Shape::new(vec![1, 2]).expect("a small shape");
///     Tensor::from_elements(DType::F32, shape, x).expect("2 numbers")
/// };
/// // A scale an output; what is not said is as in the preset int8.
/// let scheme = Options { axis: Some(0), ..Options::default() }.resolve()?;
/// let operand = Operand::Real { tensor: &tensor(&[1.27, -0.5]), scheme: &scheme };
/// let layer = Layer::new(
///     &Definition {
///         geometry: Geometry::Linear,
///         weight: Weight::new(&operand, Order::OutIn, &task)?,
///         bias: Some(vec![0.5]),
///         float: None,
///         input: Input {
///             numerics: *scheme.integers("layers")?,
///             parameters: Parameters::Token,
///             nan: NanPolicy::Refuse,
///         },
///         output: Output::F32,
///         activation: Activation::Relu,
///     },
///     &task,
/// )?;
/// let y = layer.forward(&tensor(&[1.0, 2.0]), &task)?;
/// assert!((y.elements::<f32>()[0] - 0.77).abs() < 0.01);
/// # Ok::<(), QuantError>(())
/// ```
#[derive(Debug)]
pub struct Layer {
    geometry: Geometry,
    /// Shape of the weights.
    weight_dims: Vec<usize>,
    /// Bytes of the weights where they do not depend on the machine.
    weight_bytes: usize,
    /// One for each group of a convolution.
    packed: Vec<Packed>,
    bias: Option<Vec<f32>>,
    float: Option<Tensor>,
    input: Input,
    output: Output,
    activation: Activation,
    /// How sums become codes, where they do so without a real result between.
    direct: Option<Direct>,
}

/// Sums straight to codes.
#[derive(Debug)]
struct Direct {
    requantization: Requantization,
    /// In units of the sums.
    bias: Option<Vec<i32>>,
    /// One an output, for the definitions that multiply by integers.
    multipliers: Vec<Multiplier>,
}

impl Definition {
    /// Refuses what does not fit together.
    fn check(&self) -> Result<(), QuantError> {
        let n = self.weight.outputs();
        if let Some(bias) = &self.bias {
            if bias.len() != n {
                let detail = format!("{} values for {n} outputs", bias.len());
                return Err(QuantError::field("bias", detail));
            }
            if let Some(i) = bias.iter().position(|x| !x.is_finite()) {
                return Err(QuantError::field("bias", format!("element {i} is not finite")));
            }
        }
        if let Geometry::Conv(conv) = self.geometry {
            conv.check(n)?;
        }
        self.check_depth()
    }

    /// Sums of so many products must fit 32 bits.
    fn check_depth(&self) -> Result<(), QuantError> {
        let depth = self.weight.group().map_or(self.weight.depth(), |g| g.min(self.weight.depth()));
        let most = self.most_depth();
        if depth > most {
            let detail = format!("a K of {depth} may overflow sums of 32 bits");
            let cure = format!("with these codes and zero points, at most {most}");
            return Err(QuantError::field("shape", detail).cure(cure));
        }
        Ok(())
    }

    fn most_depth(&self) -> usize {
        let left = if self.input.numerics.signed { Codes::I8(&[]) } else { Codes::U8(&[]) };
        let zeros = self.input.zero_points();
        gemm::max_depth(left, &zeros, self.weight.no_codes(), self.weight.zero_points())
    }

    /// How sums become codes without a real result between: where all of them
    /// have a common scale that is known ahead.
    fn direct(&self) -> Result<Option<Direct>, QuantError> {
        let Output::Codes { affine, requantization, .. } = self.output else { return Ok(None) };
        let input = match self.input.fixed() {
            Some(input) if self.weight.group().is_none() && !self.activation.is_smooth() => input,
            _ if requantization.is_some() => {
                let detail = "needs a static input, no groups, and no gelu";
                return Err(QuantError::field("requantize", detail).cure("leave requantize out"));
            }
            _ => return Ok(None),
        };
        let n = self.weight.outputs();
        let scales = self.weight.scales();
        let own = |i: usize| scales[if scales.len() == 1 { 0 } else { i }];
        let bias = self.bias.as_ref().map(|bias| {
            let quantized = |(i, bias): (usize, &f32)| integer(bias / (input.scale * own(i)));
            bias.iter().enumerate().map(quantized).collect::<Vec<i32>>()
        });
        let most = self.most_depth();
        let reach = i64::from(i32::MAX) / i64::try_from(most.max(1)).unwrap_or(i64::MAX);
        let room = reach.saturating_mul((most - self.weight.depth()) as i64);
        if let Some(i) = bias.iter().flatten().position(|&bias| i64::from(bias).abs() > room) {
            let detail = format!("element {i} and the sums may overflow 32 bits");
            return Err(
                QuantError::field("bias", detail).cure("use an output of F32, or larger scales")
            );
        }
        let requantization = requantization.unwrap_or(Requantization::FloatOrt);
        let multipliers = match requantization {
            Requantization::FloatOrt | Requantization::FloatOnnx => Vec::new(),
            Requantization::Gemmlowp | Requantization::SingleRound => {
                let real = |i| input.scale.to_f64() * own(i).to_f64() / affine.scale.to_f64();
                (0..n).map(|i| Multiplier::new(real(i))).collect()
            }
        };
        Ok(Some(Direct { requantization, bias, multipliers }))
    }
}

/// The nearest integer, ties to even; the nearest i32 where it is none.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn integer(x: f32) -> i32 {
    x.round_ties_even() as i32
}

impl Layer {
    /// Packs the weights, on the rayon pool it is called in; once `task` is cancelled it ends
    /// early, with a useless layer.
    ///
    /// # Errors
    /// [`QuantError`] names what does not fit together.
    pub fn new(definition: &Definition, task: &Task) -> Result<Self, QuantError> {
        definition.check()?;
        let direct = definition.direct()?;
        let groups = match definition.geometry {
            Geometry::Linear => 1,
            Geometry::Conv(conv) => conv.groups,
        };
        Ok(Self {
            geometry: definition.geometry,
            weight_dims: definition.weight.codes().shape().dims().to_vec(),
            weight_bytes: definition.weight.packed_bytes(),
            packed: definition.weight.pack(groups, task),
            bias: definition.bias.clone(),
            float: definition.float.clone(),
            input: definition.input,
            output: definition.output,
            activation: definition.activation,
            direct,
        })
    }

    /// What it does.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Shape of the weights: `[n, k]` or `[out, in / groups, height, width]`.
    #[must_use]
    pub fn weight_dims(&self) -> &[usize] {
        &self.weight_dims
    }

    /// How the input becomes codes.
    #[must_use]
    pub const fn input(&self) -> &Input {
        &self.input
    }

    /// How the result leaves.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// What is applied to the result.
    #[must_use]
    pub const fn activation(&self) -> Activation {
        self.activation
    }

    /// Whether there is a bias.
    #[must_use]
    pub const fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Whether the real weights were kept.
    #[must_use]
    pub const fn has_float(&self) -> bool {
        self.float.is_some()
    }

    /// Whether each row, or image, has the result that it has alone.
    #[must_use]
    pub const fn is_row_independent(&self) -> bool {
        !matches!(self.input.parameters, Parameters::Tensor)
    }

    /// The definition of requantization that is followed, where sums become
    /// codes directly.
    #[must_use]
    pub fn requantization(&self) -> Option<Requantization> {
        self.direct.as_ref().map(|direct| direct.requantization)
    }

    /// Bytes of the weights as codes of their bits, their parameters and the bias: the same on every machine.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.weight_bytes + self.bias_bytes()
    }

    fn bias_bytes(&self) -> usize {
        self.bias.as_ref().map_or(0, |bias| 4 * bias.len())
    }

    fn kept_bytes(&self) -> usize {
        self.float.as_ref().map_or(0, |float| float.bytes().len())
    }

    /// Bytes of the same weights and bias in F32.
    #[must_use]
    pub fn float_bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, Vec::len);
        4 * (self.weight_dims.iter().product::<usize>() + bias)
    }

    /// The same with the real weights where they are kept.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.packed_bytes() + self.kept_bytes()
    }

    /// Bytes of memory that the layer takes on this machine, whose instructions decide how weights are packed.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let direct = self.direct.as_ref();
        let direct =
            direct.map_or(0, |d| 4 * d.bias.as_ref().map_or(0, Vec::len) + 8 * d.multipliers.len());
        let packed: usize = self.packed.iter().map(Packed::bytes).sum();
        packed + self.bias_bytes() + direct + self.kept_bytes()
    }

    /// Shape of the result for an input of those dimensions: `[.., k]` to
    /// `[.., n]`, or `[batch, in, height, width]` to `[batch, out, ..]`.
    ///
    /// # Errors
    /// [`QuantError`] about `shape` when the layer does not take them.
    pub fn output_shape(&self, dims: &[usize]) -> Result<Shape, QuantError> {
        let out = match self.geometry {
            Geometry::Linear => {
                let &[n, k] = self.weight_dims.as_slice() else {
                    return Err(QuantError::field("shape", "the weight is not a matrix"));
                };
                let Some((last, lead)) = dims.split_last().filter(|(last, _)| **last == k) else {
                    let detail = format!("{dims:?} does not end in the K of the layer");
                    return Err(QuantError::field("shape", detail).cure(format!("send [.., {k}]")));
                };
                debug_assert_eq!(*last, k);
                lead.iter().copied().chain([n]).collect()
            }
            Geometry::Conv(conv) => conv.plan(&self.weight_dims, dims)?.output_dims().to_vec(),
        };
        Shape::new(out)
            .map_err(|error| QuantError::field("shape", format!("the result has {error}")))
    }

    /// What a run costs, by the cost of a product of so many cells and of that depth.
    ///
    /// # Errors
    /// As [`output_shape`](Self::output_shape).
    pub fn cost(&self, dims: &[usize], product: Price) -> Result<Cost, QuantError> {
        let cells = self.output_shape(dims)?.len();
        Ok(product(cells, self.weight_dims.iter().skip(1).product()))
    }

    /// Bytes that a run may need beside the input, the result included.
    ///
    /// # Errors
    /// As [`output_shape`](Self::output_shape).
    pub fn working_bytes(&self, dims: &[usize]) -> Result<usize, QuantError> {
        let result = self.output_shape(dims)?.len();
        let x: usize = dims.iter().product();
        let blocks = match self.geometry {
            Geometry::Linear => 0,
            Geometry::Conv(conv) => conv.plan(&self.weight_dims, dims)?.block_bytes(),
        };
        let rows = x / dims.last().copied().unwrap_or(1).max(1);
        // Images without pixels have parameters too.
        let rows = rows.max(dims.first().copied().unwrap_or(0));
        // In f32, again without NaN, as codes, packed as words and once more group by group; the
        // result in f32 and as codes; what each row has of its own.
        Ok(x.saturating_mul(4 + 4 + 1 + 2 + 1)
            .saturating_add(result.saturating_mul(5))
            .saturating_add(rows.saturating_mul(96))
            .saturating_add(blocks))
    }
}

#[cfg(test)]
mod tests;

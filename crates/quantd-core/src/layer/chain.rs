//! Layers one behind the other.
//!
//! A chain gives the same bytes as its layers called one by one. Codes go on as
//! they are where a layer answers in exactly the codes that the next one takes;
//! where not, they are brought back to F32.

use crate::tensor::{DType, Shape, Tensor};

use super::super::cost::Cost;
use super::super::scheme::Granularity;
use super::super::{QuantError, Task};
use super::{Geometry, Layer, Price};
use crate::format::integer::Stated;
use crate::format::integer::{Codes, dequantize};

/// A layer of a chain that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainError {
    /// Which one.
    pub link: usize,
    /// Why.
    pub error: QuantError,
}

/// Whether the codes of `layer` are the input of `next` as they are.
#[must_use]
pub fn passes_codes(layer: &Layer, next: &Layer) -> bool {
    layer.output.affine().is_some()
        && layer.output.affine() == next.input.fixed()
        && layer.output.dtype() == next.input.dtype()
}

/// Runs the layers in their order.
///
/// # Errors
/// [`ChainError`] names the layer that does not take what it is given.
pub fn chain_forward(links: &[&Layer], x: &Tensor, task: &Task) -> Result<Tensor, ChainError> {
    let mut x = x.clone();
    for (link, layer) in links.iter().enumerate() {
        let at = |error| ChainError { link, error };
        if let Some(before) = link.checked_sub(1).map(|before| links[before])
            && !passes_codes(before, layer)
        {
            x = real(before, x, task).map_err(at)?;
        }
        x = layer.forward(&fitting(layer, x), task).map_err(at)?;
    }
    Ok(x)
}

/// The same in real numbers.
///
/// # Errors
/// As [`chain_forward`], and where a layer has not kept its real weights.
pub fn chain_float(links: &[&Layer], x: &Tensor, task: &Task) -> Result<Tensor, ChainError> {
    links.iter().enumerate().try_fold(x.clone(), |x, (link, layer)| {
        layer.float_forward(&fitting(layer, x), task).map_err(|error| ChainError { link, error })
    })
}

/// Shape of the result, and the bytes that the run may need beside the input.
///
/// # Errors
/// As [`chain_forward`].
pub fn chain_shape(links: &[&Layer], dims: &[usize]) -> Result<(Shape, usize), ChainError> {
    let start = Shape::new(dims.to_vec())
        .map_err(|error| QuantError::field("shape", error.to_string()))
        .map_err(|error| ChainError { link: 0, error })?;
    links.iter().enumerate().try_fold((start, 0_usize), |(shape, bytes), (link, layer)| {
        let dims = fitting_dims(layer, shape.dims());
        let at = |error| ChainError { link, error };
        let own = layer.working_bytes(&dims).map_err(at)?;
        Ok((layer.output_shape(&dims).map_err(at)?, bytes.saturating_add(own)))
    })
}

/// What a run costs, by the cost of a product.
///
/// # Errors
/// As [`chain_forward`].
pub fn chain_cost(links: &[&Layer], dims: &[usize], product: Price) -> Result<Cost, ChainError> {
    let start = (dims.to_vec(), Cost::default());
    let end = links.iter().enumerate().try_fold(start, |(dims, cost), (link, layer)| {
        let dims = fitting_dims(layer, &dims);
        let at = |error| ChainError { link, error };
        let own = layer.cost(&dims, product).map_err(at)?;
        Ok((layer.output_shape(&dims).map_err(at)?.dims().to_vec(), cost + own))
    })?;
    Ok(end.1)
}

/// The result of a layer in F32.
fn real(layer: &Layer, x: Tensor, task: &Task) -> Result<Tensor, QuantError> {
    let Some(affine) = layer.output.affine() else { return Ok(x) };
    let one = |tensor: Option<Tensor>| tensor.ok_or_else(|| QuantError::field("scale", "missing"));
    let scale = one(Tensor::from_elements(DType::F32, Shape::scalar(), &[affine.scale]))?;
    let zero = one(Tensor::from_elements(DType::I32, Shape::scalar(), &[affine.zero_point]))?;
    let granularity = Granularity::Tensor;
    let stated = Stated::default();
    let codes = Codes { codes: &x, scale: &scale, zero_point: Some(&zero), granularity, stated };
    dequantize(&codes, DType::F32, task)
}

/// Images as the rows that a linear layer takes, if it takes so many pixels.
fn fitting_dims(layer: &Layer, dims: &[usize]) -> Vec<usize> {
    if let (Geometry::Linear, &[batch, ref rest @ ..]) = (layer.geometry, dims) {
        let (k, pixels) = (layer.weight_dims[1], rest.iter().product::<usize>());
        if rest.last() != Some(&k) && pixels == k {
            return vec![batch, k];
        }
    }
    dims.to_vec()
}

fn fitting(layer: &Layer, x: Tensor) -> Tensor {
    let dims = fitting_dims(layer, x.shape().dims());
    match Shape::new(dims) {
        Ok(shape) => x.clone().reshaped(shape).unwrap_or(x),
        Err(_) => x,
    }
}

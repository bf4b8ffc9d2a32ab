//! Layers that are kept and run: what requests say, what answers and files hold.

pub mod coding;
pub mod create;
pub mod documents;
pub mod options;
pub mod run;
pub mod stored;

use std::sync::{Arc, Weak};

use quantd_core::Task;
use quantd_core::cost::Cost;
use quantd_core::layer::{
    ChainError, Geometry, Layer, Price, chain_cost, chain_forward, chain_shape,
};
use quantd_core::tensor::{DType, Shape, Tensor};

use super::error::{Error, Place};
use super::name::Name;

/// A layer under its name.
#[derive(Debug)]
pub struct ChainMember {
    /// Its name.
    pub name: Name,
    /// How often it was made under that name.
    pub version: u64,
    /// The layer.
    pub layer: Layer,
}

/// A layer or a chain of them, as it was when it was asked for: what is made
/// under its name later does not change it.
#[derive(Clone, Debug)]
pub struct LayerHandle {
    /// Its name.
    pub name: Name,
    /// Its version, from 1 on.
    pub version: u64,
    links: Vec<Arc<ChainMember>>,
}

/// What goes in or comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Element type; F32 where real numbers of any type are taken.
    pub dtype: DType,
    /// Dimensions; `None` for what the caller chooses.
    pub dims: Vec<Option<usize>>,
    /// The type of codes that are taken as well.
    pub codes: Option<DType>,
}

impl LayerHandle {
    /// Of layers that follow one another, at least one.
    #[must_use]
    pub const fn new(name: Name, version: u64, links: Vec<Arc<ChainMember>>) -> Self {
        Self { name, version, links }
    }

    /// The layers in their order.
    pub fn links(&self) -> impl ExactSizeIterator<Item = &ChainMember> {
        self.links.iter().map(|link| &**link)
    }

    /// The layers that it runs, without keeping them.
    #[must_use]
    pub fn made_of(&self) -> Vec<Weak<ChainMember>> {
        self.links.iter().map(Arc::downgrade).collect()
    }

    /// Whether it runs exactly those layers.
    #[must_use]
    pub fn is_made_of(&self, links: &[Weak<ChainMember>]) -> bool {
        // A weak reference keeps the address from being used again.
        let same = |(own, link): (&Arc<ChainMember>, &Weak<ChainMember>)| {
            Arc::as_ptr(own) == link.as_ptr()
        };
        self.links.len() == links.len() && self.links.iter().zip(links).all(same)
    }

    fn layers(&self) -> Vec<&Layer> {
        self.links().map(|link| &link.layer).collect()
    }

    /// Whether each row, or image, has the result that it has alone, so that
    /// requests may be run together.
    #[must_use]
    pub fn is_row_independent(&self) -> bool {
        self.links().all(|link| link.layer.is_row_independent())
    }

    /// What the first layer takes.
    #[must_use]
    pub fn input(&self) -> Port {
        let first = self.links().next().map(|link| &link.layer);
        let dims =
            first.map_or_else(Vec::new, |layer| match (layer.geometry(), layer.weight_dims()) {
                (Geometry::Linear, dims) => vec![None, dims.last().copied()],
                (Geometry::Conv(conv), dims) => {
                    vec![None, dims.get(1).map(|own| own * conv.groups), None, None]
                }
            });
        let codes = first.and_then(|layer| layer.input().fixed().map(|_| layer.input().dtype()));
        Port { dtype: DType::F32, dims, codes }
    }

    /// What the last layer answers.
    #[must_use]
    pub fn output(&self) -> Port {
        let last = self.links().last().map(|link| &link.layer);
        let dims = last.map_or_else(Vec::new, |layer| {
            let outputs = layer.weight_dims().first().copied();
            match layer.geometry() {
                Geometry::Linear => vec![None, outputs],
                Geometry::Conv(_) => vec![None, outputs, None, None],
            }
        });
        let dtype = last.map_or(DType::F32, |layer| layer.output().dtype());
        Port { dtype, dims, codes: None }
    }

    /// Shape of the result for an input of those dimensions, and the bytes that
    /// a run needs beside the input.
    ///
    /// # Errors
    /// [`Error`] about `/shape` when they are not taken.
    pub fn shape(&self, dims: &[usize]) -> Result<(Shape, usize), Error> {
        chain_shape(&self.layers(), dims).map_err(|error| self.located(error))
    }

    /// What a run on an input of those dimensions costs, by the cost of a product.
    ///
    /// # Errors
    /// As [`shape`](Self::shape).
    pub fn cost(&self, dims: &[usize], product: Price) -> Result<Cost, Error> {
        chain_cost(&self.layers(), dims, product).map_err(|error| self.located(error))
    }

    /// Runs it, on the pool that it is called in.
    ///
    /// # Errors
    /// [`Error`] about `/shape`, `/dtype` or `/data`.
    pub fn forward(&self, x: &Tensor, task: &Task) -> Result<Tensor, Error> {
        chain_forward(&self.layers(), x, task).map_err(|error| self.located(error))
    }

    fn located(&self, error: ChainError) -> Error {
        let ChainError { link, error } = error;
        let error = Error::of_quant(error, |field| Place::Pointer(format!("/{field}")));
        match self.links().nth(link) {
            Some(link) if self.links.len() > 1 => Error {
                detail: format!("layer {:?}: {}", link.name.as_str(), error.detail),
                ..error
            },
            _ => error,
        }
    }
}

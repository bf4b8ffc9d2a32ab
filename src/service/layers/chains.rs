//! What chains ask of the layers that they are made of.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::error::{Error, Kind, Place};
use crate::api::layers::documents::LayerDoc;
use crate::api::name::Name;

/// Which chains use which layer: looking through all of them would take longer with each.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<Name, BTreeSet<Name>>);

impl Users {
    /// A chain uses those layers.
    pub(super) fn add(&mut self, chain: &Name, layers: &[Name]) {
        for layer in layers {
            self.0.entry(layer.clone()).or_default().insert(chain.clone());
        }
    }

    /// The chain that used those layers does not any more.
    pub(super) fn remove(&mut self, chain: &Name, layers: &[Name]) {
        for layer in layers {
            if let Some(chains) = self.0.get_mut(layer) {
                chains.remove(chain);
                if chains.is_empty() {
                    self.0.remove(layer);
                }
            }
        }
    }

    /// Chains that a layer belongs to.
    pub(super) fn of(&self, layer: &Name) -> impl Iterator<Item = &Name> {
        self.0.get(layer).into_iter().flatten()
    }

    /// Whether a layer belongs to a chain.
    pub(super) fn are_of(&self, layer: &Name) -> bool {
        self.0.contains_key(layer)
    }

    /// Every layer that belongs to a chain.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }
}

/// Bytes that a chain of those layers takes: its names, and those by which it is found.
pub(super) fn bytes(chain: &Name, layers: &[Name]) -> usize {
    /// The description, and what maps take for an entry.
    const SLOT: usize = 1024;
    /// References to names, and what sets take for an entry.
    const LINK: usize = 128;
    let own = chain.as_str().len();
    layers.iter().fold(SLOT + own, |sum, layer| sum + LINK + layer.as_str().len())
}

pub(super) fn at_chain(error: Error) -> Error {
    error.at(Place::Pointer("/chain".to_owned()))
}

/// Refuses layers that do not follow one another; `doc` describes what is no chain. Of a chain that
/// holds already, only what is beside the layer `changed` is looked at.
pub(super) fn check<'a>(
    names: &[Name],
    changed: Option<&Name>,
    doc: impl Fn(&Name) -> Option<&'a LayerDoc>,
) -> Result<(), Error> {
    let found = |name: &Name| {
        doc(name).ok_or_else(|| {
            let detail = format!("no layer called {:?}", name.as_str());
            at_chain(Error::new(Kind::InvalidOption, detail)).cure("make the layers first")
        })
    };
    if changed.is_none() {
        names.iter().try_for_each(|name| found(name).map(drop))?;
    }
    let concerned = |pair: &&[Name]| changed.is_none_or(|changed| pair.contains(changed));
    for pair in names.windows(2).filter(concerned) {
        let [one, next] = pair else { continue };
        if !follows(found(one)?, found(next)?) {
            let detail =
                format!("{:?} does not take what {:?} answers", next.as_str(), one.as_str());
            return Err(at_chain(Error::new(Kind::InvalidOption, detail))
                .cure("a layer takes as many inputs as the one before has outputs"));
        }
    }
    Ok(())
}

/// Whether the codes of a layer are the input of the next as they are.
pub(super) fn passes_codes(doc: &LayerDoc, next: &LayerDoc) -> bool {
    let (Some(output), Some(input)) = (&doc.output, &next.input) else { return false };
    output.scale.map(f32::to_bits) == input.scale.map(f32::to_bits)
        && output.scale.is_some()
        && output.zero_point == input.zero_point
        && output.dtype == input.dtype
}

/// Whether a layer takes what the one before answers.
fn follows(doc: &LayerDoc, next: &LayerDoc) -> bool {
    let shape = |doc: &LayerDoc| doc.weight.as_ref().map(|weight| weight.shape.clone());
    let (Some(own), Some(other)) = (shape(doc), shape(next)) else { return false };
    let (Some(&outputs), Some(&inputs)) = (own.first(), other.get(1)) else { return false };
    match (&doc.convolution, &next.convolution) {
        (None, None) => outputs == inputs,
        // As many as the images have pixels, which the layer does not know.
        (Some(_), None) => inputs.is_multiple_of(outputs),
        (Some(_), Some(conv)) => outputs == inputs * conv.groups,
        (None, Some(_)) => false,
    }
}

//! Descriptions of what is kept, as answers hold them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::layers::documents::{LayerDoc, LinkDoc, MemoryDoc};
use crate::api::name::Name;

use super::chains::passes_codes;
use super::registry::Content;

/// What is known of one name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) doc: Arc<LayerDoc>,
    pub(super) content: Content,
}

impl Known {
    const fn is_loaded(&self) -> bool {
        matches!(self.content, Content::Loaded(_))
    }
}

/// All names as they were at one moment, to be described while others go on with the registry.
#[derive(Debug)]
pub(super) struct Snapshot(pub(super) BTreeMap<Name, Known>);

impl Snapshot {
    /// Every description, in the order of the names.
    pub(super) fn list(&self) -> Vec<LayerDoc> {
        self.0.values().map(|known| describe(known, |name| self.0.get(name))).collect()
    }
}

/// The description of what is known; what it says of a chain is what `find` knows of its layers.
pub(super) fn describe<'a>(known: &Known, find: impl Fn(&Name) -> Option<&'a Known>) -> LayerDoc {
    let doc = LayerDoc::clone(&known.doc);
    let Content::Chain(names) = &known.content else {
        return LayerDoc { loaded: known.is_loaded(), ..doc };
    };
    let layers: Vec<Option<&Known>> = names.iter().map(find).collect();
    let docs: Vec<Option<&LayerDoc>> =
        layers.iter().map(|known| known.map(|known| &*known.doc)).collect();
    let links = names.iter().zip(&docs).enumerate().map(|(i, (name, doc))| LinkDoc {
        name: name.as_str().to_owned(),
        version: doc.map(|doc| doc.version),
        passes_codes: match (doc, docs.get(i + 1)) {
            (Some(doc), Some(Some(next))) => Some(passes_codes(doc, next)),
            _ => None,
        },
    });
    let all = || docs.iter().flatten();
    LayerDoc {
        loaded: layers.iter().all(|known| known.is_some_and(Known::is_loaded)),
        chain: Some(links.collect()),
        input: docs.first().copied().flatten().and_then(|doc| doc.input.clone()),
        output: docs.last().copied().flatten().and_then(|doc| doc.output.clone()),
        row_independent: Some(all().all(|doc| doc.row_independent == Some(true))),
        memory: all().map(|doc| doc.memory).sum::<MemoryDoc>(),
        ..doc
    }
}

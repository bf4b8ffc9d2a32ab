//! Which layers there are: names, versions, and what is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::error::{Error, Kind, Place};
use crate::api::layers::documents::LayerDoc;
use crate::api::layers::{ChainMember, LayerHandle};
use crate::api::name::Name;

use super::chains::{self, Users, at_chain};
use super::describe::{Known, Snapshot, describe};

/// Version of what is made under a new name.
pub(super) const FIRST_VERSION: u64 = 1;

/// What is under a name.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A layer in memory.
    Loaded(Arc<ChainMember>),
    /// A layer whose file is read when it is used.
    OnDisk,
    /// A layer whose file is left alone until it is loaded again.
    Unloaded,
    /// Names of layers.
    Chain(Arc<[Name]>),
}

/// What is put under a name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) doc: LayerDoc,
    pub(super) content: Content,
    /// Bytes that it holds when it is in memory.
    pub(super) bytes: usize,
    /// Bytes of its file, if it has one.
    pub(super) saved: usize,
}

#[derive(Debug)]
struct Slot {
    known: Known,
    bytes: usize,
    saved: usize,
    /// When it was used last, in uses of all.
    used: u64,
    /// Held by the one that reads the file.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Slot {
    const fn bytes_in_memory(&self) -> usize {
        match self.known.content {
            Content::Loaded(_) | Content::Chain(_) => self.bytes,
            Content::OnDisk | Content::Unloaded => 0,
        }
    }
}

/// A file that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// The version in it.
    pub(super) version: u64,
    /// Its bytes.
    pub(super) len: usize,
}

/// All names.
///
/// Whoever runs a layer waits for the lock on it: nothing here takes longer with the number of
/// names, but for what says so, and what changes give back is to be dropped without the lock, as it
/// may be much memory.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slots: BTreeMap<Name, Slot>,
    users: Users,
    /// Bytes of the layers in memory, and of chains.
    held: usize,
    chain_bytes: usize,
    loaded: usize,
    uses: u64,
}

/// What a name stands for at the moment.
#[derive(Debug)]
pub(super) enum Found {
    /// Ready to run.
    Ready(LayerHandle),
    /// A layer must be read first.
    Missing(Name),
}

fn not_found(name: &Name) -> Error {
    Error::new(Kind::NotFound, format!("no layer called {:?}", name.as_str()))
        .at(Place::Parameter("name".to_owned()))
        .cure("list the layers to see which there are")
}

impl Registry {
    fn slot(&self, name: &Name) -> Result<&Slot, Error> {
        self.slots.get(name).ok_or_else(|| not_found(name))
    }

    pub(super) fn content(&self, name: &Name) -> Option<&Content> {
        self.slots.get(name).map(|slot| &slot.known.content)
    }

    /// Whether something is under that name.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.slots.contains_key(name)
    }

    /// What is to run under that name, of that version if one is asked for.
    pub(super) fn find(&mut self, name: &Name, version: Option<u64>) -> Result<Found, Error> {
        let known = &self.slot(name)?.known;
        let current = known.doc.version;
        if version.is_some_and(|version| version != current) {
            let detail = format!("layer {:?} does not have that version", name.as_str());
            return Err(Error::new(Kind::NotFound, detail)
                .at(Place::Parameter("version".to_owned()))
                .cure(format!("its version is {current}")));
        }
        let names = match &known.content {
            Content::Chain(names) => Arc::clone(names),
            Content::Loaded(_) | Content::OnDisk | Content::Unloaded => Arc::from([name.clone()]),
        };
        self.uses += 1;
        let mut links = Vec::with_capacity(names.len());
        for own in names.iter() {
            let slot = self.slots.get_mut(own).ok_or_else(|| not_found(own))?;
            slot.used = self.uses;
            match &slot.known.content {
                Content::Loaded(link) => links.push(Arc::clone(link)),
                Content::OnDisk => return Ok(Found::Missing(own.clone())),
                Content::Unloaded => {
                    let detail = format!("layer {:?} is unloaded", own.as_str());
                    return Err(Error::new(Kind::NotFound, detail).cure("load it again"));
                }
                Content::Chain(_) => return Err(not_found(own)),
            }
        }
        Ok(Found::Ready(LayerHandle::new(name.clone(), current, links)))
    }

    /// Bytes of what is under a name and of the layers of a chain, were they all in memory.
    pub(super) fn bytes_together(&self, name: &Name) -> usize {
        let own = match self.content(name) {
            Some(Content::Chain(names)) => names.iter().collect(),
            _ => BTreeSet::new(),
        };
        let bytes = |name: &Name| self.slots.get(name).map_or(0, |slot| slot.bytes);
        own.into_iter().fold(bytes(name), |sum, name| sum.saturating_add(bytes(name)))
    }

    /// What keeps others from reading the file of a layer at the same time.
    pub(super) fn gate(&self, name: &Name) -> Result<Arc<tokio::sync::Mutex<()>>, Error> {
        self.slot(name).map(|slot| Arc::clone(&slot.gate))
    }

    /// The file of a layer that must be read before it can run.
    pub(super) fn on_disk(&self, name: &Name) -> Option<File> {
        let slot = self.slots.get(name)?;
        let is_there = matches!(slot.known.content, Content::OnDisk);
        is_there.then_some(File { version: slot.known.doc.version, len: slot.saved })
    }

    /// Whether a layer, or one of a chain, is left alone until it is loaded again.
    pub(super) fn is_unloaded(&self, name: &Name) -> bool {
        self.content(name).is_some_and(|content| match content {
            Content::Unloaded => true,
            Content::Chain(names) => {
                names.iter().any(|name| matches!(self.content(name), Some(Content::Unloaded)))
            }
            Content::Loaded(_) | Content::OnDisk => false,
        })
    }

    /// Version of what is made next under that name.
    pub(super) fn next_version(&self, name: &Name) -> u64 {
        self.slots.get(name).map_or(FIRST_VERSION, |slot| slot.known.doc.version + 1)
    }

    pub(super) fn bytes_in_memory(&self, name: &Name) -> usize {
        self.slots.get(name).map_or(0, Slot::bytes_in_memory)
    }

    /// Takes a slot out, of all accounts as well.
    fn take(&mut self, name: &Name) -> Option<Slot> {
        let slot = self.slots.remove(name)?;
        self.held -= slot.bytes_in_memory();
        match &slot.known.content {
            Content::Loaded(_) => self.loaded -= 1,
            Content::Chain(names) => {
                self.chain_bytes -= slot.bytes;
                self.users.remove(name, names);
            }
            Content::OnDisk | Content::Unloaded => {}
        }
        Some(slot)
    }

    /// Puts a slot in where there is none, into all accounts as well.
    fn put(&mut self, name: Name, slot: Slot) {
        self.held += slot.bytes_in_memory();
        match &slot.known.content {
            Content::Loaded(_) => self.loaded += 1,
            Content::Chain(names) => {
                self.chain_bytes += slot.bytes;
                self.users.add(&name, names);
            }
            Content::OnDisk | Content::Unloaded => {}
        }
        self.slots.insert(name, slot);
    }

    /// Says where a layer is now; out of memory, it is dropped by whoever runs it last.
    pub(super) fn place(&mut self, name: &Name, content: Content) -> Option<Content> {
        let Slot { known, bytes, saved, used, gate } = self.take(name)?;
        let Known { doc, content: before } = known;
        let known = Known { doc, content };
        self.put(name.clone(), Slot { known, bytes, saved, used, gate });
        Some(before)
    }

    /// Leaves the file of a layer alone until it is loaded again.
    pub(super) fn unload(&mut self, name: &Name) -> Result<Option<Content>, Error> {
        let is_chain = matches!(self.slot(name)?.known.content, Content::Chain(_));
        Ok(if is_chain { None } else { self.place(name, Content::Unloaded) })
    }

    /// Allows the file of a layer to be read again.
    pub(super) fn allow(&mut self, name: &Name) -> Result<(), Error> {
        if matches!(self.slot(name)?.known.content, Content::Unloaded) {
            drop(self.place(name, Content::OnDisk));
        }
        Ok(())
    }

    /// Puts something under a name. What was there before goes on where it runs.
    pub(super) fn publish(&mut self, entry: Entry) -> Option<Content> {
        let Entry { name, doc, content, bytes, saved } = entry;
        self.uses += 1;
        let before = self.take(&name).map(|slot| slot.known.content);
        let known = Known { doc: Arc::new(doc), content };
        self.put(name, Slot { known, bytes, saved, used: self.uses, gate: Arc::default() });
        before
    }

    /// Refuses a name that is taken.
    pub(super) fn check_new(&self, name: &Name) -> Result<(), Error> {
        if !self.slots.contains_key(name) {
            return Ok(());
        }
        let detail = format!("there is a layer called {:?}", name.as_str());
        Err(Error::new(Kind::Conflict, detail)
            .at(Place::Pointer("/name".to_owned()))
            .cure("choose another name, or replace the layer by its name"))
    }

    /// What describes a layer that is no chain.
    fn layer_doc(&self, name: &Name) -> Option<&LayerDoc> {
        let known = &self.slots.get(name)?.known;
        (!matches!(known.content, Content::Chain(_))).then_some(&*known.doc)
    }

    /// Refuses a layer that a chain it belongs to could not run with.
    pub(super) fn check_layer(&self, name: &Name, doc: &LayerDoc) -> Result<(), Error> {
        let find = |own: &Name| if own == name { Some(doc) } else { self.layer_doc(own) };
        for own in self.users.of(name) {
            if let Some(Content::Chain(names)) = self.content(own) {
                chains::check(names, Some(name), find).map_err(|error| {
                    let detail = format!("chain {:?} uses it: {}", own.as_str(), error.detail);
                    Error { kind: Kind::Conflict, place: None, detail, ..error }
                })?;
            }
        }
        Ok(())
    }

    /// Refuses a chain whose layers do not follow one another, or that would take the place of a
    /// layer that a chain needs.
    pub(super) fn check_chain(&self, name: &Name, layers: &[Name]) -> Result<(), Error> {
        if let Some(own) = self.users.of(name).next() {
            return Err(Error::new(
                Kind::Conflict,
                format!("chain {:?} uses the layer of that name", own.as_str()),
            ));
        }
        if layers.contains(name) {
            let error = Error::new(Kind::InvalidOption, "a chain cannot contain itself");
            return Err(at_chain(error).cure("give the chain a name of its own"));
        }
        chains::check(layers, None, |own| self.layer_doc(own))
    }

    /// Refuses to remove what is not there or what a chain needs.
    pub(super) fn check_removal(&self, name: &Name) -> Result<LayerDoc, Error> {
        let doc = self.describe(name)?;
        match self.users.of(name).next() {
            None => Ok(doc),
            Some(own) => {
                let detail = format!("chain {:?} uses it", own.as_str());
                Err(Error::new(Kind::Conflict, detail).cure("delete the chain first"))
            }
        }
    }

    /// Forgets a name.
    pub(super) fn remove(&mut self, name: &Name) -> Option<Content> {
        self.take(name).map(|slot| slot.known.content)
    }

    /// Which chains use which layer.
    pub(super) const fn users(&self) -> &Users {
        &self.users
    }

    /// Layers in memory.
    pub(super) const fn loaded(&self) -> usize {
        self.loaded
    }

    /// Layers in memory, and when each was used last. Looks through all names.
    pub(super) fn loaded_by_use(&self) -> impl Iterator<Item = (u64, Name)> {
        let loaded = |slot: &Slot| matches!(slot.known.content, Content::Loaded(_));
        let loaded = self.slots.iter().filter(move |(_, slot)| loaded(slot));
        loaded.map(|(name, slot)| (slot.used, name.clone()))
    }

    /// Number of names.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes in memory.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Bytes of chains, apart from their layers.
    pub(super) const fn chain_bytes(&self) -> usize {
        self.chain_bytes
    }

    /// All names as they are. Copies references to what is known of each.
    pub(super) fn snapshot(&self) -> Snapshot {
        let known = self.slots.iter().map(|(name, slot)| (name.clone(), slot.known.clone()));
        Snapshot(known.collect())
    }

    /// The description of what is under a name.
    pub(super) fn describe(&self, name: &Name) -> Result<LayerDoc, Error> {
        let known = &self.slot(name)?.known;
        Ok(describe(known, |own| self.slots.get(own).map(|slot| &slot.known)))
    }
}

#[cfg(test)]
mod tests;

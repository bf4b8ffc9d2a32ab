//! Which layers there are: names, versions, what is in memory, and the budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::error::{Error, Kind, Place};
use crate::api::layers::documents::{LayerDoc, LinkDoc, MemoryDoc};
use crate::api::layers::{Hosted, Link};
use crate::api::name::Name;
use crate::telemetry;

use super::{Eviction, Settings};

/// Version of what is made under a new name.
pub(super) const FIRST_VERSION: u64 = 1;

/// What is under a name.
#[derive(Debug)]
pub(super) enum Content {
    /// A layer in memory.
    Loaded(Arc<Link>),
    /// A layer whose file is read when it is used.
    OnDisk,
    /// A layer whose file is left alone until it is loaded again.
    Unloaded,
    /// Names of layers.
    Chain(Vec<Name>),
}

#[derive(Debug)]
struct Slot {
    doc: LayerDoc,
    content: Content,
    /// When it was used last, in uses of all.
    used: u64,
    /// Held by the one that reads the file.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slots: BTreeMap<Name, Slot>,
    /// Bytes of the layers in memory, and of those on their way there.
    held: usize,
    uses: u64,
}

/// What a name stands for at the moment.
#[derive(Debug)]
pub(super) enum Found {
    /// Ready to run.
    Ready(Hosted),
    /// A layer must be read first.
    Missing(Name),
}

fn not_found(name: &Name) -> Error {
    Error::new(Kind::NotFound, format!("no layer called {:?}", name.as_str()))
        .at(Place::Parameter("name".to_owned()))
        .cure("see GET /v1/layers for what there is")
}

/// There is no room for a layer.
fn refused(detail: impl Into<String>) -> Error {
    telemetry::layer_refused();
    Error::new(Kind::Storage, detail.into())
}

fn at_chain(error: Error) -> Error {
    error.at(Place::Pointer("/chain".to_owned()))
}

impl Registry {
    fn slot(&self, name: &Name) -> Result<&Slot, Error> {
        self.slots.get(name).ok_or_else(|| not_found(name))
    }

    /// Whether something is under that name.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.slots.contains_key(name)
    }

    /// What is to run under that name, of that version if one is asked for.
    pub(super) fn find(&mut self, name: &Name, version: Option<u64>) -> Result<Found, Error> {
        let slot = self.slot(name)?;
        let current = slot.doc.version;
        if version.is_some_and(|version| version != current) {
            let detail = format!("layer {:?} has not that version", name.as_str());
            return Err(Error::new(Kind::NotFound, detail)
                .at(Place::Parameter("version".to_owned()))
                .cure(format!("its version is {current}")));
        }
        let names = match &slot.content {
            Content::Chain(names) => names.clone(),
            Content::Loaded(_) | Content::OnDisk | Content::Unloaded => vec![name.clone()],
        };
        self.uses += 1;
        let mut links = Vec::with_capacity(names.len());
        for own in names {
            let slot = self.slots.get_mut(&own).ok_or_else(|| not_found(&own))?;
            slot.used = self.uses;
            match &slot.content {
                Content::Loaded(link) => links.push(Arc::clone(link)),
                Content::OnDisk => return Ok(Found::Missing(own)),
                Content::Unloaded => {
                    let detail = format!("layer {:?} is unloaded", own.as_str());
                    return Err(Error::new(Kind::NotFound, detail).cure("load it again"));
                }
                Content::Chain(_) => return Err(not_found(&own)),
            }
        }
        Ok(Found::Ready(Hosted::new(name.clone(), current, links)))
    }

    /// The gate of a layer that is to be read, and the bytes of it; `None` when it is there.
    pub(super) fn gate(&self, name: &Name) -> Result<(Arc<tokio::sync::Mutex<()>>, usize), Error> {
        let slot = self.slot(name)?;
        Ok((Arc::clone(&slot.gate), slot.doc.memory.memory_bytes))
    }

    /// Whether a layer must be read before it can run.
    pub(super) fn is_on_disk(&self, name: &Name) -> bool {
        self.slots.get(name).is_some_and(|slot| matches!(slot.content, Content::OnDisk))
    }

    /// Whether a layer, or one of a chain, is left alone until it is loaded again.
    pub(super) fn is_unloaded(&self, name: &Name) -> bool {
        self.slots.get(name).is_some_and(|slot| match &slot.content {
            Content::Unloaded => true,
            Content::Chain(names) => names.iter().any(|name| {
                let own = self.slots.get(name);
                own.is_some_and(|slot| matches!(slot.content, Content::Unloaded))
            }),
            Content::Loaded(_) | Content::OnDisk => false,
        })
    }

    /// Version of what is made next under that name.
    pub(super) fn next_version(&self, name: &Name) -> u64 {
        self.slots.get(name).map_or(FIRST_VERSION, |slot| slot.doc.version + 1)
    }

    fn bytes_in_memory(&self, name: &Name) -> usize {
        match self.slots.get(name) {
            Some(Slot { content: Content::Loaded(_), doc, .. }) => doc.memory.memory_bytes,
            _ => 0,
        }
    }

    /// Refuses a layer of that name and size that others cannot make room for.
    pub(super) fn check_room(
        &self,
        name: &Name,
        bytes: usize,
        settings: &Settings,
    ) -> Result<(), Error> {
        if bytes > settings.max_bytes {
            let detail =
                format!("the layer takes {bytes} bytes, {} are allowed", settings.max_bytes);
            return Err(refused(detail)
                .cure("leave keep_float out, use fewer bits, or raise --max-layer-bytes"));
        }
        if settings.eviction == Eviction::Refuse && !self.has_room(name, bytes, settings) {
            return Err(refused("no room for the layer beside the others")
                .cure("delete layers, raise --max-layer-bytes, or use --layer-eviction lru"));
        }
        let is_chained = |own: &&Name| *own != name && !self.can_go(own, settings);
        let chained: usize =
            self.slots.keys().filter(is_chained).map(|own| self.bytes_in_memory(own)).sum();
        if chained.saturating_add(bytes) > settings.max_bytes {
            return Err(refused("no room for the layer beside those that chains use")
                .cure("delete chains, raise --max-layer-bytes, or use --layer-dir"));
        }
        Ok(())
    }

    /// Whether a layer may make room for others: one that is not saved would be gone, and with it
    /// the chains that use it.
    fn can_go(&self, name: &Name, settings: &Settings) -> bool {
        settings.directory.is_some() || self.users(name).next().is_none()
    }

    /// Takes room for a layer of that name and size; others make it where they may.
    pub(super) fn take_room(
        &mut self,
        name: &Name,
        bytes: usize,
        settings: &Settings,
    ) -> Result<(), Error> {
        self.check_room(name, bytes, settings)?;
        while !self.has_room(name, bytes, settings) {
            // What is on its way into memory cannot make room.
            self.evict(name, settings).ok_or_else(|| {
                let error = refused("another layer takes the room at the moment");
                let cure = "try again after the time that Retry-After gives";
                Error { kind: Kind::Overloaded, ..error }.cure(cure)
            })?;
        }
        self.held += bytes;
        Ok(())
    }

    /// Whether there is room; that of the layer which is replaced counts as free already.
    fn has_room(&self, name: &Name, bytes: usize, settings: &Settings) -> bool {
        self.held.saturating_add(bytes) - self.bytes_in_memory(name) <= settings.max_bytes
    }

    /// Gives back room that was taken for nothing.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// Drops the layer that was not used for longest, other than `name`.
    fn evict(&mut self, name: &Name, settings: &Settings) -> Option<()> {
        let may_go = |(own, slot): &(&Name, &Slot)| {
            *own != name && matches!(slot.content, Content::Loaded(_)) && self.can_go(own, settings)
        };
        let oldest = self.slots.iter().filter(may_go).min_by_key(|(_, slot)| slot.used);
        let oldest = oldest.map(|(own, _)| own.clone())?;
        tracing::info!(layer = oldest.as_str(), "evicted");
        telemetry::layer_evicted();
        if settings.directory.is_some() {
            self.put_away(&oldest, Content::OnDisk);
        } else {
            self.remove(&oldest);
        }
        Some(())
    }

    /// Drops a layer from memory.
    fn put_away(&mut self, name: &Name, content: Content) {
        self.held = self.held.saturating_sub(self.bytes_in_memory(name));
        if let Some(slot) = self.slots.get_mut(name) {
            slot.content = content;
        }
    }

    /// Leaves the file of a layer alone until it is loaded again.
    pub(super) fn unload(&mut self, name: &Name) -> Result<(), Error> {
        if !matches!(self.slot(name)?.content, Content::Chain(_)) {
            self.put_away(name, Content::Unloaded);
        }
        Ok(())
    }

    /// Allows the file of a layer to be read again.
    pub(super) fn allow(&mut self, name: &Name) -> Result<(), Error> {
        if matches!(self.slot(name)?.content, Content::Unloaded) {
            self.put_away(name, Content::OnDisk);
        }
        Ok(())
    }

    /// Puts something under a name; room for it was taken. What was there before goes on where it runs.
    pub(super) fn publish(&mut self, name: Name, doc: LayerDoc, content: Content) {
        self.held = self.held.saturating_sub(self.bytes_in_memory(&name));
        self.uses += 1;
        let gate = Arc::default();
        self.slots.insert(name, Slot { doc, content, used: self.uses, gate });
    }

    /// Puts a layer that was read where it belongs, unless it was replaced meanwhile.
    pub(super) fn restore(&mut self, link: Link) -> bool {
        match self.slots.get_mut(&link.name) {
            Some(slot)
                if slot.doc.version == link.version && matches!(slot.content, Content::OnDisk) =>
            {
                slot.content = Content::Loaded(Arc::new(link));
                true
            }
            _ => false,
        }
    }

    /// Refuses a name that is taken.
    pub(super) fn check_new(&self, name: &Name) -> Result<(), Error> {
        if !self.slots.contains_key(name) {
            return Ok(());
        }
        let detail = format!("there is a layer called {:?}", name.as_str());
        let cure = format!("PUT /v1/layers/{} replaces it", name.as_str());
        Err(Error::new(Kind::Conflict, detail).at(Place::Pointer("/name".to_owned())).cure(cure))
    }

    /// Refuses a layer that a chain it belongs to could not run with, and a
    /// chain whose layers do not follow one another.
    pub(super) fn check(&self, name: &Name, doc: &LayerDoc, chain: &[Name]) -> Result<(), Error> {
        if doc.kind == "chain" {
            if let Some(own) = self.users(name).next() {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("chain {:?} uses the layer of that name", own.as_str()),
                ));
            }
            if chain.contains(name) {
                let error = Error::new(Kind::InvalidOption, "a chain is no part of itself");
                return Err(at_chain(error).cure("give the chain a name of its own"));
            }
            return self.check_chain(chain, None);
        }
        for own in self.users(name) {
            if let Some(Slot { content: Content::Chain(names), .. }) = self.slots.get(own) {
                self.check_chain(names, Some((name, doc))).map_err(|error| {
                    let detail = format!("chain {:?} uses it: {}", own.as_str(), error.detail);
                    Error { kind: Kind::Conflict, place: None, detail, ..error }
                })?;
            }
        }
        Ok(())
    }

    fn check_chain(&self, names: &[Name], new: Option<(&Name, &LayerDoc)>) -> Result<(), Error> {
        let doc = |name: &Name| match new {
            Some((own, doc)) if own == name => Ok(doc),
            _ => {
                let slot = self.slots.get(name).filter(|slot| slot.doc.kind != "chain");
                slot.map(|slot| &slot.doc).ok_or_else(|| {
                    let detail = format!("no layer called {:?}", name.as_str());
                    at_chain(Error::new(Kind::InvalidOption, detail)).cure("make the layers first")
                })
            }
        };
        let docs = names.iter().map(doc).collect::<Result<Vec<_>, _>>()?;
        for (pair, names) in docs.windows(2).zip(names.windows(2)) {
            if !follows(pair[0], pair[1]) {
                let [one, next] = [names[0].as_str(), names[1].as_str()];
                let detail = format!("{next:?} does not take what {one:?} answers");
                return Err(at_chain(Error::new(Kind::InvalidOption, detail))
                    .cure("a layer takes as many inputs as the one before has outputs"));
            }
        }
        Ok(())
    }

    /// Chains that a layer belongs to.
    fn users<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Name> {
        self.slots.iter().filter_map(move |(own, slot)| match &slot.content {
            Content::Chain(names) => names.contains(name).then_some(own),
            Content::Loaded(_) | Content::OnDisk | Content::Unloaded => None,
        })
    }

    /// Refuses to remove what is not there or what a chain needs.
    pub(super) fn check_removal(&self, name: &Name) -> Result<LayerDoc, Error> {
        let doc = self.describe(name)?;
        match self.users(name).next() {
            None => Ok(doc),
            Some(own) => {
                let detail = format!("chain {:?} uses it", own.as_str());
                Err(Error::new(Kind::Conflict, detail).cure("delete the chain first"))
            }
        }
    }

    /// Forgets a name.
    pub(super) fn remove(&mut self, name: &Name) {
        self.held = self.held.saturating_sub(self.bytes_in_memory(name));
        self.slots.remove(name);
    }

    /// Layers in memory.
    pub(super) fn loaded(&self) -> usize {
        let loaded = |slot: &&Slot| matches!(slot.content, Content::Loaded(_));
        self.slots.values().filter(loaded).count()
    }

    /// Number of names.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes in memory.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Every description, in the order of the names.
    pub(super) fn list(&self) -> Vec<LayerDoc> {
        self.slots.keys().filter_map(|name| self.describe(name).ok()).collect()
    }

    /// The description of what is under a name.
    pub(super) fn describe(&self, name: &Name) -> Result<LayerDoc, Error> {
        let slot = self.slot(name)?;
        let doc = slot.doc.clone();
        let Content::Chain(names) = &slot.content else {
            return Ok(LayerDoc { loaded: matches!(slot.content, Content::Loaded(_)), ..doc });
        };
        let slots: Vec<_> = names.iter().map(|name| self.slots.get(name)).collect();
        let docs: Vec<_> = slots.iter().map(|slot| slot.map(|slot| &slot.doc)).collect();
        let links = names.iter().zip(&docs).enumerate().map(|(i, (name, doc))| LinkDoc {
            name: name.as_str().to_owned(),
            version: doc.map(|doc| doc.version),
            passes_codes: match (doc, docs.get(i + 1)) {
                (Some(doc), Some(Some(next))) => Some(passes_codes(doc, next)),
                _ => None,
            },
        });
        let all = || docs.iter().flatten();
        Ok(LayerDoc {
            loaded: slots
                .iter()
                .all(|slot| slot.is_some_and(|slot| matches!(slot.content, Content::Loaded(_)))),
            chain: Some(links.collect()),
            input: docs.first().copied().flatten().and_then(|doc| doc.input.clone()),
            output: docs.last().copied().flatten().and_then(|doc| doc.output.clone()),
            row_independent: Some(all().all(|doc| doc.row_independent == Some(true))),
            memory: all().map(|doc| doc.memory).sum::<MemoryDoc>(),
            ..doc
        })
    }
}

/// Whether the codes of a layer are the input of the next as they are.
fn passes_codes(doc: &LayerDoc, next: &LayerDoc) -> bool {
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

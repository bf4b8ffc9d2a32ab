//! What the directory holds when the server starts.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::api::error::Place;
use crate::api::layers::ChainMember;
use crate::api::layers::documents::LayerDoc;
use crate::api::layers::stored::{self, Content as Restored};
use crate::api::name::Name;
use quantd_core::Task;

use super::files::Directory;
use super::registry::{Content, Entry, Registry};
use super::room::Need;
use super::{Settings, chains};

/// Bytes that reading a file of so many needs: the file, its tensors, and the same packed.
pub(super) const fn working_bytes(len: usize) -> usize {
    len.saturating_mul(4).saturating_add(1 << 16)
}

/// Reads all files, one after the other, those that need no more than `max_bytes`. What is no layer
/// or damaged is named in the log and left alone.
pub(super) fn read_all(
    directory: &Directory,
    registry: &mut Registry,
    settings: &Settings,
    (max_bytes, task): (usize, &Task),
) -> io::Result<()> {
    for file in directory.names()? {
        let entry = catch_unwind(AssertUnwindSafe(|| read_one(directory, &file, max_bytes, task)))
            .unwrap_or_else(|_| Err("reading it failed in the server".to_owned()));
        match entry {
            Ok(entry) => publish(entry, registry, settings),
            Err(reason) => {
                tracing::error!(?file, reason, "skipped a file that is not a layer, or is damaged");
            }
        }
    }
    let layers = registry.snapshot().list();
    tracing::info!(
        layers = layers.len(),
        loaded = registry.loaded(),
        "read the directory of layers"
    );
    Ok(())
}

/// Reads the file of that name.
fn read_one(
    directory: &Directory,
    file: &str,
    max_bytes: usize,
    task: &Task,
) -> Result<Entry, String> {
    let name = Name::new(file, Place::Pointer(String::new()))
        .map_err(|_| "no layer can have this name".to_owned())?;
    let saved = directory.len(&name).map_err(|error| error.to_string())?;
    let working = working_bytes(saved);
    if working > max_bytes {
        let reason = format!("reading it takes {working} bytes, {max_bytes} are allowed");
        return Err(format!("{reason}: raise --max-inflight-bytes"));
    }
    let buffer = directory.read(&name, saved).map_err(|error| error.to_string())?;
    let restored = stored::read(buffer, task)?;
    if restored.name != name {
        return Err("it holds a layer of another name".to_owned());
    }
    let version = restored.version;
    let named = |doc: LayerDoc| LayerDoc { name: name.as_str().to_owned(), version, ..doc };
    let (doc, content, bytes) = match restored.content {
        Restored::Chain(names) => {
            let bytes = chains::bytes(&name, &names);
            (LayerDoc::of_chain(), Content::Chain(names.into()), bytes)
        }
        Restored::Layer(layer) => {
            let (layer, doc) = *layer;
            let bytes = layer.memory_bytes();
            let link = ChainMember { name: name.clone(), version, layer };
            (doc, Content::Loaded(Arc::new(link)), bytes)
        }
    };
    let doc = named(doc);
    Ok(Entry { name, doc, content, bytes, saved })
}

/// Puts what was read under its name: a layer without room stays on the disk until it is used, a
/// chain is there in any case.
fn publish(entry: Entry, registry: &mut Registry, settings: &Settings) {
    let need = Need { name: &entry.name, bytes: entry.bytes, layers: &[] };
    let is_loaded = matches!(entry.content, Content::Loaded(_));
    let content = if is_loaded && !registry.has_room(need, settings) {
        Content::OnDisk
    } else {
        entry.content
    };
    drop(registry.publish(Entry { content, ..entry }));
}

//! The thread that all changes pass through.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::api::error::{Error, Kind};
use crate::api::layers::documents::LayerDoc;
use crate::api::layers::stored::Stored;
use crate::api::layers::{ChainMember, create::Made};
use crate::api::name::Name;
use quantd_core::layer::Layer;
use quantd_core::tensor::Buffer;

use super::files::{Directory, Written};
use super::registry::{Content, Entry, Registry};
use super::room::Need;
use super::{Settings, chains, lock};

/// A layer or chain to be put under a name.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) name: Name,
    /// Whether it may take the place of what is there.
    pub(super) replaces: bool,
    pub(super) doc: LayerDoc,
    pub(super) made: Ready,
    /// What its file will hold, where there is a directory.
    pub(super) stored: Option<Stored>,
}

/// What is put there.
#[derive(Debug)]
pub(super) enum Ready {
    Layer(Box<Layer>),
    Chain(Vec<Name>),
}

/// What the keeper is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Commit { commit: Box<Commit>, reply: oneshot::Sender<Result<LayerDoc, Error>> },
    Remove { name: Name, reply: oneshot::Sender<Result<LayerDoc, Error>> },
    Read { name: Name, len: usize, reply: oneshot::Sender<Result<Buffer, Error>> },
    Restore { link: Box<ChainMember>, reply: oneshot::Sender<Result<(), Error>> },
}

struct Keeper {
    directory: Option<Directory>,
    registry: Arc<Mutex<Registry>>,
    settings: Arc<Settings>,
}

/// Starts the thread; it ends when nobody can ask it any more.
pub(super) fn start(
    mut jobs: mpsc::Receiver<Job>,
    directory: Option<Directory>,
    registry: Arc<Mutex<Registry>>,
    settings: Arc<Settings>,
) -> io::Result<()> {
    let keeper = Keeper { directory, registry, settings };
    let work = move || {
        while let Some(job) = jobs.blocking_recv() {
            // Nobody listens any more when the client has gone; what was done stays.
            match job {
                Job::Commit { commit, reply } => {
                    drop(reply.send(survive(|| keeper.commit(*commit))));
                }
                Job::Remove { name, reply } => drop(reply.send(survive(|| keeper.remove(&name)))),
                Job::Read { name, len, reply } => {
                    drop(reply.send(survive(|| keeper.read(&name, len))));
                }
                Job::Restore { link, reply } => {
                    drop(reply.send(survive(|| keeper.restore(*link))));
                }
            }
        }
    };
    std::thread::Builder::new().name("quantd-keeper".to_owned()).spawn(work).map(drop)
}

/// A defect ends the change that met it; the next one finds the keeper at work.
fn survive<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(Kind::Internal, "the server failed on the change of the layers"))
    })
}

fn failed(error: &io::Error) -> Error {
    tracing::error!(%error, "the directory of layers");
    Error::new(Kind::Storage, "the directory of layers could not be read or written")
        .cure("look at the log of the server")
}

impl Keeper {
    fn commit(&self, commit: Commit) -> Result<LayerDoc, Error> {
        let Commit { name, replaces, doc, made, stored } = commit;
        let (layers, bytes) = match &made {
            Ready::Layer(layer) => (Vec::new(), layer.memory_bytes()),
            Ready::Chain(layers) => (layers.clone(), chains::bytes(&name, layers)),
        };
        let need = Need { name: &name, bytes, layers: &layers };
        let version = {
            let registry = lock(&self.registry);
            if !replaces {
                registry.check_new(&name)?;
            }
            match &made {
                Ready::Layer(_) => registry.check_layer(&name, &doc)?,
                Ready::Chain(layers) => registry.check_chain(&name, layers)?,
            }
            registry.check_room(need, &self.settings)?;
            registry.next_version(&name)
        };
        let written = self.write(&name, version, stored)?;
        let saved = written.as_ref().map_or(0, Written::len);
        if let Some(written) = written {
            written.name(&name).map_err(|error| failed(&error))?;
        }
        let doc = LayerDoc { name: name.as_str().to_owned(), version, ..doc };
        let content = match made {
            Ready::Layer(layer) => Content::Loaded(Arc::new(ChainMember {
                name: name.clone(),
                version,
                layer: *layer,
            })),
            Ready::Chain(layers) => Content::Chain(layers.into()),
        };
        let mut registry = lock(&self.registry);
        // Others make room only for what is safely written.
        let gone = registry.make_room(need, &self.settings);
        let before = registry.publish(Entry { name: name.clone(), doc, content, bytes, saved });
        let doc = registry.describe(&name);
        drop(registry);
        drop((gone, before));
        doc
    }

    fn write(
        &self,
        name: &Name,
        version: u64,
        stored: Option<Stored>,
    ) -> Result<Option<Written<'_>>, Error> {
        let (Some(directory), Some(stored)) = (&self.directory, stored) else { return Ok(None) };
        let segments = stored
            .segments(name, version)
            .map_err(|_| Error::new(Kind::Internal, "the layer could not be described"))?;
        directory.write(&segments).map(Some).map_err(|error| failed(&error))
    }

    fn remove(&self, name: &Name) -> Result<LayerDoc, Error> {
        let doc = lock(&self.registry).check_removal(name)?;
        if let Some(directory) = &self.directory {
            directory.remove(name).map_err(|error| failed(&error))?;
        }
        let before = lock(&self.registry).remove(name);
        drop(before);
        Ok(doc)
    }

    fn read(&self, name: &Name, len: usize) -> Result<Buffer, Error> {
        let Some(directory) = &self.directory else {
            return Err(Error::new(Kind::Internal, "a layer without a file was put away"));
        };
        directory.read(name, len).map_err(|error| failed(&error))
    }

    /// Puts a layer that was read where it belongs, unless it was replaced, removed or unloaded
    /// meanwhile.
    fn restore(&self, link: ChainMember) -> Result<(), Error> {
        let (name, bytes) = (link.name.clone(), link.layer.memory_bytes());
        let need = Need { name: &name, bytes, layers: &[] };
        let mut registry = lock(&self.registry);
        if registry.on_disk(&name).is_none_or(|file| file.version != link.version) {
            return Ok(());
        }
        registry.check_room(need, &self.settings)?;
        let gone = registry.make_room(need, &self.settings);
        registry.place(&name, Content::Loaded(Arc::new(link)));
        drop(registry);
        drop(gone);
        Ok(())
    }
}

impl From<Made> for Ready {
    fn from(made: Made) -> Self {
        match made {
            Made::Layer(layer) => Self::Layer(Box::new(layer.1)),
            Made::Chain(names) => Self::Chain(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_ends_one_change() {
        let error = survive::<()>(|| panic!("a defect")).unwrap_err();
        assert_eq!(error.kind, Kind::Internal);
        assert_eq!(survive(|| Ok(1)), Ok(1));
    }
}

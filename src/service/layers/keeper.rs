//! The thread that all changes pass through.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::api::error::{Error, Kind};
use crate::api::layers::documents::LayerDoc;
use crate::api::layers::stored::Stored;
use crate::api::layers::{Link, create::Made};
use crate::api::name::Name;
use crate::quant::layer::Layer;
use crate::tensor::Buffer;

use super::files::{Directory, Written};
use super::registry::{Content, Registry};
use super::{Settings, lock};

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
    Read { name: Name, reply: oneshot::Sender<Result<Buffer, Error>> },
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
                Job::Commit { commit, reply } => drop(reply.send(keeper.commit(*commit))),
                Job::Remove { name, reply } => drop(reply.send(keeper.remove(&name))),
                Job::Read { name, reply } => drop(reply.send(keeper.read(&name))),
            }
        }
    };
    std::thread::Builder::new().name("quantd-keeper".to_owned()).spawn(work).map(drop)
}

fn failed(error: &io::Error) -> Error {
    tracing::error!(%error, "the directory of layers");
    Error::new(Kind::Storage, "the directory of layers could not be read or written")
        .cure("look at the log of the server")
}

impl Keeper {
    fn commit(&self, commit: Commit) -> Result<LayerDoc, Error> {
        let Commit { name, replaces, doc, made, stored } = commit;
        let (chain, bytes) = match &made {
            Ready::Layer(layer) => (&[][..], layer.memory_bytes()),
            Ready::Chain(names) => (names.as_slice(), 0),
        };
        let version = {
            let registry = lock(&self.registry);
            if !replaces {
                registry.check_new(&name)?;
            }
            registry.check(&name, &doc, chain)?;
            registry.check_room(&name, bytes, &self.settings)?;
            registry.next_version(&name)
        };
        // Others make room only for what is safely written.
        let written = self.write(&name, version, stored)?;
        lock(&self.registry).take_room(&name, bytes, &self.settings)?;
        if let Some(Err(error)) = written.map(|written| written.name(&name)) {
            lock(&self.registry).give_back(bytes);
            return Err(failed(&error));
        }
        let doc = LayerDoc { name: name.as_str().to_owned(), version, ..doc };
        let content = match made {
            Ready::Layer(layer) => {
                Content::Loaded(Arc::new(Link { name: name.clone(), version, layer: *layer }))
            }
            Ready::Chain(names) => Content::Chain(names),
        };
        let mut registry = lock(&self.registry);
        registry.publish(name.clone(), doc, content);
        registry.describe(&name)
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
        lock(&self.registry).remove(name);
        Ok(doc)
    }

    fn read(&self, name: &Name) -> Result<Buffer, Error> {
        let Some(directory) = &self.directory else {
            return Err(Error::new(Kind::Internal, "a layer without a file was put away"));
        };
        directory.read(name.as_str()).map_err(|error| failed(&error))
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

//! The layers that this server keeps.
//!
//! Who runs a layer takes hold of it as it is ([`Layers::get`]); what is made
//! under its name meanwhile does not change it. All changes pass through one
//! thread, the keeper, which also does all reading and writing of files: they
//! happen one after the other, and nobody hears of a layer that is not on the
//! disk. Requests that run layers in memory never wait for it.

mod chains;
mod describe;
mod files;
mod keeper;
mod recover;
mod registry;
mod requests;
mod room;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::api::error::{Error, Kind};
use crate::api::layers::documents::{LayerDoc, LayersDoc};
use crate::api::layers::stored::{self, Content as Restored};
use crate::api::layers::{ChainMember, LayerHandle};
use crate::api::name::Name;

use super::compute::Compute;
use super::pools::Length;
use files::Directory;
use keeper::{Commit, Job};
use registry::{File, Found, Registry};

/// Changes that may wait for the keeper.
const QUEUE: usize = 64;

/// What happens when the budget is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Eviction {
    /// The new layer is refused.
    Refuse,
    /// The layer that was not used for longest makes room.
    Lru,
}

impl Eviction {
    /// Name in flags and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Lru => "lru",
        }
    }
}

/// Bounds on what is kept, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of all layers in memory.
    pub max_bytes: usize,
    /// What happens when they are not enough.
    pub eviction: Eviction,
    /// Where layers are saved; nowhere if not given.
    pub directory: Option<PathBuf>,
}

/// All layers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Layers {
    registry: Arc<Mutex<Registry>>,
    settings: Arc<Settings>,
    keeper: mpsc::Sender<Job>,
    compute: Compute,
}

/// What it protects is changed in steps that leave nothing half done.
fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses to read layers that could not be in memory at the same time.
fn check_together(registry: &Registry, name: &Name, settings: &Settings) -> Result<(), Error> {
    let (bytes, max_bytes) = (registry.bytes_together(name), settings.max_bytes);
    if bytes <= max_bytes {
        return Ok(());
    }
    let detail = format!("it takes {bytes} bytes of memory, {max_bytes} are allowed");
    Err(Error::new(Kind::Storage, detail).cure("raise --max-layer-bytes"))
}

fn lost<T>(_: T) -> Error {
    Error::new(Kind::Internal, "the keeper of the layers has ended")
}

impl Layers {
    /// Reads the layers of the directory, if there is one, and starts the keeper.
    ///
    /// # Errors
    /// When the directory cannot be used, or is used by another server.
    pub fn open(settings: Settings, compute: Compute) -> io::Result<Self> {
        let directory = settings.directory.as_deref().map(Directory::open).transpose()?;
        let settings = Arc::new(settings);
        let mut registry = Registry::default();
        if let Some(directory) = &directory {
            let max_bytes = compute.settings().max_inflight_bytes;
            let task = &compute.task();
            compute.install(|| {
                recover::read_all(directory, &mut registry, &settings, (max_bytes, task))
            })?;
        }
        crate::telemetry::layer_limit(settings.max_bytes);
        let registry = Arc::new(Mutex::new(registry));
        let (keeper, jobs) = mpsc::channel(QUEUE);
        keeper::start(jobs, directory, Arc::clone(&registry), Arc::clone(&settings))?;
        Ok(Self { registry, settings, keeper, compute })
    }

    /// The bounds.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A layer or chain, ready to run; of that version, if one is asked for.
    /// Reads its file first where it was put away.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::Storage`] when there is no
    /// room to bring it back, and those of the pool.
    pub async fn get(&self, name: &Name, version: Option<u64>) -> Result<Arc<LayerHandle>, Error> {
        /// Layers of one chain that may be read for it, each more than once.
        const READS: usize = 1024;
        for _ in 0..READS {
            let missing = {
                let mut registry = lock(&self.registry);
                match registry.find(name, version)? {
                    Found::Ready(hosted) => return Ok(Arc::new(hosted)),
                    Found::Missing(own) => {
                        check_together(&registry, name, &self.settings)?;
                        own
                    }
                }
            };
            self.reload(&missing).await?;
        }
        Err(Error::new(Kind::Overloaded, "other layers take the memory at the moment")
            .cure("try again after the time that Retry-After gives, or raise --max-layer-bytes"))
    }

    /// Reads the file of a layer that was put away. When it was replaced or removed meanwhile,
    /// nothing is done, and whoever looks again finds out.
    async fn reload(&self, name: &Name) -> Result<(), Error> {
        let gate = lock(&self.registry).gate(name)?;
        let _gate = gate.lock().await;
        let on_disk = || lock(&self.registry).on_disk(name);
        let Some(file) = on_disk() else { return Ok(()) };
        match self.read_back(name, file).await {
            Err(_) if on_disk() != Some(file) => Ok(()),
            result => result,
        }
    }

    async fn read_back(&self, name: &Name, file: File) -> Result<(), Error> {
        let permit = self.compute.admit(recover::working_bytes(file.len)).await?;
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Read { name: name.clone(), len: file.len, reply }).await?;
        let buffer = answer.await.map_err(lost)??;
        let read = move |task: &_, _: &mut _| {
            stored::read(buffer, task).map_err(|reason| {
                tracing::error!(reason, "the file of a layer is damaged");
                Error::new(Kind::Internal, "the file of the layer is damaged")
                    .cure("make the layer again")
            })
        };
        let (restored, _permit) = self.compute.run(Length::of_body(file.len), permit, read).await?;
        let Restored::Layer(layer) = restored.content else { return Ok(()) };
        let link = ChainMember { name: restored.name, version: restored.version, layer: layer.0 };
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Restore { link: Box::new(link), reply }).await?;
        answer.await.map_err(lost)?
    }

    /// Refuses a name that is taken.
    fn check_new(&self, name: &Name) -> Result<(), Error> {
        lock(&self.registry).check_new(name)
    }

    /// Puts a layer or chain under a name, saved first where there is a directory.
    async fn commit(&self, commit: Commit) -> Result<LayerDoc, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Commit { commit: Box::new(commit), reply }).await?;
        answer.await.map_err(lost)?
    }

    /// Removes a layer or chain, its file included, and gives its last description.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::Conflict`] when a chain
    /// needs it.
    pub async fn delete(&self, name: &Name) -> Result<LayerDoc, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Remove { name: name.clone(), reply }).await?;
        answer.await.map_err(lost)?
    }

    /// Takes a layer out of memory until it is [loaded](Self::load); without a
    /// directory it is gone.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub async fn unload(&self, name: &Name) -> Result<(), Error> {
        if self.settings.directory.is_none() {
            return self.delete(name).await.map(drop);
        }
        let before = lock(&self.registry).unload(name)?;
        drop(before);
        Ok(())
    }

    /// Brings a layer back that was unloaded or put away.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn load(&self, name: &Name) -> Result<Arc<LayerHandle>, Error> {
        lock(&self.registry).allow(name)?;
        self.get(name, None).await
    }

    /// Whether a layer, or one of a chain, has to be [loaded](Self::load) before it runs.
    #[must_use]
    pub fn is_unloaded(&self, name: &Name) -> bool {
        lock(&self.registry).is_unloaded(name)
    }

    /// Whether there is a layer or chain of that name.
    #[must_use]
    pub fn contains(&self, name: &Name) -> bool {
        lock(&self.registry).contains(name)
    }

    /// The description of a layer or chain.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn describe(&self, name: &Name) -> Result<LayerDoc, Error> {
        lock(&self.registry).describe(name)
    }

    /// Number of layers and chains.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.registry).len()
    }

    /// How many entries of the usual length the list is as long as: chains name their layers in theirs.
    #[must_use]
    pub fn list_len(&self) -> usize {
        const NAMES: usize = 1 << 10;
        let registry = lock(&self.registry);
        registry.len() + registry.chain_bytes().div_ceil(NAMES)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> LayersDoc {
        let (snapshot, memory_bytes) = {
            let registry = lock(&self.registry);
            (registry.snapshot(), registry.held())
        };
        let layers = snapshot.list();
        let in_memory = layers.iter().filter(|doc| doc.loaded && doc.chain.is_none());
        LayersDoc {
            held_bytes: in_memory.map(|doc| doc.memory.held_bytes).sum(),
            memory_bytes,
            layers,
            max_bytes: self.settings.max_bytes,
            eviction: self.settings.eviction.name(),
        }
    }

    /// Layers in memory, and their bytes.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let registry = lock(&self.registry);
        (registry.loaded(), registry.held())
    }

    async fn ask(&self, job: Job) -> Result<(), Error> {
        self.keeper.send(job).await.map_err(lost)
    }
}

//! The budget of the layers: who may have room, and who makes it.

use std::collections::BTreeSet;

use crate::api::error::{Error, Kind};
use crate::api::name::Name;
use crate::telemetry;

use super::registry::{Content, Registry};
use super::{Eviction, Settings};

/// What is to be put under a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need<'a> {
    pub(super) name: &'a Name,
    /// Bytes that it will hold.
    pub(super) bytes: usize,
    /// The layers of a chain.
    pub(super) layers: &'a [Name],
}

/// There is no room for a layer.
fn refused(detail: impl Into<String>) -> Error {
    telemetry::layer_refused();
    Error::new(Kind::Storage, detail.into())
}

impl Registry {
    /// Refuses what others cannot make room for. Where this does not refuse,
    /// [`make_room`](Self::make_room) has room afterwards: nobody but the keeper takes any.
    pub(super) fn check_room(&self, need: Need<'_>, settings: &Settings) -> Result<(), Error> {
        let Need { bytes, .. } = need;
        if bytes > settings.max_bytes {
            let detail =
                format!("the layer takes {bytes} bytes, {} are allowed", settings.max_bytes);
            return Err(refused(detail)
                .cure("leave keep_float out, use fewer bits, or raise --max-layer-bytes"));
        }
        if self.has_room(need, settings) {
            return Ok(());
        }
        if settings.eviction == Eviction::Refuse {
            return Err(refused("no room for the layer beside the others")
                .cure("delete layers, raise --max-layer-bytes, or use --layer-eviction lru"));
        }
        if self.fixed_bytes(need, settings).saturating_add(bytes) > settings.max_bytes {
            return Err(refused("no room for the layer beside those that chains use")
                .cure("delete chains, raise --max-layer-bytes, or use --layer-dir"));
        }
        Ok(())
    }

    /// Whether there is room; that of what is replaced counts as free already.
    pub(super) fn has_room(&self, need: Need<'_>, settings: &Settings) -> bool {
        let others = self.held() - self.bytes_in_memory(need.name);
        others.saturating_add(need.bytes) <= settings.max_bytes
    }

    /// Bytes of what makes no room: chains and, where they are not saved and would be gone, the
    /// layers that chains use.
    fn fixed_bytes(&self, need: Need<'_>, settings: &Settings) -> usize {
        let own = |name: &Name| match self.content(name) {
            Some(Content::Chain(_)) => self.bytes_in_memory(name),
            _ => 0,
        };
        let chains = self.chain_bytes() - own(need.name);
        if settings.directory.is_some() {
            return chains;
        }
        let used = self.users().layers().chain(need.layers);
        let used: BTreeSet<&Name> = used.filter(|name| *name != need.name).collect();
        used.into_iter().fold(chains, |sum, name| sum + self.bytes_in_memory(name))
    }

    /// Puts away what was not used for longest, as much as must go, and gives it back.
    pub(super) fn make_room(&mut self, need: Need<'_>, settings: &Settings) -> Vec<Content> {
        let mut gone = Vec::new();
        if self.has_room(need, settings) {
            return gone;
        }
        let is_saved = settings.directory.is_some();
        let may_go = |own: &Name| {
            own != need.name
                && (is_saved || !(self.users().are_of(own) || need.layers.contains(own)))
        };
        let mut loaded: Vec<(u64, Name)> =
            self.loaded_by_use().filter(|(_, own)| may_go(own)).collect();
        loaded.sort_unstable();
        for (_, oldest) in loaded {
            if self.has_room(need, settings) {
                break;
            }
            tracing::info!(layer = oldest.as_str(), "evicted");
            telemetry::layer_evicted();
            gone.extend(if is_saved {
                self.place(&oldest, Content::OnDisk)
            } else {
                self.remove(&oldest)
            });
        }
        gone
    }
}

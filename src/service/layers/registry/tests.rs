use proptest::prelude::*;

use super::*;
use crate::api::context::Context;
use crate::api::effort::Effort;
use crate::api::fields::Query;
use crate::api::layers::create::{self, Made};
use crate::api::payload::{Format, Payload};
use crate::service::layers::room::Need;
use crate::service::layers::{Eviction, Settings};
use quantd_codec::Limits;
use quantd_codec::encoding::Encoding;
use quantd_core::Task;
use quantd_core::tensor::Buffer;

fn name(text: &str) -> Name {
    Name::new(text, Place::Pointer(String::new())).unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().copied().map(name).collect()
}

/// A layer in memory that is said to hold so many bytes.
fn layer(own: &str, outputs: usize, inputs: usize, bytes: usize) -> Entry {
    let text = format!(r#"{{"weight": {{"data": {:?}}}}}"#, vec![vec![1.0; inputs]; outputs]);
    let payload = Payload {
        body: Arc::new(Buffer::copy_of(text.as_bytes())),
        format: Format::Json,
        encoding: Encoding::Identity,
        boundary: None,
        query: Query::default(),
    };
    let (limits, task) = (Limits::default(), Task::new(quantd_kernels::Isa::best()));
    let mut context = Context {
        limits: &limits,
        task: &task,
        effort: Effort::UNBOUNDED,
        spare: 0,
        grow: &mut |_| Ok(()),
    };
    let request = create::read(payload, &mut context).unwrap();
    let made = request.make(&|_, _, _| unreachable!(), &mut context).unwrap();
    let Made::Layer(made) = made else { panic!("no layer") };
    let (definition, layer) = *made;
    let doc = LayerDoc::of_layer(&definition, &layer);
    let link = ChainMember { name: name(own), version: 1, layer };
    let content = Content::Loaded(Arc::new(link));
    Entry { name: name(own), doc: LayerDoc { version: 1, ..doc }, content, bytes, saved: 0 }
}

fn chain(own: &str, layers: &[Name], bytes: usize) -> Entry {
    let content = Content::Chain(layers.into());
    Entry { name: name(own), doc: LayerDoc::of_chain(), content, bytes, saved: 0 }
}

fn settings(max_bytes: usize, directory: bool) -> Settings {
    let directory = directory.then(std::env::temp_dir);
    Settings { max_bytes, eviction: Eviction::Lru, directory }
}

/// The accounts are what a look through all slots finds.
fn check(registry: &Registry) {
    let slots = || registry.slots.values();
    assert_eq!(registry.held, slots().map(Slot::bytes_in_memory).sum::<usize>());
    let is_loaded = |slot: &&Slot| matches!(slot.known.content, Content::Loaded(_));
    assert_eq!(registry.loaded, slots().filter(is_loaded).count());
    let mut users = Users::default();
    let mut chain_bytes = 0;
    for (own, slot) in &registry.slots {
        if let Content::Chain(layers) = &slot.known.content {
            users.add(own, layers);
            chain_bytes += slot.bytes;
        }
    }
    assert_eq!(registry.chain_bytes, chain_bytes);
    assert!(registry.users.layers().eq(users.layers()));
    for layer in users.layers() {
        assert!(registry.users.of(layer).eq(users.of(layer)));
    }
}

const OWN: [&str; 4] = ["a", "b", "c", "d"];
const CHAINS: [&str; 2] = ["x", "y"];

proptest! {
    /// Whatever is made, put away, brought back and removed, in whatever order.
    #[test]
    fn accounts_are_true(steps in prop::collection::vec((0..6, 0..4_usize, 0..60_usize), 1..60), saved: bool) {
        let settings = settings(100, saved);
        let mut registry = Registry::default();
        let mut entries = OWN.map(|own| Some(layer(own, 1, 1, 0)));
        let loaded = entries.each_mut().map(|entry| entry.take().unwrap());
        for (what, which, bytes) in steps {
            let own = name(OWN[which]);
            match what {
                0 => {
                    let need = Need { name: &own, bytes, layers: &[] };
                    if registry.check_room(need, &settings).is_ok() {
                        drop(registry.make_room(need, &settings));
                        let Entry { doc, content, .. } = &loaded[which];
                        let entry = Entry { name: own, doc: doc.clone(), content: content.clone(), bytes, saved: 1 };
                        drop(registry.publish(entry));
                        prop_assert!(registry.held() <= settings.max_bytes);
                    }
                }
                1 => {
                    let layers = names(&OWN[which..]);
                    let own = name(CHAINS[which % 2]);
                    let need = Need { name: &own, bytes, layers: &layers };
                    if registry.check_chain(&own, &layers).is_ok() && registry.check_room(need, &settings).is_ok() {
                        drop(registry.make_room(need, &settings));
                        prop_assert!(layers.iter().all(|layer| registry.contains(layer)));
                        drop(registry.publish(chain(CHAINS[which % 2], &layers, bytes)));
                        prop_assert!(registry.held() <= settings.max_bytes);
                    }
                }
                2 if registry.check_removal(&own).is_ok() => drop(registry.remove(&own)),
                3 => drop(registry.remove(&name(CHAINS[which % 2]))),
                4 if saved => drop(registry.unload(&own)),
                5 => drop(registry.allow(&own)),
                _ => {}
            }
            check(&registry);
        }
    }
}

#[test]
fn chains_are_found_by_their_layers() {
    let mut registry = Registry::default();
    for (own, outputs, inputs) in [("a", 3, 2), ("b", 4, 3), ("c", 2, 4)] {
        drop(registry.publish(layer(own, outputs, inputs, 1)));
    }
    let abc = names(&["a", "b", "c", "a"]);
    registry.check_chain(&name("net"), &abc).unwrap();
    let wrong = registry.check_chain(&name("net"), &names(&["b", "a"])).unwrap_err();
    assert_eq!(wrong.to_string(), "/chain: \"a\" does not take what \"b\" answers");
    let wrong = registry.check_chain(&name("net"), &names(&["a", "z"])).unwrap_err();
    assert_eq!(wrong.to_string(), "/chain: no layer called \"z\"");
    drop(registry.publish(chain("net", &abc, 1)));
    drop(registry.publish(chain("one", &names(&["b"]), 1)));
    // Each neighbour of a layer counts, wherever it stands in the chain.
    for (own, outputs, inputs, fits) in [
        ("a", 3, 2, true),
        ("a", 3, 5, false),
        ("b", 4, 3, true),
        ("b", 5, 3, false),
        ("c", 2, 5, false),
    ] {
        let changed = layer(own, outputs, inputs, 1);
        let result = registry.check_layer(&name(own), &changed.doc);
        assert_eq!(result.is_ok(), fits, "{own} {outputs} {inputs}");
    }
    assert_eq!(registry.check_removal(&name("b")).unwrap_err().kind, Kind::Conflict);
    drop(registry.remove(&name("net")));
    assert_eq!(registry.check_removal(&name("b")).unwrap_err().detail, "chain \"one\" uses it");
    drop(registry.remove(&name("one")));
    registry.check_removal(&name("b")).unwrap();
    check(&registry);
}

#[test]
fn chains_count_for_their_bytes() {
    let settings = settings(5000, true);
    let mut registry = Registry::default();
    drop(registry.publish(layer("a", 2, 2, 100)));
    let layers = vec![name("a"); 8];
    let mut made = 0;
    for i in 0..10 {
        let own = name(&format!("chain{i}"));
        let bytes = chains::bytes(&own, &layers);
        let need = Need { name: &own, bytes, layers: &layers };
        if registry.check_room(need, &settings).is_err() {
            break;
        }
        drop(registry.make_room(need, &settings));
        drop(registry.publish(chain(own.as_str(), &layers, bytes)));
        made += 1;
    }
    assert_eq!(made, 2, "{} bytes are held", registry.held());
    check(&registry);
}

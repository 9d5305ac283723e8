//! Objects as a watch has told of them.

use skyserve_kube::kube::ResourceExt;
use skyserve_kube::kube::runtime::watcher::Event;
use std::collections::BTreeMap;

/// Every object of one kind that a watch follows, by name. Known as a whole or not at all.
#[derive(Debug)]
pub(crate) struct Mirror<K> {
    known: BTreeMap<String, K>,
    coming: BTreeMap<String, K>,
    is_complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), coming: BTreeMap::new(), is_complete: false }
    }
}

impl<K: ResourceExt> Mirror<K> {
    pub(crate) fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => drop(self.coming.insert(object.name_any(), object)),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.coming);
                self.is_complete = true;
            }
            Event::Apply(object) => self.note(object),
            Event::Delete(object) => drop(self.known.remove(&object.name_any())),
        }
    }

    /// An object as an answer shows it, which the watch will tell too.
    pub(crate) fn note(&mut self, object: K) {
        self.known.insert(object.name_any(), object);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&K> {
        self.known.get(name)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &K> {
        self.known.values()
    }

    /// Whether there is nothing that it does not know.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

//! Changes to a service: made in memory, written down as rows, and taken back if they cannot be
//! stored.
//!
//! Invariants:
//! * What is in memory and not in the store is exactly what an [`Undo`] can take back.
//! * A row that did not change is not written.

use crate::ids::{ReplicaId, Version};
use crate::replica::Replica;
use crate::rules::VersionRules;
use crate::service::{Head, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One row to write. A list of these is one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new service with its first version; fails if the name is taken.
    InsertService {
        head: Head,
        rules: Arc<VersionRules>,
        source: String,
    },
    /// The next version of a service; fails if it is not above every one before.
    InsertVersion {
        service: String,
        version: Version,
        rules: Arc<VersionRules>,
        source: String,
    },
    /// A version that no row refers to any more.
    DeleteVersion {
        service: String,
        version: Version,
    },
    /// Fails if its version was replaced by a later one.
    UpdateService(Head),
    /// The service, its versions and whatever replicas it has left.
    DeleteService {
        name: String,
    },
    /// Fails if the id or the uid was ever used.
    InsertReplica {
        service: String,
        replica: Replica,
    },
    UpdateReplica {
        service: String,
        replica: Replica,
    },
    DeleteReplica {
        service: String,
        id: ReplicaId,
    },
}

/// How a service was before a step.
#[derive(Debug, Default)]
#[must_use = "changes that are not stored must be undone"]
pub struct Undo {
    head: Option<Head>,
    versions: Option<Versions>,
    replicas: BTreeMap<ReplicaId, Option<Replica>>,
}

/// The rules of the newest version, and of earlier ones.
#[derive(Debug)]
struct Versions {
    newest: Version,
    rules: Arc<VersionRules>,
    earlier: BTreeMap<Version, Arc<VersionRules>>,
}

/// A service while a step changes it.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    service: &'a mut Service,
    undo: Undo,
    /// The YAML of the version that begins with this step.
    source: Option<String>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(service: &'a mut Service) -> Self {
        Self { service, undo: Undo::default(), source: None }
    }

    pub(crate) fn service(&self) -> &Service {
        self.service
    }

    /// Whether anything may have been changed.
    pub(crate) fn is_begun(&self) -> bool {
        let Undo { head, versions, replicas } = &self.undo;
        head.is_some() || versions.is_some() || !replicas.is_empty()
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        self.undo.head.get_or_insert_with(|| self.service.head.clone());
        &mut self.service.head
    }

    pub(crate) fn replica_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
        let replica = self.service.replicas.get_mut(&id)?;
        self.undo.replicas.entry(id).or_insert_with(|| Some(replica.clone()));
        Some(replica)
    }

    pub(crate) fn insert(&mut self, replica: Replica) {
        self.undo.replicas.entry(replica.id).or_insert(None);
        self.service.replicas.insert(replica.id, replica);
    }

    pub(crate) fn remove(&mut self, id: ReplicaId) {
        if let Some(replica) = self.service.replicas.remove(&id) {
            self.undo.replicas.entry(id).or_insert(Some(replica));
        }
    }

    /// Makes `rules` the newest version.
    pub(crate) fn begin_version(&mut self, rules: Arc<VersionRules>, source: &str) {
        self.note_versions();
        let version = self.service.head.version;
        self.head_mut().version = Version(version.0 + 1);
        let before = std::mem::replace(&mut self.service.rules, rules);
        self.service.earlier.insert(version, before);
        self.source = Some(source.to_owned());
    }

    /// Forgets the versions that nothing depends on any more.
    pub(crate) fn forget_versions(&mut self) {
        if self.service.earlier.is_empty() {
            return;
        }
        let in_use = self.service.versions_in_use();
        if self.service.earlier.keys().any(|version| !in_use.contains(version)) {
            self.note_versions();
            self.service.earlier.retain(|version, _| in_use.contains(version));
        }
    }

    fn note_versions(&mut self) {
        let service = &self.service;
        self.undo.versions.get_or_insert_with(|| Versions {
            newest: service.head.version,
            rules: Arc::clone(&service.rules),
            earlier: service.earlier.clone(),
        });
    }

    /// The rows that differ from before, and how to go back.
    pub(crate) fn finish(self) -> (Vec<Change>, Undo) {
        let Self { service, undo, source } = self;
        let name = || service.head.name.clone();
        let mut changes = Vec::new();
        if let Some(source) = source {
            let (version, rules) = (service.head.version, Arc::clone(&service.rules));
            changes.push(Change::InsertVersion { service: name(), version, rules, source });
        }
        if undo.head.as_ref().is_some_and(|before| *before != service.head) {
            changes.push(Change::UpdateService(service.head.clone()));
        }
        for (id, before) in &undo.replicas {
            match (before, service.replicas.get(id)) {
                (None, None) => {}
                (Some(before), Some(after)) if before == after => {}
                (Some(_), Some(after)) => {
                    changes.push(Change::UpdateReplica { service: name(), replica: after.clone() });
                }
                (None, Some(after)) => changes.push(Change::InsertReplica { service: name(), replica: after.clone() }),
                (Some(_), None) => changes.push(Change::DeleteReplica { service: name(), id: *id }),
            }
        }
        // Last: the rows above may have been the ones that referred to them.
        let before = undo.versions.iter().flat_map(|before| before.earlier.keys().chain([&before.newest]));
        let gone = before.filter(|version| **version != service.head.version && !service.earlier.contains_key(version));
        changes.extend(gone.map(|version| Change::DeleteVersion { service: name(), version: *version }));
        (changes, undo)
    }
}

impl Service {
    /// Takes back the step that gave `undo`, which must be the latest.
    pub fn undo(&mut self, undo: Undo) {
        if let Some(head) = undo.head {
            self.head = head;
        }
        if let Some(Versions { rules, earlier, .. }) = undo.versions {
            (self.rules, self.earlier) = (rules, earlier);
        }
        for (id, before) in undo.replicas {
            match before {
                Some(replica) => self.replicas.insert(id, replica),
                None => self.replicas.remove(&id),
            };
        }
    }
}

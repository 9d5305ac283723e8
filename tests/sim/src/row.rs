//! One service as the database has acknowledged it. What is said of it here is said a second time, apart from the
//! model, whose decisions it judges.

use skyserve_model::{Head, Replica, ReplicaId, ReplicaStatus, Service, Version, VersionRules};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) head: Head,
    pub(crate) versions: BTreeMap<Version, Arc<VersionRules>>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
}

impl Row {
    pub(crate) fn new(head: &Head, rules: &Arc<VersionRules>) -> Self {
        let versions = BTreeMap::from([(head.version, Arc::clone(rules))]);
        Self { head: head.clone(), versions, replicas: BTreeMap::new() }
    }

    /// What the newest version asks for.
    pub(crate) fn rules(&self) -> &Arc<VersionRules> {
        self.versions.get(&self.head.version).expect("the database refuses a version that is not stored")
    }

    pub(crate) fn target(&self) -> usize {
        if self.head.shutdown.is_some() { 0 } else { self.rules().replicas as usize }
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(|replica| replica.status.is_alive())
    }

    pub(crate) fn ready(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(|replica| replica.status == ReplicaStatus::Ready)
    }

    /// Whether the newest version launches just such a replica.
    pub(crate) fn is_newest(&self, replica: &Replica) -> bool {
        self.versions.get(&replica.version).is_some_and(|rules| rules.launch == self.rules().launch)
    }

    pub(crate) fn is_updating(&self) -> bool {
        self.head.proven.is_some() || self.alive().any(|replica| !self.is_newest(replica))
    }

    /// How many READY replicas there are once all has settled, and whether they are the newest version's; `None` if it
    /// never settles, because nothing is launched any more.
    pub(crate) fn settles_with(&self) -> Option<(usize, bool)> {
        let target = self.rules().replicas as usize;
        match (&self.head.given_up, self.head.proven) {
            (None, _) => Some((target, true)),
            (Some(_), None) => None,
            (Some(_), Some(proven)) => {
                let before = self.versions.get(&proven.version)?.replicas as usize;
                Some((target.min(before), false))
            }
        }
    }

    /// Whether a new controller reads just this.
    pub(crate) fn is(&self, service: &Service) -> bool {
        let newest = (service.head.version, Arc::clone(&service.rules));
        let versions: BTreeMap<Version, Arc<VersionRules>> =
            service.earlier.clone().into_iter().chain([newest]).collect();
        self.head == service.head && self.versions == versions && self.replicas == service.replicas
    }
}

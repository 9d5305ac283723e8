//! A reference for what the store must do with rows, as strict as the database.

use crate::{Change, Head, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Service, Version, VersionRules};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One service's rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    head: Option<Head>,
    versions: BTreeMap<Version, Arc<VersionRules>>,
    replicas: BTreeMap<ReplicaId, Replica>,
    used: BTreeSet<ReplicaUid>,
}

impl Rows {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            head: Some(service.head.clone()),
            versions: versions(service),
            replicas: service.replicas.clone(),
            used: service.replicas.values().map(|replica| replica.uid.clone()).collect(),
        }
    }

    /// Writes one transaction; panics where the database refuses.
    pub(super) fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::InsertService { .. } | Change::DeleteService { .. } => {
                    panic!("a step never makes or removes a service: {change:?}")
                }
                Change::InsertVersion { version, rules, .. } => {
                    let newest = self.head.as_ref().expect("the service has a row").version;
                    assert!(*version > newest, "version {version} comes after {newest}");
                    self.versions.insert(*version, Arc::clone(rules));
                }
                Change::DeleteVersion { version, .. } => {
                    self.versions.remove(version).expect("a removal needs its row");
                }
                Change::UpdateService(head) => self.head = Some(head.clone()),
                Change::InsertReplica { replica, .. } => self.insert(replica),
                Change::UpdateReplica { replica, .. } => {
                    let row = self.replicas.get_mut(&replica.id).expect("an update needs its row");
                    assert_ne!(row, replica, "a row that did not change is written");
                    *row = replica.clone();
                }
                Change::DeleteReplica { id, .. } => {
                    self.replicas.remove(id).expect("a removal needs its row");
                }
            }
        }
        let head = self.head.as_ref().expect("the service has a row");
        let mut referred = self.replicas.values().map(|replica| replica.version).chain([head.version]);
        assert!(referred.all(|version| self.versions.contains_key(&version)), "a row's version is not stored");
        let next = head.next_replica_id;
        assert!(self.replicas.keys().all(|id| *id < next), "the next id {next} is not above every id");
    }

    fn insert(&mut self, replica: &Replica) {
        // An orphan comes back under the id that it has always had; it is never launched.
        let fresh = self.used.insert(replica.uid.clone());
        assert!(fresh || replica.status == ReplicaStatus::Unknown, "{} is used twice", replica.uid);
        assert!(self.replicas.insert(replica.id, replica.clone()).is_none(), "replica {} exists", replica.id);
    }

    pub(super) fn assert_hold(&self, service: &Service) {
        assert_eq!(self.head.as_ref(), Some(&service.head));
        assert_eq!(self.versions, versions(service));
        assert_eq!(self.replicas, service.replicas);
    }
}

fn versions(service: &Service) -> BTreeMap<Version, Arc<VersionRules>> {
    let newest = (service.head.version, Arc::clone(&service.rules));
    service.earlier.clone().into_iter().chain([newest]).collect()
}

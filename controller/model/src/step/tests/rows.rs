//! A reference for what the store must do with rows, as strict as the database.

use crate::{Change, Head, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Service};
use std::collections::{BTreeMap, BTreeSet};

/// One service's rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    head: Option<Head>,
    replicas: BTreeMap<ReplicaId, Replica>,
    used: BTreeSet<ReplicaUid>,
}

impl Rows {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            head: Some(service.head.clone()),
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
        let next = self.head.as_ref().expect("the service has a row").next_replica_id;
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
        assert_eq!(self.replicas, service.replicas);
    }
}

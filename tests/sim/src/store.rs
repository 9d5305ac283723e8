//! The real database behind injected faults, and a shadow of what it has acknowledged: the durable truth
//! that every check looks at.

use crate::crash::{Boundaries, Side};
use crate::faults::Bug;
use crate::history::History;
use crate::invariants::{Invariant as I, Violation};
use crate::row::Row;
use skyserve_model::{Change, Head, OperationKind, Replica, ReplicaId, ReplicaStatus, ReplicaUid};
use skyserve_recovery::{SqliteStore, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the store is to do with the next commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Works,
    /// Nothing is written; it may pass later.
    Full,
    /// The next commit fails in a way that says nothing about whether it was written: it was.
    LosesAcknowledgement,
    /// The same, and it was not.
    LosesCommit,
}

/// The durable truth, and what the checks must know besides.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) services: BTreeMap<String, Row>,
    pub(crate) boundaries: Boundaries,
    pub(crate) history: History,
    pub(crate) disk: Disk,
    pub(crate) bug: Option<Bug>,
    pub(crate) violation: Option<Violation>,
    /// Replicas whose probes have truly passed, until the core has done what follows.
    pub(crate) passing: BTreeSet<ReplicaUid>,
    /// Replicas that something happened to, or that a user has taken down.
    pub(crate) harmed: BTreeSet<ReplicaUid>,
    /// Incarnations and uids that `--purge` may have left behind.
    pub(crate) purged: BTreeSet<String>,
    /// Where the load balancer has listened, by service.
    pub(crate) listened: BTreeSet<(String, SocketAddr)>,
    /// Ports that another program listens on.
    pub(crate) ports_taken: BTreeSet<u16>,
    /// The controller's that rules now.
    pub(crate) tenure: u64,
    pub(crate) commits: u64,
    /// Every status that a replica was stored with.
    pub(crate) statuses: BTreeSet<ReplicaStatus>,
    used: BTreeSet<ReplicaUid>,
    launch_decided: BTreeSet<ReplicaUid>,
}

/// Shared between the world and the store inside the core.
#[derive(Debug, Clone)]
pub(crate) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub(crate) fn new(boundaries: Boundaries, bug: Option<Bug>) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            services: BTreeMap::new(),
            boundaries,
            history: History::default(),
            disk: Disk::Works,
            bug,
            violation: None,
            passing: BTreeSet::new(),
            harmed: BTreeSet::new(),
            purged: BTreeSet::new(),
            listened: BTreeSet::new(),
            ports_taken: BTreeSet::new(),
            tenure: 0,
            commits: 0,
            statuses: BTreeSet::new(),
            used: BTreeSet::new(),
            launch_decided: BTreeSet::new(),
        })))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().expect("a run has one thread")
    }
}

impl Ledger {
    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.history.note(what);
    }

    pub(crate) fn replica(&self, service: &str, id: ReplicaId) -> Option<&Replica> {
        self.services.get(service)?.replicas.get(&id)
    }

    /// Whether the stored row of the replica says that such a call is to be made.
    pub(crate) fn intends(&self, service: &str, uid: &ReplicaUid, kind: OperationKind) -> bool {
        self.services.get(service).is_some_and(|row| {
            row.replicas
                .values()
                .any(|replica| replica.uid == *uid && replica.operation.is_some_and(|operation| operation.kind == kind))
        })
    }

    /// Whether there ever was a stored decision to launch it.
    pub(crate) fn was_to_be_launched(&self, uid: &ReplicaUid) -> bool {
        self.launch_decided.contains(uid)
    }

    pub(crate) fn break_rule(&mut self, invariant: I, detail: String) {
        self.violation.get_or_insert(Violation::new(invariant, detail));
    }

    pub(crate) fn acknowledge(&mut self, changes: &[Change]) {
        let mut before: BTreeMap<String, Row> = BTreeMap::new();
        for name in changes.iter().map(service_of) {
            if let Some(row) = self.services.get(name).filter(|_| !before.contains_key(name)) {
                before.insert(name.to_owned(), row.clone());
            }
        }
        for change in changes {
            match change {
                Change::InsertService { head, rules, .. } => {
                    self.note(format_args!("stored: service {} is new", head.name));
                    self.services.insert(head.name.clone(), Row::new(head, rules));
                }
                Change::InsertVersion { service, version, rules, .. } => {
                    self.note(format_args!("stored: version {version} of {service}"));
                    if let Some(row) = self.services.get_mut(service) {
                        row.versions.insert(*version, Arc::clone(rules));
                    }
                }
                Change::DeleteVersion { service, version } => {
                    self.note(format_args!("stored: version {version} of {service} is forgotten"));
                    if let Some(row) = self.services.get_mut(service) {
                        row.versions.remove(version);
                    }
                }
                Change::UpdateService(head) => self.update_head(head),
                Change::DeleteService { name } => {
                    self.note(format_args!("stored: service {name} is gone"));
                    self.services.remove(name);
                }
                Change::InsertReplica { service, replica } => {
                    let fresh = self.used.insert(replica.uid.clone());
                    if !fresh && replica.status != ReplicaStatus::Unknown {
                        self.break_rule(I::IdsAreUsedOnce, format!("{} is inserted again", replica.uid));
                    }
                    self.put(service, replica);
                }
                Change::UpdateReplica { service, replica } => self.put(service, replica),
                Change::DeleteReplica { service, id } => {
                    self.note(format_args!("stored: replica {id} of {service} is forgotten"));
                    if let Some(row) = self.services.get_mut(service) {
                        row.replicas.remove(id);
                    }
                }
            }
        }
        for (name, row) in before {
            self.check_ends(&name, &row);
        }
        self.check_target();
        self.check_ports();
    }

    fn update_head(&mut self, head: &Head) {
        let Some(row) = self.services.get_mut(&head.name) else { return };
        let before = std::mem::replace(&mut row.head, head.clone());
        let name = &head.name;
        if before.shutdown != head.shutdown {
            self.note(format_args!("stored: service {name} is to go"));
        }
        if let Some(reason) = head.given_up.as_ref().filter(|_| before.given_up.is_none()) {
            self.note(format_args!("stored: service {name} is given up: {reason}"));
        }
        if before.listen != head.listen {
            self.note(format_args!("stored: the endpoint of {name} moves to {}", head.listen));
            if !self.ports_taken.contains(&before.listen.port()) {
                self.break_rule(I::EndpointIsTrue, format!("{name} leaves {}, which is free", before.listen));
            }
        }
        if !before.endpoint_confirmed && head.endpoint_confirmed {
            self.note(format_args!("stored: the endpoint of {name} listens at {}", head.listen));
            if !self.listened.contains(&(name.clone(), head.listen)) {
                self.break_rule(I::EndpointIsTrue, format!("{name} never listened at {}", head.listen));
            }
        }
    }

    fn put(&mut self, service: &str, replica: &Replica) {
        let before = self.replica(service, replica.id).map(|row| row.status);
        let (status, uid) = (replica.status, &replica.uid);
        self.statuses.insert(status);
        if before != Some(status) {
            let reason = replica.reason.as_deref().unwrap_or("-");
            self.note(format_args!("stored: replica {uid} is {status}: {reason}"));
            if status == ReplicaStatus::Ready && !self.passing.contains(uid) {
                self.break_rule(I::ReadyByProbe, format!("{uid} became READY without one"));
            }
        }
        if replica.operation.is_some_and(|operation| operation.kind == OperationKind::Launch) {
            self.launch_decided.insert(uid.clone());
        }
        if let Some(row) = self.services.get_mut(service) {
            row.replicas.insert(replica.id, replica.clone());
        }
    }

    fn check_ports(&mut self) {
        let ports: BTreeSet<u16> = self.services.values().map(|row| row.head.listen.port()).collect();
        if ports.len() < self.services.len() {
            self.break_rule(I::EndpointIsTrue, "two services have one port".to_owned());
        }
    }

    fn check_target(&mut self) {
        let over = self.services.values().find_map(|row| {
            let (alive, target) = (row.alive().count(), row.target());
            let most = target + usize::from(row.is_updating());
            (alive > most).then(|| format!("{} has {alive} alive, its target is {target}", row.head.name))
        });
        if let Some(detail) = over {
            self.break_rule(I::NeverMoreThanTarget, detail);
        }
    }

    /// Of the replicas that nothing happened to, which ones a transaction ended, and whether it might.
    fn check_ends(&mut self, name: &str, before: &Row) {
        let Some(after) = self.services.get(name) else { return };
        let is_ended = |replica: &&Replica| {
            let now = after.replicas.get(&replica.id);
            !now.is_some_and(|now| now.status.is_alive()) && !self.harmed.contains(&replica.uid)
        };
        let ended: Vec<&Replica> = before.alive().filter(is_ended).collect();
        // One of another version that never served is missed by nobody.
        let ours: Vec<&&Replica> =
            ended.iter().filter(|replica| replica.first_ready_at.is_some() || after.is_newest(replica)).collect();
        let Some(first) = ours.first() else { return };
        let (target, ready) = (after.target(), after.ready().count());
        let uid = &first.uid;
        let too_many = before.alive().count().saturating_sub(target);
        let shrinks = target < before.target();
        let is_replaced = shrinks || after.is_newest(first) || after.ready().any(|replica| after.is_newest(replica));
        let serves = ended.iter().any(|replica| replica.status == ReplicaStatus::Ready);
        let needed = before.ready().count().min(target);
        let broken = if serves && ready < needed {
            Some((I::UpdateNeverReducesService, format!("{uid} is ended, {ready} are READY, {needed} are needed")))
        } else if ours.len() > too_many || !is_replaced {
            Some((I::HealthyIsLeftAlone, format!("{uid} is ended, {too_many} were too many")))
        } else {
            None
        };
        if let Some((invariant, detail)) = broken {
            self.break_rule(invariant, detail);
        }
    }
}

/// The service that a change is about.
fn service_of(change: &Change) -> &str {
    match change {
        Change::InsertService { head, .. } | Change::UpdateService(head) => &head.name,
        Change::DeleteService { name } => name,
        Change::InsertVersion { service, .. }
        | Change::DeleteVersion { service, .. }
        | Change::InsertReplica { service, .. }
        | Change::UpdateReplica { service, .. }
        | Change::DeleteReplica { service, .. } => service,
    }
}

/// What the core writes through.
#[derive(Debug)]
pub(crate) struct SimStore {
    pub(crate) database: SqliteStore,
    pub(crate) ledger: SharedLedger,
    /// The controller's that writes through it.
    pub(crate) tenure: u64,
}

impl SimStore {
    /// What the database says to a controller whose time is over.
    fn commit_overtaken(&mut self, ledger: &mut Ledger, changes: &[Change]) -> Result<(), StoreError> {
        match self.database.commit(changes) {
            Err(error) if ledger.bug != Some(Bug::StoreIgnoresEpoch) => Err(error),
            _ => {
                ledger.break_rule(I::OneWriter, format!("an overtaken controller stored {changes:?}"));
                Ok(())
            }
        }
    }

    /// An error after which the controller must end: the simulated process dies here.
    fn death() -> StoreError {
        StoreError::FailedEarlier { path: PathBuf::from("the simulated disk") }
    }
}

impl Store for SimStore {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let shared = self.ledger.clone();
        let mut ledger = shared.get();
        if self.tenure != ledger.tenure {
            return self.commit_overtaken(&mut ledger, changes);
        }
        ledger.commits += 1;
        let disk = ledger.disk;
        if disk == Disk::Full {
            return Err(StoreError::ReadOnly { path: PathBuf::from("the simulated disk") });
        }
        let crash = ledger.boundaries.cross();
        if crash == Some(Side::Before) || disk == Disk::LosesCommit {
            ledger.note(format_args!("crash before a commit"));
            return Err(Self::death());
        }
        let forgets = ledger.bug == Some(Bug::StoreForgets) && matches!(changes, [Change::UpdateReplica { .. }, ..]);
        if !forgets {
            let stored = self.database.commit(changes);
            stored.or_else(|error| if ledger.bug == Some(Bug::StoreTakesUsedIds) { Ok(()) } else { Err(error) })?;
        }
        ledger.acknowledge(changes);
        if crash == Some(Side::After) || disk == Disk::LosesAcknowledgement {
            ledger.note(format_args!("crash after a commit"));
            return Err(Self::death());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyserve_model::{Event, Service, Timestamp, step};

    #[test]
    fn an_id_that_comes_again_is_noticed() {
        let ledger = SharedLedger::new(Boundaries::default(), None);
        let listen = SocketAddr::from(([127, 0, 0, 1], 30_001));
        let mut service =
            Service::new("svc".to_owned(), 1, listen, crate::user::rules(1, crate::user::RUN), Timestamp(1));
        let insert = Change::InsertService {
            head: service.head.clone(),
            rules: Arc::clone(&service.rules),
            source: String::new(),
        };
        let (changes, _undo) = step(&mut service, &Event::Tick, Timestamp(1));
        ledger.get().acknowledge(&[insert]);
        ledger.get().acknowledge(&changes);
        assert!(ledger.get().violation.is_none());
        ledger.get().acknowledge(&changes);
        let violation = ledger.get().violation.take();
        assert_eq!(violation.map(|violation| violation.invariant), Some(I::IdsAreUsedOnce));
    }
}

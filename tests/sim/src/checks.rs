//! The invariants that compare what is stored with the rest of the world. Those about single rows are
//! checked as the rows are acknowledged, in `store`.

use crate::faults::Bug;
use crate::invariants::{Invariant as I, Violation};
use crate::provider::Instance;
use crate::row::Row;
use crate::world::World;
use skyserve_model::{
    LaunchSpec, OperationKind, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Service, VersionRules, limits,
};
use skyserve_routes::{ReplicaRouteState, RouteTable, ServiceRoutes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl World {
    /// What must hold after every step.
    pub(crate) fn check(&mut self) -> Result<(), Violation> {
        self.check_resources()?;
        self.check_acknowledged()?;
        let Some(core) = &self.core else { return Ok(()) };
        let (wake_at, now) = (core.wake_at(), self.clock.wall());
        if wake_at <= now {
            let detail = format!("at {now:?} it asks to be woken at {wake_at:?}, which is over");
            return Err(Violation::new(I::NoBusyLoop, detail));
        }
        if self.publish_again { Ok(()) } else { self.check_routes() }
    }

    fn check_resources(&self) -> Result<(), Violation> {
        let ledger = self.ledger.get();
        let mut seen = BTreeSet::new();
        for instance in self.provider.instances.values() {
            let uid = &instance.uid;
            if !seen.insert(uid) {
                return Err(Violation::new(I::OneResourceForOneReplica, format!("more than one runs for {uid}")));
            }
            if !ledger.was_to_be_launched(uid) {
                return Err(Violation::new(I::LaunchIsDecidedFirst, format!("{uid} runs, and nobody decided it")));
            }
            let of_a_service = ledger.services.values().any(|row| row_of(row, uid));
            if !of_a_service && !ledger.purged.iter().any(|prefix| uid.as_str().starts_with(prefix.as_str())) {
                return Err(Violation::new(I::GoneIsGone, format!("{uid} runs, its service is gone")));
            }
        }
        Ok(())
    }

    fn check_acknowledged(&self) -> Result<(), Violation> {
        let ledger = self.ledger.get();
        for (name, rules) in &self.wanted {
            let kept = ledger.services.get(name).is_some_and(|row| row.head.shutdown.is_none() && row.rules() == rules);
            if !kept {
                return Err(Violation::new(
                    I::AcknowledgedIsKept,
                    format!("service {name} was promised, and is not stored"),
                ));
            }
        }
        for (name, row) in &ledger.services {
            if row.head.shutdown.is_none() && !self.wanted.contains_key(name) {
                let detail = format!("a user was told that {name} is going, and it is not");
                return Err(Violation::new(I::AcknowledgedIsKept, detail));
            }
        }
        Ok(())
    }

    /// What was stored is what a new controller reads.
    pub(crate) fn check_stored(&self, services: &[Service]) -> Result<(), Violation> {
        let ledger = self.ledger.get();
        let found: BTreeSet<&str> = services.iter().map(|service| service.head.name.as_str()).collect();
        let stored: BTreeSet<&str> = ledger.services.keys().map(String::as_str).collect();
        if found != stored {
            return Err(Violation::new(I::StoredIsRead, format!("stored were {stored:?}, there are {found:?}")));
        }
        for service in services {
            let Some(row) = ledger.services.get(&service.head.name) else { continue };
            if !row.is(service) {
                let detail = format!("stored was {row:?}, there is {service:?}");
                return Err(Violation::new(I::StoredIsRead, detail));
            }
        }
        Ok(())
    }

    /// The published table names what the rows say.
    pub(crate) fn check_routes(&self) -> Result<(), Violation> {
        let Some(file) = &self.file else { return Ok(()) };
        let ledger = self.ledger.get();
        let expected: Vec<Routes> =
            ledger.services.values().filter(|row| row.head.shutdown.is_none()).map(expected_routes).collect();
        let found: Vec<Routes> = file.services.iter().map(found_routes).collect();
        if expected == found {
            return Ok(());
        }
        let detail = format!("table {}/{} has {found:?}, the rows say {expected:?}", file.epoch, file.seq);
        Err(Violation::new(I::RoutesAreTheRows, detail))
    }

    pub(crate) fn check_call(
        &self,
        service: &str,
        replica: ReplicaId,
        uid: &ReplicaUid,
        kind: OperationKind,
    ) -> Result<(), Violation> {
        let ledger = self.ledger.get();
        if !ledger.intends(service, uid, kind) {
            let invariant = match kind {
                OperationKind::Launch => I::LaunchIsDecidedFirst,
                OperationKind::Terminate => I::TerminationIsDecidedFirst,
            };
            return Err(Violation::new(invariant, format!("{uid} is called for, no row says so")));
        }
        let under_way =
            self.calls.values().any(|call| call.tenure == self.tenure && call.uid == *uid && call.kind == kind);
        if under_way {
            return Err(Violation::new(I::OneCallAtATime, format!("{} of {uid}", kind.name())));
        }
        let row = ledger.replica(service, replica);
        let requests = self.balancer.requests_of(uid.as_str());
        let now = self.clock.wall();
        let shutdown = ledger.services.get(service).and_then(|row| row.head.shutdown);
        let hurried = shutdown.is_some_and(|shutdown| now.since_ms(shutdown.since) >= limits::SHUTDOWN_DRAIN_MS_MAX);
        let drains = row.is_some_and(|row| {
            let waited_ms = now.since_ms(row.status_since);
            row.status == ReplicaStatus::ShuttingDown && requests > 0 && waited_ms < limits::DRAIN_MS_MAX && !hurried
        });
        if drains && kind == OperationKind::Terminate && !self.clock_was_set {
            return Err(Violation::new(I::DrainsFirst, format!("{uid} is ended with {requests} requests in flight")));
        }
        Ok(())
    }

    /// A launch says what the replica's row and its version say, and what the launch before said.
    pub(crate) fn check_launch(&mut self, service: &str, spec: &LaunchSpec) -> Result<(), Violation> {
        let launched = self.launched.entry(spec.uid.clone()).or_insert_with(|| spec.clone());
        let is_the_same = launched == spec;
        let ledger = self.ledger.get();
        let decided = ledger.services.get(service).and_then(|row| {
            let replica = row.replicas.get(&spec.replica_id)?;
            let rules = row.versions.get(&replica.version)?;
            Some(rules.launch.for_replica(service, replica.uid.clone(), replica.id, replica.version))
        });
        if is_the_same && decided.as_ref() == Some(spec) {
            return Ok(());
        }
        let (run, version) = (&spec.run, spec.version);
        let detail = format!("{} is launched as version {version} with {run:?}, decided was {decided:?}", spec.uid);
        Err(Violation::new(I::LaunchedAsItsVersion, detail))
    }

    /// Resources of replicas that are READY.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &Instance> {
        let ready: BTreeSet<ReplicaUid> = {
            let ledger = self.ledger.get();
            let replicas = ledger.services.values().flat_map(|row| row.replicas.values());
            replicas
                .filter(|replica| replica.status == ReplicaStatus::Ready)
                .map(|replica| replica.uid.clone())
                .collect()
        };
        self.provider.instances.values().filter(move |instance| ready.contains(&instance.uid))
    }

    /// Whether the world is what users asked for; `Err` says what is missing.
    pub(crate) fn is_settled(&self) -> Result<(), String> {
        let ledger = self.ledger.get();
        if self.core.is_none() {
            return Err("no controller runs".to_owned());
        }
        let mut expected: BTreeSet<&str> = BTreeSet::new();
        for (name, row) in &ledger.services {
            if row.head.shutdown.is_some() {
                return Err(format!("service {name} is not gone yet"));
            }
            if !row.head.endpoint_confirmed {
                return Err(format!("the endpoint of {name} does not listen"));
            }
            for replica in row.replicas.values() {
                if replica.status == ReplicaStatus::Ready && replica.operation.is_none() {
                    expected.insert(replica.uid.as_str());
                } else if !is_record(replica) {
                    return Err(format!("replica {} is {}: {:?}", replica.uid, replica.status, replica.operation));
                }
            }
            let Some((wanted, newest)) = row.settles_with() else { return Err(format!("{name} was given up")) };
            let ready = row.ready().count();
            if ready != wanted {
                return Err(format!("{name} has {ready} READY replicas, it should have {wanted}"));
            }
            if let Some(other) = row.ready().find(|replica| newest && !row.is_newest(replica)) {
                return Err(format!("{} is of version {}", other.uid, other.version));
            }
        }
        let purged = |uid: &str| ledger.purged.iter().any(|prefix| uid.starts_with(prefix.as_str()));
        let running: BTreeSet<&str> = self
            .provider
            .instances
            .values()
            .map(|instance| instance.uid.as_str())
            .filter(|uid| expected.contains(uid) || !purged(uid))
            .collect();
        if running != expected {
            return Err(format!("{running:?} run, {expected:?} should"));
        }
        let routed: BTreeSet<&str> = self.balancer.table.iter().flat_map(ready_routes).collect();
        if routed != expected {
            return Err(format!("requests go to {routed:?}, they should go to {expected:?}"));
        }
        Ok(())
    }

    /// Changes what a recovering controller finds, as the bug has it.
    pub(crate) fn plant_recovery_bug(&self, services: &mut [Service]) {
        for service in services {
            match self.bug {
                Some(Bug::RecoveryRaisesTarget) => {
                    let mut rules = VersionRules::clone(&service.rules);
                    rules.replicas += 1;
                    service.rules = Arc::new(rules);
                }
                Some(Bug::RecoveryForgetsIds | Bug::StoreTakesUsedIds) => {
                    service.head.next_replica_id = ReplicaId(1);
                }
                Some(Bug::RecoveryTakesStartingForReady) => {
                    let newest = service.head.version;
                    let starting = service.replicas.values_mut().filter(|replica| replica.version == newest);
                    for replica in starting.filter(|replica| replica.status == ReplicaStatus::Starting) {
                        replica.status = ReplicaStatus::Ready;
                    }
                }
                _ => {}
            }
        }
    }
}

fn row_of(row: &Row, uid: &ReplicaUid) -> bool {
    uid.as_str().starts_with(&format!("{}-{}-", row.head.name, row.head.incarnation))
}

fn is_record(replica: &Replica) -> bool {
    replica.status.is_kept_as_record() && replica.operation.is_none()
}

fn ready_routes(table: &RouteTable) -> impl Iterator<Item = &str> {
    table
        .services
        .iter()
        .flat_map(|service| &service.replicas)
        .filter(|replica| replica.state == ReplicaRouteState::Ready)
        .map(|replica| replica.uid.as_str())
}

/// A service, where it listens, and its replicas with their states.
type Routes = (String, String, BTreeMap<String, bool>);

fn expected_routes(row: &Row) -> Routes {
    let drains = |replica: &Replica| {
        replica.status == ReplicaStatus::ShuttingDown
            && replica.first_ready_at.is_some()
            && replica.operation.is_some_and(|operation| operation.attempt == 0)
    };
    let replicas = row
        .replicas
        .values()
        .filter(|replica| replica.address.is_some())
        .filter(|replica| replica.status == ReplicaStatus::Ready || drains(replica))
        .map(|replica| (replica.uid.to_string(), replica.status == ReplicaStatus::Ready))
        .collect();
    (row.head.name.clone(), row.head.listen.to_string(), replicas)
}

fn found_routes(service: &ServiceRoutes) -> Routes {
    let replicas = service
        .replicas
        .iter()
        .map(|replica| (replica.uid.clone(), replica.state == ReplicaRouteState::Ready))
        .collect();
    (service.name.clone(), service.listen.to_string(), replicas)
}

//! One service as the core manages it, and the work that follows from its state.

use super::messages::{CoreOptions, Output, Outside};
use crate::{routes, view};
use skyserve_api::ServiceView;
use skyserve_model::{
    Change, Event, OperationKind, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Service, ServiceStatus, Timestamp,
    VersionRules, limits,
};
use skyserve_routes::TableVersion;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// A probe that runs.
#[derive(Debug, Clone)]
pub(super) struct Probing {
    pub(super) address: SocketAddr,
    rules: Arc<VersionRules>,
}

impl Probing {
    fn is_as(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|other| self.address == other.address && self.rules.probe == other.rules.probe)
    }
}

#[derive(Debug)]
pub(super) struct Managed {
    pub(super) service: Service,
    pub(super) probes: BTreeMap<ReplicaId, Probing>,
    /// As of the last flush.
    pub(super) view: Arc<ServiceView>,
    pub(super) view_stale: bool,
    pub(super) wake_at: Option<Timestamp>,
    /// What has happened to it and is still to be applied.
    pub(super) noted: Vec<Event>,
    /// Whether outputs may have to follow from its state.
    pub(super) dirty: bool,
    /// The first table in which each draining replica gets no new requests.
    pub(super) draining: BTreeMap<ReplicaId, TableVersion>,
    /// The first table that has the endpoint where it is now: what the load balancer says of an earlier
    /// one is about another address.
    pub(super) offered: Option<TableVersion>,
    /// Why the endpoint does not listen, as the load balancer says.
    pub(super) listen_problem: Option<String>,
    /// Where it is reached from outside, where that is another address.
    pub(super) outside: Option<Outside>,
}

impl Managed {
    pub(super) fn new(service: Service, options: &CoreOptions) -> Self {
        let outside = options.exposed.then(Outside::default);
        let view = Arc::new(view::service(&service, None, outside.as_ref(), &options.infra));
        Self {
            service,
            probes: BTreeMap::new(),
            view,
            view_stale: false,
            wake_at: None,
            noted: Vec::new(),
            dirty: true,
            draining: BTreeMap::new(),
            offered: None,
            listen_problem: None,
            outside,
        }
    }

    pub(super) fn refresh_view(&mut self, infra: &str) {
        let (problem, outside) = (self.listen_problem.as_deref(), self.outside.as_ref());
        self.view = Arc::new(view::service(&self.service, problem, outside, infra));
        self.view_stale = false;
    }

    /// Whether the load balancer is still to say that it listens.
    pub(super) fn awaits_endpoint(&self) -> bool {
        !self.service.head.endpoint_confirmed && self.service.head.shutdown.is_none()
    }

    pub(super) fn note_table(&mut self, table: TableVersion) {
        self.offered.get_or_insert(table);
        for replica in self.service.replicas.values().filter(|replica| routes::is_draining(replica)) {
            self.draining.entry(replica.id).or_insert(table);
        }
    }

    /// Calls that are due and probes that should run.
    pub(super) fn outputs(
        &mut self,
        calls: &mut BTreeSet<(ReplicaUid, OperationKind)>,
        now: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        let service = &self.service;
        let name = || service.head.name.clone();
        for kind in [OperationKind::Terminate, OperationKind::Launch] {
            for replica in service.due(kind, now).filter(|replica| replica.status != ReplicaStatus::Pending) {
                let (id, uid) = (replica.id, replica.uid.clone());
                if !calls.insert((uid.clone(), kind)) {
                    continue;
                }
                outputs.push(match kind {
                    OperationKind::Launch => {
                        let spec = service.rules_of_launch(replica).launch.for_replica(
                            &service.head.name,
                            uid,
                            id,
                            replica.version,
                        );
                        Output::Launch { service: name(), replica: id, spec: Box::new(spec) }
                    }
                    OperationKind::Terminate => {
                        Output::Terminate { service: name(), replica: id, uid, grace_ms: limits::TERMINATE_GRACE_MS }
                    }
                });
            }
        }
        let probing = |replica: &Replica| {
            let (address, rules) = (replica.address?, Arc::clone(service.rules_for(replica)));
            Some((replica.id, Probing { address, rules }))
        };
        let probed = service.replicas.values().filter(|replica| replica.status.is_probed());
        let wanted: BTreeMap<ReplicaId, Probing> = probed.filter_map(probing).collect();
        for (id, _) in self.probes.iter().filter(|(id, probing)| !probing.is_as(wanted.get(id))) {
            outputs.push(Output::StopProbe { uid: service.uid(*id) });
        }
        for (id, probing) in wanted.iter().filter(|(id, probing)| !probing.is_as(self.probes.get(id))) {
            let (uid, Probing { address, rules }) = (service.uid(*id), probing.clone());
            outputs.push(Output::StartProbe { service: name(), replica: *id, uid, address, rules });
        }
        self.probes = wanted;
    }
}

pub(super) fn turned_not_ready(change: &Change) -> bool {
    matches!(change, Change::UpdateReplica { replica, .. } if replica.status == ReplicaStatus::NotReady)
}

pub(super) fn log_changes(service: &str, changes: &[Change], before: ServiceStatus, after: ServiceStatus) {
    for change in changes {
        if let Change::InsertReplica { replica, .. } | Change::UpdateReplica { replica, .. } = change {
            let (id, status) = (replica.id.0, replica.status.name());
            let reason = replica.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
            tracing::info!(service, replica = id, status, "replica {id} is {status}{reason}");
        }
    }
    if before != after {
        tracing::info!(service, "service {service} was {before}, is {after}");
    }
}

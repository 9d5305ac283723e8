//! The route table that follows from the services' states.

use skyserve_model::{OperationKind, Replica, ReplicaStatus, Service};
use skyserve_routes::{FORMAT, Policy, ReplicaRoute, ReplicaRouteState, RouteTable, ServiceRoutes, TableVersion};

/// The table with these services, as publication `version`.
pub(crate) fn table(version: TableVersion, services: Vec<ServiceRoutes>) -> RouteTable {
    RouteTable { format: FORMAT, epoch: version.epoch, seq: version.seq, services }
}

/// The routes of all services that are not being taken down.
pub(crate) fn services<'a>(services: impl Iterator<Item = &'a Service>) -> Vec<ServiceRoutes> {
    services.filter(|service| service.head.shutdown.is_none()).map(service_routes).collect()
}

/// Whether a replica is to be ended as soon as its requests are answered.
pub(crate) fn is_draining(replica: &Replica) -> bool {
    replica.status == ReplicaStatus::ShuttingDown
        && replica.first_ready_at.is_some()
        && replica
            .operation
            .is_some_and(|operation| operation.kind == OperationKind::Terminate && operation.attempt == 0)
}

fn service_routes(service: &Service) -> ServiceRoutes {
    ServiceRoutes {
        name: service.head.name.clone(),
        listen: service.head.listen,
        policy: policy(&service.rules.load_balancing_policy),
        stream_timeout_ms: service.rules.stream_timeout_ms,
        tls: None,
        replicas: service.replicas.values().filter_map(replica_route).collect(),
        expects_replicas: service.target() > 0 && !service.is_given_up(),
    }
}

fn replica_route(replica: &Replica) -> Option<ReplicaRoute> {
    let state = match replica.status {
        ReplicaStatus::Ready => ReplicaRouteState::Ready,
        _ if is_draining(replica) => ReplicaRouteState::Draining,
        _ => return None,
    };
    Some(ReplicaRoute { uid: replica.uid.to_string(), id: replica.id.0, address: replica.address?, weight: 1, state })
}

/// SkyServe's policy names; its default for any that this build does not route by.
fn policy(name: &str) -> Policy {
    match name {
        "round_robin" => Policy::RoundRobin,
        "instance_aware_least_load" => Policy::InstanceAwareLeastLoad,
        _ => Policy::LeastLoad,
    }
}

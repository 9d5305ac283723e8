//! Services as the control API shows them.

use skyserve_api::{ReplicaView, ServiceView};
use skyserve_model::{Replica, Service};

/// One service with its replicas.
pub(crate) fn service(service: &Service, infra: &str) -> ServiceView {
    let head = &service.head;
    ServiceView {
        name: head.name.clone(),
        version: head.version.0,
        status: service.status().name().to_owned(),
        status_reason: service.status_reason(),
        ready_since_ms: head.ready_since.map(|moment| moment.0),
        created_at_ms: head.created_at.0,
        endpoint: format!("http://{}", head.listen),
        endpoint_listens: head.endpoint_confirmed,
        replicas_ready: service.ready().count(),
        replicas_wanted: service.target(),
        load_balancing_policy: service.rules.load_balancing_policy.clone(),
        requested_resources: service.rules.resources.clone(),
        replicas: service.replicas.values().map(|one| replica(one, service, infra)).collect(),
    }
}

fn replica(replica: &Replica, service: &Service, infra: &str) -> ReplicaView {
    ReplicaView {
        id: replica.id.0,
        uid: replica.uid.to_string(),
        version: replica.version.0,
        endpoint: replica.address.map(|address| format!("http://{address}")),
        launched_at_ms: replica.launched_at.0,
        first_ready_at_ms: replica.first_ready_at.map(|moment| moment.0),
        infra: infra.to_owned(),
        resources: service.rules.resources.clone(),
        status: replica.status.name().to_owned(),
        status_reason: replica.reason.clone(),
    }
}

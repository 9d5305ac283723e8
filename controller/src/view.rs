//! Services as the control API shows them.

use skyserve_api::{ReplicaView, ServiceView};
use skyserve_model::{Replica, Service};

/// One service with its replicas. `listen_problem` is why its endpoint does not listen, if it does not.
pub(crate) fn service(service: &Service, listen_problem: Option<&str>, infra: &str) -> ServiceView {
    let head = &service.head;
    let unreachable = |problem: &str| format!("its endpoint does not listen on {}: {problem}", head.listen);
    ServiceView {
        name: head.name.clone(),
        version: head.version.0,
        status: service.status().name().to_owned(),
        status_reason: listen_problem.map(unreachable).or_else(|| service.status_reason()),
        ready_since_ms: head.ready_since.map(|moment| moment.0),
        created_at_ms: head.created_at.0,
        endpoint: format!("http://{}", head.listen),
        endpoint_listens: head.endpoint_confirmed && listen_problem.is_none(),
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
        version: service.version_of(replica).0,
        endpoint: replica.address.map(|address| format!("http://{address}")),
        launched_at_ms: replica.launched_at.0,
        first_ready_at_ms: replica.first_ready_at.map(|moment| moment.0),
        infra: infra.to_owned(),
        resources: service.rules_for(replica).resources.clone(),
        status: replica.status.name().to_owned(),
        status_reason: replica.reason.clone(),
    }
}

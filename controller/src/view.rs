//! Services as the control API shows them.

use crate::core::Outside;
use skyserve_api::{ReplicaView, ServiceView};
use skyserve_model::{Replica, Service};

/// One service with its replicas. `listen_problem` is why its endpoint does not listen, if it does not; `outside` is
/// where it is reached, if that is not where it listens.
pub(crate) fn service(
    service: &Service,
    listen_problem: Option<&str>,
    outside: Option<&Outside>,
    infra: &str,
) -> ServiceView {
    let head = &service.head;
    let does_not_listen = |problem: &str| format!("its endpoint does not listen on {}: {problem}", head.listen);
    let note = || outside.and_then(|outside| outside.note.clone());
    let is_unreachable = outside.is_some_and(|outside| outside.endpoint.is_none());
    let endpoint = match outside {
        Some(outside) => outside.endpoint.clone().unwrap_or_default(),
        None => format!("http://{}", head.listen),
    };
    // What keeps requests away comes first, what is only worth knowing last.
    let problem = listen_problem.map(does_not_listen).or_else(|| is_unreachable.then(note).flatten());
    ServiceView {
        name: head.name.clone(),
        version: head.version.0,
        status: service.status().name().to_owned(),
        status_reason: problem.or_else(|| service.status_reason()).or_else(note),
        rollout: rollout(service).to_owned(),
        ready_since_ms: head.ready_since.map(|moment| moment.0),
        created_at_ms: head.created_at.0,
        endpoint,
        endpoint_listens: head.endpoint_confirmed && listen_problem.is_none() && !is_unreachable,
        replicas_ready: service.ready().count(),
        replicas_wanted: service.target(),
        load_balancing_policy: service.rules.load_balancing_policy.clone(),
        requested_resources: service.rules.resources.clone(),
        replicas: service.replicas.values().map(|one| replica(one, service, infra)).collect(),
    }
}

fn rollout(service: &Service) -> &'static str {
    match (&service.head.given_up, service.is_updating()) {
        (Some(_), _) => "failed",
        (None, true) => "under_way",
        (None, false) => "done",
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

//! What follows from the state alone, after every event.

use super::decisions::{Decision, terminate_by_decision};
use super::failures::fail;
use super::update;
use crate::edit::Edit;
use crate::ids::{ReplicaId, Timestamp, Version};
use crate::limits;
use crate::replica::{Operation, OperationKind, Replica, ReplicaStatus};
use crate::service::Service;

/// Brings the number of replicas to the target, and keeps what follows from the replicas in the head.
pub(super) fn reconcile(edit: &mut Edit<'_>, now: Timestamp) {
    fail_slow_setups(edit, now);
    scale(edit, now);
    admit_pending(edit, now);
    forget_old_records(edit);
    edit.forget_versions();
    let ready = edit.service().ready().next().is_some();
    if ready != edit.service().head.ready_since.is_some() {
        edit.head_mut().ready_since = ready.then_some(now);
    }
}

/// As in SkyServe, `setup` is part of the initial delay; while it runs no probe can say that it is over.
fn fail_slow_setups(edit: &mut Edit<'_>, now: Timestamp) {
    let late = |replica: &&Replica| edit.service().setup_deadline(replica).is_some_and(|deadline| deadline <= now);
    let delay = |replica: &Replica| (replica.id, edit.service().rules_for(replica).probe.initial_delay_ms / 1000);
    let late: Vec<(ReplicaId, u64)> = edit.service().replicas.values().filter(late).map(delay).collect();
    for (id, seconds) in late {
        let reason = format!("its setup commands did not end within initial_delay_seconds ({seconds} s)");
        fail(edit, id, ReplicaStatus::FailedInitialDelay, &reason, now);
    }
}

pub(super) fn scale(edit: &mut Edit<'_>, now: Timestamp) {
    for id in edit.service().superfluous() {
        let service = edit.service();
        let Some(replica) = service.replicas.get(&id) else { continue };
        let reason = if service.is_newest(replica) {
            "the service has more replicas than it needs".to_owned()
        } else {
            format!("version {} takes the place of version {}", service.head.version, service.version_of(replica))
        };
        let decision = Decision { reason: &reason, drain_ms: limits::DRAIN_MS_MAX, purge: false };
        terminate_by_decision(edit, id, decision, now);
    }
    for missing in edit.service().missing().into_iter().filter(|missing| missing.not_before <= now) {
        for _ in 0..missing.count {
            launch(edit, missing.version, now);
        }
    }
}

fn launch(edit: &mut Edit<'_>, version: Version, now: Timestamp) {
    let head = edit.head_mut();
    let id = head.next_replica_id;
    head.next_replica_id = ReplicaId(id.0 + 1);
    let uid = edit.service().uid(id);
    edit.insert(Replica {
        id,
        uid,
        version,
        status: ReplicaStatus::Pending,
        status_since: now,
        reason: Some("waiting for its turn to be launched".to_owned()),
        address: None,
        launched_at: now,
        first_ready_at: None,
        operation: Some(Operation { kind: OperationKind::Launch, attempt: 0, not_before: now, purge: false }),
    });
}

/// Lets as many replicas be made at once as a provider should be asked for.
fn admit_pending(edit: &mut Edit<'_>, now: Timestamp) {
    let of = |service: &Service, status| -> Vec<ReplicaId> {
        service.replicas.values().filter(|replica| replica.status == status).map(|replica| replica.id).collect()
    };
    let room = limits::LAUNCHES_AT_ONCE_MAX.saturating_sub(of(edit.service(), ReplicaStatus::Provisioning).len());
    for id in of(edit.service(), ReplicaStatus::Pending).into_iter().take(room) {
        update(edit, id, ReplicaStatus::Provisioning, None, now);
    }
}

/// Keeps the newest records of failed replicas, and none of a service that is going or of a version that has been
/// replaced: what a version was launched with (secrets too) goes with the last row that needs it.
fn forget_old_records(edit: &mut Edit<'_>) {
    let service = edit.service();
    let keep = if service.head.shutdown.is_some() { 0 } else { limits::FAILED_RECORDS_MAX };
    let replaced = service.head.ever_ready && !service.is_updating();
    let (kept, outdated): (Vec<&Replica>, Vec<&Replica>) = service
        .replicas
        .values()
        .filter(|replica| replica.status.is_kept_as_record() && replica.operation.is_none())
        .partition(|replica| !replaced || service.is_newest(replica));
    let too_many = kept.iter().take(kept.len().saturating_sub(keep));
    let ids: Vec<ReplicaId> = too_many.chain(&outdated).map(|replica| replica.id).collect();
    for id in ids {
        edit.remove(id);
    }
}

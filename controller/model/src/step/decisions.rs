//! Decisions to end replicas that could have gone on, and to serve another version.

use super::set_status;
use crate::edit::Edit;
use crate::ids::{ReplicaId, Timestamp};
use crate::limits;
use crate::replica::{Operation, OperationKind, ReplicaStatus};
use crate::rules::VersionRules;
use crate::service::{Proven, Shutdown};
use std::sync::Arc;

pub(super) fn drained(edit: &mut Edit<'_>, id: ReplicaId, now: Timestamp) {
    if let Some(operation) = edit.replica_mut(id).and_then(|replica| replica.operation.as_mut())
        && operation.kind == OperationKind::Terminate
        && operation.attempt == 0
    {
        operation.not_before = operation.not_before.min(now);
    }
}

pub(super) fn terminate_at(not_before: Timestamp, purge: bool) -> Operation {
    Operation { kind: OperationKind::Terminate, attempt: 0, not_before, purge }
}

/// Why and how a replica is ended that could have gone on.
pub(super) struct Decision<'a> {
    pub(super) reason: &'a str,
    /// How long it may finish its requests.
    pub(super) drain_ms: u64,
    pub(super) purge: bool,
}

/// Ends a replica because somebody decided so: it may finish its requests first.
pub(super) fn terminate_by_decision(edit: &mut Edit<'_>, id: ReplicaId, decision: Decision<'_>, now: Timestamp) {
    let Decision { reason, drain_ms, purge } = decision;
    let Some(replica) = edit.replica_mut(id) else { return };
    if replica.status.is_alive() {
        let serves = matches!(replica.status, ReplicaStatus::Ready | ReplicaStatus::NotReady);
        let drain_ms = if serves { drain_ms } else { 0 };
        set_status(replica, ReplicaStatus::ShuttingDown, Some(reason.to_owned()), now);
        replica.operation = Some(terminate_at(now.plus_ms(drain_ms), purge));
        return;
    }
    match &mut replica.operation {
        // Already going: the wish to forget it if it cannot be removed is new, and perhaps the hurry.
        Some(operation) => {
            operation.purge |= purge;
            if operation.attempt == 0 {
                operation.not_before = operation.not_before.min(now.plus_ms(drain_ms));
            }
            if purge && operation.attempt > 0 {
                edit.remove(id);
            }
        }
        // A record of an earlier failure.
        None => edit.remove(id),
    }
}

pub(super) fn shut_down(edit: &mut Edit<'_>, purge: bool, now: Timestamp) {
    let earlier = edit.service().head.shutdown;
    let since = earlier.map_or(now, |shutdown| shutdown.since);
    let purge = purge || earlier.is_some_and(|shutdown| shutdown.purge);
    edit.head_mut().shutdown = Some(Shutdown { since, purge });
    let ids: Vec<ReplicaId> = edit.service().replicas.keys().copied().collect();
    for id in ids {
        let reason = "the service is being taken down";
        let decision = Decision { reason, drain_ms: limits::SHUTDOWN_DRAIN_MS_MAX, purge };
        terminate_by_decision(edit, id, decision, now);
    }
}

/// The user wants another version. What it changes about replicas, and which of them are replaced, follows from the
/// rows; what was said about an earlier version's failures does not hold for it.
pub(super) fn update_version(edit: &mut Edit<'_>, rules: &Arc<VersionRules>, source: &str, now: Timestamp) {
    let service = edit.service();
    if service.head.shutdown.is_some() {
        return;
    }
    let ever_ready = service.was_ever_ready(rules);
    let serving = Proven { version: service.head.version, failures_in_a_row: 0, launch_not_before: now };
    let proven = if service.head.ever_ready { Some(serving) } else { service.head.proven };
    edit.begin_version(Arc::clone(rules), source);
    let head = edit.head_mut();
    head.ever_ready = ever_ready;
    head.failures_in_a_row = 0;
    head.launch_not_before = now;
    head.given_up = None;
    head.proven = proven.filter(|_| !ever_ready);
}

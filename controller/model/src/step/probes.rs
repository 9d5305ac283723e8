//! What readiness probes came to.

use super::failures::fail;
use super::set_status;
use crate::edit::Edit;
use crate::ids::{ReplicaId, Timestamp};
use crate::replica::ReplicaStatus;
use std::sync::Arc;

pub(super) fn probed(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), String>, now: Timestamp) {
    let service = edit.service();
    // Without an address nobody can have asked it.
    let Some(replica) = service.replicas.get(&id).filter(|replica| replica.address.is_some()) else { return };
    if (replica.status, result) == (ReplicaStatus::Ready, &Ok(())) {
        // Of all that ever happens, what happens most: no news.
        return;
    }
    let (rules, is_newest) = (Arc::clone(service.rules_for(replica)), service.is_newest(replica));
    let probe = &rules.probe;
    let Some(replica) = edit.replica_mut(id) else { return };
    let lasting_ms = now.since_ms(replica.status_since);
    match (replica.status, result) {
        (ReplicaStatus::Starting | ReplicaStatus::NotReady, Ok(())) => {
            set_status(replica, ReplicaStatus::Ready, None, now);
            replica.first_ready_at.get_or_insert(now);
            if is_newest {
                let head = edit.head_mut();
                head.ever_ready = true;
                // The commands can work after all.
                head.given_up = None;
                // From here on the newest version is launched alone.
                head.proven = None;
            }
        }
        (ReplicaStatus::Ready, Ok(())) => {}
        (ReplicaStatus::Starting, Err(why)) if lasting_ms > probe.initial_delay_ms => {
            let seconds = probe.initial_delay_ms / 1000;
            let reason = format!("it was not ready within initial_delay_seconds ({seconds} s); its last probe: {why}");
            fail(edit, id, ReplicaStatus::FailedInitialDelay, &reason, now);
        }
        (ReplicaStatus::Starting, Err(why)) => {
            replica.reason = Some(format!("waiting for its first readiness probe to pass: {why}"))
        }
        (ReplicaStatus::Ready, Err(why)) => {
            set_status(replica, ReplicaStatus::NotReady, Some(format!("its readiness probe fails: {why}")), now);
        }
        (ReplicaStatus::NotReady, Err(why)) if lasting_ms >= probe.failure_threshold_ms => {
            let seconds = probe.failure_threshold_ms / 1000;
            let reason = format!("its readiness probe failed for {seconds} s; the last one: {why}");
            fail(edit, id, ReplicaStatus::FailedProbing, &reason, now);
        }
        (ReplicaStatus::NotReady, Err(why)) => replica.reason = Some(format!("its readiness probe fails: {why}")),
        // The answer came after the replica's fate was decided, or before it was asked to serve.
        (
            ReplicaStatus::Pending
            | ReplicaStatus::Provisioning
            | ReplicaStatus::ShuttingDown
            | ReplicaStatus::Failed
            | ReplicaStatus::FailedInitialDelay
            | ReplicaStatus::FailedProbing
            | ReplicaStatus::FailedProvision
            | ReplicaStatus::FailedCleanup
            | ReplicaStatus::Preempted
            | ReplicaStatus::Unknown,
            _,
        ) => {}
    }
}

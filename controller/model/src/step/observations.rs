//! What the provider shows of replicas.

use super::decisions::terminate_at;
use super::failures::{end, preempt};
use super::{set_status, update};
use crate::edit::Edit;
use crate::ids::{ReplicaId, ReplicaUid, Timestamp};
use crate::launch::Phase;
use crate::replica::{Replica, ReplicaStatus};

pub(super) fn observed(edit: &mut Edit<'_>, id: ReplicaId, phase: &Phase, seen_at: Timestamp, now: Timestamp) {
    use ReplicaStatus as S;
    let Some(replica) = edit.service().replicas.get(&id) else { return };
    let (status, launching) = (replica.status, replica.operation.is_some());
    match (status, phase) {
        // What has been decided to go is not brought back by what it shows.
        (
            S::ShuttingDown
            | S::Failed
            | S::FailedInitialDelay
            | S::FailedProbing
            | S::FailedProvision
            | S::FailedCleanup
            | S::Preempted
            | S::Unknown,
            _,
        ) => {}
        // Nothing has been asked of the provider yet: what it shows is not about this row.
        (S::Pending, _) => {}
        // What is known already: most of what a list says.
        (_, Phase::Running { address }) if status.is_probed() && replica.address == Some(*address) => {}
        (S::Provisioning, Phase::Provisioning { reason }) => update(edit, id, status, reason.clone(), now),
        (S::Provisioning | S::Starting, Phase::SettingUp) if replica.address.is_none() => {
            update(edit, id, S::Starting, Some("its setup commands are running".to_owned()), now);
        }
        (S::Provisioning | S::Starting, Phase::Running { address }) => {
            if let Some(replica) = edit.replica_mut(id) {
                replica.address = Some(*address);
                let reason = "waiting for its first readiness probe to pass".to_owned();
                set_status(replica, S::Starting, Some(reason), now);
            }
        }
        (S::Ready | S::NotReady, Phase::Running { address }) => {
            if let Some(replica) = edit.replica_mut(id) {
                replica.address = Some(*address);
                set_status(replica, S::NotReady, Some(format!("it moved to {address}")), now);
            }
        }
        // Late news of an earlier phase.
        (S::Starting | S::Ready | S::NotReady, Phase::Provisioning { .. })
        | (S::Provisioning | S::Starting | S::Ready | S::NotReady, Phase::SettingUp) => {}
        (S::Provisioning | S::Starting | S::Ready | S::NotReady, Phase::Ended(ended)) => end(edit, id, ended, now),
        (S::Provisioning | S::Starting | S::Ready | S::NotReady, Phase::Preempted { reason }) => {
            preempt(edit, id, reason, now);
        }
        (S::Provisioning | S::Starting | S::NotReady, Phase::Absent) => {
            // While it is being launched, and in news older than its launch, absence means nothing.
            if !launching && seen_at > replica.status_since {
                preempt(edit, id, "its resource is gone, and nothing of ours removed it", now);
            }
        }
        // Its probes pass: believe them. A list may be wrong, and would take every replica off the routes
        // at once. If it is gone the next probe fails, and from then on its absence counts.
        (S::Ready, Phase::Absent) => {}
    }
}

pub(super) fn orphaned(edit: &mut Edit<'_>, uid: &ReplicaUid, now: Timestamp) {
    let service = edit.service();
    let Some(id) = service.replica_id(uid) else { return };
    if service.replicas.contains_key(&id) {
        return;
    }
    let (version, next) = (service.head.version, ReplicaId(id.0.saturating_add(1)));
    edit.insert(Replica {
        id,
        uid: uid.clone(),
        version,
        status: ReplicaStatus::Unknown,
        status_since: now,
        reason: Some("it was found at the provider without a record here; it is being removed".to_owned()),
        address: None,
        launched_at: now,
        first_ready_at: None,
        operation: Some(terminate_at(now, false)),
    });
    let head = edit.head_mut();
    head.next_replica_id = head.next_replica_id.max(next);
}

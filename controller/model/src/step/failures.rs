//! Replicas that fail: what becomes of each, the pause before the next launch, and giving up.

use super::decisions::terminate_at;
use super::set_status;
use crate::edit::Edit;
use crate::ids::{ReplicaId, Timestamp};
use crate::launch::{Ended, Stage};
use crate::limits;
use crate::replica::ReplicaStatus;
use crate::service::Head;

/// The replica's commands ended by themselves.
pub(super) fn end(edit: &mut Edit<'_>, id: ReplicaId, ended: &Ended, now: Timestamp) {
    let status = match ended.stage {
        Stage::Provision => ReplicaStatus::FailedProvision,
        Stage::Setup | Stage::Run => ReplicaStatus::Failed,
    };
    fail(edit, id, status, &ended.reason, now);
}

/// The replica has failed: what is left of it is removed, and the next launch waits its turn.
pub(super) fn fail(edit: &mut Edit<'_>, id: ReplicaId, status: ReplicaStatus, reason: &str, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    let healthy = matches!(replica.status, ReplicaStatus::Ready | ReplicaStatus::NotReady)
        && replica.first_ready_at.is_some_and(|ready| now.since_ms(ready) >= limits::HEALTHY_AFTER_MS);
    set_status(replica, status, Some(reason.to_owned()), now);
    replica.operation = Some(terminate_at(now, false));
    count_failure(edit, id, healthy, now);
    let failures_max = match status {
        ReplicaStatus::FailedProvision => limits::PROVISION_FAILURES_BEFORE_READY_MAX,
        _ => limits::FAILURES_BEFORE_READY_MAX,
    };
    let service = edit.service();
    let head = &service.head;
    let is_newest = service.replicas.get(&id).is_some_and(|replica| service.is_newest(replica));
    if is_newest && !head.ever_ready && head.failures_in_a_row >= failures_max {
        let reason = give_up_reason(head, id, reason);
        edit.head_mut().given_up = Some(reason);
    }
}

fn give_up_reason(head: &Head, last: ReplicaId, reason: &str) -> String {
    let (version, failures) = (head.version, head.failures_in_a_row);
    let failed = format!("{failures} replicas in a row failed before any was ready, so no more are launched");
    let mend = "Read its log, mend what is wrong, then `update` the service";
    match head.proven {
        None => format!("{failed}; the last, replica {last}: {reason}. {mend}"),
        Some(proven) => format!(
            "the update to version {version} failed, and version {} goes on serving: {failed} of version {version}; the \
             last, replica {last}: {reason}. {mend} again",
            proven.version
        ),
    }
}

/// The replica was taken away from outside: not its fault, so it is replaced at once; but one that never
/// came so far as to be ready counts for the pause, or launching would go round without end.
pub(super) fn preempt(edit: &mut Edit<'_>, id: ReplicaId, reason: &str, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    set_status(replica, ReplicaStatus::Preempted, Some(reason.to_owned()), now);
    replica.operation = Some(terminate_at(now, false));
    if replica.first_ready_at.is_none() {
        count_failure(edit, id, false, now);
    }
}

/// Counts a failure in a row, or the first of a new row, of the version that the replica counts as, and sets the pause
/// before its next launch. A version that is not launched any more has nothing to count.
fn count_failure(edit: &mut Edit<'_>, id: ReplicaId, was_healthy: bool, now: Timestamp) {
    let service = edit.service();
    let Some(replica) = service.replicas.get(&id) else { return };
    let (is_newest, is_proven) = (service.is_newest(replica), service.is_proven(replica));
    if !is_newest && !is_proven {
        return;
    }
    let head = edit.head_mut();
    let (failures_in_a_row, launch_not_before) = match &mut head.proven {
        Some(proven) if is_proven => (&mut proven.failures_in_a_row, &mut proven.launch_not_before),
        _ => (&mut head.failures_in_a_row, &mut head.launch_not_before),
    };
    *failures_in_a_row = if was_healthy { 0 } else { failures_in_a_row.saturating_add(1) };
    let pause_ms = match *failures_in_a_row {
        // The first failure may be an accident: replace at once.
        0 | 1 => 0,
        failures => limits::backoff_ms(limits::LAUNCH_PAUSE_MS_FIRST, limits::LAUNCH_PAUSE_MS_MAX, failures - 2),
    };
    *launch_not_before = now.plus_ms(pause_ms);
}

//! What provider calls came to.

use super::failures::fail;
use super::{CallFailure, set_status};
use crate::edit::Edit;
use crate::ids::{ReplicaId, Timestamp};
use crate::limits;
use crate::replica::{Operation, OperationKind, ReplicaStatus};

pub(super) fn launched(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), CallFailure>, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    let Some(operation) = replica.operation.filter(|operation| operation.kind == OperationKind::Launch) else { return };
    match result {
        Ok(()) => {
            replica.operation = None;
            // News of its absence that are older than this moment do not count.
            replica.status_since = now;
        }
        // It was made all the same, only the answer says otherwise: a replica that runs is not ended for that.
        Err(_) if replica.status.is_probed() => replica.operation = None,
        Err(failure) if failure.retryable && operation.attempt + 1 < limits::LAUNCH_ATTEMPTS_MAX => {
            replica.operation = Some(call_again(operation, now));
            replica.reason = Some(format!("{}; trying again", failure.message));
        }
        Err(failure) => fail(edit, id, ReplicaStatus::FailedProvision, &failure.message, now),
    }
}

pub(super) fn terminated(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), CallFailure>, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    let Some(operation) = replica.operation.filter(|operation| operation.kind == OperationKind::Terminate) else {
        return;
    };
    match result {
        Ok(()) => {
            replica.operation = None;
            if !replica.status.is_kept_as_record() {
                edit.remove(id);
            }
        }
        Err(_) if operation.purge => edit.remove(id),
        Err(failure) => {
            let operation = call_again(operation, now);
            replica.operation = Some(operation);
            if operation.attempt >= limits::TERMINATE_ATTEMPTS_SHOWN {
                set_status(replica, ReplicaStatus::FailedCleanup, Some(failure.message.clone()), now);
            } else if replica.status == ReplicaStatus::ShuttingDown {
                // One attempt may take minutes: who waits for it is told what it waits for.
                replica.reason = Some(format!("{}; trying again", failure.message));
            }
        }
    }
}

fn call_again(operation: Operation, now: Timestamp) -> Operation {
    let pause_ms = limits::backoff_ms(limits::CALL_PAUSE_MS_FIRST, limits::CALL_PAUSE_MS_MAX, operation.attempt);
    Operation { attempt: operation.attempt.saturating_add(1), not_before: now.plus_ms(pause_ms), ..operation }
}

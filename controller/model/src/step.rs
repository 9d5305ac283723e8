//! How a service changes: [`step`] takes one event and gives the rows to store.
//!
//! Carrying out is a function of the state alone ([`Service::due`], [`Replica`]'s `operation`), so a
//! controller that starts again after a crash goes on where the last stored row says, with no code of
//! its own for recovery.
//!
//! Invariants (checked by `tests/sim` at every step):
//! * A replica id is never used twice.
//! * Nothing is launched or terminated without a stored [`Operation`] that says so.
//! * A replica becomes READY only by a probe that passed.
//! * No more replicas are alive than the target.

use crate::edit::{Change, Edit, Undo};
use crate::ids::{ReplicaId, ReplicaUid, Timestamp};
use crate::launch::{Ended, Phase, Stage};
use crate::limits;
use crate::replica::{Operation, OperationKind, Replica, ReplicaStatus};
use crate::service::{Service, Shutdown};
use std::net::SocketAddr;
use std::sync::Arc;

/// Something that happened to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The provider shows a replica in `phase`, as of `seen_at`.
    Observed { replica: ReplicaId, phase: Phase, seen_at: Timestamp },
    /// The provider has a resource of this service that no row knows.
    Orphaned { uid: ReplicaUid },
    /// A provider call ended.
    Called { replica: ReplicaId, kind: OperationKind, result: Result<(), CallFailure> },
    /// A readiness probe ended; `Err` says why it did not pass.
    Probed { replica: ReplicaId, result: Result<(), String> },
    /// No request is left on a replica that gets no new ones.
    Drained { replica: ReplicaId },
    /// The load balancer listens at the service's address.
    EndpointListens,
    /// The load balancer cannot listen at the service's address: use this one, if the first was never
    /// given to anybody.
    EndpointMoves { listen: SocketAddr },
    /// The user wants one replica gone (it is replaced).
    TerminateReplica { replica: ReplicaId, purge: bool },
    /// The user wants the service gone.
    Shutdown { purge: bool },
}

/// Why a provider call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    pub message: String,
    pub retryable: bool,
}

/// Applies `event` to `service` and gives the rows that must be stored before anything is carried out.
/// If they cannot be stored, [`Service::undo`] takes the step back.
pub fn step(service: &mut Service, event: &Event, now: Timestamp) -> (Vec<Change>, Undo) {
    let mut edit = Edit::new(service);
    match event {
        Event::Tick => {}
        Event::Observed { replica, phase, seen_at } => observed(&mut edit, *replica, phase, *seen_at, now),
        Event::Orphaned { uid } => orphaned(&mut edit, uid, now),
        Event::Called { replica, kind: OperationKind::Launch, result } => launched(&mut edit, *replica, result, now),
        Event::Called { replica, kind: OperationKind::Terminate, result } => {
            terminated(&mut edit, *replica, result, now);
        }
        Event::Probed { replica, result } => probed(&mut edit, *replica, result, now),
        Event::Drained { replica } => drained(&mut edit, *replica, now),
        Event::EndpointListens => edit.head_mut().endpoint_confirmed = true,
        Event::EndpointMoves { listen } => {
            if !edit.service().head.endpoint_confirmed {
                edit.head_mut().listen = *listen;
            }
        }
        Event::TerminateReplica { replica, purge } => {
            let reason = format!("replica {replica} was taken down by `down --replica-id`");
            let decision = Decision { reason: &reason, drain_ms: limits::DRAIN_MS_MAX, purge: *purge };
            terminate_by_decision(&mut edit, *replica, decision, now);
        }
        Event::Shutdown { purge } => shut_down(&mut edit, *purge, now),
    }
    reconcile(&mut edit, now);
    edit.finish()
}

/// Prepares a service that was read from the store for a new controller's tenure. Times that decide
/// about failing start anew: how long nobody looked says nothing about the replica.
pub fn recover(service: &mut Service, now: Timestamp) {
    for replica in service.replicas.values_mut() {
        let anew = matches!(replica.status, ReplicaStatus::Starting | ReplicaStatus::NotReady);
        // A clock that was set back must not hide what is seen from now on, nor make an operation wait
        // longer than it ever may.
        replica.status_since = if anew { now } else { replica.status_since.min(now) };
        if let Some(operation) = &mut replica.operation {
            operation.not_before = operation.not_before.min(now.plus_ms(limits::DRAIN_MS_MAX));
        }
    }
    service.head.launch_not_before = service.head.launch_not_before.min(now.plus_ms(limits::LAUNCH_PAUSE_MS_MAX));
}

fn set_status(replica: &mut Replica, status: ReplicaStatus, reason: Option<String>, now: Timestamp) {
    if replica.status != status {
        replica.status = status;
        replica.status_since = now;
    }
    replica.reason = reason;
}

fn observed(edit: &mut Edit<'_>, id: ReplicaId, phase: &Phase, seen_at: Timestamp, now: Timestamp) {
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
        (S::Provisioning, Phase::Provisioning { reason }) => update(edit, id, status, reason.clone(), now),
        (S::Provisioning | S::Starting, Phase::SettingUp) if replica.address.is_none() => {
            update(edit, id, S::Starting, Some("its setup commands are running".to_owned()), now);
        }
        (S::Provisioning | S::Starting, Phase::Running { address }) => {
            if let Some(replica) = edit.replica_mut(id) {
                let fresh = replica.address != Some(*address);
                replica.address = Some(*address);
                if fresh {
                    set_status(
                        replica,
                        S::Starting,
                        Some("waiting for its first readiness probe to pass".to_owned()),
                        now,
                    );
                }
            }
        }
        (S::Ready | S::NotReady, Phase::Running { address }) => {
            if let Some(replica) = edit.replica_mut(id)
                && replica.address != Some(*address)
            {
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

fn update(edit: &mut Edit<'_>, id: ReplicaId, status: ReplicaStatus, reason: Option<String>, now: Timestamp) {
    if let Some(replica) = edit.replica_mut(id) {
        set_status(replica, status, reason, now);
    }
}

/// The replica's commands ended by themselves.
fn end(edit: &mut Edit<'_>, id: ReplicaId, ended: &Ended, now: Timestamp) {
    let status = match ended.stage {
        Stage::Provision => ReplicaStatus::FailedProvision,
        Stage::Setup | Stage::Run => ReplicaStatus::Failed,
    };
    fail(edit, id, status, &ended.reason, now);
}

/// The replica has failed: what is left of it is removed, and the next launch waits its turn.
fn fail(edit: &mut Edit<'_>, id: ReplicaId, status: ReplicaStatus, reason: &str, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    let healthy = matches!(replica.status, ReplicaStatus::Ready | ReplicaStatus::NotReady)
        && replica.first_ready_at.is_some_and(|ready| now.since_ms(ready) >= limits::HEALTHY_AFTER_MS);
    set_status(replica, status, Some(reason.to_owned()), now);
    replica.operation = Some(terminate_at(now, false));
    count_failure(edit, healthy, now);
    let failures_max = match status {
        ReplicaStatus::FailedProvision => limits::PROVISION_FAILURES_BEFORE_READY_MAX,
        _ => limits::FAILURES_BEFORE_READY_MAX,
    };
    let head = &edit.service().head;
    if !head.ever_ready && head.failures_in_a_row >= failures_max {
        let reason = format!(
            "{} replicas in a row failed before any was ready, so no more are launched; the last, replica {id}: {reason}. \
             Read its log, mend what is wrong, then take the service down and up again",
            head.failures_in_a_row
        );
        edit.head_mut().given_up = Some(reason);
    }
}

/// The replica was taken away from outside: not its fault, so it is replaced at once; but one that never
/// came so far as to be ready counts for the pause, or launching would go round without end.
fn preempt(edit: &mut Edit<'_>, id: ReplicaId, reason: &str, now: Timestamp) {
    let Some(replica) = edit.replica_mut(id) else { return };
    set_status(replica, ReplicaStatus::Preempted, Some(reason.to_owned()), now);
    replica.operation = Some(terminate_at(now, false));
    if replica.first_ready_at.is_none() {
        count_failure(edit, false, now);
    }
}

/// Counts a failure in a row, or the first of a new row, and sets the pause before the next launch.
fn count_failure(edit: &mut Edit<'_>, was_healthy: bool, now: Timestamp) {
    let head = edit.head_mut();
    head.failures_in_a_row = if was_healthy { 0 } else { head.failures_in_a_row.saturating_add(1) };
    let pause_ms = match head.failures_in_a_row {
        // The first failure may be an accident: replace at once.
        0 | 1 => 0,
        failures => limits::backoff_ms(limits::LAUNCH_PAUSE_MS_FIRST, limits::LAUNCH_PAUSE_MS_MAX, failures - 2),
    };
    head.launch_not_before = now.plus_ms(pause_ms);
}

fn orphaned(edit: &mut Edit<'_>, uid: &ReplicaUid, now: Timestamp) {
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

fn launched(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), CallFailure>, now: Timestamp) {
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

fn terminated(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), CallFailure>, now: Timestamp) {
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
            }
        }
    }
}

fn call_again(operation: Operation, now: Timestamp) -> Operation {
    let pause_ms = limits::backoff_ms(limits::CALL_PAUSE_MS_FIRST, limits::CALL_PAUSE_MS_MAX, operation.attempt);
    Operation { attempt: operation.attempt.saturating_add(1), not_before: now.plus_ms(pause_ms), ..operation }
}

fn probed(edit: &mut Edit<'_>, id: ReplicaId, result: &Result<(), String>, now: Timestamp) {
    let rules = Arc::clone(&edit.service().rules);
    let probe = &rules.probe;
    // Without an address nobody can have asked it.
    let Some(replica) = edit.replica_mut(id).filter(|replica| replica.address.is_some()) else { return };
    let lasting_ms = now.since_ms(replica.status_since);
    match (replica.status, result) {
        (ReplicaStatus::Starting | ReplicaStatus::NotReady, Ok(())) => {
            set_status(replica, ReplicaStatus::Ready, None, now);
            replica.first_ready_at.get_or_insert(now);
            let head = edit.head_mut();
            head.ever_ready = true;
            // The commands can work after all.
            head.given_up = None;
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

fn drained(edit: &mut Edit<'_>, id: ReplicaId, now: Timestamp) {
    if let Some(operation) = edit.replica_mut(id).and_then(|replica| replica.operation.as_mut())
        && operation.kind == OperationKind::Terminate
        && operation.attempt == 0
    {
        operation.not_before = operation.not_before.min(now);
    }
}

fn terminate_at(not_before: Timestamp, purge: bool) -> Operation {
    Operation { kind: OperationKind::Terminate, attempt: 0, not_before, purge }
}

/// Why and how a replica is ended that could have gone on.
struct Decision<'a> {
    reason: &'a str,
    /// How long it may finish its requests.
    drain_ms: u64,
    purge: bool,
}

/// Ends a replica because somebody decided so: it may finish its requests first.
fn terminate_by_decision(edit: &mut Edit<'_>, id: ReplicaId, decision: Decision<'_>, now: Timestamp) {
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

fn shut_down(edit: &mut Edit<'_>, purge: bool, now: Timestamp) {
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

/// Brings the number of replicas to the target, and keeps what follows from the replicas in the head.
fn reconcile(edit: &mut Edit<'_>, now: Timestamp) {
    fail_slow_setups(edit, now);
    scale(edit, now);
    admit_pending(edit, now);
    forget_old_records(edit);
    let ready = edit.service().ready().next().is_some();
    if ready != edit.service().head.ready_since.is_some() {
        edit.head_mut().ready_since = ready.then_some(now);
    }
}

/// As in SkyServe, `setup` is part of the initial delay; while it runs no probe can say that it is over.
fn fail_slow_setups(edit: &mut Edit<'_>, now: Timestamp) {
    let late = |replica: &&Replica| edit.service().setup_deadline(replica).is_some_and(|deadline| deadline <= now);
    let ids: Vec<ReplicaId> = edit.service().replicas.values().filter(late).map(|replica| replica.id).collect();
    let seconds = edit.service().rules.probe.initial_delay_ms / 1000;
    let reason = format!("its setup commands did not end within initial_delay_seconds ({seconds} s)");
    for id in ids {
        fail(edit, id, ReplicaStatus::FailedInitialDelay, &reason, now);
    }
}

fn scale(edit: &mut Edit<'_>, now: Timestamp) {
    let service = edit.service();
    let (alive, target) = (service.alive().count(), service.target());
    if alive > target {
        let mut candidates: Vec<(ReplicaStatus, std::cmp::Reverse<ReplicaId>)> =
            service.alive().map(|replica| (replica.status, std::cmp::Reverse(replica.id))).collect();
        // SkyServe's order: the least far in its life goes first, of those the newest.
        candidates.sort_by_key(|(status, id)| (scale_down_rank(*status), *id));
        for (_, std::cmp::Reverse(id)) in candidates.into_iter().take(alive - target) {
            let reason = "the service has more replicas than it needs";
            let decision = Decision { reason, drain_ms: limits::DRAIN_MS_MAX, purge: false };
            terminate_by_decision(edit, id, decision, now);
        }
    } else if alive < target && service.head.given_up.is_none() && service.head.launch_not_before <= now {
        for _ in alive..target {
            launch(edit, now);
        }
    }
}

fn scale_down_rank(status: ReplicaStatus) -> u8 {
    match status {
        ReplicaStatus::Pending => 0,
        ReplicaStatus::Provisioning => 1,
        ReplicaStatus::Starting => 2,
        ReplicaStatus::NotReady => 3,
        _ => 4,
    }
}

fn launch(edit: &mut Edit<'_>, now: Timestamp) {
    let head = edit.head_mut();
    let (id, version) = (head.next_replica_id, head.version);
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

/// Keeps the newest records of failed replicas, and none of a service that is going.
fn forget_old_records(edit: &mut Edit<'_>) {
    let service = edit.service();
    let keep = if service.head.shutdown.is_some() { 0 } else { limits::FAILED_RECORDS_MAX };
    let records: Vec<ReplicaId> = service
        .replicas
        .values()
        .filter(|replica| replica.status.is_kept_as_record() && replica.operation.is_none())
        .map(|replica| replica.id)
        .collect();
    for id in records.iter().take(records.len().saturating_sub(keep)) {
        edit.remove(*id);
    }
}

#[cfg(test)]
mod tests;

//! How a service changes: [`step`] takes one event and gives the rows to store.
//!
//! Carrying out is a function of the state alone ([`Service::due`], [`Replica`]'s `operation`), so a
//! controller that starts again after a crash goes on where the last stored row says, with no code of
//! its own for recovery.
//!
//! Invariants (checked by `tests/sim` at every step):
//! * A replica id is never used twice.
//! * Nothing is launched or terminated without a stored [`Operation`](crate::replica::Operation) that says so.
//! * A replica becomes READY only by a probe that passed.
//! * No more replicas are alive than the target, and one more while versions differ.
//! * An update ends no READY replica before as many others are READY as there should be.

mod calls;
mod decisions;
mod failures;
mod observations;
mod probes;
mod reconcile;

use crate::edit::{Change, Edit, Undo};
use crate::ids::{ReplicaId, ReplicaUid, Timestamp};
use crate::launch::Phase;
use crate::limits;
use crate::replica::{OperationKind, Replica, ReplicaStatus};
use crate::rules::VersionRules;
use crate::service::Service;
use calls::{launched, terminated};
use decisions::{Decision, drained, shut_down, terminate_by_decision, update_version};
use observations::{observed, orphaned};
use probes::probed;
use reconcile::reconcile;
use std::net::SocketAddr;
use std::sync::Arc;

/// Something that happened to a service.
#[derive(Debug, Clone, PartialEq)]
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
    /// The user wants another version of the service; `source` is its YAML, as written.
    Update { rules: Arc<VersionRules>, source: String },
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
    step_all(service, std::slice::from_ref(event), now)
}

/// The same with all that has happened since the last step, in its order: one transaction, and what follows from the
/// state is derived once. Looking at every replica for each event would cost their number squared. An [`Event::Update`]
/// comes alone.
pub fn step_all(service: &mut Service, events: &[Event], now: Timestamp) -> (Vec<Change>, Undo) {
    let mut edit = Edit::new(service);
    for event in events {
        apply(&mut edit, event, now);
    }
    // News that change nothing have nothing following from them; what only time brings is for a tick.
    if edit.is_begun() || events.contains(&Event::Tick) {
        reconcile(&mut edit, now);
    }
    edit.finish()
}

fn apply(edit: &mut Edit<'_>, event: &Event, now: Timestamp) {
    match event {
        Event::Tick => {}
        Event::Observed { replica, phase, seen_at } => observed(edit, *replica, phase, *seen_at, now),
        Event::Orphaned { uid } => orphaned(edit, uid, now),
        Event::Called { replica, kind: OperationKind::Launch, result } => launched(edit, *replica, result, now),
        Event::Called { replica, kind: OperationKind::Terminate, result } => terminated(edit, *replica, result, now),
        Event::Probed { replica, result } => probed(edit, *replica, result, now),
        Event::Drained { replica } => drained(edit, *replica, now),
        Event::EndpointListens => edit.head_mut().endpoint_confirmed = true,
        Event::EndpointMoves { listen } => {
            if !edit.service().head.endpoint_confirmed {
                edit.head_mut().listen = *listen;
            }
        }
        Event::Update { rules, source } => update_version(edit, rules, source, now),
        Event::TerminateReplica { replica, purge } => {
            let reason = format!("replica {replica} was taken down by `down --replica-id`");
            let decision = Decision { reason: &reason, drain_ms: limits::DRAIN_MS_MAX, purge: *purge };
            terminate_by_decision(edit, *replica, decision, now);
        }
        Event::Shutdown { purge } => shut_down(edit, *purge, now),
    }
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
    let latest = now.plus_ms(limits::LAUNCH_PAUSE_MS_MAX);
    service.head.launch_not_before = service.head.launch_not_before.min(latest);
    if let Some(proven) = &mut service.head.proven {
        proven.launch_not_before = proven.launch_not_before.min(latest);
    }
}

fn set_status(replica: &mut Replica, status: ReplicaStatus, reason: Option<String>, now: Timestamp) {
    if replica.status != status {
        replica.status = status;
        replica.status_since = now;
    }
    replica.reason = reason;
}

fn update(edit: &mut Edit<'_>, id: ReplicaId, status: ReplicaStatus, reason: Option<String>, now: Timestamp) {
    if let Some(replica) = edit.replica_mut(id) {
        set_status(replica, status, reason, now);
    }
}

#[cfg(test)]
pub(crate) mod tests;

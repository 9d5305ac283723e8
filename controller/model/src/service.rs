//! One service: what the user asked for, and the replicas that carry it out. How several versions of it live side by
//! side is in `rollout`.

use crate::ids::{ReplicaId, ReplicaUid, Timestamp, Version};
use crate::limits;
use crate::replica::{OperationKind, Replica, ReplicaStatus};
use crate::rules::VersionRules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A service with its replicas.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub head: Head,
    /// What the newest version asks for.
    pub rules: Arc<VersionRules>,
    /// What earlier versions asked for, as long as anything depends on it.
    pub earlier: BTreeMap<Version, Arc<VersionRules>>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
}

/// All of a service but its replicas and its rules, as its row in the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    /// Distinguishes services that had the same name one after the other; grows, never used twice.
    pub incarnation: u64,
    /// The newest; grows, never used twice.
    pub version: Version,
    pub created_at: Timestamp,
    /// Where its endpoint listens.
    pub listen: SocketAddr,
    /// Whether the load balancer has said that it listens there.
    pub endpoint_confirmed: bool,
    pub next_replica_id: ReplicaId,
    /// Since when at least one replica has been ready without a break (UPTIME).
    pub ready_since: Option<Timestamp>,
    /// Whether any replica that is as the newest version would launch it was ever ready.
    pub ever_ready: bool,
    /// Failures of the newest version since its last replica that stayed ready; decides the pause before the next
    /// launch.
    pub failures_in_a_row: u32,
    /// No launch of the newest version before.
    pub launch_not_before: Timestamp,
    /// Why launching the newest version has been given up, if it has.
    pub given_up: Option<String>,
    /// The version that goes on serving, as long as no replica of the newest was ever ready.
    pub proven: Option<Proven>,
    /// The user's wish that it be gone.
    pub shutdown: Option<Shutdown>,
}

/// The last version that was ever ready, while the newest has still to be: what it loses is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    pub version: Version,
    /// As the head's, of this version.
    pub failures_in_a_row: u32,
    pub launch_not_before: Timestamp,
}

/// `down`, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    pub since: Timestamp,
    /// Forget replicas that cannot be removed.
    pub purge: bool,
}

/// SkyServe's service statuses, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceStatus {
    /// Accepted; its endpoint does not listen yet.
    ControllerInit,
    /// None is ready, and some are on their way.
    ReplicaInit,
    /// Its endpoint listens and at least one replica is ready.
    Ready,
    /// None is ready, and none is on its way.
    NoReplica,
    /// It is being taken down.
    ShuttingDown,
    /// Its replicas fail again and again; launching has been given up.
    Failed,
    /// It is being taken down, and some replica cannot be removed.
    FailedCleanup,
    /// The controller itself does not answer.
    ControllerFailed,
}

impl ServiceStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::ControllerInit,
        Self::ReplicaInit,
        Self::Ready,
        Self::NoReplica,
        Self::ShuttingDown,
        Self::Failed,
        Self::FailedCleanup,
        Self::ControllerFailed,
    ];

    /// SkyServe's name, as shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControllerInit => "CONTROLLER_INIT",
            Self::ReplicaInit => "REPLICA_INIT",
            Self::Ready => "READY",
            Self::NoReplica => "NO_REPLICA",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Failed => "FAILED",
            Self::FailedCleanup => "FAILED_CLEANUP",
            Self::ControllerFailed => "CONTROLLER_FAILED",
        }
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Service {
    /// A service that has just been asked for.
    pub fn new(name: String, incarnation: u64, listen: SocketAddr, rules: VersionRules, now: Timestamp) -> Self {
        let head = Head {
            name,
            incarnation,
            version: Version(1),
            created_at: now,
            listen,
            endpoint_confirmed: false,
            next_replica_id: ReplicaId(1),
            ready_since: None,
            ever_ready: false,
            failures_in_a_row: 0,
            launch_not_before: now,
            given_up: None,
            proven: None,
            shutdown: None,
        };
        Self { head, rules: Arc::new(rules), earlier: BTreeMap::new(), replicas: BTreeMap::new() }
    }

    /// The uid that replica `id` of this service has at every provider.
    pub fn uid(&self, id: ReplicaId) -> ReplicaUid {
        ReplicaUid::new(&self.head.name, self.head.incarnation, id)
    }

    /// The id of the replica `uid`, if it is or can be one of this service's.
    pub fn replica_id(&self, uid: &ReplicaUid) -> Option<ReplicaId> {
        let id = ReplicaId(uid.as_str().rsplit('-').next()?.parse().ok()?);
        (id.0 < limits::REPLICA_ID_MAX && self.uid(id) == *uid).then_some(id)
    }

    /// How many replicas there should be.
    pub fn target(&self) -> usize {
        if self.head.shutdown.is_some() { 0 } else { self.rules.replicas as usize }
    }

    /// Replicas that count towards the target.
    pub fn alive(&self) -> impl DoubleEndedIterator<Item = &Replica> {
        self.replicas.values().filter(|replica| replica.status.is_alive())
    }

    /// Replicas that get requests.
    pub fn ready(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(|replica| replica.status == ReplicaStatus::Ready)
    }

    /// Whether it has been taken down and nothing of it is left.
    pub fn is_gone(&self) -> bool {
        self.head.shutdown.is_some() && self.replicas.is_empty()
    }

    /// SkyServe's status.
    pub fn status(&self) -> ServiceStatus {
        let head = &self.head;
        let cleanup_failed = || self.replicas.values().any(|replica| replica.status == ReplicaStatus::FailedCleanup);
        if head.shutdown.is_some() {
            return if cleanup_failed() { ServiceStatus::FailedCleanup } else { ServiceStatus::ShuttingDown };
        }
        let ready = self.ready().next().is_some();
        if self.is_given_up() && !ready {
            return ServiceStatus::Failed;
        }
        if !head.endpoint_confirmed {
            return ServiceStatus::ControllerInit;
        }
        if ready {
            return ServiceStatus::Ready;
        }
        let initialising = self.alive().any(|replica| replica.status != ReplicaStatus::NotReady);
        let was_ever_ready = head.ever_ready || head.proven.is_some();
        if self.target() > 0 && (initialising || !was_ever_ready) {
            ServiceStatus::ReplicaInit
        } else {
            ServiceStatus::NoReplica
        }
    }

    /// The reason for the status, for a person, where there is one to give.
    pub fn status_reason(&self) -> Option<String> {
        let cleanup = || self.replicas.values().find(|replica| replica.status == ReplicaStatus::FailedCleanup);
        match self.status() {
            ServiceStatus::Failed => self.head.given_up.clone(),
            ServiceStatus::FailedCleanup => cleanup().map(|replica| {
                let reason = replica.reason.as_deref().unwrap_or("no reason was given");
                format!("replica {} cannot be removed: {reason}", replica.id)
            }),
            ServiceStatus::ControllerInit => {
                Some(format!("waiting for the endpoint to listen on {}", self.head.listen))
            }
            ServiceStatus::NoReplica if self.target() == 0 => Some("it asks for 0 replicas".to_owned()),
            ServiceStatus::ReplicaInit | ServiceStatus::NoReplica if self.head.given_up.is_some() => {
                self.head.given_up.clone()
            }
            ServiceStatus::ReplicaInit | ServiceStatus::NoReplica => {
                let newest = self.replicas.values().next_back()?;
                let reason = newest.reason.as_deref()?;
                Some(format!("replica {} is {}: {reason}", newest.id, newest.status))
            }
            ServiceStatus::Ready => self.rollout_reason(),
            ServiceStatus::ShuttingDown | ServiceStatus::ControllerFailed => None,
        }
    }

    /// The next moment at which [`step`](crate::step::step) has something to do without any event, after a tick at `now` or a
    /// step at `now` that changed something.
    /// `None` while only events can change anything.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let operations =
            self.replicas.values().filter_map(|replica| replica.operation).map(|operation| operation.not_before);
        let launches = self.missing().into_iter().map(|missing| missing.not_before);
        let setups = self.replicas.values().filter_map(|replica| self.setup_deadline(replica));
        operations.chain(launches).chain(setups).filter(|moment| *moment > now).min()
    }

    /// When a replica whose setup commands are still running has failed; `None` for any other.
    pub(crate) fn setup_deadline(&self, replica: &Replica) -> Option<Timestamp> {
        let setting_up = replica.status == ReplicaStatus::Starting && replica.address.is_none();
        let initial_delay_ms = self.rules_for(replica).probe.initial_delay_ms;
        setting_up.then(|| replica.status_since.plus_ms(initial_delay_ms.saturating_add(1)))
    }

    /// Replicas whose operation of `kind` is due.
    pub fn due(&self, kind: OperationKind, now: Timestamp) -> impl Iterator<Item = &Replica> {
        self.replicas.values().filter(move |replica| {
            replica.operation.is_some_and(|operation| operation.kind == kind && operation.not_before <= now)
        })
    }
}

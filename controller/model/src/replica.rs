//! One replica: SkyServe's statuses, and the durable intent that is being carried out for it.

use crate::ids::{ReplicaId, ReplicaUid, Timestamp, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// One replica, as its row in the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub id: ReplicaId,
    pub uid: ReplicaUid,
    pub version: Version,
    pub status: ReplicaStatus,
    /// When it took its present status.
    pub status_since: Timestamp,
    /// Why it has its status, for a person.
    pub reason: Option<String>,
    /// Where it serves, once it runs.
    pub address: Option<SocketAddr>,
    /// When the decision to launch it was made.
    pub launched_at: Timestamp,
    pub first_ready_at: Option<Timestamp>,
    /// The durable intent under way; `None` while nothing is asked of the provider.
    pub operation: Option<Operation>,
}

/// SkyServe's replica statuses, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReplicaStatus {
    /// Decided, but launches are limited: it waits for its turn.
    Pending,
    /// The provider is making it.
    Provisioning,
    /// Its setup or run commands are running; no probe has passed yet.
    Starting,
    /// Its last probe passed.
    Ready,
    /// It was ready; its last probe failed.
    NotReady,
    /// It is being ended by a decision.
    ShuttingDown,
    /// Its commands ended by themselves.
    Failed,
    /// It was not ready within the initial delay.
    FailedInitialDelay,
    /// It was ready, then failed its probes for too long.
    FailedProbing,
    /// The provider could not make it.
    FailedProvision,
    /// The provider cannot remove it; it is tried again.
    FailedCleanup,
    /// It was taken away from outside.
    Preempted,
    /// Found running without a record of it; it is being removed.
    Unknown,
}

impl ReplicaStatus {
    /// Every status, in the order of a replica's life.
    pub const ALL: [Self; 13] = [
        Self::Pending,
        Self::Provisioning,
        Self::Starting,
        Self::Ready,
        Self::NotReady,
        Self::ShuttingDown,
        Self::Failed,
        Self::FailedInitialDelay,
        Self::FailedProbing,
        Self::FailedProvision,
        Self::FailedCleanup,
        Self::Preempted,
        Self::Unknown,
    ];

    /// SkyServe's name, as shown and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Provisioning => "PROVISIONING",
            Self::Starting => "STARTING",
            Self::Ready => "READY",
            Self::NotReady => "NOT_READY",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Failed => "FAILED",
            Self::FailedInitialDelay => "FAILED_INITIAL_DELAY",
            Self::FailedProbing => "FAILED_PROBING",
            Self::FailedProvision => "FAILED_PROVISION",
            Self::FailedCleanup => "FAILED_CLEANUP",
            Self::Preempted => "PREEMPTED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether the replica counts towards the number wanted.
    pub fn is_alive(self) -> bool {
        match self {
            Self::Pending | Self::Provisioning | Self::Starting | Self::Ready | Self::NotReady => true,
            Self::ShuttingDown
            | Self::Failed
            | Self::FailedInitialDelay
            | Self::FailedProbing
            | Self::FailedProvision
            | Self::FailedCleanup
            | Self::Preempted
            | Self::Unknown => false,
        }
    }

    /// Whether readiness probes go to the replica.
    pub fn is_probed(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::NotReady)
    }

    /// Whether the row stays as a record once the resource is gone.
    pub fn is_kept_as_record(self) -> bool {
        matches!(self, Self::Failed | Self::FailedInitialDelay | Self::FailedProbing | Self::FailedProvision)
    }
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A durable intent: stored before the provider is called, cleared by the row that completes it.
/// A replica has at most one launch and one terminate in its life, so its uid and the kind name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub kind: OperationKind,
    /// Calls that failed so far.
    pub attempt: u32,
    /// Not to be called before.
    pub not_before: Timestamp,
    /// Forget the replica if the call fails (`down --purge`).
    pub purge: bool,
}

/// What the provider is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    Launch,
    Terminate,
}

impl OperationKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Terminate => "terminate",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Launch, Self::Terminate].into_iter().find(|kind| kind.name() == name)
    }
}

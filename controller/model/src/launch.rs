//! What passes between the controller and a provider: what to launch, and what is seen of it.

use crate::ids::{ReplicaId, ReplicaUid, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// All that a provider needs to start one replica. Two launches of one uid always carry the same
/// values, so a provider may treat the second as "make sure it is there".
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub uid: ReplicaUid,
    pub service: String,
    pub replica_id: ReplicaId,
    pub version: Version,
    /// Shell commands to run once before `run`.
    pub setup: Option<String>,
    /// Shell commands that serve; the replica ends when they do.
    pub run: Option<String>,
    pub envs: BTreeMap<String, String>,
    /// Like `envs`, but never shown or logged.
    pub secrets: BTreeMap<String, String>,
    /// The port that serves the endpoint's requests.
    pub port: u16,
    /// Every port the service declares (contains `port`).
    pub ports: Vec<u16>,
    /// Cores, if limited.
    pub cpus: Option<Amount>,
    /// Memory in GB, if limited.
    pub memory_gb: Option<Amount>,
    /// Accelerator names and counts.
    pub accelerators: BTreeMap<String, f64>,
    pub use_spot: bool,
    /// The container image to run in, where replicas are containers; the provider's default if there is none.
    #[serde(default)]
    pub image: Option<String>,
    /// SHA-256 (hexadecimal) of the tar bundle with the workdir and file mounts, if there are any.
    pub bundle: Option<String>,
    /// Whether the bundle has a `workdir/`, copied into the replica's working directory.
    pub has_workdir: bool,
    /// Destination of each file mount in the bundle: `mounts/0`, `mounts/1`, … in this order.
    pub file_mounts: Vec<String>,
}

impl fmt::Debug for LaunchSpec {
    /// Leaves out the secrets' and envs' values: this is what logs show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("uid", &self.uid)
            .field("version", &self.version)
            .field("port", &self.port)
            .field("envs", &self.envs.keys())
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

/// `2`, or `2+` for "two or more".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    pub value: f64,
    pub or_more: bool,
}

/// What a provider sees of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub uid: ReplicaUid,
    pub phase: Phase,
}

/// The life of a replica's resource. A provider reports the present phase; it may skip phases, and
/// it repeats the present one after a restart of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Being made (folder being filled, pod being scheduled, image being pulled); `reason` says what
    /// it waits for.
    Provisioning { reason: Option<String> },
    /// Its setup commands are running.
    SettingUp,
    /// Its run commands are running; requests and probes go to `address`.
    Running { address: SocketAddr },
    /// Its setup or run commands ended, or it could not be started: it serves nothing any more.
    Ended(Ended),
    /// Taken away from outside (preempted, evicted).
    Preempted { reason: String },
    /// No resource of this uid exists.
    Absent,
}

/// How a replica's commands ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub stage: Stage,
    /// For a person: `run exited with code 3 after 12 s`.
    pub reason: String,
}

/// Which part of a replica's life something happened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Making the resource: not the fault of the user's commands.
    Provision,
    Setup,
    Run,
}

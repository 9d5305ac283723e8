//! A task: one service with all that its replicas need.

use crate::{Amount, ManagedSecret, Resources, Secrets, ServiceSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A service YAML, read, judged and with every default filled in. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub name: Option<String>,
    pub service: ServiceSpec,
    pub resources: Resources,
    pub num_nodes: u32,
    pub envs: BTreeMap<String, String>,
    pub secrets: Secrets,
    pub managed_secrets: Vec<ManagedSecret>,
    /// Shell commands to run once before `run`.
    pub setup: Option<String>,
    /// Shell commands that serve.
    pub run: Option<String>,
    pub workdir: Option<Workdir>,
    /// Destination and source of each file mount, in the YAML's order; sources are local paths or
    /// (refused by `up` so far) bucket URLs.
    pub file_mounts: Vec<(String, String)>,
    /// Destination and description of each bucket to mount.
    pub storage_mounts: Vec<(String, Value)>,
    /// Destination and description of each volume.
    pub volumes: Vec<(String, Value)>,
}

/// Where `setup` and `run` start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Workdir {
    /// A local folder, as written (`~` and relative paths are not resolved here).
    Local(String),
    /// A git repository to clone.
    Git {
        url: String,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
}

/// How much of the machine one replica wants.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LaunchAmounts {
    /// Cores.
    pub cpus: Option<Amount>,
    pub memory_gb: Option<Amount>,
}

impl TaskSpec {
    /// What one replica wants, from the first choice of resources.
    pub fn launch_amounts(&self) -> LaunchAmounts {
        self.resources
            .list
            .first()
            .map(|first| LaunchAmounts { cpus: first.cpus(), memory_gb: first.memory_gb() })
            .unwrap_or_default()
    }

    /// Every port the first choice of resources declares; contains [`ServiceSpec::port`].
    pub fn ports(&self) -> Vec<u16> {
        let ranges = self.resources.list.first().map(crate::Resource::port_ranges).unwrap_or_default();
        ranges.into_iter().flat_map(|(from, to)| from..=to).collect()
    }
}

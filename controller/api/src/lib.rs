//! The control API's shapes: HTTP with JSON bodies on the controller's Unix socket. The command line
//! is its client.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/controller` | | [`ControllerView`] |
//! | `POST /v1/services` | [`UpRequest`] | 201 [`ServiceView`]; 409 if the name is taken |
//! | `PUT /v1/services/{name}` | [`UpdateRequest`] | 202 [`ServiceView`]: a new version; 200 if the newest is this already; 409 if it is not the one expected, or the service is going |
//! | `POST /v1/services/{name}/plan` | [`UpdateRequest`] | [`UpdatePlan`]: what that would change |
//! | `GET /v1/services` | | [`Vec<ServiceView>`] by name |
//! | `GET /v1/services/{name}` | | [`ServiceView`] |
//! | `DELETE /v1/services/{name}?purge=true` | | 202 [`ServiceView`]: it is going; gone when 404 |
//! | `DELETE /v1/services/{name}/replicas/{id}?purge=true` | | 202 [`ReplicaView`] |
//! | `PUT /v1/bundles/{sha256}` | the tar file | 201; 200 if it was there |
//! | `GET /v1/services/{name}/replicas/{id}/log?tail=N&follow=true` | | the output of a replica's commands, as it comes |
//! | `GET /v1/logs/{controller,loadbalancer,init}?tail=N&follow=true` | | a role's log, as it comes |
//! | `GET /v1/changes?after={revision}` | | [`Changes`] once the revision differs from `after`, or after 20 s |
//!
//! A log is `text/plain`, from its beginning or its last N lines. With `follow` it goes on: a replica's until the
//! replica ends (and from before it has begun), a role's without end. A log that breaks off ends without HTTP's last
//! chunk. Of a replica that is gone, it is the log that was kept.
//!
//! Every refusal has a 4xx or 5xx status and an [`ErrorBody`].
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest body of a request with JSON: a service's YAML and its envs.
pub const JSON_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest bundle: workdir and file mounts belong in it, model weights do not.
pub const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A service that is asked for. The controller judges the YAML itself, whatever its client said.
#[derive(Clone, Serialize, Deserialize)]
pub struct UpRequest {
    pub name: String,
    /// The task's YAML, as written.
    pub source: String,
    /// What to call the YAML in messages.
    pub file_name: String,
    /// `--env` and `--env-file`, in order.
    pub envs: Vec<(String, String)>,
    /// `--secret`, in order.
    pub secrets: Vec<(String, String)>,
    /// The uploaded workdir and file mounts: `workdir/` and `mounts/0`, `mounts/1`, … in the order
    /// of the task's `file_mounts`.
    pub bundle: Option<String>,
}

impl fmt::Debug for UpRequest {
    /// Leaves out the values of envs and secrets, and the YAML that may hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpRequest").field("name", &self.name).field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

/// Another version of a service that is asked for. Safe to repeat: what is there already is not made again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRequest {
    #[serde(flatten)]
    pub up: UpRequest,
    #[serde(default)]
    pub mode: UpdateMode,
    /// The version that it is to follow; any if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// How a new version takes the place of the one that serves; SkyServe's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateMode {
    /// One replica after the other.
    #[default]
    Rolling,
    /// All at once, when as many new ones are ready.
    BlueGreen,
}

impl UpdateMode {
    /// Why this mode cannot be used, if it cannot.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Rolling => None,
            Self::BlueGreen => Some(
                "Updates with mode blue_green are not supported yet: leave the mode out for a rolling update, which keeps \
                 the old replicas serving until as many new ones are READY.",
            ),
        }
    }
}

/// What an update would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// The newest version there is.
    pub version: u64,
    pub changes: Vec<ChangeView>,
    /// Of the replicas that are alive, how many others take the place of.
    pub replicas_replaced: usize,
    /// Whether an update would do nothing. (Without changes it still launches again what was given up.)
    pub nothing_to_do: bool,
}

/// One thing that an update would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// `replicas: 2 → 4`, `run`.
    pub what: String,
    pub needs_new_replicas: bool,
}

/// One service, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    pub name: String,
    /// Newest version.
    pub version: u64,
    /// SkyServe's service status, such as `READY`.
    pub status: String,
    pub status_reason: Option<String>,
    /// How far the newest version is: `done`, `under_way` (replicas of another are still to be replaced) or `failed`
    /// (launching it was given up; what served before goes on).
    #[serde(default)]
    pub rollout: String,
    /// Since when a replica has been ready without a break.
    pub ready_since_ms: Option<u64>,
    pub created_at_ms: u64,
    /// `http://127.0.0.1:30001`; present as soon as it is decided. On a cluster empty until the cluster has said where.
    pub endpoint: String,
    /// Whether requests to `endpoint` reach the load balancer.
    pub endpoint_listens: bool,
    pub replicas_ready: usize,
    pub replicas_wanted: usize,
    pub load_balancing_policy: String,
    pub requested_resources: String,
    pub replicas: Vec<ReplicaView>,
}

/// One replica, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    pub id: u64,
    pub uid: String,
    pub version: u64,
    /// `http://127.64.0.1:8080`, once it runs.
    pub endpoint: Option<String>,
    pub launched_at_ms: u64,
    pub first_ready_at_ms: Option<u64>,
    /// Where it runs: `local process`, later a Kubernetes context.
    pub infra: String,
    pub resources: String,
    /// SkyServe's replica status, such as `READY`.
    pub status: String,
    pub status_reason: Option<String>,
}

/// The controller itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerView {
    pub version: String,
    pub process_id: u32,
    pub epoch: u64,
    /// Grows with every change that [`ServiceView`]s show.
    pub revision: u64,
    pub metrics_address: Option<String>,
    /// What keeps the controller from doing its work (say a full disk), if anything does.
    pub trouble: Option<String>,
}

/// Every service at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub revision: u64,
    pub services: Vec<ServiceView>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, to which service, and what to do next.
    pub error: String,
    /// Warnings and refusals about fields, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugging_a_request_shows_no_secret() {
        let request = UpRequest {
            name: "a".into(),
            source: "secrets: {T: hush}".into(),
            file_name: "a.yaml".into(),
            envs: vec![("E".into(), "hush".into())],
            secrets: vec![("S".into(), "hush".into())],
            bundle: None,
        };
        assert!(!format!("{request:?}").contains("hush"));
    }
}

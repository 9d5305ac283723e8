//! What init supervises, as a small JSON file for `status` to show. It is not synced: it tells of live processes, and
//! nothing is recovered from it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};
use skyserve_home::Home;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStatus {
    /// Of init. It is running if [`crate::running`] says so, not if this file does.
    pub pid: i32,
    /// Whether a command started it for its services, and so may stop it when the last one is gone; else
    /// somebody else runs it, say a service manager.
    #[serde(default)]
    pub background: bool,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// `running`, `stopping` or `stopped`.
    pub state: String,
    /// Whether this was a restart, so that scripts were replayed.
    pub restart: bool,
    /// Whether the marker of a successful start is there.
    pub marker: bool,
    pub roles: Vec<RoleStatus>,
    pub scripts: Vec<ScriptStatus>,
    pub replay: ReplayStatus,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleStatus {
    pub name: String,
    pub pid: Option<i32>,
    /// Whether the running process has said READY=1.
    pub ready: bool,
    pub restarts: u64,
    /// How it ended last, if it has.
    pub last_end: Option<String>,
    /// Descriptors kept for it, by name.
    pub kept: Vec<String>,
}

/// The setup script or a run script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptStatus {
    /// `setup` or `run-<id>`.
    pub name: String,
    /// `waiting` (for setup), `running`, `succeeded`, `retrying`.
    pub state: String,
    pub pid: Option<i32>,
    pub attempts: u64,
    pub last_end: Option<String>,
    pub log: String,
}

/// What the replay of the scripts at this start has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    /// Scripts found on disk.
    pub scripts: usize,
    /// Failed attempts of scripts so far.
    pub failed_attempts: u64,
    /// Setup has succeeded (or there is none) and every run script was started, this long after init's start.
    pub completed_after_ms: Option<u64>,
}

/// The status last written; `None` when there is none or it cannot be understood.
pub fn read_status(home: &Home) -> Option<InitStatus> {
    serde_json::from_slice(&fs::read(home.init_status()).ok()?).ok()
}

/// Replaces the file in one step.
pub(crate) fn write_status(home: &Home, status: &InitStatus) -> io::Result<()> {
    let path = home.init_status();
    let temporary = path.with_extension("json.tmp");
    let bytes = serde_json::to_vec(status)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&bytes)?;
    fs::rename(&temporary, &path)
}

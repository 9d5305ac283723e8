//! Local processes. Each replica is a folder below `~/.sky/serve/replicas` and a shim that holds it
//! ([`skyserve_shim::folder`] says which file means what); this provider writes launches and tombstones,
//! starts and ends shims, and reports what the folders say. It holds nothing in memory that the folders
//! do not, so another instance takes over at any moment.
//!
//! * A uid that was terminated stays so: its tombstone is on disk before anything of it is ended.
//! * A shim is only signalled through a pidfd whose process was verified to be it.

mod failure;
mod launch;
mod log;
mod observe;
mod phase;
mod readiness;
mod terminate;
#[cfg(test)]
mod tests;

pub use crate::kept_logs::replica_log_path;

use crate::{LogRequest, LogStream, OBSERVATIONS_QUEUED_MAX, Provider, ProviderError};
use failure::Failure;
use skyserve_home::Home;
use skyserve_model::{LaunchSpec, Observation, ReplicaUid};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How local replicas are run.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Give each replica a loopback address of its own, where the kernel allows it. Without, services
    /// must listen on the port in `PORT`.
    pub port_isolation: bool,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { port_isolation: true }
    }
}

/// Runs replicas as local processes.
#[derive(Debug, Clone)]
pub struct ProcessProvider {
    site: Arc<Site>,
}

/// Where replicas are and how they are started.
#[derive(Debug)]
struct Site {
    home: Home,
    /// Starts a shim when `--dir FOLDER` is appended.
    shim_command: Vec<OsString>,
    options: ProcessOptions,
}

impl ProcessProvider {
    /// A provider for `home` that starts shims with `shim_command` (`skyserve shim`).
    pub fn new(home: Home, shim_command: Vec<OsString>, options: ProcessOptions) -> io::Result<Self> {
        if shim_command.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command that starts a shim is empty"));
        }
        launch::make_private_dir(&home.replicas_dir())?;
        // Folder names in messages, environments and locks are all the one without links.
        let path = home.path().canonicalize()?;
        let home = Home::at(path, home.runtime_dir());
        Ok(Self { site: Arc::new(Site { home, shim_command, options }) })
    }

    /// Runs `work`, which waits for disks and processes, where it keeps nothing else waiting.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Site) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let site = Arc::clone(&self.site);
        match tokio::task::spawn_blocking(move || work(&site)).await {
            Ok(result) => result.map_err(ProviderError::from),
            Err(error) => Err(ProviderError { message: format!("interrupted: {error}"), retryable: true }),
        }
    }
}

impl Provider for ProcessProvider {
    async fn launch(&self, spec: &LaunchSpec) -> Result<(), ProviderError> {
        let spec = spec.clone();
        self.blocking(move |site| launch::launch(site, &spec)).await
    }

    async fn terminate(&self, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
        let (asked, finished) = (uid.clone(), uid.clone());
        if let Some(shim) = self.blocking(move |site| terminate::ask(site, &asked, grace_ms)).await? {
            terminate::wait(uid, shim, grace_ms).await?;
        }
        self.blocking(move |site| terminate::finish(site, &finished)).await
    }

    async fn list(&self) -> Result<Vec<Observation>, ProviderError> {
        self.blocking(|site| {
            let replicas_dir = site.home.replicas_dir();
            let uids = phase::uids(&replicas_dir).map_err(|error| Failure::of_home(&replicas_dir, error))?;
            let phases = uids.into_iter().filter_map(|uid| {
                let phase = phase::look(&site.folder(&uid)).phase?;
                Some(Observation { uid, phase })
            });
            Ok(phases.collect())
        })
        .await
    }

    fn observe(&self) -> mpsc::Receiver<Observation> {
        let (sender, receiver) = mpsc::channel(OBSERVATIONS_QUEUED_MAX);
        tokio::spawn(observe::observe(Arc::clone(&self.site), sender));
        receiver
    }

    async fn log(&self, uid: &ReplicaUid, request: LogRequest) -> Result<Option<LogStream>, ProviderError> {
        Ok(log::open(&self.site, uid, request))
    }
}

impl Site {
    fn folder(&self, uid: &ReplicaUid) -> skyserve_shim::folder::Folder {
        skyserve_shim::folder::Folder::at(self.home.replica_dir(uid.as_str()))
    }
}

//! What the binary tells init: the home, the roles, the scripts of the first start, and every bound in time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skyserve_home::Home;
use skyserve_scripts::RunId;

/// Name of the role that is started first and keeps serving while the others restart.
pub const LOAD_BALANCER: &str = "loadbalancer";
/// Name of the role that writes the database.
pub const CONTROLLER: &str = "controller";
/// Name of the role that brings the controller's routes to a load balancer in another pod.
pub const FOLLOWER: &str = "follower";

/// From the end of a load balancer's drain to its being killed: it only has to close and exit.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL of the other roles: one transaction and a lock to let go.
const ROLE_STOP_GRACE: Duration = Duration::from_secs(10);

/// What [`crate::run`] supervises.
#[derive(Debug, Clone)]
pub struct Options {
    pub home: Home,
    /// Started in this order.
    pub roles: Vec<Role>,
    /// `--setup FILE`: persisted and run at the first start; a restart replays what is on disk instead.
    pub setup: Option<PathBuf>,
    /// `--run ID=FILE`, likewise.
    pub runs: Vec<(RunId, PathBuf)>,
    /// Where the account of a replay goes.
    pub recovery_log: PathBuf,
    /// Whether what roles and scripts print also goes to init's own standard output, besides their logs: what a
    /// container's platform keeps.
    pub show_output: bool,
    pub timing: Timing,
}

/// A part of SkyServe that init keeps running.
#[derive(Debug, Clone)]
pub struct Role {
    /// Without a colon; shown in `status`.
    pub name: String,
    /// The program by absolute path, then its arguments.
    pub argv: Vec<OsString>,
    /// Gets the role's standard output and error.
    pub log_file: PathBuf,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Whether it is told to stop only once all others are gone, because they need it to their end.
    pub stops_last: bool,
}

impl Role {
    /// A role of the program `exe`, by its name.
    fn of(exe: &Path, name: &str, log_file: PathBuf, stop_grace: Duration) -> Self {
        let argv = vec![exe.as_os_str().to_owned(), name.into()];
        Self { name: name.to_owned(), argv, log_file, stop_grace, stops_last: false }
    }
}

/// Every bound in time, with its default.
#[derive(Debug, Clone)]
pub struct Timing {
    pub role_restart: RestartBounds,
    /// Longest wait for the next start of a role that had been ready: somebody waits for it.
    pub ready_role_restart_max: Duration,
    pub script_restart: RestartBounds,
    /// From SIGTERM to SIGKILL for setup and run scripts and what they left in the background.
    pub script_stop_grace: Duration,
}

/// How long to wait before starting something again.
#[derive(Debug, Clone, Copy)]
pub struct RestartBounds {
    /// After the first failure; doubles with each further one.
    pub first: Duration,
    pub max: Duration,
    /// What was up for this long was healthy: it is started again at once, and its failures are forgotten.
    pub healthy_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // A role that dies at start costs an exec each time: ten a second at first show a hiccup to nobody, one
            // in five seconds cost nothing for ever.
            role_restart: RestartBounds {
                first: Duration::from_millis(10),
                max: Duration::from_secs(5),
                healthy_after: Duration::from_secs(1),
            },
            // Five starts a second at most, of a role that works and then is killed: connections meanwhile wait in
            // the backlog without anybody noticing.
            ready_role_restart_max: Duration::from_millis(200),
            // Scripts install packages and call out: give what they wait for some time to recover.
            script_restart: RestartBounds {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
                healthy_after: Duration::from_secs(60),
            },
            // Half of the 30 s that Kubernetes gives a pod by default.
            script_stop_grace: Duration::from_secs(15),
        }
    }
}

impl Timing {
    /// How long to wait before starting a role that has ended, which had said that it is ready or not.
    pub(crate) fn role_bounds(&self, was_ready: bool) -> RestartBounds {
        let bounds = self.role_restart;
        if was_ready { RestartBounds { max: bounds.max.min(self.ready_role_restart_max), ..bounds } } else { bounds }
    }
}

impl Options {
    /// The load balancer and the controller of this home, both roles of the program `exe`. The load balancer drains
    /// for at most `drain`.
    pub fn standard(home: Home, exe: &Path, drain: Duration) -> Self {
        let roles = vec![
            Role::of(exe, LOAD_BALANCER, home.load_balancer_log(), drain + DRAIN_MARGIN),
            Role::of(exe, CONTROLLER, home.controller_log(), ROLE_STOP_GRACE),
        ];
        Self::of(home, roles)
    }

    /// A load balancer whose controller is elsewhere, and what brings it that controller's routes: to the end of its
    /// drain, since replicas come and go meanwhile.
    pub fn load_balancer_only(home: Home, exe: &Path, drain: Duration) -> Self {
        let follower = Role::of(exe, FOLLOWER, home.follower_log(), ROLE_STOP_GRACE);
        let roles = vec![
            Role::of(exe, LOAD_BALANCER, home.load_balancer_log(), drain + DRAIN_MARGIN),
            Role { stops_last: true, ..follower },
        ];
        Self::of(home, roles)
    }

    fn of(home: Home, roles: Vec<Role>) -> Self {
        let is_first_process = std::process::id() == 1;
        Self {
            recovery_log: if is_first_process { "/tmp/ha_recovery.log".into() } else { home.recovery_log() },
            home,
            roles,
            setup: None,
            runs: Vec::new(),
            show_output: is_first_process,
            timing: Timing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_was_ready_is_missed_sooner_than_one_that_never_was() {
        let timing = Timing::default();
        assert_eq!(timing.role_bounds(true).max, timing.ready_role_restart_max);
        assert_eq!(timing.role_bounds(false).max, timing.role_restart.max);
        assert_eq!(timing.role_bounds(true).first, timing.role_restart.first);
    }
}

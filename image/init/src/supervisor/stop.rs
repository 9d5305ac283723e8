//! Stopping in order: everything gets SIGTERM at once, each its own grace, then SIGKILL. The load balancer so goes on
//! serving, for as long as it needs to finish what it has begun. A role that the others need to their end is asked when
//! they are gone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpgid};

use super::{RoleState, Supervisor};
use crate::journal::say;
use crate::leftovers::{self, Marked};
use crate::sys;

/// Pause between two looks for processes that scripts have left in the background.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long after SIGKILL to wait for a process that does not go (it hangs in the kernel) before leaving it behind.
const GIVE_UP_AFTER_KILL: Duration = Duration::from_secs(3);

/// Signals that come together mean one wish: two commands that each take the last service down, a terminal that
/// signals the whole group.
const SAME_WISH_WITHIN: Duration = Duration::from_millis(500);

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    since: Instant,
    /// When what scripts have left in the background is killed.
    kill_background_at: Instant,
    /// Whether the roles that stop last have been asked to.
    asked_last: bool,
}

impl Stopping {
    /// When to look again whether all is gone.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        now + LOOK_INTERVAL
    }
}

impl RoleState {
    fn ask_to_stop(&mut self, kill_at: Instant) {
        let Some(pid) = self.process.pid() else { return };
        self.process.kill_at = Some(kill_at);
        sys::signal_child(pid, libc::SIGTERM);
        // A stopped process takes SIGTERM only once it goes on.
        sys::signal_child(pid, libc::SIGCONT);
    }
}

impl Supervisor {
    /// The first time, asks everything to stop; the second time, leaves no more grace.
    pub(super) fn stop(&mut self, signal: i32) {
        let now = Instant::now();
        if self.stopping.as_ref().is_some_and(|stopping| now.duration_since(stopping.since) < SAME_WISH_WITHIN) {
            return;
        }
        let hurry = self.stopping.is_some();
        let grace = |grace: Duration| if hurry { now } else { now + grace };
        let script_grace = grace(self.options.timing.script_stop_grace);
        let name = nix::sys::signal::Signal::try_from(signal).map_or("signal", |signal| signal.as_str());
        say(format_args!("got {name}{}", if hurry { " again: ending everything now" } else { ": stopping" }));
        for state in &mut self.roles {
            state.process.start_at = None;
            if hurry || !state.role.stops_last {
                state.ask_to_stop(grace(state.role.stop_grace));
            }
        }
        for script in &mut self.scripts {
            script.process.start_at = None;
            if let Some(pid) = script.process.pid() {
                script.process.kill_at = Some(script_grace);
                sys::signal_group(pid, libc::SIGTERM);
                sys::signal_group(pid, libc::SIGCONT);
            }
        }
        if !hurry {
            self.signal_background(libc::SIGTERM);
        }
        self.stopping = Some(Stopping { since: now, kill_background_at: script_grace, asked_last: hurry });
        self.status.state = "stopping".to_owned();
        self.status_changed = true;
    }

    /// Asks the roles that stop last, once all others are gone.
    pub(super) fn stop_last(&mut self, now: Instant) {
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| !stopping.asked_last) else { return };
        if self.roles.iter().any(|state| !state.role.stops_last && state.process.child.is_some()) {
            return;
        }
        stopping.asked_last = true;
        for state in self.roles.iter_mut().filter(|state| state.role.stops_last) {
            state.ask_to_stop(now + state.role.stop_grace);
        }
    }

    /// Kills those whose grace is over.
    pub(super) fn kill_overdue(&mut self, now: Instant) {
        for state in &mut self.roles {
            if let Some(pid) = state.process.pid().filter(|_| state.process.kill_at.is_some_and(|at| at <= now)) {
                say(format_args!("{} has not stopped in time: killing it", state.role.name));
                state.process.kill_at = None;
                sys::signal_child(pid, libc::SIGKILL);
            }
        }
        for script in &mut self.scripts {
            if let Some(pid) = script.process.pid().filter(|_| script.process.kill_at.is_some_and(|at| at <= now)) {
                say(format_args!("the script of process {pid} has not stopped in time: killing its group"));
                script.process.kill_at = None;
                sys::signal_group(pid, libc::SIGKILL);
            }
        }
    }

    /// Whether a stop is over: no child is left, and nothing that a script has left in the background.
    pub(super) fn is_finished(&mut self, now: Instant) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let (kill_at, give_up_at) = (stopping.kill_background_at, stopping.kill_background_at + GIVE_UP_AFTER_KILL);
        let has_child = self.roles.iter().any(|state| state.process.child.is_some())
            || self.scripts.iter().any(|script| script.process.child.is_some());
        if now >= kill_at {
            self.signal_background(libc::SIGKILL);
        }
        if has_child {
            return false;
        }
        let left = self.background();
        if now >= give_up_at {
            left.iter().for_each(|marked| say(format_args!("process {} of {} does not go", marked.pid, marked.name)));
            return true;
        }
        left.is_empty()
    }

    /// Gives everything back, and says goodbye.
    pub(super) fn leave(mut self) -> ExitCode {
        self.status.state = "stopped".to_owned();
        self.status_changed = true;
        self.save_status();
        // A role removes its own, unless it was killed, or stopped before it had replaced that of one that was.
        for socket in [self.options.home.control_socket(), self.options.home.load_balancer_socket()] {
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    say(format_args!("cannot remove {}: {error}", socket.display()));
                }
                _ => {}
            }
        }
        drop(self.notify);
        drop(self.lock);
        say(format_args!("stopped"));
        ExitCode::SUCCESS
    }

    fn signal_background(&self, signal: i32) {
        for marked in self.background() {
            if let Err(error) = leftovers::signal(&marked, &self.mark_home, signal) {
                say(format_args!("cannot signal process {} of {}: {error}", marked.pid, marked.name));
            }
        }
    }

    /// Processes of scripts that are not in the group of a script that still runs.
    fn background(&self) -> Vec<Marked> {
        let mut found = leftovers::scan(&self.mark_home);
        found.retain(|marked| {
            let group = getpgid(Some(Pid::from_raw(marked.pid))).map_or(0, Pid::as_raw);
            marked.is_of_script() && !self.scripts.iter().any(|script| script.process.pid() == Some(group))
        });
        found
    }
}

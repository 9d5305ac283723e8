//! Roles: start, restart, what they say.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::fd_store::{FDS_PER_ROLE_MAX, Stored};
use crate::journal::say;
use crate::leftovers::{self, Marked};
use crate::notify::Message;
use crate::output::{self, Output};
use crate::status::RoleStatus;
use crate::sys::Exit;

impl Supervisor {
    /// Ends a role that an init before this one has left running, right before its successor starts.
    pub(super) fn end_leftover_role(&self, index: usize, leftovers: &[Marked]) {
        let name = &self.roles[index].role.name;
        let of_role: Vec<&Marked> = leftovers.iter().filter(|marked| marked.is_role(name)).collect();
        for marked in &of_role {
            say(format_args!("ending {name}, process {}, left over from an init that was killed", marked.pid));
        }
        for (marked, error) in leftovers::kill(of_role.into_iter(), &self.mark_home) {
            say(format_args!("cannot end {name}, process {}: {error}; kill it if the new one cannot work", marked.pid));
        }
    }

    pub(super) fn start_role(&mut self, index: usize, now: Instant) {
        let state = &mut self.roles[index];
        let name = &state.role.name;
        let (output, printed) = match self.options.show_output.then(output::pipe_for_role).and_then(Result::ok) {
            Some((read, write)) => (Some(Output::new(read, state.role.log_file.clone(), true, now)), Some(write)),
            None => (None, None),
        };
        state.output = output;
        match self.launcher.start_role(&state.role, index, &self.store, printed.as_ref().map(AsFd::as_fd)) {
            Ok(pid) => {
                say(format_args!("started {name}, process {pid}"));
                state.process.started(pid, now);
            }
            Err(error) => {
                let how = format!("could not be started: {error}");
                say(format_args!("{name} {how}"));
                let wait = state.process.ended(how, self.options.timing.role_restart, now);
                state.process.start_at = Some(now + wait);
            }
        }
        self.status_changed = true;
    }

    pub(super) fn role_ended(&mut self, index: usize, exit: Exit, now: Instant) {
        let state = &mut self.roles[index];
        if let Some(mut output) = state.output.take() {
            output.drain(&mut self.buffer);
        }
        let bounds = self.options.timing.role_bounds(std::mem::take(&mut state.ready));
        let name = &state.role.name;
        let wait = state.process.ended(exit.to_string(), bounds, now);
        self.status_changed = true;
        if self.stopping.is_some() {
            say(format_args!("{name} {exit}"));
        } else if wait == Duration::ZERO {
            // The process first, then the words.
            self.start_role(index, now);
            say(format_args!("{} {exit}; it was started again at once", self.roles[index].role.name));
        } else {
            say(format_args!(
                "{name} {exit} soon after its start; starting it again in {wait:?}, its log is {}",
                state.role.log_file.display()
            ));
            state.process.start_at = Some(now + wait);
        }
    }

    /// A message whose sender is the role's main process.
    pub(super) fn role_said(&mut self, index: usize, message: Message) {
        let fields = message.fields;
        let name = fields.fd_name.as_deref();
        let role = self.roles[index].role.name.clone();
        if fields.fd_store {
            for fd in message.fds {
                match self.store.store(index, name, fd) {
                    Stored::Kept | Stored::AlreadyKept => {}
                    Stored::Full => say(format_args!(
                        "{role} has {FDS_PER_ROLE_MAX} sockets kept, no more are taken: they will not outlive it"
                    )),
                    Stored::Unusable => say(format_args!("{role} gave a descriptor that cannot be kept")),
                }
            }
            self.status_changed = true;
        } else if fields.fd_store_remove
            && let Some(name) = name
        {
            self.store.remove(index, name);
            self.status_changed = true;
        }
        if fields.ready && !self.roles[index].ready {
            self.roles[index].ready = true;
            say(format_args!("{role} is ready"));
            self.status_changed = true;
            self.mark_when_ready();
        }
        if fields.stopping {
            self.roles[index].ready = false;
            self.status_changed = true;
        }
    }

    pub(super) fn role_statuses(&self) -> Vec<RoleStatus> {
        let status = |(index, state): (usize, &super::RoleState)| RoleStatus {
            name: state.role.name.clone(),
            pid: state.process.pid(),
            ready: state.ready,
            restarts: state.process.starts.saturating_sub(1),
            last_end: state.process.last_end.clone(),
            kept: self.store.of_role(index).map(|(name, _)| name.to_owned()).collect(),
        };
        self.roles.iter().enumerate().map(status).collect()
    }
}

//! The supervisor: one thread that waits for signals, messages, output and timers, and acts on each.
//!
//! Invariants:
//! * A child is known from the moment it exists: no signal interrupts (see [`crate::signals`]), and what follows the fork
//!   is registering it.
//! * A child is signalled only before it is waited for, when its id is certainly its own. Whatever else is to be
//!   signalled is found and verified as [`crate::leftovers`] tells.
//! * A role's messages are read before its end is acted on, so a listener handed over by a process that then died is kept.
//! * Replicas are not init's: of its roles init signals the main process alone, never their groups or descendants.
//! * After the start, no failure (of a log, a status file, a script, a role) ends the supervision.
//!
//! Once started, waiting, forwarding, reaping and keeping descriptors allocate little (a name, an entry of a list);
//! starting a child and writing the status allocate, and give it back. Logs and status are on the home's volume:
//! when that hangs, so does init, until it answers again.

mod roles;
mod scripts;
mod stop;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use skyserve_home::HomeError;
use skyserve_scripts::{ScriptError, Scripts, Start};

use crate::backoff::Backoff;
use crate::fd_store::FdStore;
use crate::journal::{Journal, now as wall_clock, say};
use crate::launch::Launcher;
use crate::leftovers;
use crate::lock::{InitLock, LockError};
use crate::log_file::{LOG_BYTES_MAX, rotate_by_copy};
use crate::notify::NotifySocket;
use crate::options::{Options, RestartBounds, Role};
use crate::output::{BUFFER_BYTES, Output};
use crate::signals::{Meaning, Signals, meaning};
use crate::status::{InitStatus, ReplayStatus, write_status};
use crate::sys::{self, Exit};
use scripts::Script;
use stop::Stopping;

/// How often logs are looked at, and what has failed without consequence is tried again.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Pause when the kernel has no memory to wait with.
const FAILED_WAIT_PAUSE: Duration = Duration::from_millis(100);
/// Most messages taken in one go; the kernel queues fewer, so this only bounds a flood.
const MESSAGES_AT_ONCE_MAX: usize = 1024;

/// Why init did not start. Nothing was started or changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("cannot read the script {path} given on the command line: {source}")]
    GivenScript { path: PathBuf, source: std::io::Error },
    #[error("cannot bind the notify socket {path}: {source}")]
    Notify { path: PathBuf, source: std::io::Error },
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: std::io::Error },
}

/// What is true of everything that is kept running.
#[derive(Debug, Default)]
struct Process {
    child: Option<Child>,
    /// When to start it, if it is not running and shall.
    start_at: Option<Instant>,
    /// When to kill it, if it is running and shall not.
    kill_at: Option<Instant>,
    backoff: Backoff,
    starts: u64,
    last_end: Option<String>,
}

#[derive(Debug)]
struct Child {
    pid: i32,
    since: Instant,
}

impl Process {
    fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.pid)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.child.is_none() && self.start_at.is_some_and(|at| at <= now)
    }

    fn started(&mut self, pid: i32, now: Instant) {
        self.child = Some(Child { pid, since: now });
        self.start_at = None;
        self.starts += 1;
    }

    /// Notes an end (or a start that failed) and says how long to wait before the next start.
    fn ended(&mut self, how: String, bounds: RestartBounds, now: Instant) -> Duration {
        let up = self.child.take().map_or(Duration::ZERO, |child| now.duration_since(child.since));
        self.kill_at = None;
        self.last_end = Some(how);
        self.backoff.after_end(up, bounds)
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.child {
            None => self.start_at,
            Some(_) => self.kill_at,
        }
    }
}

/// A role and its process.
#[derive(Debug)]
struct RoleState {
    role: Role,
    process: Process,
    ready: bool,
    /// What it prints, where init shows it.
    output: Option<Output>,
}

/// Whose output a polled pipe is.
#[derive(Debug, Clone, Copy)]
enum Printer {
    Role(usize),
    Script(usize),
}

pub(crate) struct Supervisor {
    options: Options,
    scripts_store: Scripts,
    lock: InitLock,
    signals: Signals,
    notify: NotifySocket,
    launcher: Launcher,
    /// The home, or the pod's own folder, as it stands in the marks of children.
    mark_home: PathBuf,
    store: FdStore,
    roles: Vec<RoleState>,
    scripts: Vec<Script>,
    journal: Journal,
    started: Instant,
    status: InitStatus,
    status_changed: bool,
    /// Whether the scripts on disk have been read.
    replayed: bool,
    stopping: Option<Stopping>,
    upkeep_at: Instant,
    buffer: Box<[u8]>,
    polled: Vec<libc::pollfd>,
    /// Whose each polled pipe is, from the third on.
    polled_printers: Vec<Printer>,
}

impl Supervisor {
    /// Gets the home's lock and makes everything ready; starts nothing yet.
    pub(crate) fn new(options: Options) -> Result<Self, StartError> {
        let system = |action| move |source: nix::errno::Errno| StartError::System { action, source: source.into() };
        let signals = Signals::take().map_err(system("take signals"))?;
        options.home.make_dirs()?;
        let lock = InitLock::acquire(&options.home)?;
        let is_first_process = std::process::id() == 1;
        if !is_first_process {
            prctl::set_child_subreaper(true).map_err(system("adopt orphans"))?;
        }
        let notify_path = options.home.notify_socket();
        let notify =
            NotifySocket::bind(&notify_path).map_err(|source| StartError::Notify { path: notify_path, source })?;
        // Children are found again by this name, which must be the same however the home was spelled.
        let identity = options.home.identity();
        let mark_home = identity.canonicalize().unwrap_or_else(|_| identity.to_path_buf());
        let launcher = Launcher::new(options.home.clone(), mark_home.clone())
            .map_err(|source| StartError::System { action: "open /dev/null", source })?;
        let scripts_store = Scripts::new(options.home.clone());
        let restart = scripts_store.start()? == Start::Restart;
        let now = Instant::now();
        let roles = options.roles.iter().map(|role| RoleState {
            role: role.clone(),
            process: Process { start_at: Some(now), ..Process::default() },
            ready: false,
            output: None,
        });
        let status = InitStatus {
            pid: std::process::id() as i32,
            background: std::env::var_os(crate::background::BACKGROUND_VARIABLE).is_some(),
            started_at_ms: wall_clock().as_millis() as u64,
            state: "running".to_owned(),
            restart,
            marker: restart,
            replay: ReplayStatus::default(),
            roles: Vec::new(),
            scripts: Vec::new(),
        };
        Ok(Self {
            roles: roles.collect(),
            scripts: Vec::new(),
            journal: Journal::new(options.recovery_log.clone()),
            started: now,
            status,
            status_changed: true,
            replayed: false,
            stopping: None,
            upkeep_at: now + UPKEEP_INTERVAL,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            polled: Vec::new(),
            polled_printers: Vec::new(),
            store: FdStore::default(),
            options,
            scripts_store,
            lock,
            signals,
            notify,
            launcher,
            mark_home,
        })
    }

    /// Starts everything and supervises it until told to stop.
    pub(crate) fn run(mut self) -> Result<ExitCode, StartError> {
        self.persist_given_scripts()?;
        let leftovers = leftovers::scan(&self.mark_home);
        for index in 0..self.roles.len() {
            self.end_leftover_role(index, &leftovers);
            self.start_role(index, Instant::now());
        }
        self.end_leftover_scripts(&leftovers);
        self.replay_scripts(Instant::now());
        loop {
            let now = Instant::now();
            self.run_timers(now);
            if self.is_finished(now) {
                break;
            }
            self.save_status();
            self.wait(now);
            self.take_signals();
            self.take_messages();
            self.take_output();
            self.reap();
        }
        Ok(self.leave())
    }

    fn run_timers(&mut self, now: Instant) {
        for index in 0..self.roles.len() {
            if self.roles[index].process.is_due(now) {
                // What failed may have met a process of its kind that was just being born at the first look.
                self.end_leftover_role(index, &leftovers::scan(&self.mark_home));
                self.start_role(index, now);
            }
        }
        for index in 0..self.scripts.len() {
            if self.scripts[index].process.is_due(now) {
                self.start_script(index, now);
            }
        }
        self.scripts.retain(|script| !script.is_removed);
        self.stop_last(now);
        self.kill_overdue(now);
        if now >= self.upkeep_at {
            self.upkeep_at = now + UPKEEP_INTERVAL;
            self.upkeep(now);
        }
    }

    fn upkeep(&mut self, now: Instant) {
        let own_log = self.options.home.init_log();
        // What init writes itself it rotates as it writes.
        let unshown = self.roles.iter().filter(|state| state.output.is_none()).map(|state| &state.role.log_file);
        for log in unshown.chain([&own_log]) {
            if let Err(error) = rotate_by_copy(log, LOG_BYTES_MAX) {
                say(format_args!("cannot rotate the log {}: {error}", log.display()));
            }
        }
        if !self.replayed {
            self.replay_scripts(now);
        }
        self.mark_when_ready();
    }

    /// Waits until something happens or is due.
    fn wait(&mut self, now: Instant) {
        let mut due = self.upkeep_at;
        let mut consider = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        self.roles.iter().for_each(|state| consider(state.process.next_deadline()));
        self.scripts.iter().for_each(|script| consider(script.process.next_deadline()));
        consider(self.stopping.as_ref().map(|stopping| stopping.next_look(now)));
        self.polled.clear();
        self.polled_printers.clear();
        for fd in [self.signals.raw_fd(), self.notify.raw_fd()] {
            self.polled.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        }
        let roles = self.roles.iter_mut().map(|state| &mut state.output).enumerate();
        let roles = roles.map(|(index, output)| (Printer::Role(index), output));
        let scripts = self.scripts.iter_mut().map(|script| &mut script.output).enumerate();
        let scripts = scripts.map(|(index, output)| (Printer::Script(index), output));
        for (printer, output) in roles.chain(scripts) {
            match output.as_mut().map(|output| output.readiness(now)) {
                Some(Ok(fd)) => {
                    self.polled.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
                    self.polled_printers.push(printer);
                }
                Some(Err(at)) => consider(Some(at)),
                None => {}
            }
        }
        if let Err(error) = sys::poll(&mut self.polled, Some(due.saturating_duration_since(now))) {
            say(format_args!("cannot wait for events, looking again soon: {error}"));
            std::thread::sleep(FAILED_WAIT_PAUSE);
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match meaning(signal) {
                Meaning::Stop => self.stop(signal),
                Meaning::Forward => self.forward(signal),
                Meaning::Child | Meaning::Terminal => {}
            }
        }
    }

    fn forward(&self, signal: i32) {
        self.roles.iter().filter_map(|state| state.process.pid()).for_each(|pid| sys::signal_child(pid, signal));
        self.scripts.iter().filter_map(|script| script.process.pid()).for_each(|pid| sys::signal_group(pid, signal));
    }

    fn take_messages(&mut self) {
        for _ in 0..MESSAGES_AT_ONCE_MAX {
            let Some(message) = self.notify.receive() else { return };
            if let Some(id) = message.fields.run {
                self.run_requested(id);
            } else if let Some(index) = self.roles.iter().position(|state| state.process.pid() == Some(message.pid)) {
                self.role_said(index, message);
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, exit)) = sys::peek_ended_child() {
            // All it has sent is in the queue by now, and its id is still its own.
            self.take_messages();
            let now = Instant::now();
            if let Some(index) = self.roles.iter().position(|state| state.process.pid() == Some(pid)) {
                sys::collect(pid);
                self.role_ended(index, exit, now);
            } else if let Some(index) = self.scripts.iter().position(|script| script.process.pid() == Some(pid)) {
                if exit != Exit::Code(0) && self.stopping.is_none() {
                    // What a failed attempt left running would be in the way of the next one.
                    sys::signal_group(pid, libc::SIGKILL);
                }
                sys::collect(pid);
                self.script_ended(index, exit, now);
            } else {
                sys::collect(pid);
            }
        }
    }

    fn save_status(&mut self) {
        if !self.status_changed {
            return;
        }
        self.status_changed = false;
        self.status.roles = self.role_statuses();
        self.status.scripts = self.scripts.iter().map(Script::status).collect();
        if let Err(error) = write_status(&self.options.home, &self.status) {
            say(format_args!("cannot write {}: {error}", self.options.home.init_status().display()));
        }
    }
}

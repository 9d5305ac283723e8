//! The setup script and the run scripts: persisted, replayed, retried, each on its own.
//!
//! Run scripts start once setup has succeeded, all at once. A script that fails is reported and tried again after a
//! while; it stops no role and hides no other script. Exit code 0 is success, and ends a script for this start of init;
//! what it has left in the background goes on.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use skyserve_scripts::{RUN_SCRIPTS_MAX, RunId, SCRIPT_BYTES_MAX, ScriptKind};

use super::{Printer, Process, StartError, Supervisor};
use crate::journal::say;
use crate::leftovers::{self, Marked, SCRIPT_PREFIX};
use crate::output::{self, Output};
use crate::status::ScriptStatus;
use crate::sys::Exit;

/// A script and its process.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) kind: ScriptKind,
    path: PathBuf,
    log: PathBuf,
    pub(super) process: Process,
    pub(super) output: Option<Output>,
    has_succeeded: bool,
    /// Inode and time of change of the file that was run last: whoever persists a script makes a new file.
    last_run: Option<(u64, i64, i64)>,
    /// Its file is gone: it is not wanted any more.
    pub(super) is_removed: bool,
}

impl Script {
    fn name(&self) -> String {
        match self.kind {
            ScriptKind::Setup => "setup".to_owned(),
            ScriptKind::Run(id) => format!("run-{id}"),
        }
    }

    pub(super) fn status(&self) -> ScriptStatus {
        let state = match (&self.process.child, self.has_succeeded, self.process.start_at) {
            (Some(_), ..) => "running",
            (None, true, _) => "succeeded",
            (None, false, Some(_)) => "retrying",
            (None, false, None) => "waiting",
        };
        ScriptStatus {
            name: self.name(),
            state: state.to_owned(),
            pid: self.process.pid(),
            attempts: self.process.starts,
            last_end: self.process.last_end.clone(),
            log: self.log.display().to_string(),
        }
    }
}

impl Supervisor {
    /// At a first start, keeps the scripts given on the command line, before anything runs. A restart replays what is
    /// on disk, whatever the command line says: there, a script may have been added, replaced or removed since.
    pub(super) fn persist_given_scripts(&self) -> Result<(), StartError> {
        if self.status.restart {
            if self.options.setup.is_some() || !self.options.runs.is_empty() {
                say(format_args!("this is a restart: the scripts on disk are replayed, not those on the command line"));
            }
            return Ok(());
        }
        if let Some(path) = &self.options.setup {
            self.scripts_store.persist_setup(&read_given(path)?)?;
        }
        for (id, path) in &self.options.runs {
            self.scripts_store.persist_run(*id, &read_given(path)?)?;
        }
        Ok(())
    }

    pub(super) fn end_leftover_scripts(&self, leftovers: &[Marked]) {
        let of_scripts: Vec<&Marked> = leftovers.iter().filter(|marked| marked.is_of_script()).collect();
        if !of_scripts.is_empty() {
            say(format_args!(
                "ending {} processes of scripts left over from an init that was killed",
                of_scripts.len()
            ));
        }
        for (marked, error) in leftovers::kill(of_scripts.into_iter(), &self.mark_home) {
            say(format_args!("cannot end process {} of {}: {error}", marked.pid, marked.name));
        }
    }

    /// Reads what is on disk and starts it: setup, or all run scripts when there is no setup.
    pub(super) fn replay_scripts(&mut self, now: Instant) {
        let replay = match self.scripts_store.replay() {
            Ok(replay) => replay,
            Err(error) => {
                self.account(format_args!("cannot read the scripts, trying again later: {error}"));
                return;
            }
        };
        self.replayed = true;
        if !replay.cleared.is_empty() {
            self.account(format_args!("cleared away {} leftovers of interrupted writes", replay.cleared.len()));
        }
        for path in &replay.ignored {
            self.account(format_args!("ignored {}: its name is no sky_job_<id>", path.display()));
        }
        // A damaged script is known too: it is reported at each attempt, and runs once someone has repaired it.
        let setup = replay.setup.map(|path| (ScriptKind::Setup, path));
        let runs = replay.runs.into_iter().map(|(id, path)| (ScriptKind::Run(id), path));
        let damaged = replay.damaged.into_iter().map(|damaged| (damaged.script, damaged.path));
        for (kind, path) in setup.into_iter().chain(runs).chain(damaged) {
            self.know_script(kind, path);
        }
        let has_setup = self.scripts.iter().any(|script| script.kind == ScriptKind::Setup);
        let runs = self.scripts.len() - usize::from(has_setup);
        self.status.replay.scripts = self.scripts.len();
        let setup = if has_setup { "a setup script" } else { "no setup script" };
        if self.status.restart {
            self.account(format_args!("Starting HA recovery: {setup} and {runs} run scripts"));
        } else {
            self.account(format_args!("first start: {setup} and {runs} run scripts"));
        }
        if has_setup {
            let setup = self.scripts.iter_mut().filter(|script| script.kind == ScriptKind::Setup);
            setup.for_each(|script| script.process.start_at = Some(now));
        } else {
            self.setup_succeeded(now);
        }
    }

    /// Someone has persisted a run script and wants it started.
    pub(super) fn run_requested(&mut self, id: RunId) {
        if self.stopping.is_some() {
            say(format_args!("run script {id} is kept; it will run at the next start, as this runtime is stopping"));
            return;
        }
        let kind = ScriptKind::Run(id);
        let known = self.scripts.iter().find(|script| script.kind == kind);
        if known.is_some_and(|script| script.last_run.is_some() && script.last_run == file_version(&script.path)) {
            // It was replayed between being persisted and being asked for.
            return;
        }
        if known.is_some_and(|script| script.process.child.is_some()) {
            say(format_args!("run script {id} is running already; what was kept now will run at the next start"));
            return;
        }
        let may_run = self.has_setup_succeeded();
        let index = match self.scripts.iter().position(|script| script.kind == kind) {
            Some(index) => index,
            None if self.scripts.len() > RUN_SCRIPTS_MAX => {
                say(format_args!("run script {id} is not started: there are {RUN_SCRIPTS_MAX} already"));
                return;
            }
            None => {
                self.know_script(kind, self.scripts_store.run_path(id));
                self.scripts.len() - 1
            }
        };
        let script = &mut self.scripts[index];
        script.has_succeeded = false;
        script.process.backoff.reset();
        script.process.start_at = may_run.then(Instant::now);
        self.status_changed = true;
    }

    pub(super) fn start_script(&mut self, index: usize, now: Instant) {
        let script = &mut self.scripts[index];
        if !script.path.exists() {
            say(format_args!("{} was removed: it is not run any more", script.name()));
            script.is_removed = true;
            script.process.start_at = None;
            self.status_changed = true;
            return;
        }
        let name = script.name();
        script.last_run = file_version(&script.path);
        let started = match self.scripts_store.check(&script.path) {
            Err(damage) => Err(damage.to_string()),
            Ok(()) => output::pipe()
                .map_err(std::io::Error::from)
                .and_then(|(read, write)| {
                    let mut output = Output::new(read, script.log.clone(), self.options.show_output, now);
                    output.note(&format!("--- skyserve: {name}, attempt {} ---\n", script.process.starts + 1));
                    script.output = Some(output);
                    self.launcher.start_script(&format!("{SCRIPT_PREFIX}{name}"), &script.path, write.as_fd())
                })
                .map_err(|error| error.to_string()),
        };
        match started {
            Ok(pid) => {
                say(format_args!("started {name}, process {pid}"));
                script.process.started(pid, now);
                self.status_changed = true;
                self.complete_replay();
            }
            Err(problem) => {
                script.process.starts += 1;
                self.script_failed(index, format!("could not be started: {problem}"), now);
            }
        }
    }

    pub(super) fn script_ended(&mut self, index: usize, exit: Exit, now: Instant) {
        let script = &mut self.scripts[index];
        if let Some(output) = &mut script.output {
            output.drain(&mut self.buffer);
        }
        self.status_changed = true;
        if exit != Exit::Code(0) || self.stopping.is_some() {
            self.script_failed(index, exit.to_string(), now);
            return;
        }
        let bounds = self.options.timing.script_restart;
        script.process.ended(exit.to_string(), bounds, now);
        script.process.backoff.reset();
        script.has_succeeded = true;
        let (kind, path) = (script.kind, script.path.display().to_string());
        match kind {
            ScriptKind::Setup => {
                self.account(format_args!("=== Controller setup commands completed for recovery ==="));
                self.setup_succeeded(now);
            }
            ScriptKind::Run(_) => self.account(format_args!(
                "=== Controller task run for service / job (file: {path}) completed for recovery ==="
            )),
        }
    }

    fn script_failed(&mut self, index: usize, how: String, now: Instant) {
        let bounds = self.options.timing.script_restart;
        let script = &mut self.scripts[index];
        let (name, path) = (script.name(), script.path.display().to_string());
        let log = script.log.display().to_string();
        let wait = script.process.ended(how.clone(), bounds, now).max(bounds.first);
        self.status_changed = true;
        if self.stopping.is_some() {
            say(format_args!("{name} {how}"));
            return;
        }
        script.process.start_at = Some(now + wait);
        self.status.replay.failed_attempts += 1;
        self.account(format_args!("{name} ({path}) {how}; trying again in {wait:?}, its output is in {log}"));
    }

    fn setup_succeeded(&mut self, now: Instant) {
        for script in &mut self.scripts {
            if script.kind != ScriptKind::Setup && script.process.child.is_none() {
                script.process.start_at = Some(now);
            }
        }
        self.complete_replay();
        self.mark_when_ready();
    }

    fn has_setup_succeeded(&self) -> bool {
        self.replayed && self.scripts.iter().all(|script| script.kind != ScriptKind::Setup || script.has_succeeded)
    }

    /// Notes once when everything on disk has been started.
    fn complete_replay(&mut self) {
        let all_started = self.scripts.iter().all(|script| script.process.starts > 0);
        if self.status.replay.completed_after_ms.is_some() || !self.has_setup_succeeded() || !all_started {
            return;
        }
        let took = self.started.elapsed();
        self.status.replay.completed_after_ms = Some(took.as_millis() as u64);
        self.status_changed = true;
        if self.status.restart {
            self.account(format_args!("HA recovery completed"));
            self.account(format_args!("Total recovery time: {:.3} seconds", took.as_secs_f64()));
        }
    }

    /// Makes the marker once setup has succeeded and every role is ready.
    pub(super) fn mark_when_ready(&mut self) {
        let is_ready = self.has_setup_succeeded() && self.roles.iter().all(|state| state.ready);
        if self.status.marker || !is_ready {
            return;
        }
        match self.scripts_store.mark_ready() {
            Ok(()) => {
                self.status.marker = true;
                self.status_changed = true;
                say(format_args!("the first start has succeeded"));
            }
            Err(error) => say(format_args!("cannot note that the first start has succeeded, trying again: {error}")),
        }
    }

    pub(super) fn take_output(&mut self) {
        for (polled, printer) in self.polled.iter().skip(2).zip(&self.polled_printers) {
            // It may have been started anew or forgotten since; then the number is another's or nobody's.
            let output = match printer {
                Printer::Role(index) => self.roles.get_mut(*index).map(|state| &mut state.output),
                Printer::Script(index) => self.scripts.get_mut(*index).map(|script| &mut script.output),
            };
            if polled.revents != 0
                && let Some(output) = output
                && output.as_mut().is_some_and(|output| !output.pump(&mut self.buffer))
            {
                *output = None;
            }
        }
    }

    fn know_script(&mut self, kind: ScriptKind, path: PathBuf) {
        if self.scripts.iter().any(|script| script.kind == kind) {
            return;
        }
        let log = match kind {
            ScriptKind::Setup => self.options.home.setup_log(),
            ScriptKind::Run(id) => self.options.home.run_log(id.number()),
        };
        self.scripts.push(Script {
            kind,
            path,
            log,
            process: Process::default(),
            output: None,
            has_succeeded: false,
            last_run: None,
            is_removed: false,
        });
    }

    /// Says a line, at a restart in the recovery log too.
    fn account(&mut self, line: std::fmt::Arguments<'_>) {
        if self.status.restart { self.journal.recovery(line) } else { say(line) }
    }
}

fn file_version(path: &Path) -> Option<(u64, i64, i64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn read_given(path: &Path) -> Result<Vec<u8>, StartError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SCRIPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|source| StartError::GivenScript { path: path.to_path_buf(), source })
}

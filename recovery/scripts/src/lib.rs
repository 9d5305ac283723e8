//! The setup script and the run scripts of a home, kept so that a restart can run them again.
//!
//! Paths and names are those of the seed document: one setup script, run scripts `sky_job_<id>`, and
//! a marker file made after the first successful start.
//!
//! Invariants:
//! * When a `persist_*` call returns `Ok`, the script survives a power cut, whole. It is called before
//!   the script runs, so a script that has run can always be replayed.
//! * At any moment, a crash leaves each script as it was or as it shall be, never half of it: the bytes
//!   are synced under a temporary name before they get the real one.
//! * A file that cannot be a whole script (empty, NUL bytes, too long) is reported and never run, and so is one that has
//!   changed without being written. Its checksum is beside its bytes, not in them: scripts that were edited, or that
//!   other tools wrote, must stay runnable.
//! * Nothing here runs a script; nothing here reads a clock.
#![forbid(unsafe_code)]

mod files;
mod id;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use skyserve_home::Home;

pub use files::{DiskFiles, Files};
pub use id::RunId;

/// Longest script. Setup scripts with base64 payloads reach hundreds of kilobytes; a megabyte bounds what
/// checking them at a start costs.
pub const SCRIPT_BYTES_MAX: usize = 1024 * 1024;
/// Most run scripts of one home: each is a process, a pipe and a log of its own when replayed.
pub const RUN_SCRIPTS_MAX: usize = 1024;
/// A start clears away temporary files, perhaps also one that is just being written; the writer then tries again.
const WRITE_ATTEMPTS_MAX: u32 = 3;
/// Ending of a temporary name; its start is a dot.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Makes temporary names differ within one process.
static TEMPORARY_COUNTER: AtomicU64 = AtomicU64::new(0);

/// Why a script cannot be kept, or not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("\"{0}\" is no run script id: give a number from 0 to {max}, without leading zeros", max = RunId::MAX)]
    BadId(String),
    #[error("{what}: {damage}")]
    Refused { what: String, damage: Damage },
    #[error(
        "there are already {RUN_SCRIPTS_MAX} run scripts in {folder}, the most there may be: remove those that are no longer needed"
    )]
    TooMany { folder: PathBuf },
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// What makes a file no whole script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is empty: write it again")]
    Empty,
    #[error(
        "it has a NUL byte at offset {offset}, so it is damaged or no text: write it again (binary data as base64)"
    )]
    Nul { offset: usize },
    #[error(
        "it is not what was kept, and nobody has written it since, so the disk has changed it: write it again, or `touch` it \
         to run it as it is"
    )]
    Changed,
    #[error("it is longer than the {SCRIPT_BYTES_MAX} bytes a script may have: move its data to a file")]
    TooLong,
    #[error("it cannot be read ({0}): make it readable or remove it")]
    Unreadable(String),
    #[error("it is beyond the {RUN_SCRIPTS_MAX} run scripts there may be: remove those that are no longer needed")]
    TooMany,
}

/// Whether this home has started successfully before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There is no marker: what is to run comes from the command line, and is persisted first.
    First,
    /// There is a marker: what is on disk is replayed.
    Restart,
}

/// Which of a home's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    Setup,
    Run(RunId),
}

/// A file that should be a script and cannot be run.
#[derive(Debug)]
pub struct Damaged {
    pub script: ScriptKind,
    pub path: PathBuf,
    pub damage: Damage,
}

/// What a start has to run.
#[derive(Debug)]
pub struct Replay {
    pub start: Start,
    /// The setup script, if there is a whole one.
    pub setup: Option<PathBuf>,
    /// The whole run scripts in the order of their ids.
    pub runs: Vec<(RunId, PathBuf)>,
    /// Reported, never run.
    pub damaged: Vec<Damaged>,
    /// Files in the run folder that are not ours; left alone.
    pub ignored: Vec<PathBuf>,
    /// Leftovers of interrupted writes, removed.
    pub cleared: Vec<PathBuf>,
}

/// The scripts of one home.
#[derive(Debug, Clone)]
pub struct Scripts<F = DiskFiles> {
    home: Home,
    files: F,
}

impl Scripts<DiskFiles> {
    /// The scripts of this home.
    pub fn new(home: Home) -> Self {
        Self::with_files(home, DiskFiles)
    }
}

impl<F: Files> Scripts<F> {
    /// The same, on files of the caller's choice.
    pub fn with_files(home: Home, files: F) -> Self {
        Self { home, files }
    }

    /// Keeps the setup script, in place of the one before. Durable once this returns.
    pub fn persist_setup(&self, bytes: &[u8]) -> Result<PathBuf, ScriptError> {
        let path = self.home.setup_script();
        self.persist(&path, bytes, "the setup script")?;
        Ok(path)
    }

    /// Keeps a run script, in place of one with the same id. Durable once this returns.
    pub fn persist_run(&self, id: RunId, bytes: &[u8]) -> Result<PathBuf, ScriptError> {
        let folder = self.home.run_scripts_dir();
        let path = self.run_path(id);
        if !self.exists(&path)? && self.run_ids()?.len() >= RUN_SCRIPTS_MAX {
            return Err(ScriptError::TooMany { folder });
        }
        self.persist(&path, bytes, &format!("run script {id}"))?;
        Ok(path)
    }

    /// Removes a run script, so that it is not replayed again; fine when there is none. Durable once this returns.
    pub fn remove_run(&self, id: RunId) -> Result<(), ScriptError> {
        let path = self.run_path(id);
        match self.files.remove(&path) {
            Ok(()) => self.sync_dir(&self.home.run_scripts_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(ScriptError::Io { action: "remove", path, source }),
        }
    }

    /// Where the run script with this id is, or would be.
    pub fn run_path(&self, id: RunId) -> PathBuf {
        self.home.run_scripts_dir().join(id.file_name())
    }

    /// Makes the marker that says "the first start succeeded". Durable once this returns.
    pub fn mark_ready(&self) -> Result<(), ScriptError> {
        self.replace(&self.home.ready_marker(), b"")
    }

    /// Whether the marker is there.
    pub fn start(&self) -> Result<Start, ScriptError> {
        Ok(if self.exists(&self.home.ready_marker())? { Start::Restart } else { Start::First })
    }

    /// Checks one script file as [`Scripts::replay`] does, before it is run.
    pub fn check(&self, path: &Path) -> Result<(), Damage> {
        match self.files.read(path, SCRIPT_BYTES_MAX as u64 + 1) {
            Ok(bytes) => check_bytes(&bytes).and_then(|()| self.check_sum(path, &bytes)),
            Err(error) => Err(Damage::Unreadable(error.to_string())),
        }
    }

    fn check_sum(&self, path: &Path, bytes: &[u8]) -> Result<(), Damage> {
        match self.files.sum(path) {
            Ok(Some(kept)) if kept != sum(bytes) => Err(Damage::Changed),
            Ok(_) => Ok(()),
            Err(error) => Err(Damage::Unreadable(error.to_string())),
        }
    }

    /// Reads back what there is to run, and clears away the leftovers of interrupted writes. A damaged script
    /// hides no other. Fails only when the folders themselves cannot be read.
    pub fn replay(&self) -> Result<Replay, ScriptError> {
        let mut replay = Replay {
            start: self.start()?,
            setup: None,
            runs: Vec::new(),
            damaged: Vec::new(),
            ignored: Vec::new(),
            cleared: Vec::new(),
        };
        let setup = self.home.setup_script();
        if self.exists(&setup)? {
            match self.check(&setup) {
                Ok(()) => replay.setup = Some(setup.clone()),
                Err(damage) => replay.damaged.push(Damaged { script: ScriptKind::Setup, path: setup.clone(), damage }),
            }
        }
        for id in self.run_ids()? {
            let path = self.run_path(id);
            let verdict = if replay.runs.len() < RUN_SCRIPTS_MAX { self.check(&path) } else { Err(Damage::TooMany) };
            match verdict {
                Ok(()) => replay.runs.push((id, path)),
                Err(damage) => replay.damaged.push(Damaged { script: ScriptKind::Run(id), path, damage }),
            }
        }
        self.sort_out_other_files(&mut replay)?;
        Ok(replay)
    }

    /// The ids of all files named like run scripts, in numeric order.
    fn run_ids(&self) -> Result<Vec<RunId>, ScriptError> {
        let names = self.list(&self.home.run_scripts_dir())?;
        let mut ids: Vec<RunId> =
            names.iter().filter_map(|name| name.to_str()).filter_map(RunId::from_file_name).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn sort_out_other_files(&self, replay: &mut Replay) -> Result<(), ScriptError> {
        let runs = self.home.run_scripts_dir();
        for name in self.list(&runs)? {
            let path = runs.join(&name);
            if is_temporary_of(&name, OsStr::new("sky_job_")) {
                self.clear(path, replay);
            } else if name.to_str().and_then(RunId::from_file_name).is_none() {
                replay.ignored.push(path);
            }
        }
        replay.ignored.sort();
        for target in [self.home.setup_script(), self.home.ready_marker()] {
            let (folder, target_name) = split(&target);
            for name in self.list(folder)? {
                if is_temporary_of(&name, target_name) {
                    self.clear(folder.join(&name), replay);
                }
            }
        }
        Ok(())
    }

    /// Removes a leftover. When that fails it is only clutter, not worth failing a start for.
    fn clear(&self, path: PathBuf, replay: &mut Replay) {
        if self.files.remove(&path).is_ok() {
            replay.cleared.push(path);
        }
    }

    fn persist(&self, path: &Path, bytes: &[u8], what: &str) -> Result<(), ScriptError> {
        check_bytes(bytes).map_err(|damage| ScriptError::Refused { what: what.to_owned(), damage })?;
        self.replace(path, bytes)
    }

    /// Puts a file with these bytes at this path, durably and in one step.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), ScriptError> {
        let (folder, _) = split(path);
        self.files.make_dir(folder).map_err(io_error("make the folder", folder))?;
        let mut attempt = 1;
        loop {
            let temporary = temporary_for(path);
            let result = self.write_and_rename(&temporary, path, bytes);
            match result {
                Err(ScriptError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < WRITE_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => {
                    // The error that stopped us matters; a leftover is cleared at the next start.
                    let _ = self.files.remove(&temporary);
                    return Err(error);
                }
                Ok(()) => break,
            }
        }
        // The folders may be new, or left unsynced by a crash: their names too must be durable.
        let mut synced = folder;
        self.sync_dir(synced)?;
        while synced != self.home.path() {
            let (above, _) = split(synced);
            self.sync_dir(above)?;
            synced = above;
        }
        Ok(())
    }

    fn write_and_rename(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), ScriptError> {
        self.files.write_new(temporary, bytes).map_err(io_error("write", temporary))?;
        self.files.set_sum(temporary, &sum(bytes)).map_err(io_error("note the checksum of", temporary))?;
        self.files.sync_file(temporary).map_err(io_error("sync", temporary))?;
        self.files.rename(temporary, path).map_err(io_error("put in place", path))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), ScriptError> {
        self.files.sync_dir(path).map_err(io_error("sync the folder", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>, ScriptError> {
        self.files.list(path).map_err(io_error("list the folder", path))
    }

    fn exists(&self, path: &Path) -> Result<bool, ScriptError> {
        self.files.exists(path).map_err(io_error("look for", path))
    }
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn check_bytes(bytes: &[u8]) -> Result<(), Damage> {
    if bytes.is_empty() {
        return Err(Damage::Empty);
    }
    if bytes.len() > SCRIPT_BYTES_MAX {
        return Err(Damage::TooLong);
    }
    match bytes.iter().position(|byte| *byte == 0) {
        Some(offset) => Err(Damage::Nul { offset }),
        None => Ok(()),
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ScriptError + 'a {
    move |source| ScriptError::Io { action, path: path.to_path_buf(), source }
}

/// Folder and name of a path below the home; these always have both.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}

fn temporary_for(path: &Path) -> PathBuf {
    let (folder, name) = split(path);
    let number = TEMPORARY_COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{number}{TEMPORARY_SUFFIX}", std::process::id()));
    folder.join(temporary)
}

/// Whether this is a name made by [`temporary_for`] for a file whose name begins with `target`.
fn is_temporary_of(name: &OsStr, target: &OsStr) -> bool {
    let Some(rest) = name.as_encoded_bytes().strip_prefix(b".") else { return false };
    rest.starts_with(target.as_encoded_bytes()) && rest.ends_with(TEMPORARY_SUFFIX.as_bytes())
}

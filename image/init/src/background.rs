//! For the command line: start init in the background, find it, stop it, give it a script to run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skyserve_home::{Home, HomeError, RUNTIME_DIR_VARIABLE};
use skyserve_scripts::{RunId, ScriptError, Scripts};

use crate::leftovers::{MARK_VARIABLE, wait_until_gone};
use crate::lock::{RunningInit, running};
use crate::log_file::open_append;
use crate::{notify, sys};

/// How long init may take to get its lock: a slow volume, a loaded machine.
const START_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks at whether it has.
const START_POLL: Duration = Duration::from_millis(2);
/// How much of what a failed init said is shown.
const SAID_BYTES_MAX: u64 = 4096;

/// Why init could not be started, stopped or told something.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("cannot open the log of the background runtime {path}: {source}")]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot start {exe} in the background: {source}")]
    Spawn { exe: PathBuf, source: io::Error },
    #[error("the background runtime ended at once: {said} (its log is {log})")]
    EndedAtOnce { said: String, log: PathBuf },
    #[error("the background runtime was not up after {seconds} s; its log is {log}", seconds = START_WAIT.as_secs())]
    NotUp { log: PathBuf },
    #[error("cannot signal the background runtime, process {pid}: {source}")]
    Signal { pid: i32, source: io::Error },
    #[error("the background runtime, process {pid}, has not stopped after {waited:?}: try again, or kill -9 {pid}")]
    StillRunning { pid: i32, waited: Duration },
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("the script is kept and will run at the next start, but the running runtime could not be told: {source}")]
    NotTold { source: io::Error },
}

/// What [`stop`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    WasNotRunning,
    Stopped(RunningInit),
}

/// When a script given to [`request_run`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    Now,
    /// No init runs this home now.
    AtNextStart,
}

/// Tells an init that a command started it: it goes when the command's services are gone.
pub(crate) const BACKGROUND_VARIABLE: &str = "SKYSERVE_BACKGROUND";

/// The init that runs after [`spawn_background`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spawned {
    pub init: RunningInit,
    /// Whether it is the one that was started here; else another was there, or was faster.
    pub here: bool,
}

/// Starts `exe args…` as init of this home, in a session of its own, its output appended to init's log; returns once it
/// (or another init that was faster) holds the home's lock.
pub fn spawn_background<A: AsRef<OsStr>>(exe: &Path, home: &Home, args: &[A]) -> Result<Spawned, BackgroundError> {
    let another = |init| Spawned { init, here: false };
    if let Some(running) = running(home) {
        return Ok(another(running));
    }
    home.make_dirs()?;
    let log_path = home.init_log();
    let log_failed = |source| BackgroundError::Log { path: home.init_log(), source };
    let mut log = open_append(&log_path).map_err(log_failed)?;
    // A full disk shows here, where somebody is told.
    writeln!(log, "skyserve init: started by a command").map_err(log_failed)?;
    let said_before = log.metadata().map_err(log_failed)?.len();
    let mut command = Command::new(exe);
    command
        .args(args)
        // This process may be a child of an init itself, of this home or another.
        .env_remove(MARK_VARIABLE)
        .env(BACKGROUND_VARIABLE, "1")
        .env("HOME", home.path())
        .env(RUNTIME_DIR_VARIABLE, home.runtime_dir())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(log_failed)?)
        .stderr(log);
    sys::detach(&mut command);
    let mut child = command.spawn().map_err(|source| BackgroundError::Spawn { exe: exe.to_path_buf(), source })?;
    let deadline = Instant::now() + START_WAIT;
    loop {
        if let Some(running) = running(home) {
            return Ok(Spawned { init: running, here: u32::try_from(running.pid) == Ok(child.id()) });
        }
        if let Ok(Some(_)) = child.try_wait() {
            // Another init may have been faster between the two looks.
            return running(home).map(another).ok_or_else(|| BackgroundError::EndedAtOnce {
                said: said_since(&log_path, said_before),
                log: log_path,
            });
        }
        if Instant::now() >= deadline {
            return Err(BackgroundError::NotUp { log: log_path });
        }
        std::thread::sleep(START_POLL);
    }
}

/// Asks the init of this home to stop in order, and waits for it. A second call, after
/// [`BackgroundError::StillRunning`], makes it hurry.
pub fn stop(home: &Home, deadline: Duration) -> Result<Stopped, BackgroundError> {
    let Some(init) = running(home) else { return Ok(Stopped::WasNotRunning) };
    let signal_failed = |source| BackgroundError::Signal { pid: init.pid, source };
    let pidfd = match sys::pidfd_open(init.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(Stopped::WasNotRunning),
        Err(error) => return Err(signal_failed(error)),
    };
    // The handle was taken first, so what is verified now is the process that the handle is of.
    if running(home) != Some(init) {
        return Ok(Stopped::WasNotRunning);
    }
    match sys::pidfd_signal(pidfd.as_fd(), libc::SIGTERM) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(signal_failed(error)),
        _ => {}
    }
    match wait_until_gone(pidfd.as_fd(), Instant::now() + deadline).map_err(signal_failed)? {
        true => Ok(Stopped::Stopped(init)),
        false => Err(BackgroundError::StillRunning { pid: init.pid, waited: deadline }),
    }
}

/// Keeps a run script, and has the running init start it. Once this returns `Ok`, the script is durable.
pub fn request_run(home: &Home, id: RunId, script: &[u8]) -> Result<Requested, BackgroundError> {
    Scripts::new(home.clone()).persist_run(id, script)?;
    let told = UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(format!("{}={id}\n", notify::RUN_FIELD).as_bytes(), home.notify_socket()));
    match told {
        Ok(_) => Ok(Requested::Now),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(Requested::AtNextStart)
        }
        Err(source) => Err(BackgroundError::NotTold { source }),
    }
}

/// What has been appended to the log since it had this size.
fn said_since(log: &Path, size: u64) -> String {
    let mut said = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(size))?;
        file.take(SAID_BYTES_MAX).read_to_end(&mut said)
    });
    match read {
        Ok(bytes) if bytes > 0 => String::from_utf8_lossy(&said).trim_end().to_owned(),
        _ if fs::exists(log).unwrap_or(false) => "it said nothing".to_owned(),
        _ => "its log is gone".to_owned(),
    }
}

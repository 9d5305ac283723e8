//! `skyserve shim`: holds one local replica. It starts the replica's commands, keeps their output and
//! their exit status, gives them a loopback address of their own, and ends them when told to. It
//! outlives the controller and init, so that none of this is lost while they are down.
//!
//! * A replica is started at most once, whatever is repeated or killed: see [`folder`] for the files and
//!   the lock that ensure it.
//! * Only processes of this replica are ever signalled: see [`strays`].
//! * The shim has one thread, waits without a timer, and knows nothing of services: its folder is all
//!   that it reads and writes.
#![deny(unsafe_code)]

mod address;
mod bind;
pub mod bundle;
mod connect;
pub mod environment;
pub mod folder;
mod isolation;
mod limits;
pub mod mounts;
mod output;
pub mod pidfd;
mod replica;
mod seccomp;
mod spawn;
pub mod strays;
mod supervise;
#[cfg(test)]
mod testing;

pub use limits::remove_groups;
pub use mounts::remove_abandoned as remove_abandoned_mountpoints;
pub use output::{OUTPUT_BYTES_MAX, OUTPUT_PARTS_MAX, part as output_part};
pub use replica::{SHIM_KILLED, stage_of};

use folder::{Folder, Lock};
use skyserve_model::launch::LaunchSpec;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How a shim runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Live on in a process that belongs to nobody; the called one returns as soon as the replica is
    /// claimed, or is seen to need no shim.
    pub detach: bool,
    /// Give the replica a loopback address of its own where the kernel allows it.
    pub port_isolation: bool,
    /// Die there, as if killed. For tests of recovery.
    pub crash_at: Option<CrashPoint>,
}

impl Default for Options {
    fn default() -> Self {
        Self { detach: true, port_isolation: true, crash_at: None }
    }
}

/// Moments between two durable steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    Locked,
    Claimed,
    Unpacked,
    SetupStarted,
    RunStarted,
    Ended,
}

impl CrashPoint {
    /// All of them, in the order in which they come, with their names on the command line.
    pub const ALL: [(&'static str, Self); 6] = [
        ("locked", Self::Locked),
        ("claimed", Self::Claimed),
        ("unpacked", Self::Unpacked),
        ("setup-started", Self::SetupStarted),
        ("run-started", Self::RunStarted),
        ("ended", Self::Ended),
    ];
}

impl Options {
    fn crash_at(&self, point: CrashPoint) {
        if self.crash_at == Some(point) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// What a shim finds when it starts.
enum Found {
    /// A launch that nobody has started yet.
    Launch(Box<LaunchSpec>, Lock),
    /// A replica that an earlier shim had started and no longer holds.
    Abandoned(Box<LaunchSpec>, Box<folder::State>, Lock),
    /// Another shim holds it, or it has ended, was terminated, or was never launched.
    Nothing,
}

/// The shim of the replica whose folder is `dir`. With [`Options::detach`] call it before anything else
/// that opens files or starts threads. The exit code is 0, or the error number (errno(3)) of what kept
/// it from claiming the replica.
pub fn run(dir: &Path, options: &Options) -> ExitCode {
    let mut report = None;
    if options.detach {
        spawn::close_inherited();
        match spawn::detach() {
            Ok(spawn::Side::Starter { code }) => return ExitCode::from(code),
            Ok(spawn::Side::Shim { report: descriptor }) => report = Some(std::fs::File::from(descriptor)),
            Err(error) => return failed(dir, &error, None),
        }
    }
    // The shim pins no other folder than its own.
    let dir = match dir.canonicalize().and_then(|dir| std::env::set_current_dir(&dir).map(|()| dir)) {
        Ok(dir) => dir,
        Err(error) => return failed(dir, &error, report),
    };
    let folder = Folder::at(dir);
    let succeed = |report: Option<std::fs::File>| {
        if let Some(mut report) = report {
            let _ = report.write_all(&[0]);
        }
    };
    match look(&folder, options) {
        Ok(Found::Nothing) => succeed(report),
        Ok(Found::Abandoned(spec, state, _lock)) => {
            succeed(report);
            if let Err(error) = replica::bury(&folder, &spec, &state) {
                return failed(folder.dir(), &error, None);
            }
        }
        Ok(Found::Launch(spec, _lock)) => match replica::Replica::claim(&folder, *spec, options) {
            Ok(replica) => {
                succeed(report);
                replica.live();
            }
            Err(error) => return failed(folder.dir(), &error, report),
        },
        Err(error) => return failed(folder.dir(), &error, report),
    }
    ExitCode::SUCCESS
}

/// Takes the lock, then looks: what is seen under the lock is true until it is released.
fn look(folder: &Folder, options: &Options) -> io::Result<Found> {
    let Some(lock) = folder.lock()? else { return Ok(Found::Nothing) };
    options.crash_at(CrashPoint::Locked);
    if folder.exit_file().exists() {
        return Ok(Found::Nothing);
    }
    let Some(spec) = folder.read_launch()? else { return Ok(Found::Nothing) };
    Ok(match folder.read_state()? {
        Some(state) => Found::Abandoned(Box::new(spec), Box::new(state), lock),
        None if folder.tombstone_file().exists() => Found::Nothing,
        None => Found::Launch(Box::new(spec), lock),
    })
}

fn failed(dir: &Path, error: &io::Error, report: Option<std::fs::File>) -> ExitCode {
    let code = error.raw_os_error().and_then(|number| u8::try_from(number).ok()).filter(|code| *code > 0).unwrap_or(1);
    eprintln!("skyserve shim: the replica in {} cannot be held: {error}", dir.display());
    if let Some(mut report) = report {
        let _ = report.write_all(&[code]);
    }
    ExitCode::from(code)
}

/// [`run`] with the arguments of `skyserve shim`: `--dir FOLDER [--no-port-isolation] [--foreground]`.
pub fn run_command_line(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(arguments) {
        Ok((dir, options)) => run(&dir, &options),
        Err(message) => {
            eprintln!("skyserve shim: {message}");
            ExitCode::from(nix::errno::Errno::EINVAL as u8)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<(PathBuf, Options), String> {
    let (mut dir, mut options) = (None, Options::default());
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--dir") => dir = arguments.next().map(PathBuf::from),
            Some("--no-port-isolation") => options.port_isolation = false,
            Some("--foreground") => options.detach = false,
            Some("--crash-at") => {
                let name = arguments.next().unwrap_or_default();
                let point = CrashPoint::ALL.iter().find(|(known, _)| *known == name);
                options.crash_at = Some(point.ok_or_else(|| format!("there is no crash point {name:?}"))?.1);
            }
            _ => return Err(format!("unknown argument {argument:?}")),
        }
    }
    dir.map(|dir| (dir, options)).ok_or_else(|| "--dir FOLDER is missing".to_owned())
}

//! Finds and ends the processes of a replica wherever they went: into sessions of their own, behind a
//! double fork, past the death of their shim.
//!
//! Every process of a replica carries the replica's uid and folder in its environment. A process is
//! only ever signalled through a pidfd whose environment was read *after* the pidfd was opened, so a
//! stranger that got a recycled pid is never hit.

use crate::pidfd::PidFd;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// Environment variable with the replica's uid.
pub const UID_VARIABLE: &str = "SKYSERVE_REPLICA_UID";
/// Environment variable with the replica's folder: two homes may have replicas of the same uid.
pub const DIR_VARIABLE: &str = "SKYSERVE_REPLICA_DIR";

/// Most of an environment that is read: Linux allows arguments and environment of 6 MiB together with
/// the default stack limit.
const ENVIRONMENT_BYTES_MAX: u64 = 8 << 20;

/// A process of a replica.
#[derive(Debug)]
pub struct Stray {
    pub pid: Pid,
    pub pidfd: PidFd,
}

/// Every process of the replica but this one.
pub fn find(uid: &str, dir: &Path) -> io::Result<Vec<Stray>> {
    let marks = [
        format!("{UID_VARIABLE}={uid}").into_bytes(),
        [format!("{DIR_VARIABLE}=").as_bytes(), dir.as_os_str().as_bytes()].concat(),
    ];
    let me = Pid::this();
    let mut strays = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
            continue;
        };
        if pid == me || !carries(pid, &marks) {
            continue;
        }
        let Ok(pidfd) = PidFd::open(pid) else { continue };
        if carries(pid, &marks) {
            strays.push(Stray { pid, pidfd });
        }
    }
    Ok(strays)
}

/// Kills every process of the replica, and those they start meanwhile. Returns those that are left at
/// `deadline` (the kernel does not let go of a process in the middle of some disk operations).
pub fn end_all(uid: &str, dir: &Path, deadline: Instant) -> io::Result<Vec<Pid>> {
    loop {
        let strays = find(uid, dir)?;
        if strays.is_empty() || Instant::now() >= deadline {
            return Ok(strays.iter().map(|stray| stray.pid).collect());
        }
        for stray in &strays {
            stray.pidfd.signal(Signal::SIGKILL)?;
        }
        for stray in &strays {
            if !stray.pidfd.wait_until(deadline)? {
                break;
            }
        }
    }
}

/// Whether a process of this user has both marks in the environment it was started with.
fn carries(pid: Pid, marks: &[Vec<u8>; 2]) -> bool {
    let folder = format!("/proc/{pid}");
    let euid = geteuid();
    // Root may read every environment; another user's process is only ours if we may signal it too.
    if !euid.is_root() && !fs::metadata(&folder).is_ok_and(|metadata| metadata.uid() == euid.as_raw()) {
        return false;
    }
    let mut environment = Vec::new();
    let read = File::open(format!("{folder}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment));
    read.is_ok() && marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
}

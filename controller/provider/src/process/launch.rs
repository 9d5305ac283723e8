//! Launch: the folder, then `launch.json`, then a shim that claims it. A crash between any two of them
//! leaves what the next launch, or a termination, goes on with.

use super::failure::Failure;
use super::{Site, terminate};
use crate::tombstones;
use skyserve_model::{LaunchSpec, ReplicaUid};
use skyserve_shim::folder::{Folder, sync_dir};
use skyserve_shim::pidfd::PidFd;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a shim may take to claim its replica: a few writes to disk.
const CLAIM_WAIT_MS_MAX: u64 = 10_000;
/// Between two looks whether another shim, which has the lock, has claimed it by now.
const CLAIM_LOOK_MS: u64 = 10;

pub(super) fn launch(site: &Site, spec: &LaunchSpec) -> Result<(), Failure> {
    if tombstones::is_terminated(&site.home, &spec.uid) {
        return Ok(());
    }
    let folder = site.folder(&spec.uid);
    let written = write_launch(&folder, spec);
    // A termination that began meanwhile may have missed the folder, or pulled it away under our hands.
    let launched = if tombstones::is_terminated(&site.home, &spec.uid) {
        written
    } else {
        written.and_then(|()| start_shim(site, &spec.uid))
    };
    if !tombstones::is_terminated(&site.home, &spec.uid) {
        return launched;
    }
    // What a shim holds, that termination ends.
    let held = folder.is_locked().map_err(Failure::io(&spec.uid, "removed", folder.dir()))?;
    if held { Ok(()) } else { terminate::remove(site, &spec.uid) }
}

/// Makes a folder for its owner alone, and those above it.
pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_launch(folder: &Folder, spec: &LaunchSpec) -> Result<(), Failure> {
    let failed = || Failure::io(&spec.uid, "launched", folder.dir());
    make_private_dir(folder.dir()).map_err(failed())?;
    match folder.read_launch().map_err(failed())? {
        Some(launched) if launched == *spec => Ok(()),
        Some(_) => Err(Failure::Different { uid: spec.uid.clone(), path: folder.launch_file() }),
        None => {
            folder.dir().parent().map_or(Ok(()), sync_dir).map_err(failed())?;
            folder.write_launch(spec).map_err(failed())
        }
    }
}

/// Makes sure that a shim has claimed the replica, whichever started it. A replica whose shim was killed
/// gets one that records its end.
pub(super) fn start_shim(site: &Site, uid: &ReplicaUid) -> Result<(), Failure> {
    let folder = site.folder(uid);
    let deadline = Instant::now() + Duration::from_millis(CLAIM_WAIT_MS_MAX);
    while !needs_no_shim(&folder).map_err(Failure::io(uid, "launched", folder.dir()))? {
        if Instant::now() >= deadline {
            return Err(Failure::ShimLate { uid: uid.clone(), waited_ms: CLAIM_WAIT_MS_MAX });
        }
        spawn_shim(site, uid, &folder, deadline)?;
        let state = folder.state_file();
        if !state.exists() && folder.dir().exists() && !folder.tombstone_file().exists() {
            std::thread::sleep(Duration::from_millis(CLAIM_LOOK_MS));
        } else {
            return Ok(());
        }
    }
    Ok(())
}

/// It has ended, was terminated, or is held by the shim that claimed it.
fn needs_no_shim(folder: &Folder) -> io::Result<bool> {
    Ok(folder.exit_file().exists()
        || folder.tombstone_file().exists()
        || folder.state_file().exists() && folder.is_locked()?)
}

/// Starts a shim and waits until it has claimed the replica or found that it is not needed. What is
/// waited for is its starter, which ends at once: the shim itself belongs to nobody.
fn spawn_shim(site: &Site, uid: &ReplicaUid, folder: &Folder, deadline: Instant) -> Result<(), Failure> {
    let failed = |source| Failure::Shim {
        uid: uid.clone(),
        command: site.shim_command[0].to_string_lossy().into_owned(),
        source,
    };
    // On a full disk there is no log, but there can be a shim.
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(folder.shim_log());
    let mut command = Command::new(&site.shim_command[0]);
    command.args(&site.shim_command[1..]).arg("--dir").arg(folder.dir());
    if !site.options.port_isolation {
        command.arg("--no-port-isolation");
    }
    command.env("HOME", site.home.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
    let mut starter = command.spawn().map_err(failed)?;
    let pid = nix::unistd::Pid::from_raw(starter.id().cast_signed());
    let ended = PidFd::open(pid).and_then(|pidfd| pidfd.wait_until(deadline));
    if !matches!(ended, Ok(true)) {
        let _ = starter.kill();
    }
    let status = starter.wait().map_err(failed)?;
    match (ended, status.code()) {
        (Ok(false), _) => Err(Failure::ShimLate { uid: uid.clone(), waited_ms: CLAIM_WAIT_MS_MAX }),
        (Err(error), _) => Err(failed(error)),
        (Ok(true), Some(0)) => Ok(()),
        // The exit code of a shim that could not start is the error number.
        (Ok(true), Some(number)) if number > 1 => Err(failed(io::Error::from_raw_os_error(number))),
        (Ok(true), _) => Err(failed(io::Error::other(last_words(folder, status)))),
    }
}

fn last_words(folder: &Folder, status: std::process::ExitStatus) -> String {
    let log = fs::read_to_string(folder.shim_log()).unwrap_or_default();
    let last = log.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    format!("it ended with {status}{last}")
}

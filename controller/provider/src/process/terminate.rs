//! Terminate: the tombstone, then the shim, then whatever a shim that was killed left, then the folder.
//! Each step is safe to repeat, so a termination that was cut off is just begun again.

use super::Site;
use super::failure::Failure;
use super::readiness::Readiness;
use crate::{ProviderError, kept_logs, tombstones};
use nix::sys::signal::Signal;
use skyserve_model::ReplicaUid;
use skyserve_shim::folder::{Folder, Lock, Tombstone, sync_dir};
use skyserve_shim::pidfd::PidFd;
use skyserve_shim::{remove_abandoned_mountpoints, remove_groups, strays};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a shim may take beyond the grace: to kill what is left and to record the end.
const SHIM_END_MS_MAX: u64 = 7_000;
/// How long a shim may hold the lock without having claimed the replica, or while it records the end of
/// one whose shim was killed.
const HOLDER_WAIT_MS_MAX: u64 = 15_000;
/// How long killed processes may take to go; the kernel is only slower in the middle of disk operations.
const KILL_WAIT_MS_MAX: u64 = 5_000;
/// How long the lock may take to be free once its holder has ended.
const LOCK_WAIT_MS_MAX: u64 = 2_000;
/// Attempts to remove a folder: one for each file that a launch may still write, and some to spare.
const REMOVALS_MAX: u32 = 8;
/// Between two looks at a lock that is about to be released.
const LOCK_LOOK_MS: u64 = 5;

/// Records that the replica is to end, and tells its shim. Returns the shim, if there is one.
pub(super) fn ask(site: &Site, uid: &ReplicaUid, grace_ms: u64) -> Result<Option<PidFd>, Failure> {
    let folder = site.folder(uid);
    tombstones::add(&site.home, uid).map_err(Failure::io(uid, "terminated", folder.dir()))?;
    match bury(&folder, grace_ms).and_then(|()| tell(&folder)) {
        Ok(Told::Shim(shim)) => Ok(Some(shim)),
        Ok(Told::Nobody) => Ok(None),
        Ok(Told::Unknown) => {
            Err(Failure::Held { uid: uid.clone(), waited_ms: HOLDER_WAIT_MS_MAX, path: folder.lock_file() })
        }
        // There never was one, or a launch that saw the tombstone has just removed it.
        Err(_) if !folder.dir().is_dir() => Ok(None),
        Err(error) => Err(Failure::io(uid, "terminated", folder.dir())(error)),
    }
}

/// Writes the tombstone that shims look for.
fn bury(folder: &Folder, grace_ms: u64) -> io::Result<()> {
    match folder.write_tombstone(Tombstone { grace_ms }) {
        // An empty one fits on a full disk, and is as final.
        Err(_) => File::create(folder.tombstone_file()).and_then(|_| sync_dir(folder.dir())),
        Ok(()) => Ok(()),
    }
}

/// Who was told to end the replica.
enum Told {
    Shim(PidFd),
    /// Nobody holds it.
    Nobody,
    /// Who holds it does not say who it is.
    Unknown,
}

fn tell(folder: &Folder) -> io::Result<Told> {
    let deadline = Instant::now() + Duration::from_millis(HOLDER_WAIT_MS_MAX);
    while folder.is_locked()? {
        let state = folder.read_state()?;
        if let Some(shim) = state.and_then(|state| state.shim.open().transpose()).transpose()? {
            shim.signal(Signal::SIGTERM)?;
            return Ok(Told::Shim(shim));
        }
        if Instant::now() >= deadline {
            return Ok(Told::Unknown);
        }
        std::thread::sleep(Duration::from_millis(LOCK_LOOK_MS));
    }
    Ok(Told::Nobody)
}

/// Waits for the shim's end; kills it if it does not come. The replica's main process dies with it, and
/// the rest is found by [`finish`].
pub(super) async fn wait(uid: &ReplicaUid, shim: PidFd, grace_ms: u64) -> Result<(), ProviderError> {
    let failed = || Failure::io(uid, "terminated", Path::new("/proc"));
    let ended = Readiness::of(&shim).map_err(failed())?;
    let patience = Duration::from_millis(grace_ms.saturating_add(SHIM_END_MS_MAX));
    if tokio::time::timeout(patience, ended.readable()).await.is_ok() {
        return Ok(());
    }
    tracing::warn!(%uid, "the replica's shim did not end in time and is killed");
    shim.signal(Signal::SIGKILL).map_err(failed())?;
    match tokio::time::timeout(Duration::from_millis(KILL_WAIT_MS_MAX), ended.readable()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Unkillable { uid: uid.clone(), pids: "(its shim)".into() }.into()),
    }
}

/// Ends what is left, and removes the folder. No shim holds it any more.
pub(super) fn finish(site: &Site, uid: &ReplicaUid) -> Result<(), Failure> {
    if site.folder(uid).dir().is_dir() {
        remove(site, uid)?;
    }
    tombstones::prune(&site.home);
    kept_logs::prune(&site.home);
    Ok(())
}

/// Removes a replica that is terminated; under its lock, so that no shim begins meanwhile.
pub(super) fn remove(site: &Site, uid: &ReplicaUid) -> Result<(), Failure> {
    let folder = site.folder(uid);
    let failed = || Failure::io(uid, "removed", folder.dir());
    let Some(_lock) = lock(uid, &folder)? else { return Ok(()) };
    let deadline = Instant::now() + Duration::from_millis(KILL_WAIT_MS_MAX);
    let left = strays::end_all(uid.as_str(), folder.dir(), deadline).map_err(failed())?;
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
        return Err(Failure::Unkillable { uid: uid.clone(), pids: pids.join(", ") });
    }
    if let Ok(Some(spec)) = folder.read_launch() {
        remove_abandoned_mountpoints(&folder, &spec.file_mounts, site.home.path());
    }
    if let Ok(Some(state)) = folder.read_state() {
        remove_groups(&state.cgroups);
    }
    if let Err(error) = kept_logs::keep(&site.home, uid.as_str()) {
        tracing::warn!(%uid, %error, "the replica's output could not be kept");
    }
    // First of all what a shim would start from, should this be cut off.
    match fs::remove_file(folder.launch_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    remove_tree(folder.dir()).map_err(failed())?;
    folder.dir().parent().map_or(Ok(()), sync_dir).map_err(failed())
}

/// The folder's lock, which its last holder is about to release; `None` if the folder is gone.
fn lock(uid: &ReplicaUid, folder: &Folder) -> Result<Option<Lock>, Failure> {
    let deadline = Instant::now() + Duration::from_millis(LOCK_WAIT_MS_MAX);
    loop {
        match folder.lock() {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // No space for a lock file that never was: nothing was ever started here.
            Err(error) => return Err(Failure::io(uid, "removed", folder.dir())(error)),
            Ok(None) if Instant::now() >= deadline => {
                let (uid, path) = (uid.clone(), folder.lock_file());
                return Err(Failure::Held { uid, waited_ms: LOCK_WAIT_MS_MAX, path });
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(LOCK_LOOK_MS)),
        }
    }
}

/// Removes a folder, also one in which the replica made folders that it may not write itself, or into
/// which a launch that does not know yet of the termination still writes.
fn remove_tree(dir: &Path) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if attempt == REMOVALS_MAX => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => make_writable(dir)?,
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            result => return result,
        }
        attempt += 1;
    }
}

fn make_writable(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

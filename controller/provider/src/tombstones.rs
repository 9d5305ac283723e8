//! Uids that were terminated, as empty files in `~/.sky/serve/replicas/.terminated`. A launch that is
//! still under way finds its uid there and comes to nothing, however late it is.
//!
//! Launch makes the replica's resource and then looks here; terminate writes here and then looks for the
//! resource. So whichever comes second sees the other.

use skyserve_home::Home;
use skyserve_model::ReplicaUid;
use skyserve_shim::folder::sync_dir;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

/// Tombstones kept. No launch is under way for as long as this many terminations take, and uids are
/// never used twice.
const TOMBSTONES_MAX: usize = 4096;

pub(crate) fn is_terminated(home: &Home, uid: &ReplicaUid) -> bool {
    path(home, uid).exists()
}

/// Records for good that `uid` was terminated.
pub(crate) fn add(home: &Home, uid: &ReplicaUid) -> io::Result<()> {
    let dir = dir(home);
    fs::create_dir_all(&dir)?;
    let path = path(home, uid);
    if path.exists() {
        return Ok(());
    }
    // Empty, so that it fits on a full disk.
    File::create(path)?;
    sync_dir(&dir)
}

/// Forgets the oldest ones beyond the bound.
pub(crate) fn prune(home: &Home) {
    for path in crate::kept_logs::oldest_beyond(&dir(home), TOMBSTONES_MAX, |_| true) {
        let _ = fs::remove_file(path);
    }
}

fn dir(home: &Home) -> PathBuf {
    home.replicas_dir().join(".terminated")
}

fn path(home: &Home, uid: &ReplicaUid) -> PathBuf {
    dir(home).join(uid.as_str())
}

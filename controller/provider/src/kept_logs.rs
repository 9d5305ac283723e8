//! The output of replicas that are gone: `~/.sky/serve/logs/replicas/<uid>.log`, the newest ones.

use skyserve_home::Home;
use skyserve_shim::folder::Folder;
use skyserve_shim::{OUTPUT_PARTS_MAX, output_part};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Replicas whose output is kept after their end, and how many parts of each: the failure that somebody
/// looks for is among the last, and at the end. With full parts of 8 MiB this is 400 MiB.
const KEPT_REPLICAS_MAX: usize = 25;
const KEPT_PARTS_MAX: usize = 2;

/// Where the replica's output is now: in its folder while it has one, afterwards among the logs.
pub fn replica_log_path(home: &Home, uid: &str) -> PathBuf {
    let current = Folder::at(home.replica_dir(uid)).output_log();
    if current.exists() { current } else { kept(home, uid) }
}

/// The log of a replica that is gone: the newest kept one of this service and number.
pub fn newest_kept_log(home: &Home, service: &str, id: u64) -> Option<PathBuf> {
    let incarnation = |path: &PathBuf| {
        let uid = path.file_name()?.to_str()?.strip_suffix(".log")?;
        let middle = uid.strip_prefix(service)?.strip_prefix('-')?.strip_suffix(&format!("-{id}"))?;
        middle.parse::<u64>().ok()
    };
    let kept = fs::read_dir(dir(home)).ok()?.flatten().map(|entry| entry.path());
    kept.filter(|path| incarnation(path).is_some()).max_by_key(incarnation)
}

/// Moves a replica's output from its folder to the logs.
pub(crate) fn keep(home: &Home, uid: &str) -> io::Result<()> {
    let (from, to) = (Folder::at(home.replica_dir(uid)).output_log(), kept(home, uid));
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir(home))?;
    for number in (0..KEPT_PARTS_MAX.min(OUTPUT_PARTS_MAX)).rev() {
        match fs::rename(output_part(&from, number), output_part(&to, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes down the output of a replica that had no folder here.
pub(crate) fn write(home: &Home, uid: &str, output: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir(home))?;
    fs::write(kept(home, uid), output)
}

/// Removes the oldest ones beyond the bound.
pub(crate) fn prune(home: &Home) {
    let is_first_part = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    for log in oldest_beyond(&dir(home), KEPT_REPLICAS_MAX, is_first_part) {
        for number in (0..KEPT_PARTS_MAX).rev() {
            let _ = fs::remove_file(output_part(&log, number));
        }
    }
}

/// All but the newest `count` files of a folder among those that `counts` names.
pub(crate) fn oldest_beyond(dir: &Path, count: usize, counts: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| counts(&entry.path()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    let beyond = files.len().saturating_sub(count);
    files.sort();
    files.truncate(beyond);
    files.into_iter().map(|(_, path)| path).collect()
}

fn dir(home: &Home) -> PathBuf {
    home.log_dir().join("replicas")
}

fn kept(home: &Home, uid: &str) -> PathBuf {
    dir(home).join(format!("{uid}.log"))
}

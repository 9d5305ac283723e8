//! One runtime per home: init holds a lock on `init.lock` for its life, and the file has its process id.
//!
//! Invariants:
//! * The id in the file alone means nothing: a process is taken for init only if the kernel shows that this very
//!   process holds the lock on this very file. So a stranger who got a dead init's id is never taken for it.
//! * The file is removed, by its holder, before the lock is let go; who gets a lock on a removed file tries again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use skyserve_home::Home;

/// How long a lock may be held by nobody we know: by a child of a killed init that has not reached exec, or by an init
/// that has not written its id yet. Both take microseconds.
const NAMELESS_HOLDER_WAIT: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// A process id with a line feed.
const PID_BYTES_MAX: u64 = 16;

/// The init that runs this home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningInit {
    pub pid: i32,
}

/// Why init did not get its lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(
        "SkyServe is already running for the home {home}, as process {pid}: use it as it is, or stop it first (kill {pid}, or take all services down)"
    )]
    Held { home: PathBuf, pid: i32 },
    #[error(
        "another process holds {path}, perhaps in another container: stop the SkyServe runtime there, or use another home"
    )]
    HeldElsewhere { path: PathBuf },
    #[error("cannot {action} {path}: {source}; SkyServe needs a home it can write to")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct InitLock {
    path: PathBuf,
    /// The lock lives as long as this is open.
    file: File,
}

impl InitLock {
    pub(crate) fn acquire(home: &Home) -> Result<Self, LockError> {
        let path = home.init_lock();
        let failed = |action, source| LockError::Io { action, path: home.init_lock(), source };
        let deadline = Instant::now() + NAMELESS_HOLDER_WAIT;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(|error| failed("open", error))?;
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file_write_lock())) {
                Ok(_) if same_file(&file, &path).map_err(|error| failed("look at", error))? => {
                    let mut lock = Self { path, file };
                    lock.write_pid().map_err(|error| failed("write", error))?;
                    return Ok(lock);
                }
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    if let Some(RunningInit { pid }) = running(home) {
                        return Err(LockError::Held { home: home.path().to_path_buf(), pid });
                    }
                    if Instant::now() >= deadline {
                        return Err(LockError::HeldElsewhere { path });
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
                Err(error) => return Err(failed("lock", error.into())),
            }
        }
    }

    fn write_pid(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(format!("{}\n", std::process::id()).as_bytes())
    }
}

impl Drop for InitLock {
    /// Removes the file; the lock goes with the open file, after this.
    fn drop(&mut self) {
        // What cannot be removed says the id of a process that holds no lock, which nobody believes.
        let _ = fs::remove_file(&self.path);
    }
}

/// The init that runs this home, if one does.
pub fn running(home: &Home) -> Option<RunningInit> {
    let path = home.init_lock();
    let mut text = String::new();
    File::open(&path).ok()?.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let pid: i32 = text.trim_end().parse().ok().filter(|pid| *pid > 0)?;
    holds_lock(pid, &path).then_some(RunningInit { pid })
}

/// Whether this process has this file open and holds the lock through it.
fn holds_lock(pid: i32, path: &Path) -> bool {
    let Ok(lock_file) = fs::metadata(path) else { return false };
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let is_lock_file = fs::metadata(descriptor.path())
            .is_ok_and(|file| file.dev() == lock_file.dev() && file.ino() == lock_file.ino());
        let info = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(descriptor.file_name());
        is_lock_file && fs::read_to_string(info).is_ok_and(|info| info.lines().any(is_write_lock_line))
    })
}

/// Such as `lock: 1: OFDLCK ADVISORY WRITE -1 fe:00:9977921 0 EOF`.
fn is_write_lock_line(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next() == Some("lock:") && words.any(|word| word == "OFDLCK") && words.any(|word| word == "WRITE")
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(theirs) => Ok(ours.dev() == theirs.dev() && ours.ino() == theirs.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn whole_file_write_lock() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_in(temp: &tempfile::TempDir) -> Home {
        let home = Home::at(temp.path().join("home"), temp.path().join("run"));
        home.make_dirs().unwrap();
        home
    }

    #[test]
    fn the_holder_is_found_by_its_lock_and_a_second_runtime_is_told_its_pid() {
        let temp = tempfile::tempdir().unwrap();
        let home = home_in(&temp);
        assert_eq!(running(&home), None);
        let lock = InitLock::acquire(&home).unwrap();
        let own_pid = std::process::id() as i32;
        assert_eq!(running(&home), Some(RunningInit { pid: own_pid }));
        let refused = InitLock::acquire(&home).unwrap_err();
        assert!(matches!(refused, LockError::Held { pid, .. } if pid == own_pid));
        assert!(refused.to_string().contains(&own_pid.to_string()));
        drop(lock);
        assert_eq!(running(&home), None);
        assert!(!home.init_lock().exists());
    }

    #[test]
    fn a_process_id_in_the_file_is_nothing_without_the_lock() {
        let temp = tempfile::tempdir().unwrap();
        let home = home_in(&temp);
        fs::write(home.init_lock(), format!("{}\n", std::process::id())).unwrap();
        let _open_but_not_locked = File::open(home.init_lock()).unwrap();
        assert_eq!(running(&home), None);
        InitLock::acquire(&home).unwrap();
    }

    #[test]
    fn a_lock_held_by_a_process_that_is_not_in_the_file_is_reported_as_held_elsewhere() {
        let temp = tempfile::tempdir().unwrap();
        let home = home_in(&temp);
        let _lock = InitLock::acquire(&home).unwrap();
        fs::write(home.init_lock(), "1\n").unwrap();
        assert_eq!(running(&home), None);
        assert!(matches!(InitLock::acquire(&home), Err(LockError::HeldElsewhere { .. })));
    }
}

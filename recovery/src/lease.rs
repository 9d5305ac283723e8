//! One process at a time: a lock on a file of the home, held for the holder's life.
//!
//! An open-file-description lock: it goes when its holder ends, however it ends, it works between
//! machines on network file systems that have locks at all, and unlike a classic POSIX lock it is not
//! lost when something else in the process closes the same file.
//!
//! A lock on a removed file excludes nobody. So only a holder removes it, as the last thing it does
//! ([`Lease::release`]), and whoever gets a lock looks whether the file is still in its place.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between tries while waiting: the kernel tells nobody that a lock has become free, and a
/// takeover should not be felt.
const RETRY_MS: u64 = 20;
/// Tries at a file that somebody replaces just as it is locked; nobody does that more than once by
/// accident.
const REPLACED_TIMES_MAX: u32 = 5;
/// More than any holder's line; whatever else is in the file is not shown.
const HOLDER_BYTES_MAX: u64 = 200;

/// Why a lease was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    #[error("{path} is held by {holder}: this home is in use; stop that process or wait until it ends, then try again")]
    Held { path: PathBuf, holder: String },
    #[error("cannot open the lock file {path}: {source}; check that its folder exists and is writable for this user")]
    Open { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is replaced again and again by another program; find it (`fuser {path}`) and end it, then try again"
    )]
    Replaced { path: PathBuf },
    #[error("cannot lock {path}: {source}; put the home on a file system that has locks")]
    Lock { path: PathBuf, source: std::io::Error },
}

impl LeaseError {
    /// Whether waiting may help.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
#[must_use = "the lease is let go when this is dropped"]
pub struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes the lease at `path` (the file is made if need be), or says at once who has it.
    pub fn acquire(path: &Path) -> Result<Self, LeaseError> {
        for _ in 0..REPLACED_TIMES_MAX {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(|source| LeaseError::Open { path: path.to_path_buf(), source })?;
            if let Some(lease) = Self::lock(file, path)? {
                return Ok(lease);
            }
        }
        Err(LeaseError::Replaced { path: path.to_path_buf() })
    }

    /// Takes the lease, waiting for its holder to end until `deadline`.
    pub fn acquire_before(path: &Path, deadline: Instant) -> Result<Self, LeaseError> {
        loop {
            match Self::acquire(path) {
                Err(error) if error.is_held() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(RETRY_MS));
                }
                result => return result,
            }
        }
    }

    /// Lets go for good, and leaves no file. The holder must have done its last write.
    pub fn release(self) {
        if self.is_in_place() {
            // What stays is an unlocked file, which the next holder takes.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether the locked file is still the one at its path. If not, another process can have taken a
    /// lease at the same path, and this one excludes nobody.
    pub fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(locked), Ok(found)) => (locked.dev(), locked.ino()) == (found.dev(), found.ino()),
            _ => false,
        }
    }

    /// Locks the open `file`; `None` if another one has come to its path meanwhile.
    fn lock(mut file: File, path: &Path) -> Result<Option<Self>, LeaseError> {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                return Err(LeaseError::Held { path: path.to_path_buf(), holder: read_holder(&mut file) });
            }
            Err(errno) => return Err(LeaseError::Lock { path: path.to_path_buf(), source: errno.into() }),
        }
        let mut lease = Self { file, path: path.to_path_buf() };
        Ok(lease.is_in_place().then(|| {
            lease.write_holder();
            lease
        }))
    }

    /// Notes who holds it, for the error that others get. A full disk is no reason not to start.
    fn write_holder(&mut self) {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let line = format!("process {} on {}\n", std::process::id(), host.display());
        let noted = self.file.set_len(0).and_then(|()| self.file.write_all(line.as_bytes()));
        drop(noted);
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn read_holder(file: &mut File) -> String {
    let mut line = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(HOLDER_BYTES_MAX).read_to_end(&mut line));
    let line = String::from_utf8_lossy(&line);
    match line.lines().next() {
        Some(holder) if read.is_ok() && !holder.trim().is_empty() => holder.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_before_it_is_locked_gives_no_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.lock");
        let early = File::create_new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let lease = Lease::acquire(&path).unwrap();
        assert!(Lease::lock(early, &path).unwrap().is_none());
        assert!(lease.is_in_place());
    }

    #[test]
    fn of_an_earlier_holder_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.lock");
        fs::write(&path, "an earlier holder\n".repeat(50)).unwrap();
        let _lease = Lease::acquire(&path).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert!(content.starts_with(&format!("process {} on ", std::process::id())), "{content}");
        assert_eq!(content.lines().count(), 1, "{content}");
    }

    #[test]
    fn whatever_is_in_the_lock_file_the_message_is_one_short_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.lock");
        let lease = Lease::acquire(&path).unwrap();
        for (content, shown) in [(vec![], "another process"), (vec![b'x'; 100_000], &*"x".repeat(200))] {
            fs::write(&path, content).unwrap();
            let error = Lease::acquire(&path).unwrap_err();
            assert!(error.to_string().contains(&format!(" is held by {shown}: ")), "{error}");
        }
        drop(lease);
    }
}

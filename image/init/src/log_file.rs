//! Log files of bounded size. Two ways, for two kinds of writers:
//!
//! * *Scripts* may print without end and are not ours. They write to a pipe, init reads it and writes a
//!   [`RotatingLog`]: the bound is exact, and a script that prints faster than [`crate::output`] takes waits.
//! * *Roles* are ours and must never wait for init: they write straight to their file, opened for appending.
//!   [`rotate_by_copy`] looks at the size now and then, copies the end of a grown file and truncates it; the
//!   appending writer goes on at its new start. What is printed between copy and truncation is lost (microseconds);
//!   between two looks the file may outgrow its bound.
//!
//! No failure here stops anything: a log that cannot be written is a log without those lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log is rotated when it reaches this size. With [`LOG_FILES_MAX`] that is 30 MiB for each writer.
pub(crate) const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// The log itself and its predecessors `.1` and `.2`.
const LOG_FILES_MAX: u32 = 3;

/// Opens a file of this user's alone for appending, as roles' standard output for instance.
pub(crate) fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// A log that only this process writes.
#[derive(Debug)]
pub(crate) struct RotatingLog {
    path: PathBuf,
    bytes_max: u64,
    /// The open file and its size.
    open: Option<(File, u64)>,
}

impl RotatingLog {
    /// Touches no file until something is written.
    pub(crate) fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self { path, bytes_max, open: None }
    }

    /// Appends these bytes, or drops them when that is not possible.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.try_write(bytes).is_err() {
            // The disk may be full or the folder gone: open afresh the next time.
            self.open = None;
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| size + bytes.len() as u64 > self.bytes_max) {
            self.open = None;
            shift_older(&self.path)?;
            fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            none => {
                let file = open_append(&self.path)?;
                let size = file.metadata()?.len();
                none.insert((file, size))
            }
        };
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }
}

/// Rotates a log that others append to, if it has grown to `bytes_max`.
pub(crate) fn rotate_by_copy(path: &Path, bytes_max: u64) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() >= bytes_max => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    shift_older(path)?;
    let mut log = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let size = log.metadata()?.len();
    log.seek(SeekFrom::Start(size.saturating_sub(bytes_max)))?;
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(numbered(path, 1))?;
    let copied = io::copy(&mut (&mut log).take(bytes_max), &mut copy);
    // On a full disk the copy fails, and the truncation is what helps.
    log.set_len(0)?;
    copied.map(|_| ())
}

/// Makes room for a new `.1`: the oldest goes.
fn shift_older(path: &Path) -> io::Result<()> {
    for number in (1..LOG_FILES_MAX - 1).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotating_log_never_outgrows_its_bound_and_keeps_the_newest_lines() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run.log");
        let mut log = RotatingLog::new(path.clone(), 100);
        for number in 0..1000 {
            log.write(format!("line {number}\n").as_bytes());
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 999\n"));
        let sizes: Vec<u64> =
            fs::read_dir(temp.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), LOG_FILES_MAX as usize);
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    }

    #[test]
    fn a_log_that_cannot_be_written_drops_lines_and_recovers() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("logs");
        let mut log = RotatingLog::new(folder.join("run.log"), 100);
        log.write(b"lost\n");
        fs::create_dir(&folder).unwrap();
        log.write(b"kept\n");
        assert_eq!(fs::read_to_string(folder.join("run.log")).unwrap(), "kept\n");
    }

    #[test]
    fn an_appending_writer_goes_on_in_a_log_rotated_by_copy() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("role.log");
        let mut writer = open_append(&path).unwrap();
        for round in 0..4 {
            writer.write_all(&[b'a' + round; 150]).unwrap();
            rotate_by_copy(&path, 100).unwrap();
        }
        writer.write_all(b"now").unwrap();
        rotate_by_copy(&path, 100).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"now");
        assert_eq!(fs::read(numbered(&path, 1)).unwrap(), [b'd'; 100]);
        assert_eq!(fs::read(numbered(&path, 2)).unwrap(), [b'c'; 100]);
        assert!(!numbered(&path, 3).exists());
    }
}

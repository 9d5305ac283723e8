//! The few file operations that persisting a script takes, behind a trait, so that a test can stop
//! the machine between any two of them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The extended attribute that has a file's checksum, behind the time at which the bytes that it is of were written:
/// whoever edits the file since is not to be told that it is damaged.
const SUM_ATTRIBUTE: &str = "user.skyserve.sum";
/// Longest value of that attribute.
const SUM_BYTES_MAX: usize = 128;

/// File operations, each one step. What is durable after a step is said at each.
pub trait Files {
    /// Makes the folder and those above it (mode 0700); fine when it is there. Durable only after
    /// [`Files::sync_dir`] of the folder above.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file, executable by its owner alone, with these bytes. Nothing is durable yet.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Notes with a file whose bytes are as they shall be for good what their checksum is. It goes where the file goes,
    /// and no longer counts once somebody writes the file again. Durable after [`Files::sync_file`]. Where the file
    /// system cannot keep it, whatever the reason, there is none: it is not worth losing the file for.
    fn set_sum(&self, path: &Path, sum: &str) -> io::Result<()>;
    /// The checksum noted with a file, if there is one and it counts.
    fn sum(&self, path: &Path) -> io::Result<Option<String>>;
    /// Makes the bytes and the note of a file durable (not its name).
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing what had it, in one step. Durable after [`Files::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Files::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder; none when there is no such folder.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// At most `bytes_max` bytes from the start of a file.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> io::Result<bool>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
        file.write_all(bytes)?;
        // The mode given at creation is cut by the umask; scripts must be executable under any.
        file.set_permissions(Permissions::from_mode(0o700))
    }

    fn set_sum(&self, path: &Path, sum: &str) -> io::Result<()> {
        let file = File::open(path)?;
        let note = format!("{} {sum}", written_at(&file)?);
        let _ = rustix::fs::fsetxattr(&file, SUM_ATTRIBUTE, note.as_bytes(), XattrFlags::empty());
        Ok(())
    }

    fn sum(&self, path: &Path) -> io::Result<Option<String>> {
        let file = File::open(path)?;
        let mut note = [0; SUM_BYTES_MAX];
        let length = match rustix::fs::fgetxattr(&file, SUM_ATTRIBUTE, &mut note) {
            // None, none possible, or none of ours.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::RANGE) => return Ok(None),
            result => result?,
        };
        let Ok(note) = std::str::from_utf8(&note[..length]) else { return Ok(None) };
        let Some((of, sum)) = note.split_once(' ') else { return Ok(None) };
        Ok((of == written_at(&file)?).then(|| sum.to_owned()))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }
}

/// When a file's bytes were last written.
fn written_at(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    Ok(format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

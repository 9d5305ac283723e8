//! Writes files, folders and links into the tar file.

use super::{BUNDLE_BYTES_MAX, BundleError, Digesting, ENTRIES_MAX, Part, ignore_rules};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Permission bits that are kept. The owner can always read what it unpacked, and enter and fill
/// folders: otherwise a replica could not be set up, or cleaned away.
const MODE_KEPT: u32 = 0o777;
const MODE_OF_FILES_MIN: u32 = 0o400;
const MODE_OF_FOLDERS_MIN: u32 = 0o700;
/// Warnings of one kind shown before only their number is.
const SKIPPED_SHOWN_MAX: usize = 5;

pub(super) struct Packer<F> {
    tar: Builder<Digesting>,
    entries: u64,
    warnings: Vec<String>,
    skipped: Vec<PathBuf>,
    write_error: F,
}

impl<F: Fn(io::Error) -> BundleError> Packer<F> {
    pub(super) fn new(output: Digesting, write_error: F) -> Self {
        Self { tar: Builder::new(output), entries: 0, warnings: Vec::new(), skipped: Vec::new(), write_error }
    }

    /// Packs one source with all that is in it.
    pub(super) fn add(&mut self, part: &Part) -> Result<(), BundleError> {
        let metadata = std::fs::metadata(&part.source).map_err(|error| part.unreadable(&part.source, error))?;
        if !metadata.is_dir() {
            return self.add_one(part, &part.source, &part.name, &metadata);
        }
        // The source itself may be a link to the folder; what is below it stays as it is.
        let folder = part.source.canonicalize().map_err(|error| part.unreadable(&part.source, error))?;
        self.warnings.extend(ignore_rules::warning(&folder));
        let problem = |problem: String| BundleError::Ignore { field: part.field.clone(), problem };
        for entry in ignore_rules::walk(&folder).map_err(problem)? {
            let entry = entry.map_err(|error| problem(error.to_string()))?;
            let below = entry.path().strip_prefix(&folder).unwrap_or(Path::new(""));
            let metadata = entry.path().symlink_metadata().map_err(|error| part.unreadable(entry.path(), error))?;
            self.add_one(part, entry.path(), &part.name.join(below), &metadata)?;
        }
        Ok(())
    }

    fn add_one(&mut self, part: &Part, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), BundleError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(BundleError::TooMany { field: part.field.clone() });
        }
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.add_folder(name, metadata)
        } else if kind.is_symlink() {
            self.add_link(part, path, name)
        } else if kind.is_file() {
            self.add_file(part, path, name, metadata)
        } else {
            self.entries -= 1;
            self.skipped.push(path.to_path_buf());
            Ok(())
        }
    }

    fn add_folder(&mut self, name: &Path, metadata: &Metadata) -> Result<(), BundleError> {
        let mut header = header(EntryType::Directory, metadata.mode() | MODE_OF_FOLDERS_MIN, 0);
        self.tar.append_data(&mut header, name, io::empty()).map_err(&self.write_error)
    }

    fn add_link(&mut self, part: &Part, path: &Path, name: &Path) -> Result<(), BundleError> {
        let target = path.read_link().map_err(|error| part.unreadable(path, error))?;
        let mut header = header(EntryType::Symlink, MODE_KEPT, 0);
        self.tar.append_link(&mut header, name, target).map_err(&self.write_error)
    }

    fn add_file(&mut self, part: &Part, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), BundleError> {
        if self.tar.get_ref().bytes.saturating_add(metadata.len()) > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { field: part.field.clone() });
        }
        let file = File::open(path).map_err(|error| part.unreadable(path, error))?;
        let mut content = Content { file, failure: None, read: 0 };
        let mut header = header(EntryType::Regular, metadata.mode() | MODE_OF_FILES_MIN, metadata.len());
        let appended = self.tar.append_data(&mut header, name, (&mut content).take(metadata.len()));
        if let Some(failure) = content.failure {
            return Err(part.unreadable(path, failure));
        }
        appended.map_err(&self.write_error)?;
        if content.read != metadata.len() {
            return Err(BundleError::Changed { field: part.field.clone(), path: path.to_path_buf() });
        }
        Ok(())
    }

    /// The finished file, the number of entries in it, and warnings.
    pub(super) fn finish(mut self) -> Result<(Digesting, u64, Vec<String>), BundleError> {
        if !self.skipped.is_empty() {
            let shown: Vec<String> =
                self.skipped.iter().take(SKIPPED_SHOWN_MAX).map(|path| path.display().to_string()).collect();
            self.warnings.push(format!(
                "{} sockets, pipes and devices are left out of the upload: {}",
                self.skipped.len(),
                shown.join(", ")
            ));
        }
        let mut written = self.tar.into_inner().map_err(&self.write_error)?;
        written.flush().map_err(&self.write_error)?;
        Ok((written, self.entries, self.warnings))
    }
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & MODE_KEPT);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

impl Part {
    fn unreadable(&self, path: &Path, source: io::Error) -> BundleError {
        BundleError::Read { field: self.field.clone(), path: path.to_path_buf(), source }
    }
}

/// A file being packed. Its read errors are kept apart from the tar file's write errors.
struct Content {
    file: File,
    failure: Option<io::Error>,
    read: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(bytes) => {
                self.read += bytes as u64;
                Ok(bytes)
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

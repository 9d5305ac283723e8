//! Packs a task's workdir and local file mounts into one tar file for the controller.
//!
//! Layout: `workdir/…`, and `mounts/0`, `mounts/1`, … (a file or a folder each) in the order of the
//! task's `file_mounts`.
//!
//! Invariants:
//! * The same files give the same bytes, and so the same name: entries are sorted, and times and
//!   owners left out.
//! * Links inside a folder stay links; a source that is itself a link is followed.
//! * The packed file has no name on disk, so nothing is left of it however this process ends.

mod files;
mod ignore_rules;

use sha2::{Digest, Sha256};
use skyserve_api::BUNDLE_BYTES_MAX;
use skyserve_spec::{TaskSpec, Workdir};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Most files and folders: each is looked at, packed and unpacked for every replica.
const ENTRIES_MAX: u64 = 200_000;

/// Why the files could not be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{field}: {path} does not exist; relative paths start from the folder you are in, {from}")]
    Missing { field: String, path: PathBuf, from: PathBuf },
    #[error("{field}: {path} is not a folder")]
    NotFolder { field: String, path: PathBuf },
    #[error("{field}: cannot read {path}: {source}")]
    Read { field: String, path: PathBuf, source: io::Error },
    #[error("{field}: {path} changed while it was being packed; run the command again")]
    Changed { field: String, path: PathBuf },
    #[error("{field}: {problem}")]
    Ignore { field: String, problem: String },
    #[error(
        "{field}: the files to upload are more than {} GiB; keep large files out with a .skyignore file",
        BUNDLE_BYTES_MAX >> 30
    )]
    TooLarge { field: String },
    #[error("{field}: there are more than {ENTRIES_MAX} files to upload; keep some out with a .skyignore file")]
    TooMany { field: String },
    #[error("cannot keep the packed files in {folder}: {source}; is its disk full?")]
    Write { folder: PathBuf, source: io::Error },
}

/// A packed file, ready to be uploaded.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) entries: u64,
    /// What was left out and why, where a person would not expect it.
    pub(crate) warnings: Vec<String>,
}

/// One thing to pack.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// The YAML's field, for messages.
    field: String,
    source: PathBuf,
    /// Its name in the tar file.
    name: PathBuf,
    must_be_folder: bool,
}

/// Packs what the task needs from this machine, into a nameless file in `temporary_folder`. `None` if
/// it needs nothing.
pub(crate) fn pack(
    task: &TaskSpec,
    current_folder: &Path,
    home: &Path,
    temporary_folder: &Path,
) -> Result<Option<Bundle>, BundleError> {
    let parts = parts(task, current_folder, home);
    if parts.is_empty() {
        return Ok(None);
    }
    let write_error = |source| BundleError::Write { folder: temporary_folder.to_path_buf(), source };
    // All sources are looked for before the first is packed: a typo must not cost minutes.
    for part in &parts {
        part.check(current_folder)?;
    }
    let file = tempfile::tempfile_in(temporary_folder).map_err(write_error)?;
    let mut packer = files::Packer::new(Digesting { file, hash: Sha256::new(), bytes: 0 }, write_error);
    for part in &parts {
        packer.add(part)?;
    }
    let (written, entries, warnings) = packer.finish()?;
    let Digesting { file, hash, bytes } = written;
    Ok(Some(Bundle { file, bytes, sha256: hex::encode(hash.finalize()), entries, warnings }))
}

fn parts(task: &TaskSpec, current_folder: &Path, home: &Path) -> Vec<Part> {
    let workdir = task.workdir.iter().filter_map(|workdir| match workdir {
        Workdir::Local(path) => Some(Part {
            field: "workdir".to_owned(),
            source: resolve(path, current_folder, home),
            name: PathBuf::from("workdir"),
            must_be_folder: true,
        }),
        Workdir::Git { .. } => None,
    });
    let mounts = task.file_mounts.iter().enumerate().map(|(index, (destination, source))| Part {
        field: format!("file_mounts.{destination}"),
        source: resolve(source, current_folder, home),
        name: Path::new("mounts").join(index.to_string()),
        must_be_folder: false,
    });
    workdir.chain(mounts).collect()
}

/// `~` is the home folder; a relative path starts from the folder the command was given in.
fn resolve(path: &str, current_folder: &Path, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_path_buf(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => current_folder.join(path),
    }
}

impl Part {
    fn check(&self, current_folder: &Path) -> Result<(), BundleError> {
        let (field, path) = (self.field.clone(), self.source.clone());
        match std::fs::metadata(&self.source) {
            Ok(metadata) if self.must_be_folder && !metadata.is_dir() => Err(BundleError::NotFolder { field, path }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BundleError::Missing { field, path, from: current_folder.to_path_buf() })
            }
            Err(source) => Err(BundleError::Read { field, path, source }),
        }
    }
}

/// A file whose digest and length are kept while it is written.
struct Digesting {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Digesting {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;

//! Why the store could not do something, and what helps.

use rusqlite::{ErrorCode, ffi};
use skyserve_model::{Epoch, ReplicaId, ReplicaUid, Version};
use std::path::{Path, PathBuf};

/// What the caller does about a [`StoreError`]. Nothing of a failed commit is ever stored, but see
/// [`Remedy::Exit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing was written; the same call may pass later, on the same store.
    TryAgainLater,
    /// Stop and start again: what is stored must be read anew. After an I/O error a commit that was
    /// reported as failed may be there after all.
    Exit,
    /// This change is wrong, and always will be. Nothing was written; the store goes on working.
    Refused,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("the disk is full, so {path} cannot be written; free some space, and it goes on by itself")]
    DiskFull { path: PathBuf },
    #[error("another program holds {path} locked; it is tried again, or end that program (`fuser {path}` names it)")]
    Busy { path: PathBuf },
    #[error("{path} cannot be written: the file, its folder or its disk is read-only; make it writable for this user")]
    ReadOnly { path: PathBuf },
    #[error("cannot open {path}: {reason}; check that its folder exists and that this user may read and write it")]
    CannotOpen { path: PathBuf, reason: String },
    #[error("reading or writing {path} failed: {source}; check the disk (`dmesg` has more), then start again")]
    Io { path: PathBuf, source: rusqlite::Error },
    #[error("{path} failed earlier and is not used any more; start again")]
    FailedEarlier { path: PathBuf },
    #[error("{path} was removed or replaced while it was in use; start again to use what is there now")]
    Moved { path: PathBuf },
    #[error(
        "{path} is damaged ({place}: {problem}), and nothing was changed; keep a copy, then put a backup in its place or \
         begin without one, and remove {path}-marks, which tells how much there was"
    )]
    Damaged { path: PathBuf, place: String, problem: String },
    #[error("{path} is the database of another program; move it away, and start again")]
    NotOurs { path: PathBuf },
    #[error(
        "{path} was written by a newer SkyServe (format {found}; this one knows up to {supported}), and was left as it is; \
         use that version or a later one"
    )]
    Newer { path: PathBuf, found: u32, supported: u32 },
    #[error(
        "another controller has taken over {path} (its epoch is {found}, mine is {mine}); nothing was written, and this one must stop"
    )]
    Fenced { path: PathBuf, mine: Epoch, found: Epoch },
    #[error("{0}")]
    Conflict(#[from] Conflict),
    #[error("{what} is not in {path}, although it should be; start again to read what is stored")]
    Missing { path: PathBuf, what: String },
    #[error("{what} cannot be stored: {reason}")]
    Unstorable { what: String, reason: String },
    #[error("SQLite failed on {path}: {source}; this is a fault of SkyServe's: report it, and start again")]
    Sql { path: PathBuf, source: rusqlite::Error },
}

/// A change that would use for a second time what may be used once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    #[error("a service named {name} exists already; change it with `update`, or take it down first")]
    ServiceExists { name: String },
    #[error("service {service}: its incarnation {incarnation} was used before (the next is {next})")]
    IncarnationUsed { service: String, incarnation: u64, next: u64 },
    #[error("service {service}: version {version} is not above its newest, {newest}")]
    VersionUsed { service: String, version: Version, newest: Version },
    #[error("service {service}: a version was stored that its row does not name as the newest")]
    VersionNotTaken { service: String },
    #[error("service {service}: replica id {id} was used before")]
    ReplicaIdUsed { service: String, id: ReplicaId },
    #[error("service {service}: its next replica id must be above every id that was used")]
    ReplicaIdNotReserved { service: String },
    #[error("service {service}: {uid} is not the uid of its replica {id}")]
    ForeignUid { service: String, id: ReplicaId, uid: ReplicaUid },
}

impl StoreError {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::DiskFull { .. } | Self::Busy { .. } | Self::ReadOnly { .. } | Self::CannotOpen { .. } => {
                Remedy::TryAgainLater
            }
            Self::Io { .. }
            | Self::FailedEarlier { .. }
            | Self::Moved { .. }
            | Self::Damaged { .. }
            | Self::NotOurs { .. }
            | Self::Newer { .. }
            | Self::Fenced { .. }
            | Self::Missing { .. }
            | Self::Sql { .. } => Remedy::Exit,
            Self::Conflict(_) | Self::Unstorable { .. } => Remedy::Refused,
        }
    }

    /// Whether the same call may pass later, on the same store.
    pub fn is_transient(&self) -> bool {
        self.remedy() == Remedy::TryAgainLater
    }

    /// Whether this process must not go on with what it has in memory.
    pub fn must_exit(&self) -> bool {
        self.remedy() == Remedy::Exit
    }

    /// Whether the connection itself cannot be trusted any more.
    pub(crate) fn loses_connection(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Moved { .. } | Self::Damaged { .. } | Self::Sql { .. })
    }

    /// What an error of the operating system's means for the database at `path`.
    pub(crate) fn from_io(path: &Path, source: &std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::CannotOpen { path, reason: source.to_string() },
        }
    }

    /// What an error of SQLite's means for the database at `path`.
    pub(crate) fn from_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let rusqlite::Error::SqliteFailure(failure, _) = &source else { return Self::Sql { path, source } };
        match (failure.code, failure.extended_code) {
            // The shared-memory file grows only at opening; without space it cannot.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::DiskFull { path },
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy { path },
            (ErrorCode::ReadOnly, ffi::SQLITE_READONLY_DBMOVED) => Self::Moved { path },
            (ErrorCode::ReadOnly, _) => Self::ReadOnly { path },
            (ErrorCode::CannotOpen, _) => Self::CannotOpen { path, reason: source.to_string() },
            (ErrorCode::SystemIoFailure, _) => Self::Io { path, source },
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => {
                Self::Damaged { path, place: "the file".to_owned(), problem: source.to_string() }
            }
            _ => Self::Sql { path, source },
        }
    }
}

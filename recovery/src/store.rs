//! The database: opening it, and the transactions that change it.
//!
//! Invariants:
//! * A commit that returned `Ok` survives a power cut; one that returned `Err` left nothing behind
//!   (except, after an I/O error, perhaps everything: hence [`StoreError::must_exit`]).
//! * Nothing is written under another epoch than the one that this store took when it was opened.
//! * A database that this program does not know is not changed by a single byte.

use crate::error::StoreError;
use crate::filesystem::{Journal, sync_dir};
use crate::marks::{Marks, MarksFile};
use crate::write::{Writer, constraint};
use crate::{read, seal};
use opening::{Content, read_all};
use rusqlite::{Connection, TransactionBehavior, ffi};
use skyserve_model::{Change, Epoch, Service, Version};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod opening;

pub(crate) use opening::{connect, make_file};

/// Longest wait for a lock. Nobody else writes, but a person's `sqlite3` or a backup may hold it for
/// a moment; longer, and the controller would do nothing else meanwhile.
const BUSY_MS_MAX: u64 = 2_000;
/// The epoch of a new database's first opening.
const FIRST_EPOCH: Epoch = Epoch(1);

/// What the controller writes through.
pub trait Store: Send {
    /// Stores all of `changes` in one transaction, or none of them. Once this returns `Ok` they
    /// survive a power cut. What an error means for the caller is in [`StoreError::remedy`].
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        (**self).commit(changes)
    }
}

/// A store, and everything that was in it.
#[derive(Debug)]
pub struct Opened {
    pub store: SqliteStore,
    /// This controller's tenure, stored: no other opening ever gets the same.
    pub epoch: Epoch,
    /// By name; each with its replicas.
    pub services: Vec<Service>,
    /// For the next service that is made; stored services have used every lower one.
    pub next_incarnation: u64,
    /// Whether nobody had opened it before: the file did not exist or was empty.
    pub created: bool,
}

/// The database of a home.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    /// Device and inode of the file that is open.
    identity: (u64, u64),
    epoch: Epoch,
    /// Transactions that were acknowledged, this controller's and earlier ones'.
    transactions: u64,
    marks: Option<MarksFile>,
    /// An error after which the connection cannot be trusted.
    failed: bool,
}

impl SqliteStore {
    /// Opens the database at `path` (made if there is none, for this user alone), brings it to this
    /// program's format, takes the next epoch, which fences whoever opened it before, and reads
    /// everything. The caller holds the home's [`Lease`](crate::Lease).
    pub fn open(path: &Path) -> Result<Opened, StoreError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let journal = Journal::for_folder(folder).map_err(|errno| StoreError::from_io(path, &errno.into()))?;
        Self::open_with(path, folder, journal)
    }

    /// The YAML of a version of a service, as its user wrote it.
    pub fn source(&self, service: &str, version: Version) -> Result<Option<String>, StoreError> {
        read::source(&self.connection, &self.path, service, version)
    }

    fn open_with(path: &Path, folder: &Path, journal: Journal) -> Result<Opened, StoreError> {
        let sqlite = |source| StoreError::from_sqlite(path, source);
        make_file(path, folder).map_err(|error| StoreError::from_io(path, &error))?;
        let mut connection = opening::connect(path)?;
        connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX)).map_err(sqlite)?;
        opening::keep_log(&connection, path, true)?;
        let read_only = connection.is_readonly("main").map_err(sqlite)?;
        match opening::refuse_unknown(&connection, path) {
            // Even reading needs a log beside it, which cannot be made there.
            Ok(()) | Err(StoreError::CannotOpen { .. }) if read_only => {
                return Err(StoreError::ReadOnly { path: path.to_path_buf() });
            }
            result => result?,
        }
        opening::configure(&connection, path, journal)?;
        let before = opening::read_whole(&mut connection, path)?;
        opening::check_marks(path, before.transactions)?;
        opening::keep_log(&connection, path, false)?;
        let (epoch, transactions) = opening::take_epoch(&mut connection, path)?;
        // A controller that was overtaken may have written until the epoch was taken.
        let is_whole = transactions == before.transactions + 1;
        let content = if is_whole { before } else { read_all(&connection, path)? };
        // SQLite drops the error of syncing the folder after it has made its log.
        sync_dir(folder).map_err(|error| StoreError::from_io(path, &error))?;
        let metadata = fs::metadata(path).map_err(|error| StoreError::from_io(path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        let marks = MarksFile::open(path).ok();
        let path = path.to_path_buf();
        let store = Self { connection, path, identity, epoch, transactions, marks, failed: false };
        store.mark();
        let Content { services, next_incarnation, .. } = content;
        Ok(Opened { store, epoch, services, next_incarnation, created: epoch == FIRST_EPOCH })
    }

    /// How many transactions were stored, this controller's and earlier ones'.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Fails if this controller was overtaken, or its file is another by now. It is found at each commit too; this is
    /// for one that has nothing to store.
    pub fn must_be_current(&self) -> Result<(), StoreError> {
        self.must_be_in_place()?;
        opening::must_be_current(&self.connection, &self.path, self.epoch)
    }

    /// Notes what is stored. Where that cannot be written, the note stays behind, which is no error (see `marks`).
    fn mark(&self) {
        if let Some(file) = &self.marks {
            let _ = file.write(Marks { epoch: self.epoch.0, transactions: self.transactions });
        }
    }

    /// A file that was removed or replaced still takes writes, which nobody would ever read.
    fn must_be_in_place(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::from_io(&self.path, &error)),
            _ => Err(StoreError::Moved { path: self.path.clone() }),
        }
    }

    fn try_commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.must_be_in_place()?;
        let path = &self.path;
        let sqlite = |source| StoreError::from_sqlite(path, source);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        opening::must_be_current(&transaction, path, self.epoch)?;
        let writer = Writer { connection: &transaction, path };
        for change in changes {
            writer.apply(change)?;
        }
        writer.judge_whole(changes)?;
        seal::seal_changed(&transaction, changes).map_err(sqlite)?;
        transaction.commit().map_err(|error| match constraint(&error) {
            Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => {
                StoreError::Missing { path: path.clone(), what: "a version that a service or a replica has".to_owned() }
            }
            _ => sqlite(error),
        })
    }
}

impl Store for SqliteStore {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::FailedEarlier { path: self.path.clone() });
        }
        if changes.is_empty() {
            return Ok(());
        }
        let result = self.try_commit(changes);
        match &result {
            Ok(()) => {
                self.transactions += 1;
                self.mark();
            }
            // A transaction that could not be rolled back would swallow the next one's changes.
            Err(error) => self.failed = error.loses_connection() || !self.connection.is_autocommit(),
        }
        result
    }
}

/// How many transactions the database at `path` holds, which nobody uses; fails unless all that it holds is as it was
/// stored, and no other format's. Nobody takes an epoch of it.
pub(crate) fn check_whole(path: &Path) -> Result<u64, StoreError> {
    let mut connection = connect(path)?;
    opening::refuse_unknown(&connection, path)?;
    opening::read_whole(&mut connection, path).map(|content| content.transactions)
}

#[cfg(test)]
mod tests;

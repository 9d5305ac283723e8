//! The database: opening it, and the transactions that change it.
//!
//! Invariants:
//! * A commit that returned `Ok` survives a power cut; one that returned `Err` left nothing behind
//!   (except, after an I/O error, perhaps everything: hence [`StoreError::must_exit`]).
//! * Nothing is written under another epoch than the one that this store took when it was opened.
//! * A database that this program does not know is not changed by a single byte.

use crate::error::StoreError;
use crate::filesystem::Journal;
use crate::read;
use crate::schema::{APPLICATION_ID, MIGRATIONS, VERSION};
use crate::write::{Writer, constraint};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, ffi};
use skyserve_model::{Change, Epoch, Service, Version};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for a lock. Nobody else writes, but a person's `sqlite3` or a backup may hold it for
/// a moment; longer, and the controller would do nothing else meanwhile.
const BUSY_MS_MAX: u64 = 2_000;
/// Pages in the write-ahead log that start a checkpoint (SQLite's default, 4 MiB): reading it back
/// takes few milliseconds.
const CHECKPOINT_PAGES: u32 = 1_000;
/// What is left of a journal that grew larger is given back to the disk.
const JOURNAL_BYTES_MAX: u32 = 16 << 20;

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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX)).map_err(sqlite)?;
        let read_only = connection.is_readonly("main").map_err(sqlite)?;
        match refuse_unknown(&connection, path) {
            // Even reading needs a log beside it, which cannot be made there.
            Ok(()) | Err(StoreError::CannotOpen { .. }) if read_only => {
                return Err(StoreError::ReadOnly { path: path.to_path_buf() });
            }
            result => result?,
        }
        configure(&connection, path, journal)?;
        check_pages(&connection, path)?;
        migrate(&mut connection, path)?;
        let epoch = take_epoch(&mut connection, path)?;
        let services = read::services(&connection, path)?;
        let next_incarnation = read_next_incarnation(&connection, path, &services)?;
        let metadata = fs::metadata(path).map_err(|error| StoreError::from_io(path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        let store = Self { connection, path: path.to_path_buf(), identity, epoch, failed: false };
        Ok(Opened { store, epoch, services, next_incarnation, created: epoch == FIRST_EPOCH })
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
        let found = read_epoch(&transaction, path)?;
        if found != self.epoch {
            return Err(StoreError::Fenced { path: path.clone(), mine: self.epoch, found });
        }
        let writer = Writer { connection: &transaction, path };
        for change in changes {
            writer.apply(change)?;
        }
        writer.judge_whole(changes)?;
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
        if let Err(error) = &result {
            // A transaction that could not be rolled back would swallow the next one's changes.
            self.failed = error.loses_connection() || !self.connection.is_autocommit();
        }
        result
    }
}

/// Makes the file for this user alone, unless it exists. One that exists is not opened here: closing
/// it would let go of the locks that another connection in this process has on it.
fn make_file(path: &Path, folder: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // SQLite syncs the folder for its own files, not for one that it finds there.
        Ok(_) => File::open(folder)?.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Fails on a database of a later version or of another program, and then leaves every byte of it.
fn refuse_unknown(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    // Closing must not move a log that was left by a newer version into its database.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    let keep_log = |keep| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map_err(sqlite);
    keep_log(has_log)?;
    let found = read_version(connection, path)?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, supported: VERSION });
    }
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    let ours = if found == 0 { tables == 0 } else { application == APPLICATION_ID };
    if !ours {
        return Err(StoreError::NotOurs { path: path.to_path_buf() });
    }
    keep_log(false)?;
    Ok(())
}

fn configure(connection: &Connection, path: &Path, journal: Journal) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", journal.name(), |row| row.get(0)).map_err(sqlite)?;
    if mode != journal.name() {
        let reason = format!("its journal mode stays `{mode}`, but here it must be `{}`", journal.name());
        return Err(StoreError::CannotOpen { path: path.to_path_buf(), reason });
    }
    let settings = [
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("cell_size_check", "ON"),
        ("trusted_schema", "OFF"),
        // A service's secrets go from the file when the service goes.
        ("secure_delete", "ON"),
        ("wal_autocheckpoint", &CHECKPOINT_PAGES.to_string()),
        ("journal_size_limit", &JOURNAL_BYTES_MAX.to_string()),
    ];
    for (name, value) in settings {
        connection.pragma_update(None, name, value).map_err(sqlite)?;
    }
    Ok(())
}

/// Damage is found now, not in the middle of a decision.
fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StoreError::from_sqlite(path, source))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { path: path.to_path_buf(), place: "its pages".to_owned(), problem: verdict })
}

/// Brings the format up to date, one transaction for each migration.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let found = read_version(&transaction, path)?;
        let Some(statements) = MIGRATIONS.get(found as usize) else { return Ok(()) };
        for statement in *statements {
            transaction.execute_batch(statement).map_err(sqlite)?;
        }
        transaction.pragma_update(None, "user_version", found + 1).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
}

fn take_epoch(connection: &mut Connection, path: &Path) -> Result<Epoch, StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    // A newer version may have migrated it since we looked.
    let found = read_version(&transaction, path)?;
    if found != VERSION {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, supported: VERSION });
    }
    transaction.execute("UPDATE meta SET epoch = epoch + 1", []).map_err(sqlite)?;
    let epoch = read_epoch(&transaction, path)?;
    transaction.commit().map_err(sqlite)?;
    Ok(epoch)
}

fn read_version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::from_sqlite(path, source))
}

fn read_epoch(connection: &Connection, path: &Path) -> Result<Epoch, StoreError> {
    read_meta(connection, path, "SELECT epoch FROM meta").map(Epoch)
}

fn read_next_incarnation(connection: &Connection, path: &Path, services: &[Service]) -> Result<u64, StoreError> {
    let next = read_meta(connection, path, "SELECT next_incarnation FROM meta")?;
    match services.iter().find(|service| service.head.incarnation >= next) {
        None => Ok(next),
        Some(service) => Err(damaged_meta(path, format!("service {} has an incarnation above it", service.head.name))),
    }
}

fn read_meta(connection: &Connection, path: &Path, sql: &str) -> Result<u64, StoreError> {
    let value: rusqlite::Result<i64> =
        connection.prepare_cached(sql).and_then(|mut statement| statement.query_row([], |row| row.get(0)));
    match value {
        Ok(value) => u64::try_from(value).map_err(|_| damaged_meta(path, format!("{value} is negative"))),
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(damaged_meta(path, "its row is missing".to_owned())),
        Err(source) => Err(StoreError::from_sqlite(path, source)),
    }
}

fn damaged_meta(path: &Path, problem: String) -> StoreError {
    StoreError::Damaged { path: path.to_path_buf(), place: "table meta".to_owned(), problem }
}

#[cfg(test)]
mod tests;

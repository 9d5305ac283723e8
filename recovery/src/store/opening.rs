//! Opening the database: everything is looked at before anything of it is believed or changed.

use crate::error::StoreError;
use crate::filesystem::{Journal, beside, sync_dir};
use crate::marks::Marks;
use crate::schema::{APPLICATION_ID, MIGRATIONS, SEALED_SINCE, VERSION};
use crate::{read, seal};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use skyserve_model::{Epoch, Service};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Pages in the write-ahead log that start a checkpoint (SQLite's default, 4 MiB): reading it back
/// takes few milliseconds.
const CHECKPOINT_PAGES: u32 = 1_000;
/// What is left of a journal that grew larger is given back to the disk.
const JOURNAL_BYTES_MAX: u32 = 16 << 20;

/// Connects to a database that is there.
pub(crate) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|source| StoreError::from_sqlite(path, source))
}

/// Makes the file for this user alone, unless it exists. One that exists is not opened here: closing
/// it would let go of the locks that another connection in this process has on it.
pub(crate) fn make_file(path: &Path, folder: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // SQLite syncs the folder for its own files, not for one that it finds there.
        Ok(_) => sync_dir(folder),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Fails on a database of a later version or of another program, and then leaves every byte of it.
pub(super) fn refuse_unknown(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
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
    Ok(())
}

/// Whether closing leaves the log as it is: what a newer version left, or what is damaged, is not moved into the database.
pub(super) fn keep_log(connection: &Connection, path: &Path, keep: bool) -> Result<(), StoreError> {
    let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep && has_log)
        .map(drop)
        .map_err(|source| StoreError::from_sqlite(path, source))
}

pub(super) fn configure(connection: &Connection, path: &Path, journal: Journal) -> Result<(), StoreError> {
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
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
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
            transaction.execute_batch(statement).map_err(|source| does_not_apply(path, found, source))?;
        }
        if found + 1 >= SEALED_SINCE {
            seal::seal_all(&transaction).map_err(sqlite)?;
        }
        transaction.pragma_update(None, "user_version", found + 1).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
}

/// A migration fails as SQL only if the database is not of the format that it says.
fn does_not_apply(path: &Path, found: u32, source: rusqlite::Error) -> StoreError {
    match StoreError::from_sqlite(path, source) {
        StoreError::Sql { path, source } => {
            let place = format!("its format number, {found}");
            StoreError::Damaged { path, place, problem: source.to_string() }
        }
        other => other,
    }
}

/// Takes the next epoch. Also says how many transactions there are with this one.
pub(super) fn take_epoch(connection: &mut Connection, path: &Path) -> Result<(Epoch, u64), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    // A newer version may have migrated it since we looked.
    let found = read_version(&transaction, path)?;
    if found != VERSION {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, supported: VERSION });
    }
    transaction.execute("UPDATE meta SET epoch = epoch + 1", []).map_err(sqlite)?;
    seal::seal_meta(&transaction).map_err(sqlite)?;
    let taken = (read_epoch(&transaction, path)?, read_transactions(&transaction, path)?);
    transaction.commit().map_err(sqlite)?;
    Ok(taken)
}

pub(super) fn read_version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::from_sqlite(path, source))
}

pub(super) fn read_epoch(connection: &Connection, path: &Path) -> Result<Epoch, StoreError> {
    read_meta(connection, path, "SELECT epoch FROM meta").map(Epoch)
}

/// Fails if another controller has taken over from the one whose epoch is `mine`.
pub(super) fn must_be_current(connection: &Connection, path: &Path, mine: Epoch) -> Result<(), StoreError> {
    match read_epoch(connection, path)? {
        found if found == mine => Ok(()),
        found => Err(StoreError::Fenced { path: path.to_path_buf(), mine, found }),
    }
}

fn read_transactions(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    read_meta(connection, path, "SELECT transactions FROM meta")
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

/// What a controller begins with.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) services: Vec<Service>,
    pub(super) next_incarnation: u64,
    pub(super) transactions: u64,
}

/// Brings the database to this program's format and reads everything; whatever is not as it was stored is damage.
pub(super) fn read_whole(connection: &mut Connection, path: &Path) -> Result<Content, StoreError> {
    check_pages(connection, path)?;
    migrate(connection, path)?;
    seal::check_schema(connection, path)?;
    read_all(connection, path)
}

/// Everything, as it was stored; anything else is damage.
pub(super) fn read_all(connection: &Connection, path: &Path) -> Result<Content, StoreError> {
    let services = read::services(connection, path)?;
    let next_incarnation = read_next_incarnation(connection, path, &services)?;
    seal::check(connection, path)?;
    Ok(Content { services, next_incarnation, transactions: read_transactions(connection, path)? })
}

/// Fails if fewer transactions are stored than were acknowledged.
pub(super) fn check_marks(path: &Path, transactions: u64) -> Result<(), StoreError> {
    let acknowledged = Marks::read(path).map_or(0, |marks| marks.transactions);
    if transactions >= acknowledged {
        return Ok(());
    }
    let problem = format!("of {acknowledged} transactions that were acknowledged, it ends with number {transactions}");
    Err(StoreError::Damaged { path: path.to_path_buf(), place: "its log".to_owned(), problem })
}

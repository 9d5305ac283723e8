//! Seals: how a bit that changed on the disk is noticed.
//!
//! SQLite finds a page that is no page any more, not a value that became another. So each row holds the checksum of its
//! own values (`seal`), and `meta`, besides a seal of its own, the sum of all rows' seals (`seals`, kept by triggers). A
//! row that changed no longer fits its seal; rows that vanished, or came back, no longer fit the sum. What says how rows
//! are to be read, the schema, has its checksum in `meta` too (`schema`).

use crate::error::StoreError;
use crate::values::place_of;
use crc32fast::Hasher;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use skyserve_model::Change;
use std::collections::BTreeSet;
use std::path::Path;

/// A table with sealed rows. Its statements' first parameters are a row's key.
struct Sealed {
    table: &'static str,
    /// The keys of all rows.
    keys: &'static str,
    select: &'static str,
    /// Its last parameter is the seal.
    update: &'static str,
}

const SERVICES: Sealed = Sealed {
    table: "services",
    keys: "SELECT name FROM services",
    select: "SELECT * FROM services WHERE name = ?1",
    update: "UPDATE services SET seal = ?2 WHERE name = ?1",
};
const VERSIONS: Sealed = Sealed {
    table: "versions",
    keys: "SELECT service, version FROM versions",
    select: "SELECT * FROM versions WHERE service = ?1 AND version = ?2",
    update: "UPDATE versions SET seal = ?3 WHERE service = ?1 AND version = ?2",
};
const REPLICAS: Sealed = Sealed {
    table: "replicas",
    keys: "SELECT service, id FROM replicas",
    select: "SELECT * FROM replicas WHERE service = ?1 AND id = ?2",
    update: "UPDATE replicas SET seal = ?3 WHERE service = ?1 AND id = ?2",
};
const META_KEY: [Value; 1] = [Value::Integer(1)];
const META: Sealed = Sealed {
    table: "meta",
    keys: "SELECT only FROM meta",
    select: "SELECT * FROM meta WHERE only = ?1",
    update: "UPDATE meta SET seal = ?2 WHERE only = ?1",
};

/// The column that holds a row's seal. It is the only one that is not sealed.
const SEAL: &str = "seal";

impl Sealed {
    /// Seals the row with this key as it is now, if there is one.
    fn seal(&self, connection: &Connection, key: &[Value]) -> rusqlite::Result<()> {
        let seal = connection
            .prepare_cached(self.select)?
            .query_row(params_from_iter(key), |row| seal_of(self.table, row))
            .optional()?;
        let Some(seal) = seal else { return Ok(()) };
        let values = key.iter().cloned().chain([Value::Integer(seal)]);
        connection.prepare_cached(self.update)?.execute(params_from_iter(values)).map(drop)
    }

    /// Seals every row.
    fn seal_all(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(self.keys)?;
        let columns = statement.column_count();
        let key = |row: &Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        let keys: Vec<Vec<Value>> = statement.query_map([], key)?.collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| self.seal(connection, key))
    }

    /// The sum of the rows' seals; fails if a row does not fit its own.
    fn check(&self, connection: &Connection, path: &Path) -> Result<i64, StoreError> {
        let sqlite = |source| StoreError::from_sqlite(path, source);
        let table = self.table;
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        let mut sum = 0;
        while let Some(row) = rows.next().map_err(sqlite)? {
            sum += check_row(table, row, path)?;
        }
        Ok(sum)
    }
}

/// The seal of a row of `table` that fits it.
pub(crate) fn check_row(table: &'static str, row: &Row<'_>, path: &Path) -> Result<i64, StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let seal: i64 = row.get(SEAL).map_err(sqlite)?;
    if seal == seal_of(table, row).map_err(sqlite)? {
        return Ok(seal);
    }
    Err(damaged(path, place_of(table, row), "it does not fit its checksum"))
}

/// The checksum of a row's values, their types and their table.
fn seal_of(table: &str, row: &Row<'_>) -> rusqlite::Result<i64> {
    let mut hasher = Hasher::new();
    hasher.update(table.as_bytes());
    for column in 0..row.as_ref().column_count() {
        if row.as_ref().column_name(column)? == SEAL {
            continue;
        }
        let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(number) => (1, &number.to_le_bytes()),
            ValueRef::Real(number) => (2, &number.to_le_bytes()),
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(blob) => (4, blob),
        };
        hasher.update(&[kind]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    Ok(hasher.finalize().into())
}

/// Seals the rows that `changes` may have touched, each once, and `meta`. The last thing in a transaction.
pub(crate) fn seal_changed(connection: &Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let (mut services, mut versions, mut replicas) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for change in changes {
        match change {
            Change::InsertService { head, .. } => {
                services.insert(&head.name);
                versions.insert((&head.name, head.version.0));
            }
            Change::InsertVersion { service, version, .. } => drop(versions.insert((service, version.0))),
            Change::UpdateService(head) => drop(services.insert(&head.name)),
            Change::InsertReplica { service, replica } => {
                // Its id counts as used, in its service's row.
                services.insert(service);
                replicas.insert((service, replica.id.0));
            }
            Change::UpdateReplica { service, replica } => drop(replicas.insert((service, replica.id.0))),
            Change::DeleteVersion { .. } | Change::DeleteService { .. } | Change::DeleteReplica { .. } => {}
        }
    }
    let text = |text: &String| Value::Text(text.clone());
    // What is stored is below `i64::MAX`: the writer refuses anything else.
    let pair = |(service, number): &(&String, u64)| [text(service), Value::Integer(number.cast_signed())];
    services.iter().try_for_each(|name| SERVICES.seal(connection, &[text(name)]))?;
    versions.iter().try_for_each(|key| VERSIONS.seal(connection, &pair(key)))?;
    replicas.iter().try_for_each(|key| REPLICAS.seal(connection, &pair(key)))?;
    seal_meta(connection)
}

/// Counts the transaction and seals `meta`.
pub(crate) fn seal_meta(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE meta SET transactions = transactions + 1")?.execute([])?;
    META.seal(connection, &META_KEY)
}

/// Seals everything there is, after a migration.
pub(crate) fn seal_all(connection: &Connection) -> rusqlite::Result<()> {
    [SERVICES, VERSIONS, REPLICAS].iter().try_for_each(|table| table.seal_all(connection))?;
    connection.execute("UPDATE meta SET schema = ?1", [seal_of_schema(connection)?])?;
    META.seal(connection, &META_KEY)
}

/// Fails unless every row is as it was stored, and none is missing.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let sums = [SERVICES, VERSIONS, REPLICAS].iter().map(|table| table.check(connection, path));
    let sum: i64 = sums.collect::<Result<Vec<_>, _>>()?.iter().sum();
    META.check(connection, path)?;
    let stored: i64 = connection
        .query_row("SELECT seals FROM meta", [], |row| row.get(0))
        .map_err(|source| StoreError::from_sqlite(path, source))?;
    if stored != sum {
        return Err(damaged(path, "its tables".to_owned(), "rows are missing, or there are too many"));
    }
    Ok(())
}

/// Fails unless the schema is the one that the last migration left.
pub(crate) fn check_schema(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let stored: Option<i64> = connection
        .query_row("SELECT schema FROM meta", [], |row| row.get(0))
        .optional()
        .map_err(|_| damaged(path, "its schema".to_owned(), "table meta cannot be read"))?;
    // Without its row, `meta` is reported as what is damaged.
    match stored {
        Some(stored) if stored != seal_of_schema(connection).map_err(sqlite)? => {
            Err(damaged(path, "its schema".to_owned(), "it does not fit its checksum"))
        }
        _ => Ok(()),
    }
}

/// The checksum of what the database says of its tables, indexes and triggers.
fn seal_of_schema(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let mut rows = statement.query([])?;
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        sum += seal_of("sqlite_schema", row)?;
    }
    Ok(sum)
}

fn damaged(path: &Path, place: String, problem: &str) -> StoreError {
    StoreError::Damaged { path: path.to_path_buf(), place, problem: problem.to_owned() }
}

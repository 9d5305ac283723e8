//! Seals: how a bit that changed on the disk is noticed.
//!
//! SQLite finds a page that is no page any more, not a value that became another. So each row holds the checksum of its
//! own values (`seal`), and `meta`, besides a seal of its own, the sum of all rows' seals (`seals`, kept by triggers). A
//! row that changed no longer fits its seal; rows that vanished, or came back, no longer fit the sum. What says how rows
//! are to be read, the schema, has its checksum in `meta` too (`schema`).

use crate::error::StoreError;
use crc32fast::Hasher;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use skyserve_model::Change;
use std::path::Path;

/// A table with sealed rows, and the columns of its key.
struct Sealed {
    table: &'static str,
    key: &'static [&'static str],
}

const SERVICES: Sealed = Sealed { table: "services", key: &["name"] };
const VERSIONS: Sealed = Sealed { table: "versions", key: &["service", "version"] };
const REPLICAS: Sealed = Sealed { table: "replicas", key: &["service", "id"] };
const META: Sealed = Sealed { table: "meta", key: &["only"] };
const META_KEY: [Value; 1] = [Value::Integer(1)];

/// The column that holds a row's seal. It is the only one that is not sealed.
const SEAL: &str = "seal";

impl Sealed {
    /// `first key = ?n AND second key = ?n+1`.
    fn condition(&self, first: usize) -> String {
        let equal = |(column, number): (&&str, usize)| format!("{column} = ?{number}");
        self.key.iter().zip(first..).map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Seals the row with this key as it is now, if there is one.
    fn seal(&self, connection: &Connection, key: &[Value]) -> rusqlite::Result<()> {
        let table = self.table;
        let seal = connection
            .prepare_cached(&format!("SELECT * FROM {table} WHERE {}", self.condition(1)))?
            .query_row(params_from_iter(key), |row| seal_of(table, row))
            .optional()?;
        let Some(seal) = seal else { return Ok(()) };
        let values = std::iter::once(Value::Integer(seal)).chain(key.iter().cloned());
        connection
            .prepare_cached(&format!("UPDATE {table} SET {SEAL} = ?1 WHERE {}", self.condition(2)))?
            .execute(params_from_iter(values))
            .map(drop)
    }

    /// Seals every row, as a format without seals left them.
    fn seal_all(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(&format!("SELECT {} FROM {}", self.key.join(", "), self.table))?;
        let key = |row: &Row<'_>| (0..self.key.len()).map(|column| row.get(column)).collect();
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
    // The first two columns name the row in every table.
    let key = |index| match row.get::<usize, Value>(index) {
        Ok(Value::Text(text)) => text,
        Ok(Value::Integer(number)) => number.to_string(),
        _ => "?".to_owned(),
    };
    Err(damaged(path, format!("table {table}, row {} {}", key(0), key(1)), "it does not fit its checksum"))
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

/// Seals the rows that `changes` may have touched, and `meta`. The last thing in a transaction.
pub(crate) fn seal_changed(connection: &Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let text = |text: &str| Value::Text(text.to_owned());
    // What is stored is below `i64::MAX`: the writer refuses anything else.
    let number = |number: u64| Value::Integer(number.cast_signed());
    for change in changes {
        match change {
            Change::InsertService { head, .. } => {
                SERVICES.seal(connection, &[text(&head.name)])?;
                VERSIONS.seal(connection, &[text(&head.name), number(head.version.0)])?;
            }
            Change::InsertVersion { service, version, .. } => {
                VERSIONS.seal(connection, &[text(service), number(version.0)])?;
            }
            Change::UpdateService(head) => SERVICES.seal(connection, &[text(&head.name)])?,
            Change::InsertReplica { service, replica } => {
                // Its id counts as used, in its service's row.
                SERVICES.seal(connection, &[text(service)])?;
                REPLICAS.seal(connection, &[text(service), number(replica.id.0)])?;
            }
            Change::UpdateReplica { service, replica } => {
                REPLICAS.seal(connection, &[text(service), number(replica.id.0)])?;
            }
            Change::DeleteVersion { .. } | Change::DeleteService { .. } | Change::DeleteReplica { .. } => {}
        }
    }
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

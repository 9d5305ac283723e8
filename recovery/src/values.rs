//! Between the model's types and the columns' values.

use crate::error::StoreError;
use rusqlite::Row;
use rusqlite::types::{FromSql, Value};
use skyserve_model::{Head, Operation, Replica, Timestamp};
use std::net::SocketAddr;
use std::path::Path;

/// The columns of `services` that a [`Head`] fills, in the order of [`head_values`].
pub(crate) const HEAD_COLUMNS: [&str; 17] = [
    "name",
    "incarnation",
    "version",
    "created_at",
    "listen",
    "endpoint_confirmed",
    "next_replica_id",
    "ready_since",
    "ever_ready",
    "failures_in_a_row",
    "launch_not_before",
    "given_up",
    "proven_version",
    "proven_failures_in_a_row",
    "proven_launch_not_before",
    "shutdown_since",
    "shutdown_purge",
];

/// The columns of `replicas` after the service's name, in the order of [`replica_values`].
pub(crate) const REPLICA_COLUMNS: [&str; 13] = [
    "id",
    "uid",
    "version",
    "status",
    "status_since",
    "reason",
    "address",
    "launched_at",
    "first_ready_at",
    "operation_kind",
    "operation_attempt",
    "operation_not_before",
    "operation_purge",
];

pub(crate) fn head_values(head: &Head) -> Result<[Value; HEAD_COLUMNS.len()], StoreError> {
    let name = &head.name;
    let integer = |column: &str, value: u64| integer(|| format!("{column} of service {name}"), value);
    let moment = |column: &str, moment: Timestamp| integer(column, moment.0);
    Ok([
        Value::Text(name.clone()),
        integer("incarnation", head.incarnation)?,
        integer("version", head.version.0)?,
        moment("created_at", head.created_at)?,
        Value::Text(head.listen.to_string()),
        flag(head.endpoint_confirmed),
        integer("next_replica_id", head.next_replica_id.0)?,
        optional(head.ready_since, |since| moment("ready_since", since))?,
        flag(head.ever_ready),
        Value::Integer(head.failures_in_a_row.into()),
        moment("launch_not_before", head.launch_not_before)?,
        text(head.given_up.clone()),
        optional(head.proven, |proven| integer("proven_version", proven.version.0))?,
        head.proven.map_or(Value::Null, |proven| Value::Integer(proven.failures_in_a_row.into())),
        optional(head.proven, |proven| moment("proven_launch_not_before", proven.launch_not_before))?,
        optional(head.shutdown, |shutdown| moment("shutdown_since", shutdown.since))?,
        head.shutdown.map_or(Value::Null, |shutdown| flag(shutdown.purge)),
    ])
}

pub(crate) fn replica_values(replica: &Replica) -> Result<[Value; REPLICA_COLUMNS.len()], StoreError> {
    let uid = &replica.uid;
    let integer = |column: &str, value: u64| integer(|| format!("{column} of replica {uid}"), value);
    let moment = |column: &str, moment: Timestamp| integer(column, moment.0);
    let operation: Option<Operation> = replica.operation;
    Ok([
        integer("id", replica.id.0)?,
        Value::Text(uid.as_str().to_owned()),
        integer("version", replica.version.0)?,
        Value::Text(replica.status.name().to_owned()),
        moment("status_since", replica.status_since)?,
        text(replica.reason.clone()),
        text(replica.address.map(|address| address.to_string())),
        moment("launched_at", replica.launched_at)?,
        optional(replica.first_ready_at, |ready| moment("first_ready_at", ready))?,
        text(operation.map(|operation| operation.kind.name().to_owned())),
        operation.map_or(Value::Null, |operation| Value::Integer(operation.attempt.into())),
        optional(operation, |operation| moment("operation_not_before", operation.not_before))?,
        operation.map_or(Value::Null, |operation| flag(operation.purge)),
    ])
}

/// SQLite's integers are signed: a number beyond them is refused, not bent.
pub(crate) fn integer(what: impl Fn() -> String, value: u64) -> Result<Value, StoreError> {
    let too_large = |_| StoreError::Unstorable { what: what(), reason: format!("{value} is above {}", i64::MAX) };
    i64::try_from(value).map(Value::Integer).map_err(too_large)
}

fn optional<T>(value: Option<T>, store: impl Fn(T) -> Result<Value, StoreError>) -> Result<Value, StoreError> {
    value.map_or(Ok(Value::Null), store)
}

fn text(value: Option<String>) -> Value {
    value.map_or(Value::Null, Value::Text)
}

fn flag(value: bool) -> Value {
    Value::Integer(value.into())
}

/// One row being read, column by column in the statement's order. Whatever does not fit its type is
/// [`StoreError::Damaged`], with the row and the column named.
pub(crate) struct Cells<'a> {
    row: &'a Row<'a>,
    table: &'static str,
    path: &'a Path,
    column: usize,
}

impl<'a> Cells<'a> {
    pub(crate) fn new(row: &'a Row<'a>, table: &'static str, path: &'a Path) -> Self {
        Self { row, table, path, column: 0 }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.get()
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        self.get()
    }

    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let value: i64 = self.get()?;
        u64::try_from(value).map_err(|_| self.damaged(format!("{value} is negative")))
    }

    /// A number of 32 bits.
    pub(crate) fn count(&mut self) -> Result<u32, StoreError> {
        self.get()
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        self.get()
    }

    pub(crate) fn moment(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp)
    }

    pub(crate) fn optional_moment(&mut self) -> Result<Option<Timestamp>, StoreError> {
        if self.is_null()? { self.empty() } else { self.moment().map(Some) }
    }

    pub(crate) fn address(&mut self) -> Result<SocketAddr, StoreError> {
        let text: String = self.get()?;
        text.parse().map_err(|_| self.damaged(format!("`{text}` is not an address")))
    }

    pub(crate) fn optional_address(&mut self) -> Result<Option<SocketAddr>, StoreError> {
        if self.is_null()? { self.empty() } else { self.address().map(Some) }
    }

    /// A name that `parse` knows.
    pub(crate) fn named<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let text: String = self.get()?;
        parse(&text).ok_or_else(|| self.damaged(format!("`{text}` is not a value that this version knows")))
    }

    /// Whether the next column is empty.
    pub(crate) fn is_null(&self) -> Result<bool, StoreError> {
        let value = self.row.get_ref(self.column).map_err(|source| StoreError::from_sqlite(self.path, source))?;
        Ok(value == rusqlite::types::ValueRef::Null)
    }

    /// What is wrong with this row, at the column read last.
    pub(crate) fn damaged(&self, problem: String) -> StoreError {
        let column = self.row.as_ref().column_name(self.column.saturating_sub(1)).unwrap_or("?");
        let place = format!("{}, column {column}", place_of(self.table, self.row));
        StoreError::Damaged { path: self.path.to_path_buf(), place, problem }
    }

    /// Passes over a column that is empty.
    pub(crate) fn empty<T>(&mut self) -> Result<Option<T>, StoreError> {
        self.column += 1;
        Ok(None)
    }

    fn get<T: FromSql>(&mut self) -> Result<T, StoreError> {
        let index = self.column;
        self.column += 1;
        self.row.get(index).map_err(|error| match error {
            rusqlite::Error::SqliteFailure(..) => StoreError::from_sqlite(self.path, error),
            other => self.damaged(other.to_string()),
        })
    }
}

/// Which row of which table this is, for a person.
pub(crate) fn place_of(table: &str, row: &Row<'_>) -> String {
    // The first two columns name the row in every table that is read.
    let key = |index| match row.get::<usize, Value>(index) {
        Ok(Value::Text(text)) => text,
        Ok(Value::Integer(number)) => number.to_string(),
        _ => "?".to_owned(),
    };
    format!("table {table}, row {} {}", key(0), key(1))
}

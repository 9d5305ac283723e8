//! Each [`Change`] as statements, inside a transaction that the caller began.
//!
//! Invariants:
//! * A row is inserted or updated, never both at once: there is no upsert.
//! * `replica_id_used_max` and `next_incarnation` only grow, so no replica uid ever comes twice, not
//!   even after its row or its service is gone; and so does a service's version.

use crate::error::{Conflict, StoreError};
use crate::values::{HEAD_COLUMNS, REPLICA_COLUMNS, head_values, integer, replica_values};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, ffi, params_from_iter};
use skyserve_model::{Change, Head, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Version, VersionRules};
use std::path::Path;
use std::sync::LazyLock;

/// `?1, ?2, …` for the columns, and `column = ?n` for those from the third on (the first two are the
/// row's key).
struct Sql {
    insert: String,
    update: String,
}

static SERVICE: LazyLock<Sql> = LazyLock::new(|| {
    let numbered: Vec<String> = (1..=HEAD_COLUMNS.len()).map(|number| format!("?{number}")).collect();
    Sql {
        insert: format!("INSERT INTO services ({}) VALUES ({})", HEAD_COLUMNS.join(", "), numbered.join(", ")),
        update: format!(
            "UPDATE services SET {} WHERE name = ?1 AND incarnation = ?2 AND version <= ?3",
            assignments(&HEAD_COLUMNS[2..], 3)
        ),
    }
});

static REPLICA: LazyLock<Sql> = LazyLock::new(|| {
    let numbered: Vec<String> = (1..=REPLICA_COLUMNS.len() + 1).map(|number| format!("?{number}")).collect();
    Sql {
        insert: format!(
            "INSERT INTO replicas (service, {}) VALUES ({})",
            REPLICA_COLUMNS.join(", "),
            numbered.join(", ")
        ),
        update: format!(
            "UPDATE replicas SET {} WHERE service = ?1 AND id = ?2 AND uid = ?3",
            assignments(&REPLICA_COLUMNS[2..], 4)
        ),
    }
});

fn assignments(columns: &[&str], first: usize) -> String {
    let each: Vec<String> =
        columns.iter().zip(first..).map(|(column, number)| format!("{column} = ?{number}")).collect();
    each.join(", ")
}

/// The open transaction's connection.
pub(crate) struct Writer<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) path: &'a Path,
}

impl Writer<'_> {
    pub(crate) fn apply(&self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::InsertService { head, rules, source } => self.insert_service(head, rules, source),
            Change::InsertVersion { service, version, rules, source } => {
                self.insert_version(service, *version, rules, source)
            }
            Change::DeleteVersion { service, version } => self.delete_version(service, *version),
            Change::UpdateService(head) => self.update_service(head),
            Change::DeleteService { name } => self.delete_service(name),
            Change::InsertReplica { service, replica } => self.insert_replica(service, replica),
            Change::UpdateReplica { service, replica } => self.update_replica(service, replica),
            Change::DeleteReplica { service, id } => self.delete_replica(service, *id),
        }
    }

    /// What can be judged only once all of a transaction's changes are made: a version that was stored is the newest
    /// that its service's row names, or an earlier one. What is stored otherwise could not be read back.
    pub(crate) fn judge_whole(&self, changes: &[Change]) -> Result<(), StoreError> {
        let grown = changes.iter().filter_map(|change| match change {
            Change::InsertVersion { service, .. } => Some(service),
            _ => None,
        });
        for service in grown {
            let beyond: bool = self
                .connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM versions JOIN services ON services.name = versions.service \
                     WHERE versions.service = ?1 AND versions.version > services.version)",
                )
                .and_then(|mut statement| statement.query_row([service], |row| row.get(0)))
                .map_err(|error| self.error(error))?;
            if beyond {
                return Err(Conflict::VersionNotTaken { service: service.clone() }.into());
            }
        }
        Ok(())
    }

    fn insert_service(&self, head: &Head, rules: &VersionRules, source: &str) -> Result<(), StoreError> {
        let name = &head.name;
        let values = head_values(head)?;
        let taken = || Conflict::ServiceExists { name: name.clone() };
        self.insert(&SERVICE.insert, params_from_iter(values), name, taken)?;
        self.take_incarnation(head)?;
        self.write_version(name, head.version, rules, source)?;
        self.proven_must_exist(head)
    }

    fn insert_version(
        &self,
        service: &str,
        version: Version,
        rules: &VersionRules,
        source: &str,
    ) -> Result<(), StoreError> {
        let newest: Option<i64> = self
            .connection
            .prepare_cached("SELECT version FROM services WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([service], |row| row.get(0)).optional())
            .map_err(|error| self.error(error))?;
        let Some(newest) = newest.map(i64::unsigned_abs) else {
            return Err(self.missing(format!("service {service}")));
        };
        if version.0 <= newest {
            let newest = Version(newest);
            return Err(Conflict::VersionUsed { service: service.to_owned(), version, newest }.into());
        }
        self.write_version(service, version, rules, source)
    }

    fn write_version(
        &self,
        service: &str,
        version: Version,
        rules: &VersionRules,
        source: &str,
    ) -> Result<(), StoreError> {
        let number = integer(|| format!("version of service {service}"), version.0)?;
        let json = rules_to_json(service, rules)?;
        let used = || Conflict::VersionUsed { service: service.to_owned(), version, newest: version };
        self.insert(
            "INSERT INTO versions (service, version, rules, source) VALUES (?1, ?2, ?3, ?4)",
            (service, number, json, source),
            service,
            used,
        )
    }

    fn delete_version(&self, service: &str, version: Version) -> Result<(), StoreError> {
        let number = integer(|| format!("version of service {service}"), version.0)?;
        let rows = self.run(
            "DELETE FROM versions WHERE service = ?1 AND version = ?2 \
             AND NOT EXISTS (SELECT 1 FROM services WHERE name = ?1 AND proven_version = ?2)",
            (service, number),
        )?;
        self.must_exist(rows, || format!("version {version} of service {service}, with nothing that needs it"))
    }

    fn take_incarnation(&self, head: &Head) -> Result<(), StoreError> {
        let what = || format!("incarnation of service {}", head.name);
        let next = integer(what, head.incarnation.saturating_add(1))?;
        let rows = self.run("UPDATE meta SET next_incarnation = ?1 WHERE next_incarnation < ?1", [next])?;
        if rows == 1 {
            return Ok(());
        }
        let next: i64 = self
            .connection
            .query_row("SELECT next_incarnation FROM meta", [], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        Err(Conflict::IncarnationUsed {
            service: head.name.clone(),
            incarnation: head.incarnation,
            next: next.unsigned_abs(),
        }
        .into())
    }

    fn update_service(&self, head: &Head) -> Result<(), StoreError> {
        let values = params_from_iter(head_values(head)?);
        let rows = self.run_checked(&SERVICE.update, values, &head.name)?;
        self.must_exist(rows, || format!("service {} at version {} or before", head.name, head.version))?;
        self.proven_must_exist(head)
    }

    /// The columns of [`Proven`](skyserve_model::Proven) came later than the table, too late for a foreign key.
    fn proven_must_exist(&self, head: &Head) -> Result<(), StoreError> {
        let Some(version) = head.proven.map(|proven| proven.version) else { return Ok(()) };
        let number = integer(|| format!("proven_version of service {}", head.name), version.0)?;
        let stored: bool = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM versions WHERE service = ?1 AND version = ?2)")
            .and_then(|mut statement| statement.query_row((&head.name, number), |row| row.get(0)))
            .map_err(|error| self.error(error))?;
        let is_there = stored && version < head.version;
        self.must_exist(is_there.into(), || format!("the earlier version {version} of service {}", head.name))
    }

    fn delete_service(&self, name: &str) -> Result<(), StoreError> {
        let rows = self.run("DELETE FROM services WHERE name = ?1", [name])?;
        self.must_exist(rows, || format!("service {name}"))
    }

    fn insert_replica(&self, service: &str, replica: &Replica) -> Result<(), StoreError> {
        let incarnation: Option<i64> = self
            .connection
            .prepare_cached("SELECT incarnation FROM services WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([service], |row| row.get(0)).optional())
            .map_err(|error| self.error(error))?;
        let Some(incarnation) = incarnation else {
            return Err(self.missing(format!("service {service}")));
        };
        let (id, uid) = (replica.id, &replica.uid);
        if *uid != ReplicaUid::new(service, incarnation.unsigned_abs(), id) {
            return Err(Conflict::ForeignUid { service: service.to_owned(), id, uid: uid.clone() }.into());
        }
        let values = replica_values(replica)?;
        let used = || Conflict::ReplicaIdUsed { service: service.to_owned(), id };
        // An orphan comes back under the id that it has always had.
        let may_be_used = replica.status == ReplicaStatus::Unknown;
        let rows = self.run_checked(
            "UPDATE services SET replica_id_used_max = max(replica_id_used_max, ?2) \
             WHERE name = ?1 AND (replica_id_used_max < ?2 OR ?3)",
            (service, &values[0], may_be_used),
            service,
        )?;
        if rows == 0 {
            return Err(used().into());
        }
        self.insert(&REPLICA.insert, with_service(service, values), service, used)
    }

    fn update_replica(&self, service: &str, replica: &Replica) -> Result<(), StoreError> {
        let rows = self.run(&REPLICA.update, with_service(service, replica_values(replica)?))?;
        self.must_exist(rows, || format!("replica {} of service {service}", replica.id))
    }

    fn delete_replica(&self, service: &str, id: ReplicaId) -> Result<(), StoreError> {
        let key = integer(|| format!("id of a replica of service {service}"), id.0)?;
        let rows = self.run("DELETE FROM replicas WHERE service = ?1 AND id = ?2", (service, key))?;
        self.must_exist(rows, || format!("replica {id} of service {service}"))
    }

    /// Inserts one row; `taken` is the conflict if its key exists.
    fn insert(
        &self,
        sql: &str,
        parameters: impl Params,
        service: &str,
        taken: impl Fn() -> Conflict,
    ) -> Result<(), StoreError> {
        self.execute(sql, parameters).map(drop).map_err(|error| match constraint(&error) {
            Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE) => taken().into(),
            _ => self.checked(error, service),
        })
    }

    /// Runs a statement that fails if the service's next replica id is not above every used one.
    fn run_checked(&self, sql: &str, parameters: impl Params, service: &str) -> Result<usize, StoreError> {
        self.execute(sql, parameters).map_err(|error| self.checked(error, service))
    }

    fn run(&self, sql: &str, parameters: impl Params) -> Result<usize, StoreError> {
        self.execute(sql, parameters).map_err(|error| self.error(error))
    }

    fn execute(&self, sql: &str, parameters: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    fn checked(&self, error: rusqlite::Error, service: &str) -> StoreError {
        match constraint(&error) {
            Some(ffi::SQLITE_CONSTRAINT_CHECK) => Conflict::ReplicaIdNotReserved { service: service.to_owned() }.into(),
            _ => self.error(error),
        }
    }

    fn must_exist(&self, rows: usize, what: impl Fn() -> String) -> Result<(), StoreError> {
        if rows == 0 { Err(self.missing(what())) } else { Ok(()) }
    }

    fn missing(&self, what: String) -> StoreError {
        StoreError::Missing { path: self.path.to_path_buf(), what }
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(self.path, source)
    }
}

fn with_service(service: &str, values: [Value; REPLICA_COLUMNS.len()]) -> impl Params {
    params_from_iter(std::iter::once(Value::Text(service.to_owned())).chain(values))
}

/// The constraint that a statement ran into, by SQLite's extended code.
pub(crate) fn constraint(error: &rusqlite::Error) -> Option<std::ffi::c_int> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::ConstraintViolation => {
            Some(failure.extended_code)
        }
        _ => None,
    }
}

/// The rules as JSON that is known to read back: JSON has no infinite numbers, and a version that
/// cannot be read would keep every later controller from starting.
fn rules_to_json(service: &str, rules: &VersionRules) -> Result<String, StoreError> {
    let refuse = |error: serde_json::Error| StoreError::Unstorable {
        what: format!("the rules of service {service}"),
        reason: error.to_string(),
    };
    let json = serde_json::to_string(rules).map_err(refuse)?;
    serde_json::from_str::<VersionRules>(&json).map_err(refuse)?;
    Ok(json)
}

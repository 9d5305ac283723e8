//! Reading back everything, once, when a controller starts.
//!
//! Invariants: what is returned satisfies what the model takes for granted (each replica's uid is its
//! service's, no id is at or above the next one, every version that a row refers to has its rules and none is above the
//! service's); anything else is reported as damage, never guessed at.

use crate::error::StoreError;
use crate::seal;
use crate::values::{Cells, HEAD_COLUMNS, REPLICA_COLUMNS};
use rusqlite::Connection;
use skyserve_model::{
    Head, Operation, OperationKind, Proven, Replica, ReplicaId, ReplicaStatus, ReplicaUid, Service, Shutdown, Version,
    VersionRules,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Every service with its replicas, by name.
pub(crate) fn services(connection: &Connection, path: &Path) -> Result<Vec<Service>, StoreError> {
    let mut services = heads(connection, path)?;
    earlier_versions(connection, path, &mut services)?;
    let sql = format!("SELECT service, {} FROM replicas ORDER BY service, id", REPLICA_COLUMNS.join(", "));
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let mut statement = connection.prepare(&sql).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let mut cells = Cells::new(row, "replicas", path);
        let name = cells.text()?;
        let Some(service) = services.get_mut(&name) else {
            return Err(cells.damaged(format!("there is no service `{name}`")));
        };
        let replica = replica(&mut cells, service)?;
        service.replicas.insert(replica.id, replica);
    }
    Ok(services.into_values().collect())
}

/// The YAML of a version, as it was written.
pub(crate) fn source(
    connection: &Connection,
    path: &Path,
    service: &str,
    version: Version,
) -> Result<Option<String>, StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let Ok(version) = i64::try_from(version.0) else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT * FROM versions WHERE service = ?1 AND version = ?2").map_err(sqlite)?;
    let mut rows = statement.query((service, version)).map_err(sqlite)?;
    let Some(row) = rows.next().map_err(sqlite)? else { return Ok(None) };
    seal::check_row("versions", row, path)?;
    row.get("source").map(Some).map_err(sqlite)
}

fn heads(connection: &Connection, path: &Path) -> Result<BTreeMap<String, Service>, StoreError> {
    let columns: Vec<String> = HEAD_COLUMNS.iter().map(|column| format!("services.{column}")).collect();
    let sql = format!(
        "SELECT {}, versions.rules FROM services \
         LEFT JOIN versions ON versions.service = services.name AND versions.version = services.version",
        columns.join(", ")
    );
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let mut statement = connection.prepare(&sql).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    let mut services = BTreeMap::new();
    while let Some(row) = rows.next().map_err(sqlite)? {
        let mut cells = Cells::new(row, "services", path);
        let head = head(&mut cells)?;
        let rules = match cells.optional_text()? {
            Some(json) => rules(&cells, &json)?,
            None => return Err(cells.damaged(format!("version {} is not stored", head.version))),
        };
        let service = Service { head, rules, earlier: BTreeMap::new(), replicas: BTreeMap::new() };
        services.insert(service.head.name.clone(), service);
    }
    Ok(services)
}

fn earlier_versions(
    connection: &Connection,
    path: &Path,
    services: &mut BTreeMap<String, Service>,
) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let mut statement = connection.prepare("SELECT service, version, rules FROM versions").map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let mut cells = Cells::new(row, "versions", path);
        let (name, version) = (cells.text()?, Version(cells.number()?));
        let Some(service) = services.get_mut(&name) else {
            return Err(cells.damaged(format!("there is no service `{name}`")));
        };
        if version > service.head.version {
            return Err(cells.damaged(format!("the service's newest version is {}", service.head.version)));
        }
        if version < service.head.version {
            let json = cells.text()?;
            service.earlier.insert(version, rules(&cells, &json)?);
        }
    }
    let dangling = services.values().find_map(|service| {
        let proven = service.head.proven.filter(|proven| !service.earlier.contains_key(&proven.version))?;
        Some((service.head.name.clone(), proven.version))
    });
    match dangling {
        None => Ok(()),
        Some((name, version)) => Err(StoreError::Damaged {
            path: path.to_path_buf(),
            place: format!("table services, row {name}, column proven_version"),
            problem: format!("version {version} is not stored"),
        }),
    }
}

fn rules(cells: &Cells<'_>, json: &str) -> Result<Arc<VersionRules>, StoreError> {
    serde_json::from_str(json).map(Arc::new).map_err(|error| cells.damaged(error.to_string()))
}

fn head(cells: &mut Cells<'_>) -> Result<Head, StoreError> {
    Ok(Head {
        name: cells.text()?,
        incarnation: cells.number()?,
        version: Version(cells.number()?),
        created_at: cells.moment()?,
        listen: cells.address()?,
        endpoint_confirmed: cells.flag()?,
        next_replica_id: ReplicaId(cells.number()?),
        ready_since: cells.optional_moment()?,
        ever_ready: cells.flag()?,
        failures_in_a_row: cells.count()?,
        launch_not_before: cells.moment()?,
        given_up: cells.optional_text()?,
        proven: proven(cells)?,
        shutdown: match cells.optional_moment()? {
            Some(since) => Some(Shutdown { since, purge: cells.flag()? }),
            None => cells.empty()?,
        },
    })
}

fn proven(cells: &mut Cells<'_>) -> Result<Option<Proven>, StoreError> {
    if cells.is_null()? {
        cells.empty::<()>()?;
        cells.empty::<()>()?;
        return cells.empty();
    }
    let version = Version(cells.number()?);
    Ok(Some(Proven { version, failures_in_a_row: cells.count()?, launch_not_before: cells.moment()? }))
}

fn replica(cells: &mut Cells<'_>, service: &Service) -> Result<Replica, StoreError> {
    let head = &service.head;
    let id = ReplicaId(cells.number()?);
    if id >= head.next_replica_id {
        return Err(cells.damaged(format!("the service's next replica id is {}", head.next_replica_id)));
    }
    let uid = ReplicaUid::new(&head.name, head.incarnation, id);
    let stored = cells.text()?;
    if stored != uid.as_str() {
        return Err(cells.damaged(format!("`{stored}` is not the uid of this replica, `{uid}`")));
    }
    let version = Version(cells.number()?);
    if version != head.version && !service.earlier.contains_key(&version) {
        return Err(cells.damaged(format!("version {version} is not stored")));
    }
    Ok(Replica {
        id,
        uid,
        version,
        status: cells.named(ReplicaStatus::parse)?,
        status_since: cells.moment()?,
        reason: cells.optional_text()?,
        address: cells.optional_address()?,
        launched_at: cells.moment()?,
        first_ready_at: cells.optional_moment()?,
        operation: operation(cells)?,
    })
}

fn operation(cells: &mut Cells<'_>) -> Result<Option<Operation>, StoreError> {
    if cells.is_null()? {
        return Ok(None);
    }
    Ok(Some(Operation {
        kind: cells.named(OperationKind::parse)?,
        attempt: cells.count()?,
        not_before: cells.moment()?,
        purge: cells.flag()?,
    }))
}

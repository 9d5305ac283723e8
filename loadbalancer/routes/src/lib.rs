//! The route table: all that the load balancer needs to know, as the controller publishes it in
//! `routes.json`, and as the load balancer reports back on its socket ([`report`]).
//!
//! Invariants:
//! * A file that [`read`] accepts is one that [`publish`] wrote whole: a checksum over the body's bytes
//!   finds torn and rotten files.
//! * Tables are ordered by [`RouteTable::version`]: a reader never goes back to an older one.
#![forbid(unsafe_code)]

pub mod report;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The format this build writes. A reader refuses a higher one (a newer build wrote it) and keeps
/// what it has.
pub const FORMAT: u32 = 1;

/// Largest file a reader accepts: 10,000 replicas take about 2 MiB.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Every service's routes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    pub format: u32,
    /// The controller's tenure that published this table; grows with every controller start.
    pub epoch: u64,
    /// Grows with every publication within an epoch.
    pub seq: u64,
    pub services: Vec<ServiceRoutes>,
}

/// One service: where it listens, and where its requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRoutes {
    pub name: String,
    /// Address the endpoint listens on.
    pub listen: SocketAddr,
    pub policy: Policy,
    /// Longest silence while a reply is awaited or streamed, in milliseconds.
    pub stream_timeout_ms: u64,
    /// Key and certificate for HTTPS at the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    pub replicas: Vec<ReplicaRoute>,
    /// Whether it is worth waiting while no replica is ready. Without any to come, requests are refused at once.
    pub expects_replicas: bool,
}

/// Certificate and key files, read by the load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub keyfile: PathBuf,
    pub certfile: PathBuf,
}

/// SkyServe's `load_balancing_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    RoundRobin,
    LeastLoad,
    InstanceAwareLeastLoad,
}

/// One replica that may get requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaRoute {
    /// Unique for ever: a replica that is replaced gets another.
    pub uid: String,
    /// The number shown to users.
    pub id: u64,
    pub address: SocketAddr,
    /// Share of the load relative to the service's other replicas; 0 gets none.
    pub weight: u32,
    pub state: ReplicaRouteState,
}

/// Whether a replica gets new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRouteState {
    /// Gets requests.
    Ready,
    /// Gets no new request; the ones it has go on to their end.
    Draining,
}

/// Orders tables: later controllers first, then later publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableVersion {
    pub epoch: u64,
    pub seq: u64,
}

impl RouteTable {
    /// This table's place in the order of tables.
    pub fn version(&self) -> TableVersion {
        TableVersion { epoch: self.epoch, seq: self.seq }
    }
}

/// Why a route table file cannot be used. None of these is a reason to drop the table in force.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    #[error("cannot read the route table {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write the route table {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the route table {path} is {bytes} bytes, more than the {FILE_BYTES_MAX} allowed")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("the route table is damaged: {reason}")]
    Damaged { reason: String },
    #[error("the route table {path} was published by a later controller: this one has been overtaken and must end")]
    Overtaken { path: PathBuf },
    #[error("the route table has format {found}, this build reads up to {FORMAT}: upgrade the load balancer")]
    Newer { found: u32 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    /// CRC-32 of the bytes of `table`, in hexadecimal.
    checksum: String,
    #[serde(borrow)]
    table: &'a RawValue,
}

/// The bytes of a route table file.
pub fn encode(table: &RouteTable) -> Vec<u8> {
    let infallible = "a route table has only strings and numbers, which always serialise";
    let body = serde_json::value::to_raw_value(table).expect(infallible);
    let checksum = format!("{:08x}", crc32fast::hash(body.get().as_bytes()));
    let mut bytes = serde_json::to_vec(&Envelope { checksum, table: &body }).expect(infallible);
    bytes.push(b'\n');
    bytes
}

/// Reads a table from a file's bytes.
pub fn decode(bytes: &[u8]) -> Result<RouteTable, RoutesError> {
    let damaged = |reason: String| RoutesError::Damaged { reason };
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let found = format!("{:08x}", crc32fast::hash(envelope.table.get().as_bytes()));
    if found != envelope.checksum {
        return Err(damaged(format!("its checksum is {found}, it says {}", envelope.checksum)));
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_str(envelope.table.get()).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(RoutesError::Newer { found: format });
    }
    serde_json::from_str(envelope.table.get()).map_err(|error| damaged(error.to_string()))
}

/// Reads the table at `path`.
pub fn read(path: &Path) -> Result<RouteTable, RoutesError> {
    let read_error = |source| RoutesError::Read { path: path.to_path_buf(), source };
    let bytes = std::fs::metadata(path).map_err(read_error)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(RoutesError::TooLarge { path: path.to_path_buf(), bytes });
    }
    decode(&std::fs::read(path).map_err(read_error)?)
}

/// Replaces the table at `path` atomically, unless a later controller's is there. Once this returns, a reader (also after a power cut) finds
/// the new table; if it fails, the old one is untouched.
pub fn publish(path: &Path, table: &RouteTable) -> Result<(), RoutesError> {
    // The writer holds the home's lease; this catches one that was stopped, lost it, and went on.
    if read(path).is_ok_and(|there| there.epoch > table.epoch) {
        return Err(RoutesError::Overtaken { path: path.to_path_buf() });
    }
    replace(path, table)
}

/// The same for whoever passes on tables that others have published: writes only one that comes after the table that is
/// there, whole. Says whether it did.
pub fn pass_on(path: &Path, table: &RouteTable) -> Result<bool, RoutesError> {
    if read(path).is_ok_and(|there| there.version() >= table.version()) {
        return Ok(false);
    }
    replace(path, table).map(|()| true)
}

fn replace(path: &Path, table: &RouteTable) -> Result<(), RoutesError> {
    let write_error = |source| RoutesError::Write { path: path.to_path_buf(), source };
    let temporary = path.with_extension("json.next");
    let mut file = File::create(&temporary).map_err(write_error)?;
    file.write_all(&encode(table)).map_err(write_error)?;
    file.sync_all().map_err(write_error)?;
    std::fs::rename(&temporary, path).map_err(write_error)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(write_error)
}

#[cfg(test)]
mod tests;

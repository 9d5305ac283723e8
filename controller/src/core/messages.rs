//! What goes into the core and what comes out of it.

use skyserve_model::{
    CallFailure, Epoch, LaunchSpec, Observation, OperationKind, ReplicaId, ReplicaUid, Service, Timestamp, VersionRules,
};
use skyserve_recovery::StoreError;
use skyserve_routes::RouteTable;
use skyserve_routes::report::Report;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What the core must know of its surroundings.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Address that endpoints listen on.
    pub listen_host: IpAddr,
    /// Ports for endpoints, used from the lowest on.
    pub listen_ports: RangeInclusive<u16>,
    /// The INFRA column: where replicas run.
    pub infra: String,
    /// Whether endpoints are reached at another address than they listen on, which [`Input::Exposed`] tells.
    pub exposed: bool,
}

/// What the store held when the core took over.
#[derive(Debug)]
pub struct Held {
    pub epoch: Epoch,
    pub next_incarnation: u64,
    pub services: Vec<Service>,
}

/// Something the core has to be told.
#[derive(Debug)]
pub enum Input {
    /// The provider shows one replica.
    Observed { observation: Observation, seen_at: Timestamp },
    /// The provider's answer to [`Output::List`], asked at `began_at`.
    Listed { observations: Vec<Observation>, began_at: Timestamp },
    /// The provider could not answer [`Output::List`].
    ListFailed { message: String },
    /// A call ended.
    Called {
        service: String,
        replica: ReplicaId,
        uid: ReplicaUid,
        kind: OperationKind,
        result: Result<(), CallFailure>,
    },
    /// A readiness probe ended.
    Probed { service: String, replica: ReplicaId, uid: ReplicaUid, address: SocketAddr, result: Result<(), String> },
    /// The load balancer's state.
    Load(Box<Report>),
    /// Where a service is reached from outside.
    Exposed { service: String, outside: Outside },
}

/// Where a service is reached by those who do not see the address that its endpoint listens on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// `http://203.0.113.7:30001`; `None` while nobody can say.
    pub endpoint: Option<String>,
    /// What it waits for, or what went wrong; for a person.
    pub note: Option<String>,
}

/// Something the core wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Launch this replica; answer with [`Input::Called`].
    Launch { service: String, replica: ReplicaId, spec: Box<LaunchSpec> },
    /// Terminate this replica; answer with [`Input::Called`].
    Terminate { service: String, replica: ReplicaId, uid: ReplicaUid, grace_ms: u64 },
    /// Probe this replica from now on; answer each time with [`Input::Probed`].
    StartProbe { service: String, replica: ReplicaId, uid: ReplicaUid, address: SocketAddr, rules: Arc<VersionRules> },
    /// Probe it no more.
    StopProbe { uid: ReplicaUid },
    /// Give the load balancer this table.
    Publish(Arc<RouteTable>),
    /// Ask the provider for all it has; answer with [`Input::Listed`].
    List,
}

/// The controller cannot go on: it must end, and start again from the store.
#[derive(Debug, thiserror::Error)]
#[error("the controller stops, to start again from what is stored: {0}")]
pub struct Fatal(#[from] pub StoreError);

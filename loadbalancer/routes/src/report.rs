//! What the load balancer tells the controller, as HTTP+JSON on its Unix socket:
//!
//! * `GET /v1/report` answers one [`Report`].
//! * `GET /v1/wake` answers a stream of lines, one [`Wake`] each, sent when a request has to wait for
//!   a service with no ready replica (at most one a second and service), and once per second as `{}`
//!   so that a dead peer is noticed.
//!
//! For a controller in another pod the report is also at [`REPORT_PATH`] of the port of metrics and health.

use crate::TableVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Where the report is on the port of metrics and health.
pub const REPORT_PATH: &str = "/report";

/// The load balancer's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The table in force; `None` before the first.
    pub table: Option<TableVersion>,
    /// Why the newest file was not taken, if it was not.
    pub table_error: Option<String>,
    /// Where metrics and health are served.
    pub metrics_address: Option<SocketAddr>,
    /// Counters since the load balancer started, by service.
    pub services: BTreeMap<String, ServiceLoad>,
}

/// One service's endpoint and load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceLoad {
    /// Whether the endpoint accepts connections.
    pub listening: bool,
    /// Why it does not, for a person.
    pub listen_error: Option<String>,
    /// Whether `listen_error` is "address already in use".
    pub address_in_use: bool,
    /// Requests received.
    pub requests_total: u64,
    /// Requests forwarded and not yet answered to the last byte.
    pub in_flight: u64,
    /// Requests that wait for a ready replica.
    pub queued: u64,
    /// Answers by class of status code: index 0 is 1xx, 4 is 5xx.
    pub responses_by_class: [u64; 5],
    /// In flight by replica uid.
    pub replicas_in_flight: BTreeMap<String, u64>,
}

/// One line of the wake stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// The service whose requests wait; absent on keep-alive lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

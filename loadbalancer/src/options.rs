//! What the caller decides: where things are, and every bound with its unit and its reason.

use crate::inherit::InheritedListener;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How to run a load balancer.
#[derive(Debug)]
pub struct Options {
    /// The route table that the controller publishes. Its folder is watched.
    pub routes_file: PathBuf,
    /// Unix socket to serve [`skyserve_routes::report`] on; a stale file there is replaced.
    pub report_socket: PathBuf,
    /// The supervisor's datagram socket (`NOTIFY_SOCKET`) that keeps the listeners; `None` works alone.
    pub notify_socket: Option<PathBuf>,
    /// Listeners that the supervisor kept, from [`crate::inherited_listeners`].
    pub inherited: Vec<InheritedListener>,
    /// Where metrics and health are served. Port 0 takes any free one; a port that is taken is
    /// replaced by a free one and logged. The report tells the actual one.
    pub metrics_address: SocketAddr,
    /// Threads that proxy; each accepts from every listener.
    pub threads: usize,
    /// Whether to say to the end of the drain that it is ready. In a pod: nothing new is sent to a pod that is to end as
    /// long as there is another that is ready, and where there is none, to one that still is. Elsewhere whoever sends
    /// traffic is so told to look for another.
    pub ready_while_draining: bool,
    /// Whether another load balancer takes over after SIGTERM that is not there yet (the pod of a controller is
    /// replaced): this one then serves until the other does.
    pub has_successor: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            routes_file: PathBuf::from("routes.json"),
            report_socket: PathBuf::from("loadbalancer.sock"),
            notify_socket: None,
            inherited: Vec::new(),
            metrics_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            ready_while_draining: false,
            has_successor: false,
            limits: Limits::default(),
        }
    }
}

/// Every bound of the proxy. Sizes in bytes, times in milliseconds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request or reply head. 64 KiB holds any cookie jar browsers keep (nginx allows 32 KiB).
    /// More than 100 fields are refused as well, whatever their size.
    pub header_bytes_max: usize,
    /// Largest request target. Servers in Python refuse above 64 KiB, most proxies above 8 KiB.
    pub uri_bytes_max: usize,
    /// From a request's first byte (or the connection's start) to the end of its head. Slow heads hold
    /// a connection for nothing; 15 s carries a 64 KiB head over a modem.
    pub header_read_ms_max: u64,
    /// How long a connection may stay idle between requests. Longer than the 60 s at which most
    /// clients and cloud balancers let go, so that they are the ones to close.
    pub client_idle_ms_max: u64,
    /// Longest silence of a client in the middle of its body, and longest time it reads nothing of a
    /// reply that is waiting. 60 s is nginx's.
    pub body_idle_ms_max: u64,
    /// Longest silence of both sides of an upgraded connection. WebSockets may rest for long, but a
    /// peer that is gone without a word must not hold its place for ever.
    pub tunnel_idle_ms_max: u64,
    /// Open connections per service. Each costs two descriptors and some 30 KiB at worst. From 7/8 of
    /// it on answers carry `Connection: close`, at the bound new ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Requests per service that may wait for a replica. Each holds a connection, so this is below
    /// `connections_max`; more could not be served soon anyhow.
    pub queue_requests_max: usize,
    /// How long a request waits for a replica: time enough to replace a process or a small model's
    /// pod, and still within the patience of usual clients.
    pub queue_wait_ms_max: u64,
    /// Time to connect to a replica: one lost SYN (sent again after 1 s) and some margin.
    pub connect_ms_max: u64,
    /// Idle connections kept per thread and replica: a burst's worth; more only hold descriptors.
    pub upstream_idle_connections_max: usize,
    /// How long a connection to a replica rests before it is closed: under the 5 s after which uvicorn
    /// closes, so that the load balancer is first and no request meets a closing connection.
    pub upstream_idle_ms_max: u64,
    /// How long to wait for the replica's `100 Continue` before the body is sent anyhow (RFC 9110,
    /// 10.1.1: never for ever; curl waits 1 s).
    pub continue_wait_ms_max: u64,
    /// On SIGTERM: longest time until the process ends, whatever is in flight. Kubernetes kills after
    /// 30 s by default.
    pub drain_ms_max: u64,
    /// On SIGTERM: the process ends once neither a connection nor a request has come for this long, and none is in flight.
    pub drain_quiet_ms: u64,
    /// With a successor: how long to go on after the first table of a later controller, which shows that the successor's
    /// pod runs. Until then its readiness must have been probed (every second), its address published and every node's
    /// rules renewed (kube-proxy does so once a second at most): some 3 s, times three.
    pub successor_settle_ms: u64,
    /// How often the route table's file is looked at besides its notifications, which a network file
    /// system may not deliver; also how often a listener that could not be bound is tried again.
    pub table_check_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: 64 * 1024,
            uri_bytes_max: 32 * 1024,
            header_read_ms_max: 15_000,
            client_idle_ms_max: 75_000,
            body_idle_ms_max: 60_000,
            tunnel_idle_ms_max: 3_600_000,
            connections_max: 16_384,
            queue_requests_max: 4_096,
            queue_wait_ms_max: 60_000,
            connect_ms_max: 1_500,
            upstream_idle_connections_max: 128,
            upstream_idle_ms_max: 4_000,
            continue_wait_ms_max: 1_000,
            drain_ms_max: 25_000,
            drain_quiet_ms: 1_000,
            successor_settle_ms: 10_000,
            table_check_ms: 5_000,
        }
    }
}

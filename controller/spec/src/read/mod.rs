//! From YAML nodes to typed values, one module for each section of a task.

pub(crate) mod environment;
pub(crate) mod mounts;
pub(crate) mod ports;
pub(crate) mod resource;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod storage;
pub(crate) mod task;

/// Largest number of replicas or workers. One controller probes them all; a number beyond this is a
/// slip of the finger.
pub(crate) const REPLICAS_MAX: u32 = 10_000;

/// Largest delay, timeout or interval in seconds: a year. What is meant never to end is not given.
pub(crate) const SECONDS_MAX: f64 = 31_536_000.0;

/// Largest number of requests per second a replica may be said to be good for.
pub(crate) const QPS_MAX: f64 = 1e9;

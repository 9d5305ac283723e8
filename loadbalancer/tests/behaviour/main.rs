//! The load balancer as a process, seen from both sides: raw bytes from clients, raw bytes to replicas.

mod handing_over;
mod http_rules;
mod observing;
mod queueing;
mod retries;
mod routing;
mod streaming;
mod support;

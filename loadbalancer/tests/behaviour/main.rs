//! The load balancer as a process, seen from both sides: raw bytes from clients, raw bytes to replicas.

// Helpers of tests fail like tests: by panicking.
#![allow(clippy::unwrap_used)]

mod handing_over;
mod http_rules;
mod observing;
mod queueing;
mod retries;
mod routing;
mod streaming;
mod support;
mod two_pods;

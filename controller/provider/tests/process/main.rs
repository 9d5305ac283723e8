//! The process provider with real shims and real processes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod observing;
mod recovery;
mod refusing;
mod support;
mod terminating;

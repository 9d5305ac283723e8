//! A replica's pod as ordinary processes: `prepare`, `run` and `is-running` on a folder that stands in for the
//! shared volume.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod files;
mod life;
mod support;

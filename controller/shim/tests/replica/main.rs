//! The shim as a program: what it does to a real folder and real processes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod ending;
mod exactly_once;
mod files;
mod full_disk;
mod localhost;
mod ports;
mod support;

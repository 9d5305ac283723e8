//! What must survive: the one database of a home, and the lease that says who may write it.
//!
//! * [`SqliteStore`] holds every service, version and replica, durably and in transactions.
//! * [`Lease`] keeps a second controller off the same home; the epoch in the database fences one
//!   that writes all the same.
//!
//! This crate never reads the wall clock, never decides what should happen to a service, and never
//! deletes or repairs a file it cannot read.
#![forbid(unsafe_code)]

pub mod error;
mod filesystem;
pub mod lease;
mod read;
mod schema;
mod store;
mod values;
mod write;

pub use error::{Conflict, Remedy, StoreError};
pub use lease::{Lease, LeaseError};
pub use store::{Opened, SqliteStore, Store};

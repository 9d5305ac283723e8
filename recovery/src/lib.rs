//! What must survive: the one database of a home, and the lease that says who may write it.
//!
//! * [`SqliteStore`] holds every service, version and replica, durably and in transactions.
//! * [`Lease`] keeps a second controller off the same home; the epoch in the database fences one
//!   that writes all the same.
//!
//! * [`open_or_restore`] puts a damaged database aside, and the newest whole state in its place; [`take_backup`] makes
//!   the copies for that.
//!
//! This crate never reads the wall clock, never decides what should happen to a service, and never
//! deletes or repairs a file it cannot read.
#![forbid(unsafe_code)]

mod backup;
pub mod error;
mod filesystem;
pub mod lease;
mod marks;
mod read;
mod schema;
mod seal;
mod store;
mod values;
mod write;

pub use backup::{Restored, open_or_restore, take_backup};
pub use error::{Conflict, Remedy, StoreError};
pub use lease::{Lease, LeaseError};
pub use store::{Opened, SqliteStore, Store};

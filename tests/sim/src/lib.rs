//! The simulator: the real model, the real core and the real database (files on a temporary folder), on a
//! virtual clock, with a simulated provider, load balancer, users and driver. Everything follows from one
//! seed: no threads within a run, no wall clock, no network.
//!
//! ```text
//! cargo test -p skyserve-sim                            a few hundred runs and the crash matrix, seconds
//! SEED=7 cargo test -p skyserve-sim -- --nocapture      plays one seed again, with its history
//! benches/faults/run [--long] 1 2                       the campaigns: many seeds, on every core
//! SEEDS=5000..6000 benches/faults/run 1                 one with these seeds
//! ```
//!
//! A crash drops the core and everything under way in the controller; what was sent to the provider may
//! or may not have its effect. Then the database is opened again by a new core. `tests/crash_matrix.rs`
//! crashes before and after every durable write, provider call and publication of a service's life;
//! `tests/random.rs` plays everything at once; `tests/negative_controls.rs` plants bugs, each of which must
//! be caught; `tests/incidents` are what happened to users of SkyServe, and `tests/scale.rs` has thousands of replicas,
//! both on a test stand ([`stand`]).
//!
//! What is checked, at every step, is the list in [`Invariant`].
#![forbid(unsafe_code)]

mod balancer;
mod calls;
mod campaign;
mod checks;
mod clock;
pub mod crash;
pub mod faults;
mod history;
mod invariants;
mod many;
mod provider;
mod row;
mod scenario;
pub mod stand;
mod store;
mod user;
mod world;

pub use campaign::{Tally, campaign_seeds, is_long, is_replay, play_all, seeds};
pub use clock::Random;
pub use crash::{CrashPoint, Side};
pub use faults::{Bug, Faults};
pub use history::History;
pub use invariants::{Invariant, Violation};
pub use scenario::{Plan, Run, Story, run};
pub use user::rules;
pub use world::Counts;

//! The pure core of the controller: what a service and its replicas are, and how they change.
//!
//! This crate never reads a clock, a file or the network, and never spawns anything: time arrives
//! as an argument, the world as events, and what is to be done leaves as values.
#![forbid(unsafe_code)]

pub mod ids;
pub mod launch;

pub use ids::{Epoch, OperationId, ReplicaId, ReplicaUid, Timestamp, Version};
pub use launch::{LaunchSpec, Observation, Phase};

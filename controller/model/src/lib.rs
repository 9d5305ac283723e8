//! The pure core of the controller: what a service and its replicas are, and how they change.
//!
//! This crate never reads a clock, a file or the network, and never spawns anything: time arrives
//! as an argument, the world as events, and what is to be done leaves as values.
#![forbid(unsafe_code)]

pub mod difference;
pub mod edit;
pub mod ids;
pub mod launch;
pub mod limits;
pub mod replica;
mod rollout;
pub mod rules;
pub mod service;
pub mod step;

pub use difference::Difference;
pub use edit::{Change, Undo};
pub use ids::{Epoch, ReplicaId, ReplicaUid, Timestamp, Version};
pub use launch::{Amount, Ended, LaunchSpec, Observation, Phase, Stage};
pub use replica::{Operation, OperationKind, Replica, ReplicaStatus};
pub use rules::{LaunchTemplate, ProbeRules, VersionRules};
pub use service::{Head, Proven, Service, ServiceStatus, Shutdown};
pub use step::{CallFailure, Event, recover, step, step_all};

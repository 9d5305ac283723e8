//! What a user asks for: a service YAML and `~/.sky/config.yaml`, read, judged and normalised.
//!
//! [`load`] turns the bytes of a service YAML into a [`TaskSpec`] with every default filled in, or
//! into a [`SpecError`] that names the field, the value, the rule and the line. [`config`] does the same
//! for the configuration file, [`parse_env_file`] for `--env-file`.
//!
//! Invariants:
//! * No input or output: callers read files and hand over bytes. No clock, no randomness.
//! * Any bytes give a value or an error, never a panic, in time and memory bounded by the limits
//!   of [`skyserve_yaml`].
//! * No accepted field is silently ignored: it is honoured, or named in [`Loaded::warnings`], or
//!   named in [`Loaded::refusals`].
//! * Verdicts and normalised values are SkyPilot 0.14.1's, stricter only where a value cannot work.
#![forbid(unsafe_code)]

mod amount;
pub mod config;
mod env_file;
mod error;
mod field;
mod load;
mod name;
mod normalise;
mod read;
mod resources;
mod secrets;
mod service;
mod substitute;
mod suggest;
mod support;
mod task;

pub use amount::Amount;
pub use env_file::parse_env_file;
pub use error::SpecError;
pub use load::{Command, LoadOptions, Loaded, Target, load};
pub use name::{NameError, make_service_name, validate_service_name};
pub use resources::{Infra, Resource, Resources, ResourcesKind};
pub use secrets::{ManagedSecret, Secrets};
pub use service::{LoadBalancingPolicy, Probe, ProbeMethod, ServiceSpec, TargetQps, Tls};
pub use task::{LaunchAmounts, TaskSpec, Workdir};

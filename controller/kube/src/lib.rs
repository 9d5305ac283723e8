//! The one way to a Kubernetes cluster, for the command line and for the controller: which cluster
//! ([`Options`]), a client that resolves names without the C library's resolver ([`connect`]), and what an
//! API error means ([`advice`]).
#![forbid(unsafe_code)]

mod advice;
mod connect;

pub use advice::{Advice, advice, explain, status_advice};
pub use connect::{Cluster, ConnectError, Options, connect};
pub use kube;

//! The one way to a Kubernetes cluster, for the command line and for the controller: which cluster
//! ([`Options`]), a client that resolves names without the C library's resolver and waits
//! for nothing without end ([`connect`]), and what an
//! API error means ([`advice`]).
#![forbid(unsafe_code)]

mod advice;
mod chain;
mod connect;
mod resolve;
mod transport;

pub use advice::{Advice, advice, explain, status_advice};
pub use chain::chain;
pub use connect::{Cluster, ConnectError, Options, connect};
pub use kube;
pub use resolve::{LOOKUP_WAIT, ResolveError, resolve};

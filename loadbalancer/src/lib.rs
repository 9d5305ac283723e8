//! The load balancer: a streaming HTTP/1.1 reverse proxy in front of every service's replicas.
//!
//! It needs nothing but its listeners and the route table ([`skyserve_routes`]), so it serves on while
//! everything else restarts. [`run`] is the entry point; threads that proxy (`worker`) are apart from
//! the one that controls (`control`).
//!
//! What this crate never does: choose what is routed (the controller does), keep state on disk, refuse
//! a connection because of a restart, send a POST twice.
#![deny(unsafe_code)]

mod admin;
mod answers;
mod client;
mod clock;
mod control;
mod dispatch;
mod drain;
mod framing;
mod handover;
mod headers;
mod inherit;
mod listeners;
mod metrics;
mod options;
mod own_server;
mod policy;
mod proxy;
mod queue;
mod registry;
mod replica;
mod reply;
mod report_server;
mod retry;
mod service;
mod sync;
mod table;
mod threads;
mod tunnel;
mod upload;
mod upstream;
mod worker;

pub use inherit::{InheritedListener, inherited_listeners};
pub use options::{Limits, Options};

/// Why the load balancer cannot run. None of these comes once it has said that it is ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot watch for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("cannot use the supervisor's socket (NOTIFY_SOCKET): {0}")]
    Supervisor(#[source] std::io::Error),
    #[error("cannot start the threads that proxy: {0}")]
    Threads(#[source] std::io::Error),
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the load balancer until it has drained after SIGTERM, or at once after SIGINT or a second
/// SIGTERM. Blocks the calling thread, which becomes the control thread.
pub fn run(options: Options) -> Result<(), Error> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(Error::Threads)?;
    runtime.block_on(async { control::Control::start(options)?.run().await })
}

/// Each connection takes two descriptors: the soft limit of 1,024 that shells set is for `select`.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files; many connections at once may be refused");
    }
}

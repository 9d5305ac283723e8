//! What runs replicas. One trait, [`Provider`]; [`process`] runs them as local processes, [`kubernetes`] as pods.
//!
//! Every call is idempotent by the replica's uid, so the controller may repeat it after a crash or a
//! lost reply:
//! * [`Provider::launch`] of a uid that exists adopts it; of one that was terminated does nothing.
//! * [`Provider::terminate`] of a uid that does not exist succeeds, and makes a launch of it that is
//!   still under way anywhere come to nothing: either nothing is made, or what is made is removed again
//!   without being asked.
//! * A uid is never started twice, and nothing but resources of that uid is ever touched.
#![deny(unsafe_code)]

mod kept_logs;
pub mod kubernetes;
pub mod process;
mod tombstones;

pub use kept_logs::newest_kept_log;

use bytes::Bytes;
use skyserve_model::{LaunchSpec, Observation, ReplicaUid};
use std::future::Future;
use tokio::sync::mpsc;

/// Runs replicas.
pub trait Provider: Send + Sync + 'static {
    /// Makes sure that the replica's resource exists. Returns once it does, or never will by itself;
    /// how it goes on from there is [observed](Provider::observe).
    fn launch(&self, spec: &LaunchSpec) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Ends the replica and removes its resource: first asks it to end, after `grace_ms` insists.
    /// Returns once nothing of it is left but its log.
    fn terminate(&self, uid: &ReplicaUid, grace_ms: u64) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Every resource of this home, with its present phase.
    fn list(&self) -> impl Future<Output = Result<Vec<Observation>, ProviderError>> + Send;

    /// Starts to report changes of every resource of this home (present and future), each at least
    /// once with its present phase. Reports end when the receiver is dropped.
    fn observe(&self) -> mpsc::Receiver<Observation>;

    /// The output of the replica's commands; with [`LogRequest::follow`] it goes on until they end.
    /// `None`: there is no output, be it not yet (nothing of it has started) or no more (it is gone).
    fn log(
        &self,
        uid: &ReplicaUid,
        request: LogRequest,
    ) -> impl Future<Output = Result<Option<LogStream>, ProviderError>> + Send;
}

/// Which part of a replica's output is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The last so many lines; all there is by default.
    pub tail: Option<u64>,
    /// Go on with what is added.
    pub follow: bool,
}

/// A replica's output as it comes, an error where it broke off. Whatever feeds it ends when it is dropped.
pub type LogStream = mpsc::Receiver<Result<Bytes, ProviderError>>;

/// Why a call failed, and whether to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// For a person: what happened and what to do next.
    pub message: String,
    /// Whether the same call may succeed later without anybody doing anything.
    pub retryable: bool,
}

/// Reports that may wait for the controller; a provider blocks beyond it, and loses none.
pub const OBSERVATIONS_QUEUED_MAX: usize = 1024;

/// Pieces of output that may wait for whoever reads a log; a provider reads no further beyond it.
pub const LOG_PIECES_QUEUED_MAX: usize = 16;

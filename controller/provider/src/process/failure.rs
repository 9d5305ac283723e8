//! Why a call on a local replica failed, and whether to try again.

use crate::ProviderError;
use skyserve_model::ReplicaUid;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("replica {uid} cannot be {doing} in {path}: {source}{}", advice(source))]
    Io { uid: ReplicaUid, doing: &'static str, path: PathBuf, source: io::Error },
    #[error("replicas in {path} cannot be listed: {source}{}", advice(source))]
    Home { path: PathBuf, source: io::Error },
    #[error("replica {uid} was launched before with other settings ({path}): a uid is launched only once")]
    Different { uid: ReplicaUid, path: PathBuf },
    #[error("the shim of replica {uid} could not be started by {command}: {source}{}", advice(source))]
    Shim { uid: ReplicaUid, command: String, source: io::Error },
    #[error(
        "the shim of replica {uid} did not take hold of it within {waited_ms} ms: the machine is overloaded, or its disk hangs"
    )]
    ShimLate { uid: ReplicaUid, waited_ms: u64 },
    #[error(
        "replica {uid} is held by a process that does not say who it is, for {waited_ms} ms: see who has {path} open"
    )]
    Held { uid: ReplicaUid, waited_ms: u64, path: PathBuf },
    #[error("the kernel does not let go of processes {pids} of replica {uid}: see what disk or device they wait for")]
    Unkillable { uid: ReplicaUid, pids: String },
}

impl Failure {
    pub(super) fn of_home(path: &Path, source: io::Error) -> Self {
        Self::Home { path: path.to_path_buf(), source }
    }

    /// For `map_err`: what was being done to which replica and where.
    pub(super) fn io(uid: &ReplicaUid, doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (uid, path) = (uid.clone(), path.to_path_buf());
        move |source| Self::Io { uid, doing, path, source }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Home { source, .. } | Self::Shim { source, .. } => !needs_a_person(source),
            Self::Different { .. } => false,
            Self::ShimLate { .. } | Self::Held { .. } | Self::Unkillable { .. } => true,
        }
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        Self { retryable: failure.is_retryable(), message: failure.to_string() }
    }
}

/// A full disk empties again by itself at times; permissions do not mend themselves.
fn needs_a_person(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotFound | NotADirectory | InvalidData)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ": free some space",
        io::ErrorKind::QuotaExceeded => ": free some space, or have the quota raised",
        io::ErrorKind::PermissionDenied => ": make it yours to write (it may have been made by another user)",
        io::ErrorKind::ReadOnlyFilesystem => ": it is on a read-only disk; remount it, or set HOME to another place",
        _ => "",
    }
}

//! Why a call failed, for a person: what was being done, to which replica, what the API server said, what to do next.

use super::Site;
use crate::ProviderError;
use skyserve_home::Home;
use skyserve_kube::{Advice, advice, explain, kube};
use skyserve_model::ReplicaUid;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why a call to the API server gave nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// It answered, or could not be reached.
    Kube(kube::Error),
    /// It was reached and did not answer; whether the call was carried out is not known.
    NoAnswer { waited: Duration },
}

impl CallError {
    pub(super) fn advice(&self) -> Advice {
        match self {
            Self::Kube(error) => advice(error),
            Self::NoAnswer { .. } => Advice::Retry { after: None },
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kube(error) => f.write_str(&explain(error)),
            Self::NoAnswer { waited } => {
                write!(
                    f,
                    "the API server did not answer within {} ms; see whether it is overloaded",
                    waited.as_millis()
                )
            }
        }
    }
}

/// What was being done when a call failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing<'a> {
    Launching(&'a ReplicaUid),
    Terminating(&'a ReplicaUid),
    ReadingLog(&'a ReplicaUid),
    Listing,
}

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launching(uid) => write!(f, "replica {uid} cannot be launched"),
            Self::Terminating(uid) => write!(f, "replica {uid} cannot be ended"),
            Self::ReadingLog(uid) => write!(f, "the log of replica {uid} cannot be read"),
            Self::Listing => write!(f, "replicas cannot be listed"),
        }
    }
}

impl Site {
    pub(super) fn failed(&self, doing: &Doing<'_>, error: &CallError) -> ProviderError {
        let message = format!("{doing} in namespace {}: {error}", self.options.namespace);
        ProviderError { message, retryable: error.advice().is_retryable() }
    }

    /// An object that is in the way and not ours to touch.
    pub(super) fn foreign(&self, doing: &Doing<'_>, kind: &str, name: &str) -> ProviderError {
        let namespace = &self.options.namespace;
        let message = format!(
            "{doing}: there is a {kind} {name} in namespace {namespace} that is not its own (its labels say so), and \
             it is left alone; remove it with `kubectl -n {namespace} delete {kind} {name}` if nobody needs it"
        );
        ProviderError { message, retryable: false }
    }
}

/// The home's disk failed.
pub(super) fn home(uid: &ReplicaUid, home: &Home, error: &io::Error) -> ProviderError {
    let path = home.replicas_dir();
    let message = format!(
        "what happens to replica {uid} cannot be recorded in {}: {error}; see that the volume has space and is writable",
        path.display()
    );
    ProviderError { message, retryable: true }
}

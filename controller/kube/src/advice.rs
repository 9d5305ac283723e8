//! What an answer of the API server means for whoever asked.

use std::time::Duration;

/// What to do after an API call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Somebody else was faster, or the object is already there: look at it and decide again.
    Conflict,
    /// There is no such object (any more).
    NotFound,
    /// The same call may succeed later; not before this long.
    Retry { after: Option<Duration> },
    /// The list or watch is too old: list again.
    Relist,
    /// Not allowed: a person must give us the permission.
    Forbidden,
    /// The object, as it is, will never be taken.
    Refused,
}

/// Reads the API server's status, by its reason and code.
pub fn advice(error: &kube::Error) -> Advice {
    match error {
        kube::Error::Api(status) => match status.code {
            404 => Advice::NotFound,
            409 => Advice::Conflict,
            410 => Advice::Relist,
            401 | 403 => Advice::Forbidden,
            408 | 429 | 500.. => Advice::Retry { after: None },
            _ => Advice::Refused,
        },
        _ => Advice::Retry { after: None },
    }
}

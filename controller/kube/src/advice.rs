//! What an answer of the API server means for whoever asked ([`advice`]), and what to tell a person ([`explain`]).
//!
//! The status' reason decides, since several reasons share a code (`AlreadyExists` and `Conflict` are both 409);
//! the code decides where there is no reason, as in answers of a proxy on the way.

use kube::core::Status;
use std::error::Error;
use std::time::Duration;

/// How long a server that gives no time of its own wants to be left alone when it says "too many requests".
const TOO_MANY_REQUESTS_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that is taken from an answer: a server that names an hour would stop all work for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What to do after an API call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// An object of that name is there: look whether it is ours.
    AlreadyExists,
    /// The object is not as the call expected it: look at it and decide again.
    Conflict,
    /// There is no such object (any more).
    NotFound,
    /// The same call may succeed later; not before this long.
    Retry { after: Option<Duration> },
    /// The list or watch is too old: list again.
    Relist,
    /// The server does not know us: credentials have expired, or are being renewed.
    Unauthorized,
    /// Not allowed: a person must give us the permission.
    Forbidden,
    /// The namespace has no room for it now.
    QuotaExceeded,
    /// The object, as it is, will never be taken.
    Refused,
}

impl Advice {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::AlreadyExists | Self::Conflict | Self::Retry { .. } | Self::Relist | Self::QuotaExceeded => true,
            // A server that has just started answers so until it has read who may do what.
            Self::Unauthorized | Self::Forbidden => true,
            Self::NotFound | Self::Refused => false,
        }
    }

    /// How long the server wants to be left alone before it is asked again; zero if it does not say.
    pub fn pause(self) -> Duration {
        match self {
            Self::Retry { after } => after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

/// Reads the API server's status, by its reason and code.
pub fn advice(error: &kube::Error) -> Advice {
    match error {
        kube::Error::Api(status) => status_advice(status),
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Advice::Refused,
        // No answer, or none that can be read: whether the call was carried out is not known.
        _ => Advice::Retry { after: None },
    }
}

/// [`advice`] of a status that came in a watch's stream.
pub fn status_advice(status: &Status) -> Advice {
    match status.reason.as_str() {
        "AlreadyExists" => Advice::AlreadyExists,
        "Conflict" => Advice::Conflict,
        "NotFound" => Advice::NotFound,
        "Gone" | "Expired" => Advice::Relist,
        "Unauthorized" => Advice::Unauthorized,
        "Forbidden" => forbidden(status),
        "TooManyRequests" | "ServerTimeout" | "Timeout" | "InternalError" | "ServiceUnavailable"
        | "StorageReadError" => retry(status),
        "Invalid"
        | "BadRequest"
        | "MethodNotAllowed"
        | "NotAcceptable"
        | "UnsupportedMediaType"
        | "RequestEntityTooLarge" => Advice::Refused,
        _ => match status.code {
            404 => Advice::NotFound,
            409 => Advice::Conflict,
            410 => Advice::Relist,
            401 => Advice::Unauthorized,
            403 => forbidden(status),
            // No code at all is no answer of an API server.
            0 | 408 | 429 | 500.. => retry(status),
            _ => Advice::Refused,
        },
    }
}

fn retry(status: &Status) -> Advice {
    let named = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
    let busy = (status.code == 429).then_some(TOO_MANY_REQUESTS_PAUSE);
    Advice::Retry { after: named.map(|seconds| Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX)).or(busy) }
}

/// "Forbidden" is said of missing permissions, of quotas, and of objects that a policy does not take.
fn forbidden(status: &Status) -> Advice {
    let message = &status.message;
    if message.contains("exceeded quota") {
        Advice::QuotaExceeded
    } else if message.contains(" cannot ") || !message.contains(" is forbidden: ") {
        Advice::Forbidden
    } else {
        Advice::Refused
    }
}

/// For a person: what happened and what to do next.
pub fn explain(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return format!("the API server cannot be asked: {}", chain(error));
    };
    let said = said(status);
    match advice(error) {
        Advice::AlreadyExists | Advice::Conflict | Advice::NotFound | Advice::Relist => said,
        Advice::Retry { .. } => format!("the API server cannot answer now ({said})"),
        Advice::Unauthorized => format!(
            "the API server does not accept our credentials ({said}); if they are a kubeconfig's, log in again, \
             if they are a service account's, see that it still exists"
        ),
        Advice::Forbidden => format!(
            "not permitted: {said}; give the service account that permission (`skyserve manifests` prints the Role \
             that is needed)"
        ),
        Advice::QuotaExceeded => {
            format!("the namespace's quota has no room: {said}; raise it, or take something else down")
        }
        Advice::Refused => format!("the API server refuses it: {said}"),
    }
}

fn said(status: &Status) -> String {
    match (status.message.trim(), status.reason.as_str()) {
        ("", "") => format!("code {}", status.code),
        ("", reason) => format!("code {}, {reason}", status.code),
        (message, _) => message.to_owned(),
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::StatusDetails;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status { code, reason: reason.to_owned(), message: message.to_owned(), ..Status::default() }
    }

    fn of(code: u16, reason: &str, message: &str) -> Advice {
        advice(&kube::Error::Api(Box::new(status(code, reason, message))))
    }

    #[test]
    fn the_reason_tells_answers_of_one_code_apart() {
        assert_eq!(of(409, "AlreadyExists", ""), Advice::AlreadyExists);
        assert_eq!(of(409, "Conflict", ""), Advice::Conflict);
        assert_eq!(of(410, "Expired", ""), Advice::Relist);
        assert_eq!(of(410, "Gone", ""), Advice::Relist);
        assert_eq!(of(404, "NotFound", ""), Advice::NotFound);
        assert_eq!(of(422, "Invalid", "spec.containers: Required value"), Advice::Refused);
    }

    #[test]
    fn an_answer_without_a_reason_is_judged_by_its_code() {
        assert_eq!(of(409, "", ""), Advice::Conflict);
        assert_eq!(of(503, "Failed to parse error data", "upstream connect error"), Advice::Retry { after: None });
        assert_eq!(of(0, "", ""), Advice::Retry { after: None });
        assert_eq!(of(400, "", ""), Advice::Refused);
    }

    #[test]
    fn the_server_says_how_long_to_wait_within_bounds() {
        let mut busy = status(429, "TooManyRequests", "");
        assert_eq!(status_advice(&busy), Advice::Retry { after: Some(TOO_MANY_REQUESTS_PAUSE) });
        for (seconds, expected) in [(7, Duration::from_secs(7)), (86_400, RETRY_AFTER_MAX)] {
            let details = StatusDetails {
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes: Vec::new(),
                retry_after_seconds: seconds,
            };
            busy.details = Some(details);
            assert_eq!(status_advice(&busy), Advice::Retry { after: Some(expected) });
        }
    }

    #[test]
    fn forbidden_by_quota_by_permission_and_by_policy_are_three_things() {
        let quota =
            "pods \"a\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2";
        let permission = "pods is forbidden: User \"system:serviceaccount:ns:sky\" cannot create resource \"pods\" in API group \"\" in the namespace \"ns\"";
        let policy = "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
        assert_eq!(of(403, "Forbidden", quota), Advice::QuotaExceeded);
        assert_eq!(of(403, "Forbidden", permission), Advice::Forbidden);
        assert_eq!(of(403, "Forbidden", policy), Advice::Refused);
        let explained = explain(&kube::Error::Api(Box::new(status(403, "Forbidden", permission))));
        for part in ["create", "pods", "namespace \"ns\"", "skyserve manifests"] {
            assert!(explained.contains(part), "{explained}");
        }
    }
}

//! The answers that the proxy makes itself: each says what happened to which service and what to do next,
//! and nothing of what is behind it.

use crate::dispatch::Failure;
use crate::headers::Unacceptable;
use crate::options::Limits;
use crate::queue::Refusal;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

/// When to come back after a full queue: it moves within moments or not at all.
const RETRY_AFTER_FULL_SECONDS: u64 = 1;

/// When to come back after waiting in vain: replicas take a while to start.
const RETRY_AFTER_WAIT_SECONDS: u64 = 10;

/// An answer's parts.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_seconds: Option<u64>,
}

impl Answer {
    /// The answer to a request that no replica may see.
    pub(crate) fn unacceptable(service: &str, refused: Unacceptable) -> Self {
        let message = format!("Request to service '{service}' refused: {}.", refused.reason);
        Self { status: refused.status, code: "bad_request", message, retry_after_seconds: None }
    }

    /// The answer to a request that got no reply.
    pub(crate) fn failed(service: &str, failure: &Failure, limits: &Limits) -> Self {
        let waited_seconds = limits.queue_wait_ms_max.div_ceil(1_000);
        let (status, code, message, retry_after_seconds) = match failure {
            Failure::Refused(Refusal::QueueFull) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_full",
                format!(
                    "Service '{service}' has no replica that takes requests, and {} requests wait for one already. \
                     Try again later, or see `skyserve status {service}`.",
                    limits.queue_requests_max
                ),
                Some(RETRY_AFTER_FULL_SECONDS),
            ),
            Failure::Refused(Refusal::NoneExpected) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_replica_expected",
                format!(
                    "Service '{service}' has no replica, and none is on its way. \
                     Use `skyserve status {service}` to see why."
                ),
                Some(RETRY_AFTER_WAIT_SECONDS),
            ),
            Failure::Refused(Refusal::NoneReady | Refusal::ClientLeft) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_ready_replica",
                format!(
                    "No replica of service '{service}' became ready within {waited_seconds} s. \
                     Use `skyserve status {service}` to see why, and try again."
                ),
                Some(RETRY_AFTER_WAIT_SECONDS),
            ),
            Failure::Refused(Refusal::NoneReachable) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_reachable_replica",
                format!(
                    "No replica of service '{service}' accepted a connection within {waited_seconds} s. \
                     Use `skyserve status {service}` to see their state, and try again."
                ),
                Some(RETRY_AFTER_WAIT_SECONDS),
            ),
            Failure::Refused(Refusal::Removed) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "service_removed",
                format!("Service '{service}' was taken down. Use `skyserve status` to see what is running."),
                None,
            ),
            Failure::Silent { waited } => (
                StatusCode::GATEWAY_TIMEOUT,
                "replica_silent",
                format!(
                    "A replica of service '{service}' took the request but sent nothing for {} s. The request may have \
                     been executed. See `skyserve logs {service}`, or raise `stream_timeout_seconds`.",
                    waited.as_secs_f64()
                ),
                None,
            ),
            Failure::Lost => (
                StatusCode::BAD_GATEWAY,
                "replica_lost",
                format!(
                    "The connection to a replica of service '{service}' was lost before it answered. The request may \
                     have been executed, so it was not sent again. See `skyserve logs {service}`."
                ),
                None,
            ),
            Failure::Malformed => (
                StatusCode::BAD_GATEWAY,
                "replica_malformed",
                format!(
                    "A replica of service '{service}' answered with something that is not valid HTTP. \
                     See `skyserve logs {service}`."
                ),
                None,
            ),
            Failure::Upload => (
                StatusCode::BAD_REQUEST,
                "body_incomplete",
                format!("The body of the request to service '{service}' was malformed or ended early."),
                None,
            ),
        };
        Self { status, code, message, retry_after_seconds }
    }

    /// The answer as HTTP.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = Response::new(Bytes::from(format!("{body}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

//! Answers that are no object: Kubernetes' `Status`.

use serde_json::{Value, json};

/// A refusal: code, reason, message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_after_seconds: u32,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, retry_after_seconds: 0 }
    }

    pub(crate) fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
    }

    pub(crate) fn expired() -> Self {
        Self::new(410, "Expired", "too old resource version".to_owned())
    }

    pub(crate) fn value(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
            "reason": self.reason, "message": self.message,
            "details": {"retryAfterSeconds": self.retry_after_seconds},
        })
    }
}

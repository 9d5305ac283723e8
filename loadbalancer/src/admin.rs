//! Metrics and health, on a port of their own.

use crate::own_server::{Answers, OwnBody, text, typed};
use crate::registry::Registry;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::cell::RefCell;
use std::rc::Rc;

/// Answers on the metrics port.
#[derive(Debug)]
pub(crate) struct AdminAnswers {
    pub(crate) registry: Rc<RefCell<Registry>>,
}

impl Answers for AdminAnswers {
    fn answer(&self, path: &str) -> Response<OwnBody> {
        match path {
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => match self.registry.borrow().unready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => match self.registry.borrow().expose() {
                Ok(body) => typed(StatusCode::OK, prometheus::TEXT_FORMAT, Bytes::from(body)),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "use /metrics, /healthz or /readyz\n"),
        }
    }
}

//! Metrics, health and the report, on a port of their own. The report is here for a controller in another pod; it says
//! no more than the metrics do.

use crate::own_server::{Answers, OwnBody, text, typed};
use crate::registry::Registry;
use crate::report_server::report;
use bytes::Bytes;
use http::{Response, StatusCode};
use skyserve_routes::report::REPORT_PATH;
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
            REPORT_PATH => report(&self.registry.borrow()),
            _ => text(StatusCode::NOT_FOUND, "use /metrics, /healthz, /readyz or /report\n"),
        }
    }
}

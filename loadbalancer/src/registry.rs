//! What the control thread knows: the services in force and the state of their endpoints. The report,
//! the metrics and the health answers are read off it.

use crate::clock::now_ms;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::worker::Gauge;
use skyserve_routes::TableVersion;
use skyserve_routes::report::{Report, ServiceLoad};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Notify;

/// The state that the control thread's servers share.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) services: BTreeMap<String, Endpoint>,
    /// Services that have left the table while requests were in flight: their replicas may only be ended once
    /// nothing is, so the report still names them.
    pub(crate) departed: Vec<Arc<Service>>,
    pub(crate) table: Option<TableVersion>,
    pub(crate) table_error: Option<String>,
    pub(crate) table_since_ms: u64,
    /// See [`Options`](crate::Options).
    pub(crate) ready_while_draining: bool,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) metrics: Metrics,
    pub(crate) gauge: Arc<Gauge>,
    /// Told when a request starts to wait.
    pub(crate) wakes: Arc<Notify>,
}

/// A service and its listener.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) service: Arc<Service>,
    pub(crate) address: SocketAddr,
    /// Why the address does not accept connections.
    pub(crate) listen_error: Option<ListenError>,
}

/// Why an endpoint does not listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenError {
    pub(crate) message: String,
    pub(crate) address_in_use: bool,
}

impl Registry {
    pub(crate) fn report(&self) -> Report {
        let mut services: BTreeMap<String, ServiceLoad> =
            self.services.iter().map(|(name, endpoint)| (name.clone(), endpoint.load())).collect();
        for service in &self.departed {
            // A service that came back under its name has other replicas; uids differ.
            services.entry(service.name.clone()).or_default().replicas_in_flight.extend(in_flight(service));
        }
        Report {
            table: self.table,
            table_error: self.table_error.clone(),
            metrics_address: self.metrics_address,
            services,
        }
    }

    /// Notes a service that has left the table, and forgets those whose last request has ended.
    pub(crate) fn depart(&mut self, service: Arc<Service>) {
        self.departed.retain(|service| in_flight(service).any(|(_, count)| count > 0));
        // A thread may be about to give a last request to this one: it is looked at when the next departs.
        self.departed.push(service);
    }

    /// Why no traffic should be sent here.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.gauge.is_draining() && !self.ready_while_draining {
            return Some("draining: the load balancer ends once its requests are done".into());
        }
        if self.table.is_none() {
            let error = self.table_error.as_deref().unwrap_or("none was published yet");
            return Some(format!("no route table in force: {error}"));
        }
        self.services.iter().find_map(|(name, endpoint)| {
            let error = endpoint.listen_error.as_ref()?;
            Some(format!("service '{name}' does not listen: {}", error.message))
        })
    }

    pub(crate) fn expose(&self) -> Result<Vec<u8>, prometheus::Error> {
        if self.table.is_some() {
            let age_ms = now_ms().saturating_sub(self.table_since_ms);
            self.metrics.table_age_seconds.set(i64::try_from(age_ms / 1_000).unwrap_or(i64::MAX));
        }
        self.metrics.expose(self.services.values().map(|endpoint| &*endpoint.service))
    }
}

/// Requests in flight by replica uid.
fn in_flight(service: &Service) -> impl Iterator<Item = (String, u64)> {
    let counts: Vec<(String, u64)> =
        service.view().present().map(|replica| (replica.uid.clone(), replica.in_flight())).collect();
    counts.into_iter()
}

impl Endpoint {
    fn load(&self) -> ServiceLoad {
        let metrics = &self.service.metrics;
        ServiceLoad {
            listening: self.listen_error.is_none(),
            listen_error: self.listen_error.as_ref().map(|error| error.message.clone()),
            address_in_use: self.listen_error.as_ref().is_some_and(|error| error.address_in_use),
            requests_total: metrics.requests.get(),
            in_flight: u64::try_from(metrics.in_flight.get()).unwrap_or(0),
            queued: self.service.queued.load(Relaxed) as u64,
            responses_by_class: std::array::from_fn(|class| metrics.responses[class].get()),
            replicas_in_flight: in_flight(&self.service).collect(),
        }
    }
}

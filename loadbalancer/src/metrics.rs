//! What is counted, and its exposition for Prometheus.
//!
//! Invariant: labels are service names and replica uids of the table in force and fixed words, so the
//! number of series is bounded by the table. A service's and a replica's series end with it.

use crate::service::Service;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::sync::atomic::Ordering::Relaxed;

/// Upper bounds of latencies in seconds, from a file server's to a long generation's.
const LATENCY_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    responses: IntCounterVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    queue_wait: HistogramVec,
    to_headers: HistogramVec,
    total: HistogramVec,
    retries: IntCounterVec,
    connect_failures: IntCounterVec,
    cut_replies: IntCounterVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    bytes: IntCounterVec,
    replica_requests: IntCounterVec,
    replica_in_flight: IntGaugeVec,
    pub(crate) table_errors: IntCounter,
    pub(crate) table_epoch: IntGauge,
    pub(crate) table_seq: IntGauge,
    pub(crate) table_age_seconds: IntGauge,
}

/// One service's metrics, looked up once.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    pub(crate) requests: IntCounter,
    pub(crate) responses: [IntCounter; 5],
    pub(crate) in_flight: IntGauge,
    pub(crate) queue_wait: Histogram,
    pub(crate) to_headers: Histogram,
    pub(crate) total: Histogram,
    pub(crate) retries: IntCounter,
    pub(crate) connect_failures: IntCounter,
    pub(crate) cut_replies: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) connections_total: IntCounter,
    pub(crate) request_bytes: IntCounter,
    pub(crate) reply_bytes: IntCounter,
}

impl ServiceMetrics {
    /// Counts an answer by its status code.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(counter) = self.responses.get(class.wrapping_sub(1)) {
            counter.inc();
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(format!("skyserve_loadbalancer_{name}"), help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntGaugeVec::new(Opts::new(format!("skyserve_loadbalancer_{name}"), help), labels)?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(format!("skyserve_loadbalancer_{name}"), help);
            let vector = HistogramVec::new(options.buckets(LATENCY_SECONDS.to_vec()), &["service"])?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let table = |name: &str, help: &str| gauge(name, help, &[]).map(|vector| vector.with_label_values::<&str>(&[]));
        Ok(Self {
            requests: counter("requests_total", "Requests received.", &["service"])?,
            responses: counter("responses_total", "Answers by class of status code.", &["service", "class"])?,
            in_flight: gauge("requests_in_flight", "Requests with a replica, to the body's end.", &["service"])?,
            queued: gauge("requests_queued", "Requests waiting for a replica.", &["service"])?,
            queue_wait: histogram("queue_wait_seconds", "Time spent waiting for a replica, of those that waited.")?,
            to_headers: histogram("request_to_headers_seconds", "From a request's head to its answer's head.")?,
            total: histogram("request_seconds", "From a request's head to its answer's last byte.")?,
            retries: counter("retries_total", "Requests sent again after a connection was lost.", &["service"])?,
            connect_failures: counter("connect_failures_total", "Connects to replicas that failed.", &["service"])?,
            cut_replies: counter("cut_replies_total", "Replies that ended before their end.", &["service"])?,
            connections: gauge("connections", "Open connections of clients.", &["service"])?,
            connections_total: counter("connections_total", "Connections accepted.", &["service"])?,
            bytes: counter("body_bytes_total", "Bytes of bodies forwarded.", &["service", "direction"])?,
            replica_requests: counter("replica_requests_total", "Requests sent, by replica.", &["service", "replica"])?,
            replica_in_flight: gauge("replica_in_flight", "Requests in flight, by replica.", &["service", "replica"])?,
            table_errors: counter("table_errors_total", "Route table files that could not be taken.", &[])?
                .with_label_values::<&str>(&[]),
            table_epoch: table("table_epoch", "Epoch of the route table in force.")?,
            table_seq: table("table_seq", "Sequence number of the route table in force.")?,
            table_age_seconds: table("table_age_seconds", "Time since the route table in force was taken.")?,
            registry,
        })
    }

    /// The metrics of one service.
    pub(crate) fn service(&self, name: &str) -> ServiceMetrics {
        let label = &[name];
        ServiceMetrics {
            requests: self.requests.with_label_values(label),
            responses: CODE_CLASSES.map(|class| self.responses.with_label_values(&[name, class])),
            in_flight: self.in_flight.with_label_values(label),
            queue_wait: self.queue_wait.with_label_values(label),
            to_headers: self.to_headers.with_label_values(label),
            total: self.total.with_label_values(label),
            retries: self.retries.with_label_values(label),
            connect_failures: self.connect_failures.with_label_values(label),
            cut_replies: self.cut_replies.with_label_values(label),
            connections: self.connections.with_label_values(label),
            connections_total: self.connections_total.with_label_values(label),
            request_bytes: self.bytes.with_label_values(&[name, "request"]),
            reply_bytes: self.bytes.with_label_values(&[name, "reply"]),
        }
    }
}

impl Metrics {
    /// Ends the series of a service that left the table.
    pub(crate) fn remove_service(&self, name: &str) {
        // A series that was never made is no error here: the outcome is the same.
        let label = &[name];
        for counters in
            [&self.requests, &self.retries, &self.connect_failures, &self.cut_replies, &self.connections_total]
        {
            let _ = counters.remove_label_values(label);
        }
        for gauges in [&self.in_flight, &self.queued, &self.connections] {
            let _ = gauges.remove_label_values(label);
        }
        for histograms in [&self.queue_wait, &self.to_headers, &self.total] {
            let _ = histograms.remove_label_values(label);
        }
        for class in CODE_CLASSES {
            let _ = self.responses.remove_label_values(&[name, class]);
        }
        for direction in ["request", "reply"] {
            let _ = self.bytes.remove_label_values(&[name, direction]);
        }
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn expose<'a>(&self, services: impl Iterator<Item = &'a Service>) -> Result<Vec<u8>, prometheus::Error> {
        self.replica_requests.reset();
        self.replica_in_flight.reset();
        for service in services {
            let queued = i64::try_from(service.queued.load(Relaxed)).unwrap_or(i64::MAX);
            self.queued.with_label_values(&[&service.name]).set(queued);
            for replica in service.view().present() {
                let labels = [service.name.as_str(), replica.uid.as_str()];
                self.replica_requests.with_label_values(&labels).inc_by(replica.requests());
                let in_flight = i64::try_from(replica.in_flight()).unwrap_or(i64::MAX);
                self.replica_in_flight.with_label_values(&labels).set(in_flight);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

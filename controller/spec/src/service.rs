//! The `service:` section (or `pool:`), with every default filled in.
//!
//! Rules and defaults are SkyServe 0.14's (`SkyServiceSpec`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const INITIAL_DELAY_SECONDS_DEFAULT: f64 = 1200.0;
pub(crate) const READINESS_TIMEOUT_SECONDS_DEFAULT: f64 = 15.0;
pub(crate) const PROBE_INTERVAL_SECONDS_DEFAULT: f64 = 10.0;
pub(crate) const STREAM_TIMEOUT_SECONDS_DEFAULT: f64 = 120.0;
pub(crate) const MIN_REPLICAS_DEFAULT: u32 = 1;
/// Waiting jobs at which a pool that may grow does so.
pub(crate) const QUEUE_LENGTH_THRESHOLD_DEFAULT: u32 = 1;
/// SkyServe's default for how long probes may fail in a row before a replica is replaced.
const FAILURE_THRESHOLD_SECONDS_DEFAULT: f64 = 180.0;
/// The same for a pool's workers, which are to be replaced sooner.
const FAILURE_THRESHOLD_SECONDS_DEFAULT_POOL: f64 = 10.0;

/// What the service is: how many replicas, how they are probed, how requests are spread over them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// A pool of workers instead of a service behind an endpoint.
    pub pool: bool,
    /// Begins with a slash.
    pub readiness_path: String,
    /// A replica that was never ready fails when it is not ready this long after it started to run.
    pub initial_delay_seconds: f64,
    /// How long one probe may take.
    pub readiness_timeout_seconds: f64,
    /// From one probe of a replica to the next.
    pub endpoint_probe_interval_seconds: f64,
    /// Seconds of failing probes in a row before a replica is replaced, if the YAML says so
    /// ([`Probe::failure_threshold`] has the default filled in).
    pub consecutive_failure_threshold_timeout: Option<f64>,
    /// Text of the JSON object to POST as the probe; GET when absent.
    pub post_data: Option<String>,
    pub readiness_headers: Option<BTreeMap<String, String>>,
    pub min_replicas: u32,
    /// Absent means the same as `min_replicas`: a fixed number.
    pub max_replicas: Option<u32>,
    pub num_overprovision: Option<u32>,
    pub target_qps_per_replica: Option<TargetQps>,
    pub upscale_delay_seconds: Option<f64>,
    pub downscale_delay_seconds: Option<f64>,
    pub base_ondemand_fallback_replicas: Option<u32>,
    pub dynamic_ondemand_fallback: Option<bool>,
    pub spot_placer: Option<String>,
    /// As written ([`ServiceSpec::policy`] has the default filled in).
    pub load_balancing_policy: Option<LoadBalancingPolicy>,
    /// How long the load balancer waits for the next bytes of a reply.
    pub stream_timeout_seconds: f64,
    pub tls: Option<Tls>,
    /// The port every replica serves on; always present but for a pool.
    pub ports: Option<u16>,
    /// Waiting jobs at which a pool grows.
    pub queue_length_threshold: Option<u32>,
}

impl std::fmt::Debug for ServiceSpec {
    /// Leaves out header values and the probe's body, which often carry a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceSpec")
            .field("pool", &self.pool)
            .field("probe", &self.probe())
            .field("min_replicas", &self.min_replicas)
            .field("max_replicas", &self.max_replicas)
            .field("target_qps_per_replica", &self.target_qps_per_replica)
            .field("load_balancing_policy", &self.load_balancing_policy)
            .field("stream_timeout_seconds", &self.stream_timeout_seconds)
            .field("tls", &self.tls)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

/// Requests per second that one replica is good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetQps {
    /// The same for every replica.
    Every(f64),
    /// By accelerator (`A100`, `H100:2`); comes with `instance_aware_least_load` alone.
    PerAccelerator(BTreeMap<String, f64>),
}

/// How a replica is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancingPolicy {
    RoundRobin,
    LeastLoad,
    InstanceAwareLeastLoad,
}

impl LoadBalancingPolicy {
    pub(crate) const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastLoad, Self::InstanceAwareLeastLoad];

    /// The name used in YAML and in the route table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastLoad => "least_load",
            Self::InstanceAwareLeastLoad => "instance_aware_least_load",
        }
    }
}

/// Paths of the PEM files the endpoint serves TLS with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    pub keyfile: String,
    pub certfile: String,
}

/// A readiness probe, ready to be sent. Only status 200 passes (as in SkyServe).
#[derive(Clone, PartialEq)]
pub struct Probe {
    pub method: ProbeMethod,
    /// Path and query; begins with a slash.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// JSON to send as the body, present for POST alone.
    pub body: Option<String>,
    pub timeout: Duration,
    pub interval: Duration,
    /// How long after it started to run a replica may take to pass for the first time.
    pub initial_delay: Duration,
    /// A replica that was ready is replaced when the first and the latest of its failed probes in
    /// a row are at least this far apart.
    pub failure_threshold: Duration,
}

impl std::fmt::Debug for Probe {
    /// Leaves out header values and the body, which often carry a token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &self.headers.keys())
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .field("initial_delay", &self.initial_delay)
            .field("failure_threshold", &self.failure_threshold)
            .finish_non_exhaustive()
    }
}

/// A probe's HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeMethod {
    Get,
    Post,
}

impl ProbeMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

impl ServiceSpec {
    /// The readiness probe with every default filled in.
    pub fn probe(&self) -> Probe {
        let threshold_default =
            if self.pool { FAILURE_THRESHOLD_SECONDS_DEFAULT_POOL } else { FAILURE_THRESHOLD_SECONDS_DEFAULT };
        let threshold = self.consecutive_failure_threshold_timeout.unwrap_or(threshold_default);
        Probe {
            method: self.probe_method(),
            path: self.readiness_path.clone(),
            headers: self.readiness_headers.clone().unwrap_or_default(),
            body: self.post_data.clone(),
            timeout: seconds(self.readiness_timeout_seconds),
            interval: seconds(self.endpoint_probe_interval_seconds),
            initial_delay: seconds(self.initial_delay_seconds),
            failure_threshold: seconds(threshold),
        }
    }

    /// POST when there is something to post, else GET.
    pub fn probe_method(&self) -> ProbeMethod {
        if self.post_data.is_some() { ProbeMethod::Post } else { ProbeMethod::Get }
    }

    /// The port every replica serves on; 0 for a pool, which serves on none.
    pub fn port(&self) -> u16 {
        self.ports.unwrap_or(0)
    }

    /// The policy with the default filled in.
    pub fn policy(&self) -> LoadBalancingPolicy {
        self.load_balancing_policy.unwrap_or(LoadBalancingPolicy::LeastLoad)
    }

    /// How long the load balancer waits for the next bytes of a reply.
    pub fn stream_timeout(&self) -> Duration {
        seconds(self.stream_timeout_seconds)
    }

    /// Whether on-demand replicas stand in for spot replicas.
    pub fn use_ondemand_fallback(&self) -> bool {
        self.dynamic_ondemand_fallback == Some(true)
            || self.base_ondemand_fallback_replicas.is_some_and(|base| base > 0)
    }

    /// Whether the number of replicas is to follow the load.
    pub fn autoscales(&self) -> bool {
        self.max_replicas.is_some_and(|max| max > self.min_replicas)
    }
}

/// Seconds as a duration; loading has bounded them, so a value out of range cannot occur.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

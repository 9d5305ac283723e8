//! The task as `check` prints it: every default filled in, with the names SkyServe uses.

use crate::{LoadBalancingPolicy, Resource, ResourcesKind, ServiceSpec, TargetQps, TaskSpec, Workdir};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// How often SkyServe's autoscaler decides.
const TICK_SECONDS: f64 = 20.0;
const UPSCALE_DELAY_SECONDS_DEFAULT: f64 = 300.0;
const DOWNSCALE_DELAY_SECONDS_DEFAULT: f64 = 1200.0;

impl TaskSpec {
    /// The task with every default filled in and without the values of secrets.
    pub fn normalised(&self) -> Value {
        let managed_secrets: BTreeSet<&str> = self.managed_secrets.iter().map(|secret| secret.name.as_str()).collect();
        let workdir = match &self.workdir {
            None => Value::Null,
            Some(Workdir::Local(path)) => json!(path),
            Some(Workdir::Git { url, reference: Some(reference) }) => json!({"url": url, "ref": reference}),
            Some(Workdir::Git { url, reference: None }) => json!({"url": url}),
        };
        let mut spec = json!({
            "service": service(&self.service),
            "resources": {"kind": self.resources.kind, "list": resources(self)},
            "num_nodes": self.num_nodes,
            "envs": self.envs,
            "secret_keys": self.secrets.names().collect::<Vec<_>>(),
            "managed_secret_keys": managed_secrets,
            "setup_present": self.setup.is_some(),
            "run_present": self.run.is_some(),
            "workdir": workdir,
            "file_mounts_keys": keys(&self.file_mounts),
            "storage_mounts_keys": keys(&self.storage_mounts),
            "volumes_keys": keys(&self.volumes),
            "autoscaler": autoscaler(&self.service),
        });
        if !self.service.pool {
            spec["service_yaml_config"] = Value::Object(service_yaml_config(&self.service));
        }
        spec
    }
}

/// The destinations, in alphabetical order.
fn keys<T>(pairs: &[(String, T)]) -> BTreeSet<&str> {
    pairs.iter().map(|(key, _)| key.as_str()).collect()
}

/// A number without a fraction is shown as an integer.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

fn optional(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}

fn target_qps(target: &TargetQps) -> Value {
    match target {
        TargetQps::Every(value) => number(*value),
        TargetQps::PerAccelerator(targets) => {
            targets.iter().map(|(accelerator, target)| (accelerator.clone(), number(*target))).collect()
        }
    }
}

/// The object to post. (A [`Value`] holds integers of more than 64 bits as floats.)
fn post_data(service: &ServiceSpec) -> Value {
    service.post_data.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn service(service: &ServiceSpec) -> Value {
    json!({
        "pool": service.pool,
        "probe_method": service.probe_method(),
        "readiness_path": service.readiness_path,
        "initial_delay_seconds": number(service.initial_delay_seconds),
        "readiness_timeout_seconds": number(service.readiness_timeout_seconds),
        "endpoint_probe_interval_seconds": number(service.endpoint_probe_interval_seconds),
        "consecutive_failure_threshold_timeout": optional(service.consecutive_failure_threshold_timeout),
        "post_data": post_data(service),
        "readiness_headers": service.readiness_headers,
        "min_replicas": service.min_replicas,
        "max_replicas": service.max_replicas,
        "num_overprovision": service.num_overprovision,
        "target_qps_per_replica": service.target_qps_per_replica.as_ref().map(target_qps),
        "upscale_delay_seconds": optional(service.upscale_delay_seconds),
        "downscale_delay_seconds": optional(service.downscale_delay_seconds),
        "base_ondemand_fallback_replicas": service.base_ondemand_fallback_replicas,
        "dynamic_ondemand_fallback": service.dynamic_ondemand_fallback,
        "use_ondemand_fallback": service.use_ondemand_fallback(),
        "spot_placer": service.spot_placer,
        "load_balancing_policy": service.policy(),
        "stream_timeout_seconds": number(service.stream_timeout_seconds),
        "tls": service.tls,
        "ports": service.ports.map(|port| port.to_string()),
        "workers": service.pool.then_some(service.min_replicas),
        "queue_length_threshold": service.queue_length_threshold,
    })
}

/// The choices; where their order means nothing they are sorted.
fn resources(task: &TaskSpec) -> Vec<Value> {
    let mut shown: Vec<(String, Value)> = task.resources.list.iter().map(resource).collect();
    if task.resources.kind == ResourcesKind::AnyOf {
        shown.sort_by(|left, right| left.0.cmp(&right.0));
    }
    shown.into_iter().map(|(_, value)| value).collect()
}

/// One choice, with the text to sort it by.
fn resource(choice: &Resource) -> (String, Value) {
    let text = serde_json::to_string(choice).unwrap_or_default();
    let mut value = serde_json::to_value(choice).unwrap_or_default();
    if let (Some(counts), Some(shown)) = (&choice.accelerators, value.get_mut("accelerators")) {
        *shown = counts.iter().map(|(accelerator, count)| (accelerator.clone(), number(*count))).collect();
    }
    if let (Some(cost), Some(shown)) = (choice.max_hourly_cost, value.get_mut("max_hourly_cost")) {
        *shown = number(cost);
    }
    (text, value)
}

/// Which of SkyServe's autoscalers fits, where it starts, and after how many decisions in a row it acts.
fn autoscaler(service: &ServiceSpec) -> Value {
    let class = if service.pool {
        "QueueLengthAutoscaler"
    } else if service.use_ondemand_fallback() {
        "FallbackRequestRateAutoscaler"
    } else if matches!(service.target_qps_per_replica, Some(TargetQps::PerAccelerator(_))) {
        "InstanceAwareRequestRateAutoscaler"
    } else {
        "RequestRateAutoscaler"
    };
    let ticks = |delay: Option<f64>, default: f64| (delay.unwrap_or(default) / TICK_SECONDS) as i64;
    json!({
        "class": class,
        "initial_target_num_replicas": service.min_replicas,
        "scale_up_threshold_ticks": ticks(service.upscale_delay_seconds, UPSCALE_DELAY_SECONDS_DEFAULT),
        "scale_down_threshold_ticks": ticks(service.downscale_delay_seconds, DOWNSCALE_DELAY_SECONDS_DEFAULT),
    })
}

/// The section as SkyServe writes it back: what was given or has a default worth writing.
fn service_yaml_config(service: &ServiceSpec) -> Map<String, Value> {
    use crate::service::{PROBE_INTERVAL_SECONDS_DEFAULT, STREAM_TIMEOUT_SECONDS_DEFAULT};
    let mut config = Map::new();
    let mut add = |section: &str, key: &str, value: Value| {
        if value.is_null() {
            return;
        }
        let section = config.entry(section).or_insert_with(|| json!({}));
        section[key] = value;
    };
    let probe = "readiness_probe";
    add(probe, "path", json!(service.readiness_path));
    add(probe, "initial_delay_seconds", number(service.initial_delay_seconds));
    add(probe, "post_data", post_data(service));
    add(probe, "timeout_seconds", number(service.readiness_timeout_seconds));
    if service.endpoint_probe_interval_seconds != PROBE_INTERVAL_SECONDS_DEFAULT {
        add(probe, "endpoint_probe_interval_seconds", number(service.endpoint_probe_interval_seconds));
    }
    let threshold = optional(service.consecutive_failure_threshold_timeout);
    add(probe, "consecutive_failure_threshold_timeout", threshold);
    if service.stream_timeout_seconds != STREAM_TIMEOUT_SECONDS_DEFAULT {
        add("load_balancer", "stream_timeout_seconds", number(service.stream_timeout_seconds));
    }
    add(probe, "headers", json!(service.readiness_headers));
    let policy = "replica_policy";
    add(policy, "min_replicas", json!(service.min_replicas));
    add(policy, "max_replicas", json!(service.max_replicas));
    add(policy, "num_overprovision", json!(service.num_overprovision));
    add(policy, "target_qps_per_replica", json!(service.target_qps_per_replica.as_ref().map(target_qps)));
    add(policy, "dynamic_ondemand_fallback", json!(service.dynamic_ondemand_fallback));
    add(policy, "base_ondemand_fallback_replicas", json!(service.base_ondemand_fallback_replicas));
    add(policy, "spot_placer", json!(service.spot_placer));
    add(policy, "upscale_delay_seconds", optional(service.upscale_delay_seconds));
    add(policy, "downscale_delay_seconds", optional(service.downscale_delay_seconds));
    if let Some(tls) = &service.tls {
        config.insert("tls".to_owned(), json!(tls));
    }
    if let Some(policy) = service.load_balancing_policy {
        config.insert("load_balancing_policy".to_owned(), json!(LoadBalancingPolicy::as_str(policy)));
    }
    if let Some(port) = service.ports {
        config.insert("ports".to_owned(), json!(port));
    }
    config
}

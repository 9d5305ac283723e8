//! `service:` and `pool:`, by the rules of SkyServe's `SkyServiceSpec`.

use super::{QPS_MAX, REPLICAS_MAX, SECONDS_MAX};
use crate::field::{Field, Result, Section};
use crate::service::{
    INITIAL_DELAY_SECONDS_DEFAULT, MIN_REPLICAS_DEFAULT, PROBE_INTERVAL_SECONDS_DEFAULT,
    QUEUE_LENGTH_THRESHOLD_DEFAULT, READINESS_TIMEOUT_SECONDS_DEFAULT, STREAM_TIMEOUT_SECONDS_DEFAULT,
};
use crate::{LoadBalancingPolicy, ServiceSpec, TargetQps, Tls};
use skyserve_yaml::Value;
use std::collections::BTreeMap;

const SERVICE_FIELDS: [&str; 9] = [
    "readiness_probe",
    "load_balancer",
    "pool",
    "replica_policy",
    "ports",
    "replicas",
    "workers",
    "load_balancing_policy",
    "tls",
];
const PROBE_FIELDS: [&str; 7] = [
    "path",
    "initial_delay_seconds",
    "timeout_seconds",
    "endpoint_probe_interval_seconds",
    "consecutive_failure_threshold_timeout",
    "post_data",
    "headers",
];
const POLICY_FIELDS: [&str; 9] = [
    "min_replicas",
    "max_replicas",
    "num_overprovision",
    "target_qps_per_replica",
    "dynamic_ondemand_fallback",
    "base_ondemand_fallback_replicas",
    "spot_placer",
    "upscale_delay_seconds",
    "downscale_delay_seconds",
];
const POOL_FIELDS: [&str; 6] = [
    "workers",
    "min_workers",
    "max_workers",
    "queue_length_threshold",
    "upscale_delay_seconds",
    "downscale_delay_seconds",
];
const SPOT_PLACERS: [&str; 1] = ["dynamic_fallback"];

/// A service without anything said about it.
fn service_default() -> ServiceSpec {
    ServiceSpec {
        pool: false,
        readiness_path: "/".to_owned(),
        initial_delay_seconds: INITIAL_DELAY_SECONDS_DEFAULT,
        readiness_timeout_seconds: READINESS_TIMEOUT_SECONDS_DEFAULT,
        endpoint_probe_interval_seconds: PROBE_INTERVAL_SECONDS_DEFAULT,
        consecutive_failure_threshold_timeout: None,
        post_data: None,
        readiness_headers: None,
        min_replicas: MIN_REPLICAS_DEFAULT,
        max_replicas: None,
        num_overprovision: None,
        target_qps_per_replica: None,
        upscale_delay_seconds: None,
        downscale_delay_seconds: None,
        base_ondemand_fallback_replicas: None,
        dynamic_ondemand_fallback: None,
        spot_placer: None,
        load_balancing_policy: None,
        stream_timeout_seconds: STREAM_TIMEOUT_SECONDS_DEFAULT,
        tls: None,
        ports: None,
        queue_length_threshold: None,
    }
}

/// Reads a `service:` section, whose variables are filled in.
pub(crate) fn read_service(field: &Field<'_>) -> Result<ServiceSpec> {
    let section = field.section("service", &SERVICE_FIELDS)?;
    let mut service = service_default();
    if let (Some(_), Some(policy)) = (section.given("replicas"), section.given("replica_policy")) {
        return Err(policy.error(
            "Cannot specify both `replicas` and `replica_policy` in the service YAML. Please use one of them.",
        ));
    }
    read_probe(&section, &mut service)?;
    if let Some(load_balancer) = section.get("load_balancer") {
        let load_balancer = load_balancer.section("service", &["stream_timeout_seconds"])?;
        if let Some(timeout) = load_balancer.given("stream_timeout_seconds") {
            service.stream_timeout_seconds = timeout.positive_number(SECONDS_MAX)?;
        }
    }
    service.ports = section.get("ports").map(super::ports::service_port).transpose()?;
    if let Some(policy) = section.get("load_balancing_policy") {
        let names = LoadBalancingPolicy::ALL.map(LoadBalancingPolicy::as_str);
        let name = policy.one_of(&names)?;
        service.load_balancing_policy = LoadBalancingPolicy::ALL.into_iter().find(|policy| policy.as_str() == name);
    }
    service.tls = section.get("tls").map(read_tls).transpose()?;
    read_scale(&section, &mut service)?;
    judge_scale(&section, &service)?;
    Ok(service)
}

/// Reads a task's `pool:` section.
pub(crate) fn read_pool(field: &Field<'_>) -> Result<ServiceSpec> {
    let mut service = service_default();
    read_pool_scale(field, &mut service)?;
    Ok(service)
}

fn read_probe(section: &Section<'_>, service: &mut ServiceSpec) -> Result<()> {
    let Some(field) = section.given("readiness_probe") else { return Ok(()) };
    let path = match &field.node.value {
        Value::String(_) => field.clone(),
        Value::Mapping(_) => {
            let probe = field.section("readiness_probe", &PROBE_FIELDS)?;
            read_probe_fields(&probe, service)?;
            probe.required("path")?.clone()
        }
        _ => return Err(field.is_not("a path that begins with a slash, nor a mapping with a `path`")),
    };
    let text = path.string()?;
    if !text.starts_with('/') {
        return Err(path.error(format!("readiness_path must start with a slash (/). Got: {}", path.shown())));
    }
    if text.chars().any(|character| character.is_control() || character == ' ') {
        return Err(path.error(format!("{} has a blank or control character, which no HTTP path has", path.shown())));
    }
    service.readiness_path = text.to_owned();
    Ok(())
}

fn read_probe_fields(probe: &Section<'_>, service: &mut ServiceSpec) -> Result<()> {
    if let Some(delay) = probe.given("initial_delay_seconds") {
        service.initial_delay_seconds = delay.number(0.0, SECONDS_MAX)?;
    }
    if let Some(timeout) = probe.given("timeout_seconds") {
        service.readiness_timeout_seconds = timeout.positive_number(SECONDS_MAX)?;
    }
    if let Some(interval) = probe.given("endpoint_probe_interval_seconds") {
        service.endpoint_probe_interval_seconds = interval.positive_number(SECONDS_MAX)?;
    }
    if let Some(threshold) = probe.given("consecutive_failure_threshold_timeout") {
        service.consecutive_failure_threshold_timeout = Some(threshold.number(0.0, SECONDS_MAX)?);
    }
    service.post_data = probe.given("post_data").map(read_post_data).transpose()?;
    service.readiness_headers = probe.given("headers").map(read_headers).transpose()?;
    Ok(())
}

/// A mapping, or a string that holds a JSON object, as JSON text.
fn read_post_data(field: &Field<'_>) -> Result<String> {
    match &field.node.value {
        Value::Mapping(_) => field.json_text(),
        Value::String(text) => {
            let data: serde_json::Value = serde_json::from_str(text).map_err(|cause| {
                field.error(format!(
                    "Invalid JSON string for `post_data` in the `readiness_probe` section of your service YAML: {cause}"
                ))
            })?;
            if data.is_object() {
                return Ok(text.trim().to_owned());
            }
            Err(field.is_not("a JSON object: leave `post_data` out for a GET probe"))
        }
        _ => Err(field.is_not("a mapping, nor a string with a JSON object")),
    }
}

fn read_headers(field: &Field<'_>) -> Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    for (name, value) in field.entries()? {
        let text = value.string()?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(value.error(format!("'{name}' is not a header name")));
        }
        if text.chars().any(|character| character.is_control() && character != '\t') {
            // The value may be a token: it is not shown.
            return Err(value.error("the header's value has a line break or control character"));
        }
        headers.insert(name.to_owned(), text.to_owned());
    }
    Ok(headers)
}

fn read_tls(field: &Field<'_>) -> Result<Tls> {
    let section = field.section("service", &["keyfile", "certfile"])?;
    let path = |name: &str| {
        let field = section.required(name)?;
        let path = field.string()?;
        if path.is_empty() { Err(field.is_not("the path of a PEM file")) } else { Ok(path.to_owned()) }
    };
    Ok(Tls { keyfile: path("keyfile")?, certfile: path("certfile")? })
}

/// How many replicas: `replicas`, its alias `workers`, `replica_policy`, or a nested `pool`.
fn read_scale(section: &Section<'_>, service: &mut ServiceSpec) -> Result<()> {
    let replicas = section.get("replicas");
    let workers = section.get("workers");
    if let (Some(_), Some(workers)) = (replicas, workers) {
        return Err(workers.error("Cannot specify both `replicas` and `workers`. Please use one of them."));
    }
    if let Some(pool) = section.get("pool").filter(|pool| pool.node.entries() != Some(&[])) {
        let unsupported = ["replica_policy", "replicas", "ports", "load_balancing_policy", "tls"];
        if let Some(other) = unsupported.iter().find_map(|name| section.get(name)) {
            return Err(other.error(
                "not supported for a pool. Only `workers: <num>` or `min_workers: <num> max_workers: <num>` is",
            ));
        }
        if service.post_data.is_some() || service.readiness_headers.is_some() {
            return Err(pool.error("a pool's readiness probe has neither `post_data` nor `headers`"));
        }
        read_pool_scale(pool, service)?;
        if let Some(workers) = workers {
            service.min_replicas = workers.count(0, REPLICAS_MAX)?;
        }
        return Ok(());
    }
    if let Some(count) = replicas.or(workers) {
        service.min_replicas = count.count(0, REPLICAS_MAX)?;
    } else if let Some(policy) = section.get("replica_policy") {
        read_policy(policy, service)?;
    }
    Ok(())
}

fn read_policy(field: &Field<'_>, service: &mut ServiceSpec) -> Result<()> {
    let policy = field.section("service", &POLICY_FIELDS)?;
    let count = |name: &str| policy.given(name).map(|field| field.count(0, REPLICAS_MAX)).transpose();
    let delay = |name: &str| policy.given(name).map(|field| field.number(0.0, SECONDS_MAX)).transpose();
    service.min_replicas = policy.required("min_replicas")?.count(0, REPLICAS_MAX)?;
    service.max_replicas = count("max_replicas")?;
    service.num_overprovision = count("num_overprovision")?;
    service.base_ondemand_fallback_replicas = count("base_ondemand_fallback_replicas")?;
    service.upscale_delay_seconds = delay("upscale_delay_seconds")?;
    service.downscale_delay_seconds = delay("downscale_delay_seconds")?;
    service.dynamic_ondemand_fallback = policy.given("dynamic_ondemand_fallback").map(Field::boolean).transpose()?;
    service.target_qps_per_replica = policy.given("target_qps_per_replica").map(read_target_qps).transpose()?;
    let placer = policy.given("spot_placer").map(|field| field.one_of(&SPOT_PLACERS)).transpose()?;
    service.spot_placer = placer.map(str::to_owned);
    Ok(())
}

fn read_target_qps(field: &Field<'_>) -> Result<TargetQps> {
    match field.node.value {
        Value::Int(_) | Value::Float(_) => Ok(TargetQps::Every(field.positive_number(QPS_MAX)?)),
        Value::Mapping(_) => {
            let mut targets = BTreeMap::new();
            for (accelerator, target) in field.entries()? {
                if !is_accelerator(accelerator) {
                    return Err(target.error(format!(
                        "'{accelerator}' does not match any of the regexes: '^[A-Z0-9]+(?::[0-9]+)?$' (an accelerator \
                         in capitals, with a count or without)"
                    )));
                }
                targets.insert(accelerator.to_owned(), target.positive_number(QPS_MAX)?);
            }
            if targets.is_empty() {
                return Err(field.error("names no accelerator"));
            }
            Ok(TargetQps::PerAccelerator(targets))
        }
        _ => Err(field.is_not("a number, nor a mapping of accelerators to numbers")),
    }
}

/// `A100` or `A100:8`
fn is_accelerator(text: &str) -> bool {
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let name_valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    name_valid && count.is_none_or(|count| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()))
}

fn judge_scale(section: &Section<'_>, service: &ServiceSpec) -> Result<()> {
    let blamed = section.get("replica_policy").or(section.get("pool")).unwrap_or(&section.field);
    let instance_aware = service.load_balancing_policy == Some(LoadBalancingPolicy::InstanceAwareLeastLoad);
    match &service.target_qps_per_replica {
        Some(TargetQps::PerAccelerator(_)) if !instance_aware => {
            return Err(blamed.error(
                "When using dict type target_qps_per_replica, load_balancing_policy must be \
                 \"instance_aware_least_load\".",
            ));
        }
        Some(TargetQps::Every(_)) | None if instance_aware => {
            return Err(blamed.error(
                "When using \"instance_aware_least_load\" policy, target_qps_per_replica must be a dict mapping GPU \
                 types to QPS values.",
            ));
        }
        _ => {}
    }
    let (min, max) = (service.min_replicas, service.max_replicas);
    if let Some(max) = max.filter(|max| *max < min) {
        return Err(blamed.error(format!(
            "max_replicas must be greater than or equal to min_replicas. Found: min_replicas={min}, max_replicas={max}"
        )));
    }
    if service.target_qps_per_replica.is_some() && max.is_none() {
        return Err(blamed.error("max_replicas must be set where target_qps_per_replica is set."));
    }
    if service.target_qps_per_replica.is_none() && !service.pool && max.is_some_and(|max| max != min) {
        return Err(blamed.error(
            "Detected different min_replicas and max_replicas while target_qps_per_replica is not set. To enable \
             autoscaling, please set target_qps_per_replica.",
        ));
    }
    Ok(())
}

fn read_pool_scale(field: &Field<'_>, service: &mut ServiceSpec) -> Result<()> {
    let pool = field.section("service", &POOL_FIELDS)?;
    let count = |name: &str, min: u32| pool.given(name).map(|field| field.count(min, REPLICAS_MAX)).transpose();
    let delay = |name: &str| pool.given(name).map(|field| field.number(0.0, SECONDS_MAX)).transpose();
    let (workers, min, max) = (count("workers", 0)?, count("min_workers", 0)?, count("max_workers", 0)?);
    let threshold = count("queue_length_threshold", 1)?;
    match (min, max) {
        (None, None) if workers.is_none() => {
            return Err(
                field.error("One of workers, or both min_workers and max_workers must be set for pool autoscaling.")
            );
        }
        (Some(_), None) => {
            return Err(field.error("max_workers must be set when min_workers is specified for pool autoscaling."));
        }
        (Some(min), Some(max)) if min > max => {
            return Err(
                field.error(format!("min_workers ({min}) must be <= max_workers ({max}) for pool autoscaling."))
            );
        }
        (None, None) if threshold.is_some() => {
            return Err(
                field.error("max_workers must be set when queue_length_threshold is specified for pool autoscaling.")
            );
        }
        _ => {}
    }
    service.pool = true;
    service.min_replicas = min.filter(|_| max.is_some()).or(workers).unwrap_or(MIN_REPLICAS_DEFAULT);
    service.max_replicas = max;
    service.queue_length_threshold = threshold.or(max.map(|_| QUEUE_LENGTH_THRESHOLD_DEFAULT));
    service.upscale_delay_seconds = delay("upscale_delay_seconds")?;
    service.downscale_delay_seconds = delay("downscale_delay_seconds")?;
    if max.is_none() && (service.upscale_delay_seconds.is_some() || service.downscale_delay_seconds.is_some()) {
        return Err(field.error("upscale_delay_seconds and downscale_delay_seconds need max_workers"));
    }
    if let Some(max) = max.filter(|max| *max < service.min_replicas) {
        return Err(field.error(format!(
            "max_replicas must be greater than or equal to min_replicas. Found: min_replicas={}, max_replicas={max}",
            service.min_replicas
        )));
    }
    Ok(())
}

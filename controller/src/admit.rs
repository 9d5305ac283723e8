//! From a judged task to the rules that decisions follow.

use skyserve_model::{Amount, LaunchTemplate, ProbeRules, VersionRules};
use skyserve_spec::{Resource, TaskSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest time between probes of a replica: protects a replica from a YAML that says 0.
const PROBE_INTERVAL_MS_MIN: u64 = 100;

/// The rules of a task whose workdir and file mounts are in `bundle`.
pub(crate) fn rules(task: &TaskSpec, bundle: Option<String>) -> VersionRules {
    let probe = task.service.probe();
    let amounts = task.launch_amounts();
    let amount = |amount: skyserve_spec::Amount| Amount { value: amount.value, or_more: amount.or_more };
    let first = task.resources.list.first();
    VersionRules {
        replicas: task.service.min_replicas,
        probe: ProbeRules {
            path: probe.path,
            post_data: probe.body,
            headers: probe.headers,
            timeout_ms: milliseconds(probe.timeout).max(1),
            interval_ms: milliseconds(probe.interval).max(PROBE_INTERVAL_MS_MIN),
            initial_delay_ms: milliseconds(probe.initial_delay),
            failure_threshold_ms: milliseconds(probe.failure_threshold),
        },
        launch: LaunchTemplate {
            setup: task.setup.clone(),
            run: task.run.clone(),
            envs: task.envs.clone(),
            secrets: task.secrets.expose().clone(),
            port: task.service.port(),
            ports: task.ports(),
            cpus: amounts.cpus.map(amount),
            memory_gb: amounts.memory_gb.map(amount),
            accelerators: first.map(accelerators).unwrap_or_default(),
            use_spot: first.is_some_and(|first| first.use_spot == Some(true)),
            image: first.and_then(Resource::docker_image).map(str::to_owned),
            has_workdir: task.workdir.is_some(),
            file_mounts: task.file_mounts.iter().map(|(destination, _)| destination.clone()).collect(),
            bundle,
        },
        load_balancing_policy: task.service.policy().as_str().to_owned(),
        stream_timeout_ms: milliseconds(task.service.stream_timeout()),
        resources: resources(task, first),
    }
}

fn accelerators(resource: &Resource) -> BTreeMap<String, f64> {
    resource.accelerators.clone().unwrap_or_default()
}

/// SkyServe's short form, such as `1x(cpus=2+, ports=8080)`.
fn resources(task: &TaskSpec, first: Option<&Resource>) -> String {
    let mut parts = Vec::new();
    if let Some(first) = first {
        parts.extend(first.cpus.as_ref().map(|cpus| format!("cpus={cpus}")));
        parts.extend(first.memory.as_ref().map(|memory| format!("mem={memory}")));
        parts.extend(accelerators(first).iter().map(|(name, count)| format!("{name}:{count}")));
        parts.extend(first.ports.as_ref().map(|ports| format!("ports={}", ports.join(","))));
    }
    format!("{}x({})", task.num_nodes, parts.join(", "))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

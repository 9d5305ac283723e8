//! What one version asks for that another did not, in words for a person: names and numbers, never the value of an
//! environment variable, a secret or a header.

use crate::rules::{LaunchTemplate, ProbeRules, VersionRules};
use std::collections::BTreeMap;
use std::fmt::Display;

/// One thing that a new version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `replicas: 2 → 4`, `run`.
    pub what: String,
    /// Whether a replica that runs cannot be changed so, and another takes its place.
    pub needs_new_replicas: bool,
}

impl VersionRules {
    /// What `next` changes; empty if it asks for the same.
    pub fn differences(&self, next: &Self) -> Vec<Difference> {
        let in_place = |what| Difference { what, needs_new_replicas: false };
        let with_new_replicas = |what| Difference { what, needs_new_replicas: true };
        let mut differences: Vec<Difference> = self.service_differences(next).into_iter().map(in_place).collect();
        differences.extend(launch_differences(self, next).into_iter().map(with_new_replicas));
        differences
    }

    fn service_differences(&self, next: &Self) -> Vec<String> {
        let Self { replicas, probe, launch: _, load_balancing_policy, stream_timeout_ms, resources: _ } = self;
        let mut found = Vec::new();
        found.extend(moved("replicas", replicas, &next.replicas));
        found.extend(probe_differences(probe, &next.probe));
        found.extend(moved("load_balancing_policy", load_balancing_policy, &next.load_balancing_policy));
        let seconds = |milliseconds: u64| milliseconds as f64 / 1000.0;
        found.extend(moved("stream_timeout_seconds", seconds(*stream_timeout_ms), seconds(next.stream_timeout_ms)));
        found
    }
}

fn probe_differences(before: &ProbeRules, after: &ProbeRules) -> Vec<String> {
    let ProbeRules { path, post_data, headers, timeout_ms, interval_ms, initial_delay_ms, failure_threshold_ms } =
        before;
    let mut found = Vec::new();
    found.extend(moved("readiness_probe.path", path, &after.path));
    found.extend((*post_data != after.post_data).then(|| "readiness_probe.post_data".to_owned()));
    found.extend(named("readiness_probe.headers", headers, &after.headers));
    for (name, before, after) in [
        ("timeout_seconds", timeout_ms, after.timeout_ms),
        ("endpoint_probe_interval_seconds", interval_ms, after.interval_ms),
        ("initial_delay_seconds", initial_delay_ms, after.initial_delay_ms),
        ("consecutive_failure_threshold_timeout", failure_threshold_ms, after.failure_threshold_ms),
    ] {
        let name = format!("readiness_probe.{name}");
        found.extend(moved(&name, *before as f64 / 1000.0, after as f64 / 1000.0));
    }
    found
}

fn launch_differences(before: &VersionRules, after: &VersionRules) -> Vec<String> {
    let LaunchTemplate {
        setup,
        run,
        envs,
        secrets,
        port,
        ports,
        cpus,
        memory_gb,
        accelerators,
        use_spot,
        image,
        bundle,
        has_workdir,
        file_mounts,
    } = &before.launch;
    let next = &after.launch;
    let mut found = Vec::new();
    found.extend((*setup != next.setup).then(|| "setup".to_owned()));
    found.extend((*run != next.run).then(|| "run".to_owned()));
    found.extend(named("envs", envs, &next.envs));
    found.extend(named("secrets", secrets, &next.secrets));
    found.extend(moved("port of each replica", port, &next.port));
    let resources = *ports != next.ports
        || *cpus != next.cpus
        || *memory_gb != next.memory_gb
        || *accelerators != next.accelerators
        || *use_spot != next.use_spot;
    if resources {
        let same = || "resources".to_owned();
        found.push(moved("resources", &before.resources, &after.resources).unwrap_or_else(same));
    }
    let or_default = |image: &Option<String>| image.clone().unwrap_or_else(|| "the default".to_owned());
    found.extend(moved("image", or_default(image), or_default(&next.image)));
    let files = *bundle != next.bundle || *has_workdir != next.has_workdir || *file_mounts != next.file_mounts;
    found.extend(files.then(|| "the files of workdir and file_mounts".to_owned()));
    found
}

fn moved<T: PartialEq + Display>(name: &str, before: T, after: T) -> Option<String> {
    (before != after).then(|| format!("{name}: {before} → {after}"))
}

/// The names whose values differ.
fn named(what: &str, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Option<String> {
    let left = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{name} (left out)"));
    let news = after.iter().filter_map(|(name, value)| match before.get(name) {
        None => Some(format!("{name} (new)")),
        Some(earlier) => (earlier != value).then(|| name.clone()),
    });
    let names: Vec<String> = news.chain(left).collect();
    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests;

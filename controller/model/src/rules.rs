//! What one version of a service asks for, reduced to what decisions need.

use crate::ids::{ReplicaId, ReplicaUid, Version};
use crate::launch::{Amount, LaunchSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One version of a service. Never changes once it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRules {
    /// How many replicas to keep.
    pub replicas: u32,
    pub probe: ProbeRules,
    pub launch: LaunchTemplate,
    /// SkyServe's `load_balancing_policy`, as written in YAML.
    pub load_balancing_policy: String,
    /// Longest silence of a reply.
    pub stream_timeout_ms: u64,
    /// Resources for the RESOURCES column, such as `1x(cpus=2+, ports=8080)`.
    pub resources: String,
}

/// SkyServe's `readiness_probe`. A replica is ready when it answers 200.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRules {
    /// Path and query, from the first slash on.
    pub path: String,
    /// A body makes the probe a POST; without one it is a GET.
    pub post_data: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub timeout_ms: u64,
    /// From one probe's start to the next one's.
    pub interval_ms: u64,
    /// How long a replica may take from its start until it is first ready.
    pub initial_delay_ms: u64,
    /// How long a replica that was ready may go on failing before it is replaced.
    pub failure_threshold_ms: u64,
}

impl ProbeRules {
    /// Whether a replica that passes the one passes the other, given the time.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.path == other.path && self.post_data == other.post_data && self.headers == other.headers
    }
}

impl fmt::Debug for ProbeRules {
    /// Leaves out header values and the body: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeRules")
            .field("path", &self.path)
            .field("timeout_ms", &self.timeout_ms)
            .field("interval_ms", &self.interval_ms)
            .finish_non_exhaustive()
    }
}

/// A [`LaunchSpec`] without what differs from replica to replica.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    pub setup: Option<String>,
    pub run: Option<String>,
    pub envs: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    pub port: u16,
    pub ports: Vec<u16>,
    pub cpus: Option<Amount>,
    pub memory_gb: Option<Amount>,
    pub accelerators: BTreeMap<String, f64>,
    pub use_spot: bool,
    #[serde(default)]
    pub image: Option<String>,
    pub bundle: Option<String>,
    pub has_workdir: bool,
    pub file_mounts: Vec<String>,
}

impl fmt::Debug for LaunchTemplate {
    /// Leaves out the values of envs and secrets, and the scripts that may hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchTemplate")
            .field("port", &self.port)
            .field("envs", &self.envs.keys())
            .finish_non_exhaustive()
    }
}

impl LaunchTemplate {
    /// The launch of one replica.
    pub fn for_replica(&self, service: &str, uid: ReplicaUid, replica_id: ReplicaId, version: Version) -> LaunchSpec {
        let Self {
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
        } = self.clone();
        LaunchSpec {
            uid,
            service: service.to_owned(),
            replica_id,
            version,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::fixture::rules;
    use crate::{ReplicaId, ReplicaUid, Version};

    #[test]
    fn what_is_printed_for_a_person_names_secrets_and_does_not_tell_them() {
        let mut rules = rules(1);
        rules.probe.path = "/health".to_owned();
        rules.probe.headers = BTreeMap::from([("Authorization".to_owned(), "hush".to_owned())]);
        rules.probe.post_data = Some("hush".to_owned());
        rules.launch.run = Some("serve --token hush".to_owned());
        rules.launch.envs = BTreeMap::from([("MODEL".to_owned(), "hush".to_owned())]);
        rules.launch.secrets = BTreeMap::from([("TOKEN".to_owned(), "hush".to_owned())]);
        let uid = ReplicaUid::new("svc", 1, ReplicaId(2));
        let spec = rules.launch.for_replica("svc", uid, ReplicaId(2), Version(3));
        let printed = [
            (format!("{:?}", rules.probe), vec!["/health"]),
            (format!("{:?}", rules.launch), vec!["8080", "MODEL"]),
            (format!("{spec:?}"), vec!["svc-1-2", "8080", "MODEL", "TOKEN"]),
        ];
        for (text, said) in printed {
            assert!(!text.contains("hush"), "{text}");
            for part in said {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }

    #[test]
    fn probes_ask_the_same_whatever_time_they_give() {
        let probe = rules(1).probe;
        let differing = |change: fn(&mut ProbeRules)| {
            let mut other = probe.clone();
            change(&mut other);
            assert_ne!(probe, other);
            probe.asks_the_same(&other)
        };
        assert!(differing(|other| other.timeout_ms += 1));
        assert!(differing(|other| other.initial_delay_ms += 1));
        assert!(!differing(|other| other.path.push('x')));
        assert!(!differing(|other| other.post_data = Some(String::new())));
        assert!(!differing(|other| drop(other.headers.insert("a".to_owned(), "b".to_owned()))));
    }
}

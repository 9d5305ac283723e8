//! The configuration as a pod reads it: what the user wrote and is honoured, with the addresses of a pod.

use crate::error::ManifestError;
use crate::input::ControllerInput;
use crate::names::{COMPONENT_CONTROLLER, CONFIG_PATH, METRICS_PORT};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skyserve_spec::Infra;
use skyserve_spec::config::{Config, PortIsolation};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// On pods: they start anew when their configuration changes, and not at some later moment.
const CONFIG_ANNOTATION: &str = "skyserve.dev/config-sha256";

/// The configuration of one controller's pods.
#[derive(Debug)]
pub(crate) struct Settings {
    yaml: String,
}

impl Settings {
    pub(crate) fn of(input: &ControllerInput) -> Result<Self, ManifestError> {
        let yaml = to_yaml_for_pod(&input.config).map_err(|error| ManifestError::Yaml(error.to_string()))?;
        Ok(Self { yaml })
    }

    pub(crate) fn config_map(&self, input: &ControllerInput) -> ConfigMap {
        let file = CONFIG_PATH.rsplit('/').next().unwrap_or_default().to_owned();
        ConfigMap {
            metadata: input.metadata(input.names.config(), COMPONENT_CONTROLLER),
            data: Some([(file, self.yaml.clone())].into()),
            ..ConfigMap::default()
        }
    }

    pub(crate) fn annotation(&self) -> (String, String) {
        (CONFIG_ANNOTATION.to_owned(), hex::encode(Sha256::digest(self.yaml.as_bytes())))
    }
}

/// What [`to_yaml_for_pod`] says, as a value: endpoints and metrics listen on the pod's address, and the cluster is the
/// one around it, of which there is no kubeconfig.
fn in_pod(config: &Config) -> Config {
    let mut config = config.clone();
    config.load_balancer.listen_host = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    config.load_balancer.metrics_address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), METRICS_PORT);
    config.kubernetes.context = None;
    config.controller_resources.infra = Infra { region: None, ..config.controller_resources.infra };
    config
}

/// The file that a pod of the controller reads: every honoured key, whether it was given or not, so that the pod runs
/// by the values that the command line showed.
///
/// # Errors
/// When a value cannot be written as YAML, which none of [`Config::parse`]'s is.
pub fn to_yaml_for_pod(config: &Config) -> Result<String, serde_saphyr::ser::Error> {
    let Config {
        high_availability,
        controller_resources,
        storage_class_name,
        load_balancer,
        port_isolation,
        kubernetes,
    } = in_pod(config);
    let ports = format!("{}-{}", load_balancer.ports.from, load_balancer.ports.to);
    let isolation = match port_isolation {
        PortIsolation::Auto => "auto",
        PortIsolation::Off => "off",
    };
    let mut value = without_nulls(json!({
        "serve": {
            "controller": { "high_availability": high_availability, "resources": controller_resources },
            "load_balancer": {
                "listen_host": load_balancer.listen_host.to_string(),
                "ports": ports,
                "metrics_address": load_balancer.metrics_address.to_string(),
                "replicas": load_balancer.replicas,
                "threads": load_balancer.threads,
                "drain_seconds": load_balancer.drain_seconds,
                "queue_limit": load_balancer.queue_limit,
                "queue_timeout_seconds": load_balancer.queue_timeout_seconds,
            },
            "replicas": { "port_isolation": isolation },
        },
        "kubernetes": {
            "namespace": kubernetes.namespace,
            "ports": kubernetes.ports,
            "replica_image": kubernetes.replica_image,
            "unreachable_seconds": kubernetes.unreachable_seconds,
            "network_policy": kubernetes.network_policy,
            "disruption_budget": kubernetes.disruption_budget,
            "pod_monitor": kubernetes.pod_monitor,
            "high_availability": { "storage_class_name": storage_class_name },
        },
    }));
    // As it is: within it, a null takes something away.
    if let Some(pod_config) = kubernetes.pod_config {
        value["kubernetes"]["pod_config"] = pod_config;
    }
    // All text is quoted: some of what the crate writes plain (`A!:,`) or as a block (if it begins with a tab) is not
    // read back, or not as it was.
    let options = serde_saphyr::ser_options! { quote_all: true };
    let mut yaml = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut yaml, &value, options)?;
    Ok(yaml)
}

/// A null says no more than a key that is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let given = entries.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;

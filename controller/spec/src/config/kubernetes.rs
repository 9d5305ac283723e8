//! `kubernetes`: how services run on a cluster. The keys that SkyPilot has keep its names and meaning.

use super::{Config, Warnings, given, known};
use crate::field::{Field, Result};
use serde::{Deserialize, Serialize};
use skyserve_yaml::Value;

/// `kubernetes`: what runs on a cluster, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KubernetesConfig {
    /// `context`, or the first of SkyPilot's `allowed_contexts`: of the kubeconfig; its current one by default.
    pub context: Option<String>,
    /// Namespace of the controller and its replicas; the context's by default.
    pub namespace: Option<String>,
    /// How endpoints are reached from outside the cluster.
    pub ports: EndpointKind,
    /// Image of replicas that name none (`image_id`).
    pub replica_image: String,
    /// Merged into every replica pod, as SkyPilot does.
    pub pod_config: Option<serde_json::Value>,
    /// How long a pod of ours stays on a node that is not ready or not reachable.
    pub unreachable_seconds: u32,
    /// Whether to make a NetworkPolicy for the controller.
    pub network_policy: bool,
    /// Whether to make a PodDisruptionBudget for load balancers.
    pub disruption_budget: bool,
    /// Whether to make a PodMonitor (Prometheus Operator).
    pub pod_monitor: bool,
}

/// `kubernetes.ports`: SkyPilot's ways to reach an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A Service of type LoadBalancer; by its node port while it has no address.
    #[default]
    LoadBalancer,
    /// A Service of type NodePort.
    NodePort,
    /// A Service and an Ingress.
    Ingress,
    /// From inside the cluster alone: a Service with a cluster IP, which stays when the pod is replaced.
    PodIp,
}

/// SkyPilot's replicas need bash and, mostly, Python.
const REPLICA_IMAGE_DEFAULT: &str = "docker.io/library/python:3.12-slim";
/// A tenth of Kubernetes' own 300 s: a controller's state is on its volume, so moving early loses nothing.
const UNREACHABLE_SECONDS_DEFAULT: u32 = 30;

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            context: None,
            namespace: None,
            ports: EndpointKind::default(),
            replica_image: REPLICA_IMAGE_DEFAULT.to_owned(),
            pod_config: None,
            unreachable_seconds: UNREACHABLE_SECONDS_DEFAULT,
            network_policy: true,
            disruption_budget: false,
            pod_monitor: false,
        }
    }
}

/// A day: whoever wants pods to stay longer on a lost node wants them to stay for ever.
const UNREACHABLE_SECONDS_MAX: u32 = 86_400;
/// Longest DNS label, which a namespace is.
const NAMESPACE_CHARS_MAX: usize = 63;

pub(super) fn read(field: &Field<'_>, config: &mut Config, warnings: &mut Warnings) -> Result<()> {
    let mut allowed = None;
    let kubernetes = &mut config.kubernetes;
    for (name, field) in given(field)? {
        match name {
            "context" => kubernetes.context = Some(read_word(&field)?),
            "allowed_contexts" => allowed = read_allowed_contexts(&field, warnings)?,
            "namespace" => kubernetes.namespace = Some(read_namespace(&field)?),
            "ports" => kubernetes.ports = read_ports(&field)?,
            "replica_image" => kubernetes.replica_image = read_image(&field)?,
            "pod_config" => {
                field.entries()?;
                kubernetes.pod_config = Some(field.json()?);
            }
            "unreachable_seconds" => kubernetes.unreachable_seconds = field.count(0, UNREACHABLE_SECONDS_MAX)?,
            "network_policy" => kubernetes.network_policy = field.boolean()?,
            "disruption_budget" => kubernetes.disruption_budget = field.boolean()?,
            "pod_monitor" => kubernetes.pod_monitor = field.boolean()?,
            "high_availability" => {
                for (name, field) in given(&field)? {
                    match name {
                        "storage_class_name" => config.storage_class_name = Some(field.string()?.to_owned()),
                        _ => warnings.about(&field, name, &["storage_class_name"]),
                    }
                }
            }
            _ => warnings.about(&field, name, &known::KUBERNETES),
        }
    }
    if let Some(first) = allowed {
        kubernetes.context.get_or_insert(first);
    }
    Ok(())
}

/// A name that a person chose: not empty, and on one line.
fn read_word(field: &Field<'_>) -> Result<String> {
    let text = field.string()?.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(field.is_not("a name"));
    }
    Ok(text.to_owned())
}

/// SkyPilot's list of contexts, of which a controller can use but one: the first. `all` names none.
fn read_allowed_contexts(field: &Field<'_>, warnings: &mut Warnings) -> Result<Option<String>> {
    if matches!(&field.node.value, Value::String(text) if text == "all") {
        return Ok(None);
    }
    let contexts = field.items()?.iter().map(read_word).collect::<Result<Vec<_>>>()?;
    let line = field.node.line;
    match &contexts[..] {
        [] => {
            warnings.say(format!("line {line}: {} names no context: the kubeconfig's current one counts.", field.path))
        }
        [_] => {}
        [first, ..] => warnings.say(format!(
            "line {line}: {} names {} contexts, and services run on one cluster: the first, {first}, counts. Set \
             kubernetes.context to choose another.",
            field.path,
            contexts.len()
        )),
    }
    Ok(contexts.into_iter().next())
}

fn read_namespace(field: &Field<'_>) -> Result<String> {
    let text = field.string()?;
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !text.is_empty() && text.len() <= NAMESPACE_CHARS_MAX && text.chars().all(inner);
    if !fits || text.starts_with('-') || text.ends_with('-') {
        return Err(field.is_not("a namespace: lower-case letters, digits and dashes, at most 63"));
    }
    Ok(text.to_owned())
}

fn read_ports(field: &Field<'_>) -> Result<EndpointKind> {
    Ok(match field.one_of(&["loadbalancer", "nodeport", "ingress", "podip"])? {
        "nodeport" => EndpointKind::NodePort,
        "ingress" => EndpointKind::Ingress,
        "podip" => EndpointKind::PodIp,
        _ => EndpointKind::LoadBalancer,
    })
}

/// `docker:NAME` as in `image_id`, or `NAME`.
fn read_image(field: &Field<'_>) -> Result<String> {
    let text = field.string()?.trim();
    let name = text.strip_prefix("docker:").unwrap_or(text);
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(field.is_not("the name of a container image, like docker.io/library/python:3.12-slim"));
    }
    Ok(name.to_owned())
}

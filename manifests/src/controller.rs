//! The controller itself: a Deployment of one pod with a volume (HA), or a plain pod.

use crate::error::ManifestError;
use crate::input::{ControllerInput, Texts, texts};
use crate::names::{
    BUNDLE_PORT, COMPONENT_CONTROLLER, ENDPOINT_LABEL, HEAD_LABEL, HIGH_AVAILABILITY_ANNOTATION, METRICS_PORT,
};
use crate::pod::{self, Ours};
use crate::settings::Settings;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, PersistentVolumeClaimVolumeSource, Pod, PodAffinity, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// ReplicaSets to keep: one to go back to, and one more.
const REVISIONS_KEPT: i32 = 2;

/// The highly available controller.
///
/// Its strategy is RollingUpdate with maxSurge 0 and maxUnavailable 1: a change of the template does what `kubectl
/// delete pod` does. The old pod is told to end, and the ReplicaSet makes the new one at once, while the old one still
/// serves (whatever the strategy, a ReplicaSet does not count a pod that is being deleted). On the same node, which the
/// affinity prefers, both mount the ReadWriteOnce volume; on another node the new pod waits until the old one is gone.
/// * With maxSurge 1 and maxUnavailable 0, the new pod must be ready before the old one is told to end: if the volume
///   is attached to the old one's node and the new one is on another, both wait for ever.
/// * Recreate does not deadlock either, but makes the new pod only when the old one is gone: an outage as long as the
///   drain.
pub(crate) fn deployment(input: &ControllerInput, settings: &Settings) -> Result<Deployment, ManifestError> {
    let claim = PersistentVolumeClaimVolumeSource { claim_name: input.names.volume_claim(), read_only: None };
    let home = Volume { persistent_volume_claim: Some(claim), ..Volume::default() };
    let spec = PodSpec {
        restart_policy: Some("Always".to_owned()),
        affinity: Some(near_its_predecessor(input)),
        ..spec(input, home)?
    };
    let metadata =
        ObjectMeta { labels: Some(labels(input)), annotations: Some(annotations(settings)), ..ObjectMeta::default() };
    Ok(Deployment {
        metadata: metadata_of(input, input.names.deployment()),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(REVISIONS_KEPT),
            selector: input.selector(COMPONENT_CONTROLLER),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}

/// The controller that is not: when its pod ends, it stays away.
pub(crate) fn pod(input: &ControllerInput, settings: &Settings) -> Result<Pod, ManifestError> {
    let mut metadata = metadata_of(input, input.names.pod());
    metadata.labels = Some(labels(input));
    metadata.annotations.get_or_insert_default().extend(annotations(settings));
    let spec = PodSpec { restart_policy: Some("Never".to_owned()), ..spec(input, pod::empty_dir("home"))? };
    Ok(Pod { metadata, spec: Some(spec), ..Pod::default() })
}

fn metadata_of(input: &ControllerInput, name: String) -> ObjectMeta {
    let available = if input.config.high_availability { "true" } else { "false" };
    ObjectMeta {
        annotations: Some(texts([(HIGH_AVAILABILITY_ANNOTATION, available)])),
        ..input.metadata(name, COMPONENT_CONTROLLER)
    }
}

/// Requests go to the controller's pod only while there are no pods of load balancers alone.
fn labels(input: &ControllerInput) -> Texts {
    let mut labels = input.labels(COMPONENT_CONTROLLER);
    labels.extend(texts([(HEAD_LABEL, "1")]));
    if !input.has_load_balancers_alone() {
        labels.extend(texts([(ENDPOINT_LABEL, "true")]));
    }
    labels
}

fn annotations(settings: &Settings) -> Texts {
    let mut annotations = pod::scrape_annotations();
    annotations.extend([settings.annotation()]);
    annotations
}

fn spec(input: &ControllerInput, home: Volume) -> Result<PodSpec, ManifestError> {
    let resources = pod::requirements(input)?;
    let ours = Ours {
        name: "controller",
        options: &[],
        ports: vec![pod::port("metrics", METRICS_PORT), pod::port("files", BUNDLE_PORT)],
        resources: resources.clone(),
    };
    Ok(PodSpec {
        init_containers: Some(vec![pod::copy_home(input, resources)]),
        containers: vec![pod::container(input, ours)],
        volumes: Some(pod::volumes(input, home)),
        security_context: Some(pod::restricted_pod()),
        service_account_name: Some(input.names.account()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(pod::termination_grace_seconds(input)),
        tolerations: Some(pod::unreachable_tolerations(input.config.kubernetes.unreachable_seconds)),
        ..PodSpec::default()
    })
}

/// A ReadWriteOnce volume is on one node at a time: on the node of a predecessor that still drains, the successor need
/// not wait for it. No more than a preference, because that node may be lost.
fn near_its_predecessor(input: &ControllerInput) -> Affinity {
    let term = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            label_selector: Some(input.selector(COMPONENT_CONTROLLER)),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        },
    };
    let pod_affinity = PodAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![term]),
        required_during_scheduling_ignored_during_execution: None,
    };
    Affinity { pod_affinity: Some(pod_affinity), ..Affinity::default() }
}

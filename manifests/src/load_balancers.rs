//! Load balancers alone: pods that only serve, on other nodes than each other, following the controller's routes.

use crate::error::ManifestError;
use crate::input::{ControllerInput, Texts, texts};
use crate::names::{COMPONENT_LOAD_BALANCER, ENDPOINT_LABEL, METRICS_PORT};
use crate::object::Object;
use crate::pod::{self, Ours};
use crate::settings::Settings;
use crate::{access, network};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, PodTemplateSpec, TopologySpreadConstraint};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// ReplicaSets to keep: one to go back to, and one more.
const REVISIONS_KEPT: i32 = 2;

pub(crate) fn objects(input: &ControllerInput, settings: &Settings) -> Result<Vec<Object>, ManifestError> {
    let mut objects = vec![Object::of(&routes(input))];
    if input.config.kubernetes.network_policy {
        objects.push(Object::of(&network::load_balancer_policy(input)));
    }
    if input.config.kubernetes.disruption_budget {
        objects.push(Object::of(&budget(input)));
    }
    objects.push(Object::of(&deployment(input, settings)?));
    Ok(objects)
}

/// The route table's place. The controller fills it: made here, it needs no permission to create ConfigMaps.
fn routes(input: &ControllerInput) -> ConfigMap {
    ConfigMap { metadata: input.metadata(input.names.routes(), COMPONENT_LOAD_BALANCER), ..ConfigMap::default() }
}

/// Nodes are emptied one load balancer at a time. There is none for the controller: of one pod, a budget could only
/// forbid every eviction, and no node could be emptied; its successor takes over while it drains.
fn budget(input: &ControllerInput) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: input.metadata(input.names.load_balancers(), COMPONENT_LOAD_BALANCER),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(input.selector(COMPONENT_LOAD_BALANCER)),
            // A pod that serves nothing is no reason to keep a node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

fn deployment(input: &ControllerInput, settings: &Settings) -> Result<Deployment, ManifestError> {
    let mut annotations: Texts = pod::scrape_annotations();
    annotations.extend([settings.annotation()]);
    let mut labels = input.labels(COMPONENT_LOAD_BALANCER);
    labels.extend(texts([(ENDPOINT_LABEL, "true")]));
    let metadata = ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() };
    Ok(Deployment {
        metadata: input.metadata(input.names.load_balancers(), COMPONENT_LOAD_BALANCER),
        spec: Some(DeploymentSpec {
            replicas: Some(i32::try_from(input.config.load_balancer.replicas).unwrap_or(i32::MAX)),
            revision_history_limit: Some(REVISIONS_KEPT),
            selector: input.selector(COMPONENT_LOAD_BALANCER),
            // There is no volume to wait for: the next is ready before the last one goes.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec { metadata: Some(metadata), spec: Some(spec(input)?) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}

fn spec(input: &ControllerInput) -> Result<PodSpec, ManifestError> {
    let resources = pod::requirements(input)?;
    let ours = Ours {
        name: "load-balancer",
        options: &["--load-balancer-only"],
        ports: vec![pod::port("metrics", METRICS_PORT)],
        resources,
    };
    Ok(PodSpec {
        containers: vec![pod::container(input, ours)],
        restart_policy: Some("Always".to_owned()),
        volumes: Some(pod::volumes(input, pod::empty_dir("home"))),
        security_context: Some(pod::restricted_pod()),
        service_account_name: Some(access::load_balancer_account(&input.names)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(pod::termination_grace_seconds(input)),
        tolerations: Some(pod::unreachable_tolerations(input.config.kubernetes.unreachable_seconds)),
        topology_spread_constraints: Some(vec![over_nodes(input)]),
        ..PodSpec::default()
    })
}

/// A lost node takes as few as can be; but two on one node are better than one that waits. Each rollout spreads anew.
fn over_nodes(input: &ControllerInput) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(input.selector(COMPONENT_LOAD_BALANCER)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }
}

//! Who may connect to what. A port-forward comes from the node and needs no rule; neither do a kubelet's probes.

use crate::input::{ControllerInput, labels};
use crate::names::{BUNDLE_PORT, COMPONENT_CONTROLLER, COMPONENT_LOAD_BALANCER, COMPONENT_REPLICA, METRICS_PORT};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Where replicas fetch the files that were uploaded for them: an address that outlives the controller's pod.
pub(crate) fn bundle_service(input: &ControllerInput) -> Service {
    Service {
        metadata: input.metadata(input.names.bundle_service(), COMPONENT_CONTROLLER),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(input.labels(COMPONENT_CONTROLLER)),
            ports: Some(vec![ServicePort {
                name: Some("files".to_owned()),
                port: BUNDLE_PORT.into(),
                target_port: Some(IntOrString::Int(BUNDLE_PORT.into())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub(crate) fn controller_policy(input: &ControllerInput) -> NetworkPolicy {
    let replicas =
        LabelSelector { match_labels: Some(labels(&input.names, COMPONENT_REPLICA)), ..LabelSelector::default() };
    let files = NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer { pod_selector: Some(replicas), ..NetworkPolicyPeer::default() }]),
        ports: Some(vec![port(BUNDLE_PORT, None)]),
    };
    let mut ingress = vec![from_anywhere(port(METRICS_PORT, None)), files];
    if !input.has_load_balancers_alone() {
        ingress.push(endpoints(input));
    }
    policy(input, input.names.controller.clone(), COMPONENT_CONTROLLER, ingress)
}

pub(crate) fn load_balancer_policy(input: &ControllerInput) -> NetworkPolicy {
    let ingress = vec![from_anywhere(port(METRICS_PORT, None)), endpoints(input)];
    policy(input, input.names.load_balancers(), COMPONENT_LOAD_BALANCER, ingress)
}

fn policy(
    input: &ControllerInput,
    name: String,
    component: &str,
    ingress: Vec<NetworkPolicyIngressRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: input.metadata(name, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(input.selector(component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}

/// The ports that endpoints are taken from: requests come from anywhere.
fn endpoints(input: &ControllerInput) -> NetworkPolicyIngressRule {
    let range = input.config.load_balancer.ports;
    from_anywhere(port(range.from, Some(range.to)))
}

fn from_anywhere(port: NetworkPolicyPort) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: None, ports: Some(vec![port]) }
}

fn port(first: u16, last: Option<u16>) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(first.into())),
        end_port: last.map(i32::from),
        protocol: Some("TCP".to_owned()),
    }
}

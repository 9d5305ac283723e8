//! How requests from outside reach a served service: a Kubernetes Service each, and an Ingress where that is the way.
//!
//! Its cluster IP and node port stay when pods come and go; the pods behind it are those with the endpoint label.

use crate::input::{Texts, labels, texts};
use crate::names::{
    COMPONENT_ENDPOINT, CONTROLLER_LABEL, ENDPOINT_LABEL, Names, SERVICE_ANNOTATION, SERVICE_LABEL, label_value,
};
use crate::owner::Owner;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skyserve_spec::config::EndpointKind;

/// SkyPilot's Ingress controller is nginx's, and so are the annotations.
const INGRESS_CLASS: &str = "nginx";

/// Whose endpoint.
#[derive(Debug, Clone, Copy)]
pub struct EndpointInput<'a> {
    pub names: &'a Names,
    pub namespace: &'a str,
    pub owner: &'a Owner,
    /// The served service's name.
    pub service: &'a str,
    /// Where the load balancer listens for it, and so where the Service does.
    pub port: u16,
}

/// The Kubernetes Service of a served service.
///
/// * A pod that is not ready gets no requests; one that drains gets them only while no other is ready, which is what
///   kube-proxy does with pods that end.
/// * The external traffic policy is Cluster: every node answers. With Local only the node of the one pod would, and a
///   cloud's load balancer takes seconds to see that the pod has moved.
/// * No session affinity: which replica a request goes to is the load balancer's business.
pub fn service(input: &EndpointInput<'_>, kind: EndpointKind) -> Service {
    let (type_, is_external) = match kind {
        EndpointKind::LoadBalancer => ("LoadBalancer", true),
        EndpointKind::NodePort => ("NodePort", true),
        EndpointKind::Ingress | EndpointKind::PodIp => ("ClusterIP", false),
    };
    Service {
        metadata: metadata(input),
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            selector: Some(texts([(CONTROLLER_LABEL, &input.names.controller), (ENDPOINT_LABEL, "true")])),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: input.port.into(),
                target_port: Some(IntOrString::Int(input.port.into())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            external_traffic_policy: is_external.then(|| "Cluster".to_owned()),
            publish_not_ready_addresses: Some(false),
            session_affinity: Some("None".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Ingress of a served service: the cluster's one address, and a path of the service's own ([`ingress_path`]), which
/// replicas do not see.
pub fn ingress(input: &EndpointInput<'_>) -> Ingress {
    let mut metadata = metadata(input);
    metadata.annotations.get_or_insert_default().extend(ingress_annotations());
    let backend = IngressServiceBackend {
        name: input.names.endpoint(input.service),
        port: Some(ServiceBackendPort { number: Some(input.port.into()), name: None }),
    };
    let path = HTTPIngressPath {
        path: Some(format!("{}(/|$)(.*)", ingress_path(input.names, input.namespace, input.service))),
        path_type: "ImplementationSpecific".to_owned(),
        backend: IngressBackend { service: Some(backend), resource: None },
    };
    let rule = IngressRule { host: None, http: Some(HTTPIngressRuleValue { paths: vec![path] }) };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: Some(INGRESS_CLASS.to_owned()),
            rules: Some(vec![rule]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

/// The path of a service's Ingress: its endpoint is `http://ADDRESS` and this.
pub fn ingress_path(names: &Names, namespace: &str, service: &str) -> String {
    format!("/skyserve/{namespace}/{}", names.endpoint(service))
}

/// The path's rest is passed on, and neither bodies nor streams are cut or held back.
fn ingress_annotations() -> Texts {
    texts([
        ("nginx.ingress.kubernetes.io/rewrite-target", "/$2"),
        ("nginx.ingress.kubernetes.io/use-regex", "true"),
        ("nginx.ingress.kubernetes.io/proxy-body-size", "0"),
        ("nginx.ingress.kubernetes.io/proxy-buffering", "off"),
        ("nginx.ingress.kubernetes.io/proxy-request-buffering", "off"),
        ("nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
    ])
}

fn metadata(input: &EndpointInput<'_>) -> ObjectMeta {
    let mut labels = labels(input.names, COMPONENT_ENDPOINT);
    labels.insert(SERVICE_LABEL.to_owned(), label_value(input.service));
    ObjectMeta {
        name: Some(input.names.endpoint(input.service)),
        namespace: Some(input.namespace.to_owned()),
        labels: Some(labels),
        annotations: Some(texts([(SERVICE_ANNOTATION, input.service)])),
        owner_references: Some(vec![input.owner.reference()]),
        ..ObjectMeta::default()
    }
}

//! Where a served service is reached, read from its Kubernetes objects.

use crate::core::Outside;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::networking::v1::Ingress;
use skyserve_spec::config::EndpointKind;
use std::net::{IpAddr, Ipv6Addr};

/// What the URL is made from besides the objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) kind: EndpointKind,
    /// A node whose ports lead to the load balancer, if one is known.
    pub(super) node_ip: Option<&'a str>,
    /// Of the service's Ingress.
    pub(super) ingress_path: &'a str,
}

/// Where it is reached now, and what would be better and is waited for.
pub(super) fn outside(around: &Around<'_>, service: &Service, ingress: Option<&Ingress>) -> Outside {
    let reached = |endpoint: String| Outside { endpoint: Some(endpoint), note: None };
    match around.kind {
        EndpointKind::LoadBalancer => match balancer_address(service) {
            Some(address) => reached(url(address, port(service))),
            None => by_node_port(around, service, Some("the LoadBalancer's address")),
        },
        EndpointKind::NodePort => by_node_port(around, service, None),
        EndpointKind::PodIp => within_cluster(service, None),
        EndpointKind::Ingress => match ingress.and_then(ingress_address) {
            Some(address) => reached(format!("http://{}{}", bracketed(address), around.ingress_path)),
            None => within_cluster(service, Some("the Ingress's address (its controller gives it: is one installed?)")),
        },
    }
}

fn by_node_port(around: &Around<'_>, service: &Service, awaited: Option<&str>) -> Outside {
    match around.node_ip.zip(node_port(service)) {
        Some((node_ip, node_port)) => meanwhile(url(node_ip, node_port), awaited, "by a node's port"),
        None => nowhere(awaited.unwrap_or("its node port")),
    }
}

fn within_cluster(service: &Service, awaited: Option<&str>) -> Outside {
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    match cluster_ip.filter(|ip| ip.parse::<IpAddr>().is_ok()) {
        Some(cluster_ip) => meanwhile(url(cluster_ip, port(service)), awaited, "from inside the cluster"),
        None => nowhere(awaited.unwrap_or("its cluster IP")),
    }
}

/// The endpoint, until what is awaited gives a better one; for good if nothing is.
fn meanwhile(endpoint: String, awaited: Option<&str>, how: &str) -> Outside {
    let note = awaited.map(|awaited| format!("its endpoint waits for {awaited}; reachable {how} meanwhile"));
    Outside { endpoint: Some(endpoint), note }
}

fn nowhere(awaited: &str) -> Outside {
    Outside { endpoint: None, note: Some(format!("its endpoint waits for {awaited}")) }
}

fn port(service: &Service) -> i32 {
    first_port(service).map_or(0, |port| port.port)
}

fn node_port(service: &Service) -> Option<i32> {
    first_port(service)?.node_port
}

fn first_port(service: &Service) -> Option<&ServicePort> {
    service.spec.as_ref()?.ports.as_ref()?.first()
}

fn balancer_address(service: &Service) -> Option<&str> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|one| one.ip.as_deref().or(one.hostname.as_deref()))
}

fn ingress_address(ingress: &Ingress) -> Option<&str> {
    let addresses = ingress.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    addresses.iter().find_map(|one| one.ip.as_deref().or(one.hostname.as_deref()))
}

fn url(host: &str, port: i32) -> String {
    format!("http://{}:{port}", bracketed(host))
}

/// As a URL has it: IPv6 addresses in brackets.
fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(status: serde_json::Value) -> Service {
        let spec = json!({ "clusterIP": "10.96.0.9", "ports": [{ "port": 30001, "nodePort": 31234 }] });
        serde_json::from_value(json!({ "spec": spec, "status": status })).unwrap()
    }

    fn around(kind: EndpointKind) -> Around<'static> {
        Around { kind, node_ip: Some("192.0.2.10"), ingress_path: "/skyserve/default/x" }
    }

    fn endpoint(kind: EndpointKind, status: serde_json::Value) -> (Option<String>, bool) {
        let outside = outside(&around(kind), &service(status), None);
        (outside.endpoint, outside.note.is_some())
    }

    #[test]
    fn a_load_balancers_address_is_the_endpoint_and_a_node_port_until_it_is_there() {
        let with = |ingress| json!({ "loadBalancer": { "ingress": [ingress] } });
        let kind = EndpointKind::LoadBalancer;
        assert_eq!(endpoint(kind, json!({})), (Some("http://192.0.2.10:31234".into()), true));
        let by_ip = endpoint(kind, with(json!({ "ip": "203.0.113.7" })));
        assert_eq!(by_ip, (Some("http://203.0.113.7:30001".into()), false));
        let by_name = endpoint(kind, with(json!({ "hostname": "lb.example.com" })));
        assert_eq!(by_name, (Some("http://lb.example.com:30001".into()), false));
        let by_ipv6 = endpoint(kind, with(json!({ "ip": "2001:db8::7" })));
        assert_eq!(by_ipv6, (Some("http://[2001:db8::7]:30001".into()), false));
    }

    #[test]
    fn the_other_ways() {
        assert_eq!(endpoint(EndpointKind::NodePort, json!({})), (Some("http://192.0.2.10:31234".into()), false));
        assert_eq!(endpoint(EndpointKind::PodIp, json!({})), (Some("http://10.96.0.9:30001".into()), false));
        assert_eq!(endpoint(EndpointKind::Ingress, json!({})), (Some("http://10.96.0.9:30001".into()), true));
        let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.8" }] } } });
        let ingress: Ingress = serde_json::from_value(ingress).unwrap();
        let outside = outside(&around(EndpointKind::Ingress), &service(json!({})), Some(&ingress));
        assert_eq!(outside, Outside { endpoint: Some("http://203.0.113.8/skyserve/default/x".into()), note: None });
    }

    #[test]
    fn without_a_node_nobody_is_sent_anywhere() {
        let around = Around { node_ip: None, ..around(EndpointKind::NodePort) };
        let outside = outside(&around, &service(json!({})), None);
        assert!(outside.endpoint.is_none() && outside.note.is_some());
    }
}

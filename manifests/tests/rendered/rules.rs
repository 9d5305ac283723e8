//! What all objects have in common, and what single ones promise.

use crate::samples::{self, controller};
use serde_json::{Value, json};
use skyserve_manifests::access::{CONTROLLER_GRANTS, Grant, LOAD_BALANCER_GRANTS};
use skyserve_manifests::names::{CONTROLLER_LABEL, ENDPOINT_LABEL};
use skyserve_manifests::replica;
use skyserve_manifests::{ManifestError, Object, owned_by, render};

/// The kinds that are in a namespace: whatever else is rendered needs a cluster's administrator.
const NAMESPACED: [&str; 13] = [
    "ConfigMap",
    "Deployment",
    "Ingress",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "PodMonitor",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
];

/// What breaks the rules that every object keeps.
fn faults(object: &Value, namespace: &str) -> Vec<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let label = object.pointer("/metadata/labels").and_then(|labels| labels.get(CONTROLLER_LABEL));
    let kind = text("/kind");
    let mut faults = Vec::new();
    if !NAMESPACED.contains(&kind) {
        faults.push(format!("{kind} is not of a namespace"));
    }
    if text("/metadata/namespace") != namespace {
        faults.push(format!("{kind} is not in {namespace}"));
    }
    if label != Some(&json!("sky-serve-controller-0123abcd")) {
        faults.push(format!("{kind} has no controller label"));
    }
    if text("/metadata/name").is_empty() || text("/apiVersion").is_empty() {
        faults.push(format!("{kind} has no name or version"));
    }
    faults
}

fn everything() -> Vec<Object> {
    samples::all("models").into_iter().flat_map(|sample| sample.objects).collect()
}

fn find<'o>(objects: &'o [Object], kind: &str, name: &str) -> &'o Value {
    let found = objects.iter().find(|object| object.kind() == kind && object.name() == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}")).value()
}

#[test]
fn every_object_is_of_one_namespace_and_carries_the_controllers_label() {
    for object in everything() {
        assert_eq!(faults(object.value(), "models"), Vec::<String>::new(), "{}", object.name());
    }
}

#[test]
fn an_object_of_the_cluster_or_without_our_label_is_noticed() {
    let role =
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "x" } });
    let found = faults(&role, "models").join(", ");
    for part in ["not of a namespace", "not in models", "no controller label"] {
        assert!(found.contains(part), "{found}");
    }
    let mut map = find(&everything(), "ConfigMap", "sky-serve-controller-0123abcd-config").clone();
    map["metadata"]["labels"] = json!({ "app": "other" });
    assert_eq!(faults(&map, "models"), ["ConfigMap has no controller label"]);
}

#[test]
fn everything_but_the_controller_itself_is_owned_by_it() {
    let objects = render(&controller("models", "serve: {controller: {high_availability: true}}")).unwrap();
    let owned = owned_by(objects.clone(), &samples::owner());
    let (controller, rest) = owned.split_last().unwrap();
    assert_eq!(controller.kind(), "Deployment");
    assert_eq!(Some(controller), objects.last(), "the owner owns itself");
    for object in rest {
        let owners = object.value().pointer("/metadata/ownerReferences").unwrap();
        assert_eq!(owners, &json!([samples::owner().reference()]), "{}", object.name());
    }
}

#[test]
fn requests_go_to_the_controllers_pod_until_there_are_load_balancers_alone() {
    let has_endpoint = |yaml: &str, name: &str| {
        let objects = render(&controller("models", yaml)).unwrap();
        let template = find(&objects, "Deployment", name).pointer("/spec/template/metadata/labels").cloned().unwrap();
        template.get(ENDPOINT_LABEL).is_some()
    };
    let one = "serve: {controller: {high_availability: true}}";
    let three = "serve: {controller: {high_availability: true}, load_balancer: {replicas: 3}}";
    assert!(has_endpoint(one, "sky-serve-controller-0123abcd-deployment"));
    assert!(!has_endpoint(three, "sky-serve-controller-0123abcd-deployment"));
    assert!(has_endpoint(three, "sky-serve-controller-0123abcd-lb"));
}

#[test]
fn a_change_of_the_configuration_changes_the_pods_template() {
    let template = |yaml: &str| {
        let objects = render(&controller("models", yaml)).unwrap();
        find(&objects, "Deployment", "sky-serve-controller-0123abcd-deployment").pointer("/spec/template").cloned()
    };
    let with = |rest: &str| template(&format!("serve: {{controller: {{high_availability: true}}}}\n{rest}"));
    assert_eq!(with(""), with("kubernetes: {}"));
    assert_ne!(with(""), with("kubernetes: {ports: podip}"));
}

#[test]
fn nothing_secret_is_in_a_pod() {
    let secret_values = ["hf_secret", "bundle-token", "small", "http.server", "pip install"];
    for object in everything().iter().filter(|object| object.kind() != "Secret") {
        let text = object.value().to_string();
        for value in secret_values {
            assert!(!text.contains(value), "{value} is in {} {}", object.kind(), object.name());
        }
    }
}

#[test]
fn every_grant_says_why_and_names_its_verbs_once() {
    let unnameable = |grant: &Grant| grant.named.is_some() && grant.verbs.contains(&"create");
    for grant in CONTROLLER_GRANTS.iter().chain(LOAD_BALANCER_GRANTS) {
        let mut verbs = grant.verbs.to_vec();
        verbs.dedup();
        assert!(!grant.reason.is_empty() && verbs == grant.verbs, "{grant:?}");
        assert!(!grant.verbs.contains(&"*") && grant.resource != "*", "{grant:?}");
        assert!(!unnameable(grant), "create knows no names: {grant:?}");
    }
}

#[test]
fn a_launch_larger_than_kubernetes_takes_is_refused_with_what_to_do() {
    let config = samples::config("").kubernetes;
    let large = samples::launch(
        "big",
        skyserve_model::LaunchTemplate { run: Some("x".repeat(1024 * 1024)), ..samples::template() },
    );
    samples::with_replica_input("models", &config, |input| {
        let error = replica::secret(input, &large, "uid", None).unwrap_err();
        assert!(matches!(error, ManifestError::LaunchTooLarge { bytes_max: 1_048_576, .. }), "{error}");
        assert!(error.to_string().contains("file_mounts"), "{error}");
    });
}

#[test]
fn accelerators_that_kubernetes_cannot_give_are_refused() {
    let config = samples::config("").kubernetes;
    for (asked, part) in [
        (vec![("A100", 0.5)], "whole GPUs, not 0.5 of A100"),
        (vec![("tpu-v5e", 4.0)], "is a TPU"),
        (vec![("A100", 1.0), ("T4", 1.0)], "not both A100 and T4"),
    ] {
        let accelerators = asked.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let launch = samples::launch("x", skyserve_model::LaunchTemplate { accelerators, ..samples::template() });
        let error = samples::with_replica_input("models", &config, |input| replica::pod(input, &launch)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_pod_config_that_is_none_is_refused_before_anything_is_made() {
    let error = render(&controller("models", "kubernetes: {pod_config: {spec: {nodeSelektor: {a: b}}}}")).unwrap_err();
    assert_eq!(error.to_string(), "kubernetes.pod_config.spec.nodeSelektor.a: is no field of a pod");
}

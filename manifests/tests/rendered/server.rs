//! A real API server's own validation, by `kubectl apply --server-side --dry-run=server`. Like every test that needs a
//! cluster it says so and passes unless SKYSERVE_E2E=cluster; KUBECONFIG then names the cluster.

use crate::samples;
use serde_json::{Value, json};
use skyserve_manifests::Object;
use skyserve_manifests::names::FIELD_MANAGER;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A namespace for as long as a test runs.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        let made = kubectl(&["create", "namespace", &name], "");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", &self.0, "--wait=false"], "");
    }
}

fn kubectl(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What the server has against an object; `None` if nothing.
fn objection(object: &Value, dry_run: bool) -> Option<String> {
    let manager = format!("--field-manager={FIELD_MANAGER}");
    let mut arguments = vec!["apply", "--server-side", "--validate=strict", &manager, "-f", "-"];
    arguments.extend(dry_run.then_some("--dry-run=server"));
    let output = kubectl(&arguments, &object.to_string());
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn there_is_a_cluster() -> bool {
    let there = std::env::var_os("SKYSERVE_E2E").is_some_and(|value| value == "cluster");
    if !there {
        println!("skipped: set SKYSERVE_E2E=cluster and KUBECONFIG to run the tests that need a cluster");
    }
    there
}

#[test]
fn an_api_server_takes_everything_that_is_rendered() {
    if !there_is_a_cluster() {
        return;
    }
    let namespace = Namespace::new(format!("skyserve-manifests-{}", std::process::id()));
    let objects: Vec<Object> = samples::all(&namespace.0).into_iter().flat_map(|sample| sample.objects).collect();
    // A pod is judged with its account, which a dry run does not make.
    for account in objects.iter().filter(|object| object.kind() == "ServiceAccount") {
        assert_eq!(objection(account.value(), false), None);
    }
    let has_monitors = kubectl(&["get", "podmonitors"], "").status.success();
    for object in objects.iter().filter(|object| has_monitors || object.kind() != "PodMonitor") {
        assert_eq!(objection(object.value(), true), None, "{} {}", object.kind(), object.name());
    }
}

#[test]
fn an_api_server_objects_to_a_manifest_that_is_broken() {
    if !there_is_a_cluster() {
        return;
    }
    let namespace = Namespace::new(format!("skyserve-broken-{}", std::process::id()));
    let objects: Vec<Object> = samples::all(&namespace.0).into_iter().flat_map(|sample| sample.objects).collect();
    let deployment = objects.iter().find(|object| object.kind() == "Deployment").unwrap().value();
    for (pointer, value, part) in [
        ("/spec/strategy/type", json!("Recreated"), "strategy"),
        ("/spec/template/spec/restartPolicy", json!("Never"), "restartPolicy"),
        ("/spec/template/spec/containers/0/readinessProbe/httpGet", json!({ "pth": "/", "port": 1 }), "pth"),
    ] {
        let mut broken = deployment.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        let objection = objection(&broken, true).unwrap_or_else(|| panic!("{pointer} was taken"));
        assert!(objection.contains(part), "{objection}");
    }
}

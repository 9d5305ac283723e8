//! The seed's recovery example, every command as it is written there, on a cluster with high availability; and its
//! promise under load.

use crate::site::{Site, http_service, name, text, uid};

/// The commands of the seed document's *Recovery example*, from its configuration files to its last look. What
/// differs is only what a person does: copying the pod's name, and ending `watch` once the status is READY.
const RECOVERY_EXAMPLE: &str = r#"
    set -euo pipefail
    sky serve up -y -n my-http-service http_service.yaml

    # watch sky serve status my-http-service
    # Wait for STATUS to become READY
    timeout 120 bash -c 'until sky serve status my-http-service | grep -w READY; do sleep 1; done'

    # Get the endpoint URL
    ENDPOINT=$(sky serve status my-http-service --endpoint)
    echo "Service endpoint: $ENDPOINT"

    # Verify the service is responding correctly
    python3 -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())" $ENDPOINT

    kubectl get pods -l skypilot-head-node=1
    CONTROLLER_POD=$(kubectl get pods -l skypilot-head-node=1 --no-headers | awk '{print $1}')

    echo "Deleting controller pod: $CONTROLLER_POD"
    kubectl delete pod $CONTROLLER_POD

    echo "Waiting for controller pod to recover..."
    # Wait a few seconds for Kubernetes to react
    sleep 15

    # Check that a new pod has started and is running (Status should be Running 1/1)
    kubectl get pods -l skypilot-head-node=1 | tee pods
    grep -E '1/1 +Running' pods
    ! grep $CONTROLLER_POD pods

    echo "Re-checking service endpoint: $ENDPOINT"
    python3 -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())" $ENDPOINT
"#;

#[test]
fn the_seeds_recovery_example_works_as_it_is_written() {
    let Some(site) = Site::highly_available() else { return };
    std::fs::copy(http_service(), site.path().join("http_service.yaml")).unwrap();
    let output = site.command("bash").args(["-c", RECOVERY_EXAMPLE]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    println!("{stdout}\n{stderr}");
    assert!(output.status.success(), "{}", site.state());
    assert!(name(&site.controller()).contains("sky-serve-controller"));
    assert_eq!(stdout.matches("Directory listing for /").count() / 2, 2, "both requests see http.server's page");
}

#[test]
fn deleting_the_controllers_pod_under_load_fails_no_request() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    let endpoint = site.cluster_endpoint();
    let (replicas, before) = (site.replica_uids(), site.controller());
    assert_eq!(replicas.len(), 1);
    for _ in 0..2 {
        let victim = site.controller();
        let seen = site.under_load(&endpoint, || {
            site.kubectl_ok(&["delete", "pod", name(&victim)]);
            assert_ne!(uid(&site.controller()), uid(&victim));
            site.wait_for_status("web", "READY");
        });
        for (who, outcomes) in &seen {
            println!("{who}: {} answered, {} failed, slowest {:?}", outcomes.ok, outcomes.failed(), outcomes.slowest);
            assert!(outcomes.ok > 0, "{who} saw no answer: {outcomes:?}");
            assert_eq!(outcomes.failed(), 0, "{who}: {outcomes:?}");
        }
    }
    assert_ne!(uid(&site.controller()), uid(&before));
    assert_eq!(site.replica_uids(), replicas, "the replicas' pods are the same");
}

#[test]
fn the_check_under_load_sees_a_service_without_any_load_balancer() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    let endpoint = site.cluster_endpoint();
    let seen = site.under_load(&endpoint, || {
        let deployments = site.kubectl_ok(&["get", "deployments", "-l", "skyserve.dev/controller", "-o", "name"]);
        site.kubectl_ok(&["scale", deployments.trim(), "--replicas=0"]);
        site.kubectl_ok(&["delete", "pod", "-l", "skypilot-head-node=1", "--grace-period=1"]);
        crate::site::until("no controller", || if site.controllers().is_empty() { Ok(()) } else { Err(site.state()) });
    });
    assert!(seen.iter().all(|(_, outcomes)| outcomes.failed() > 0), "nobody noticed: {seen:?}");
}

#[test]
fn a_rolling_update_under_load_fails_no_request() {
    let Some(site) = Site::highly_available() else { return };
    let yaml = |text: &str| {
        let run =
            format!("mkdir -p /tmp/www && cd /tmp/www && echo {text} > index.html && exec python3 -m http.server 8080");
        format!("service:\n  readiness_probe: /\n  replicas: 2\nresources:\n  ports: 8080\nrun: |\n  {run}\n")
    };
    let first = site.file("first.yaml", &yaml("first"));
    let second = site.file("second.yaml", &yaml("second"));
    site.up("web", &first);
    let endpoint = site.cluster_endpoint();
    let before = site.replica_uids();
    let seen = site.under_load(&endpoint, || {
        site.ok(&["update", "-y", "--wait", "web", second.to_str().unwrap()]);
        site.wait_for_ready_replicas("web", 2);
    });
    for (who, outcomes) in &seen {
        println!("{who}: {} answered, {} failed, slowest {:?}", outcomes.ok, outcomes.failed(), outcomes.slowest);
        assert_eq!(outcomes.failed(), 0, "{who}: {outcomes:?}");
    }
    assert!(site.replica_uids().is_disjoint(&before), "every replica is of the new version");
}

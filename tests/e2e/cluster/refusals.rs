//! What a cluster can refuse: clear messages, and nothing lost.

use crate::site::{HIGHLY_AVAILABLE, Site, http_service, name, outage, text, until};
use std::time::{Duration, Instant};

#[test]
fn a_flipped_flag_is_refused_with_the_remedy() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    site.configure(&HIGHLY_AVAILABLE.replace("true", "false"));
    let said = site.refused(&["up", "-y", "-n", "other", http_service().to_str().unwrap()]);
    assert!(said.contains("InconsistentHighAvailabilityError"), "{said}");
    assert!(said.contains("sky down --purge sky-serve-controller"), "{said}");
    assert!(site.service("other").is_none());
    site.wait_for_status("web", "READY");
}

#[test]
fn high_availability_elsewhere_is_refused_before_anything_is_made() {
    let Some(site) = Site::highly_available() else { return };
    site.configure(&HIGHLY_AVAILABLE.replace("cloud: kubernetes", "cloud: aws"));
    let said = site.refused(&["up", "-y", "-n", "web", http_service().to_str().unwrap()]);
    assert!(said.to_lowercase().contains("kubernetes") && said.contains("aws"), "{said}");
    assert!(site.ours().is_empty());
}

#[test]
fn a_missing_storage_class_is_refused_before_anything_is_made() {
    let Some(site) = Site::highly_available() else { return };
    let config =
        format!("{HIGHLY_AVAILABLE}kubernetes:\n  high_availability:\n    storage_class_name: no-such-class\n");
    site.configure(&config);
    let said = site.refused(&["up", "-y", "-n", "web", http_service().to_str().unwrap()]);
    assert!(said.contains("no-such-class"), "{said}");
    assert!(site.ours().is_empty(), "{:?}", site.ours());
}

#[test]
fn a_user_without_permission_is_told_which_and_nothing_is_made() {
    let Some(site) = Site::highly_available() else { return };
    site.kubectl_ok(&["create", "serviceaccount", "nobody"]);
    let token = site.kubectl_ok(&["create", "token", "nobody"]);
    site.kubectl_ok(&["config", "set-credentials", "nobody", "--token", token.trim()]);
    site.kubectl_ok(&["config", "set-context", "--current", "--user", "nobody"]);
    let said = site.refused(&["up", "-y", "-n", "web", http_service().to_str().unwrap()]);
    assert!(said.contains("forbidden") || said.contains("permission"), "{said}");
    assert!(said.contains(&site.namespace), "the message says where: {said}");
    std::fs::remove_file(site.path().join("kubeconfig")).unwrap();
    assert!(site.ours().is_empty());
}

#[test]
fn an_object_of_somebody_elses_is_refused_by_name_and_neither_taken_over_nor_removed() {
    let Some(site) = Site::highly_available() else { return };
    let manifests = site.ok(&["manifests", "-o", "json"]);
    let manifests: serde_json::Value = serde_json::from_str(&manifests).unwrap();
    let map = manifests["items"].as_array().unwrap().iter().find(|item| item["kind"] == "ConfigMap").unwrap();
    site.kubectl_ok(&["create", "configmap", name(map), "--from-literal=a=b"]);
    let as_it_is = || site.kubectl_ok(&["get", "configmap", name(map), "-o", "json", "--show-managed-fields"]);
    let before = as_it_is();
    let said = site.refused(&["up", "-y", "-n", "web", http_service().to_str().unwrap()]);
    assert!(said.contains(&format!("the ConfigMap {}", name(map))) && said.contains("is not ours"), "{said}");
    assert!(said.contains(&site.namespace), "the message says where: {said}");
    assert!(site.ours().is_empty(), "{:?}", site.ours());
    site.command("sky").args(["down", "-y", "--purge", "sky-serve-controller"]).output().unwrap();
    assert_eq!(as_it_is(), before);
}

#[test]
fn a_missing_controller_image_is_named() {
    let config = "serve:\n  controller:\n    resources:\n      cloud: kubernetes\n      image_id: docker:docker.io/skyserve/no-such:1\n    high_availability: true\n";
    let Some(site) = Site::new(config) else { return };
    let mut up = site.command("skyserve");
    up.args(["up", "-y", "-n", "web", http_service().to_str().unwrap()]).env("SKYSERVE_CONTROLLER_WITHIN", "20");
    let output = up.output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("no-such"), "{said}");
    site.command("sky").args(["down", "-y", "--purge", "sky-serve-controller"]).output().unwrap();
    assert!(site.ours().is_empty(), "{:?}", site.ours());
}

#[test]
fn an_exceeded_quota_is_the_replicas_reason_and_passes_by_itself() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    site.kubectl_ok(&["create", "quota", "few", "--hard=pods=2"]);
    let yaml =
        site.file("two.yaml", &std::fs::read_to_string(http_service()).unwrap().replace("replicas: 1", "replicas: 2"));
    site.ok(&["update", "-y", "web", yaml.to_str().unwrap()]);
    until("the quota to be named", || {
        let service = site.service("web").unwrap_or_default().to_string();
        if service.contains("quota") { Ok(()) } else { Err(format!("{service}\n{}", site.state())) }
    });
    assert_eq!(site.service("web").unwrap()["status"], "READY", "what serves goes on serving");
    site.kubectl_ok(&["delete", "quota", "few"]);
    until("two ready replicas", || {
        let service = site.service("web").unwrap_or_default();
        let ready = service["replicas"].as_array().into_iter().flatten().filter(|replica| replica["status"] == "READY");
        if ready.count() == 2 { Ok(()) } else { Err(format!("{service:#}")) }
    });
}

#[test]
fn an_api_server_that_is_away_for_a_minute_stops_nobodys_traffic_and_control_goes_on_afterwards() {
    let Some(site) = Site::highly_available() else { return };
    let Some(pid_file) = std::env::var_os("SKYSERVE_E2E_APISERVER") else {
        println!("skipped: SKYSERVE_E2E_APISERVER names no API server that may be stopped");
        return;
    };
    site.up("web", &http_service());
    let (endpoint, replicas) = (site.cluster_endpoint(), site.replica_uids());
    let pod = site.controller();
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    let seen = site.under_load(&endpoint, || {
        signal(nix::sys::signal::Signal::SIGSTOP);
        let stopped = Instant::now();
        // A span, not a condition: this is how long it stays away.
        while stopped.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_secs(1));
        }
        signal(nix::sys::signal::Signal::SIGCONT);
        site.controller();
    });
    for (who, outcomes) in &seen {
        println!("{who}: {} answered, {} failed, slowest {:?}", outcomes.ok, outcomes.failed(), outcomes.slowest);
        assert_eq!(outcomes.failed(), 0, "{who}: {outcomes:?}");
    }
    let after = site.controller();
    assert_eq!(name(&after), name(&pod));
    let restarts = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    assert_eq!(restarts(&after), restarts(&pod), "nothing restarted for it");
    assert_eq!(site.replica_uids(), replicas);
    let away = outage(&endpoint, Duration::from_secs(1), || ());
    assert_eq!(away, Duration::ZERO);
    site.ok(&["down", "-y", "web", "--replica-id", "1"]);
    until("control to have resumed: another replica", || {
        let now = site.replica_uids();
        if now.len() == 1 && now.is_disjoint(&replicas) { Ok(()) } else { Err(site.state()) }
    });
}

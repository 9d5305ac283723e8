//! Deaths without a goodbye: the outage is measured, and nothing but time is lost.

use crate::site::{Site, http_service, live, name, outage, uid, until};
use std::time::Duration;

/// The endpoint has answered for this long without a break: it is back.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn a_pod_deleted_by_force_is_back_with_all_its_state() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    let (endpoint, replicas, victim) = (site.cluster_endpoint(), site.replica_uids(), site.controller());
    let away = outage(&endpoint, QUIET, || {
        site.kubectl_ok(&["delete", "pod", name(&victim), "--force", "--grace-period=0"]);
    });
    println!("deleted by force: the endpoint was away for {} ms", away.as_millis());
    assert_ne!(uid(&site.controller()), uid(&victim));
    let service = site.wait_for_status("web", "READY");
    assert_eq!(service["replicas"][0]["id"], 1, "the same replica: {service:#}");
    assert_eq!(site.replica_uids(), replicas);
}

#[test]
fn killing_the_containers_first_process_restarts_it_in_place() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    let (endpoint, replicas, pod) = (site.cluster_endpoint(), site.replica_uids(), site.controller());
    let restarts = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let away = outage(&endpoint, QUIET, || kill_first_process(&site, &pod));
    println!("PID 1 killed: the endpoint was away for {} ms", away.as_millis());
    let after = until("the container to have been restarted", || {
        let after = site.controller();
        if restarts(&after) > restarts(&pod) { Ok(after) } else { Err(site.state()) }
    });
    assert_eq!(uid(&after), uid(&pod), "the pod is the same");
    site.wait_for_status("web", "READY");
    assert_eq!(site.replica_uids(), replicas);
}

/// A process cannot be killed by SIGKILL from within its own namespace if it is the first: so from outside, where this
/// machine is the node.
fn kill_first_process(site: &Site, pod: &serde_json::Value) {
    // With cgroupfs a pod's UID stands in its cgroup's path as it is.
    let uid = uid(pod);
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let in_pod = read("cgroup").contains(uid);
        let first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        let ours = read("cmdline").starts_with("/usr/local/bin/skyserve\0init");
        if in_pod && first && ours {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "the node is another machine, or the container's process is not found\n{}", site.state());
}

#[test]
fn a_killed_replica_is_replaced_by_another_pod() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    let before = site.replica_uids();
    let pods = live(site.objects("pods", "skyserve.dev/component=replica"));
    site.kubectl_ok(&["delete", "pod", name(&pods[0]), "--wait=false"]);
    until("another replica", || {
        let now = site.replica_uids();
        if now.len() == 1 && now.is_disjoint(&before) { Ok(()) } else { Err(site.state()) }
    });
    let service = site.wait_for_status("web", "READY");
    assert!(service["replicas"].as_array().unwrap().iter().any(|replica| replica["id"] == 2), "{service:#}");
}

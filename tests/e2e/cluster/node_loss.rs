//! A node is lost whole: its kubelet, its containers and its network.

use crate::load::get_within;
use crate::site::{HIGHLY_AVAILABLE, Site, http_service, name, until};
use std::process::Command;
use std::time::{Duration, Instant};

/// node-monitor-grace-period of the test cluster, tolerationSeconds, and what the rest may take.
const BACK_WITHIN: Duration = Duration::from_secs(20 + 30 + 10);

struct Nodes {
    tool: String,
    lost: Option<String>,
}

impl Nodes {
    fn new() -> Option<Self> {
        let tool = std::env::var("SKYSERVE_E2E_NODES").ok();
        if tool.is_none() {
            println!("skipped: SKYSERVE_E2E_NODES names no program that can lose a node");
        }
        Some(Self { tool: tool?, lost: None })
    }

    /// Loses the node of this name (`node-1`).
    fn lose(&mut self, node: &str) {
        let number = node.rsplit('-').next().unwrap().to_owned();
        let done = Command::new(&self.tool).args(["kill-node", &number]).status().unwrap();
        assert!(done.success());
        self.lost = Some(number);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(number) = self.lost.take() {
            let _ = Command::new(&self.tool).args(["start-node", &number]).status();
        }
    }
}

fn node_of(pod: &serde_json::Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap().to_owned()
}

#[test]
fn a_controller_on_a_lost_node_comes_back_on_another_with_its_volume() {
    let Some(site) = Site::highly_available() else { return };
    let Some(mut nodes) = Nodes::new() else { return };
    let two = std::fs::read_to_string(http_service()).unwrap().replace("replicas: 1", "replicas: 2");
    let yaml = site.file("two.yaml", &two.replace("cpus: 1", "cpus: 0.1+"));
    site.up("web", &yaml);
    site.wait_for_ready_replicas("web", 2);
    let endpoint = site.cluster_endpoint();
    let address: std::net::SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let pod = site.controller();
    let before = site.replica_uids();
    let lost = node_of(&pod);
    nodes.lose(&lost);
    let since = Instant::now();
    let answers = || get_within(address, Duration::from_millis(500)).is_ok_and(|status| status == 200);
    until("the endpoint to be away or its controller to have moved", || {
        let moved = site.controllers().iter().any(|other| other["spec"]["nodeName"] != lost.as_str());
        if moved { Ok(()) } else { Err(site.state()) }
    });
    let back =
        until("the endpoint to answer again", || if answers() { Ok(since.elapsed()) } else { Err(site.state()) });
    println!("node lost: the endpoint answered again after {:.1} s", back.as_secs_f64());
    let after = until("a ready controller elsewhere", || {
        let ready = |pod: &serde_json::Value| {
            crate::site::condition(pod, "Ready").as_deref() == Some("True") && pod["spec"]["nodeName"] != lost.as_str()
        };
        site.controllers().into_iter().find(ready).ok_or_else(|| site.state())
    });
    assert_ne!(name(&after), name(&pod));
    assert!(back <= BACK_WITHIN, "it took {back:?}, which is more than {BACK_WITHIN:?}");
    until("two ready replicas off the lost node", || {
        let service = site.service("web").unwrap_or_default();
        let ready = service["replicas"].as_array().into_iter().flatten().filter(|replica| replica["status"] == "READY");
        let pods = site.objects("pods", "skyserve.dev/component=replica");
        let elsewhere = pods
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] != lost.as_str() && pod["metadata"]["deletionTimestamp"].is_null());
        if ready.count() == 2 && elsewhere.count() == 2 {
            Ok(())
        } else {
            Err(format!("{service:#}\n{}", site.state()))
        }
    });
    assert_ne!(site.replica_uids(), before);
}

#[test]
fn with_two_load_balancers_a_lost_node_costs_only_its_own_connections() {
    let Some(site) = Site::new(&format!("{HIGHLY_AVAILABLE}  load_balancer:\n    replicas: 2\n")) else { return };
    let Some(mut nodes) = Nodes::new() else { return };
    let two = std::fs::read_to_string(http_service()).unwrap().replace("replicas: 1", "replicas: 2");
    let yaml = site.file("two.yaml", &two.replace("cpus: 1", "cpus: 0.1+"));
    site.up("web", &yaml);
    site.wait_for_ready_replicas("web", 2);
    let balancers = until("two ready load balancers", || {
        let pods = site.objects("pods", "skyserve.dev/component=load-balancer");
        let ready = |pod: &&serde_json::Value| crate::site::condition(pod, "Ready").as_deref() == Some("True");
        if pods.iter().filter(ready).count() == 2 { Ok(pods) } else { Err(site.state()) }
    });
    let on: std::collections::BTreeSet<String> = balancers.iter().map(node_of).collect();
    assert_eq!(on.len(), 2, "they are on different nodes: {on:?}");
    let lost = node_of(&site.controller());
    let survivor = balancers.iter().find(|pod| node_of(pod) != lost).unwrap();
    let address = format!("{}:30001", survivor["status"]["podIP"].as_str().unwrap()).parse().unwrap();
    nodes.lose(&lost);
    // The service keeps answering through the other node's load balancer, all the time that the cluster needs to notice.
    let (since, mut asked, mut failed) = (Instant::now(), 0, 0);
    while since.elapsed() < BACK_WITHIN {
        asked += 1;
        failed += u32::from(!get_within(address, Duration::from_secs(5)).is_ok_and(|status| status == 200));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("node lost: {failed} of {asked} requests to the other load balancer failed");
    assert_eq!(failed, 0);
    until("the controller to be back", || if site.service("web").is_some() { Ok(()) } else { Err(site.state()) });
}

//! Scheduler, kubelet and garbage collector of the fake cluster, as far as replicas need them: a pod is given a node,
//! waits for its Secret, runs, and goes when it is deleted; what is owned by nothing goes.

use crate::store::{Store, text};
use crate::{State, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How it works; everything is done at once unless it says otherwise.
#[derive(Debug, Default)]
pub struct Kubelet {
    /// Pods are left as they are: no node, no start, no end.
    pub is_away: bool,
    /// Nothing is collected that has lost its owner.
    pub collects_no_garbage: bool,
    /// What each pod's container has printed, by the pod's name.
    pub logs: BTreeMap<String, String>,
    addresses: u8,
}

/// Works until it is aborted.
pub(crate) async fn work(world: Arc<World>) {
    let mut versions = world.versions();
    loop {
        // One step for each look, so that everything in between is seen by whoever watches.
        let worked = {
            let mut state = world.lock();
            step(&mut state)
        };
        if worked {
            world.change(|_| ());
            tokio::task::yield_now().await;
        } else if versions.changed().await.is_err() {
            return;
        }
    }
}

fn step(state: &mut State) -> bool {
    let State { store, kubelet, .. } = state;
    let namespaces: BTreeSet<String> = store.history().iter().map(|change| change.namespace.clone()).collect();
    namespaces.iter().any(|namespace| {
        (!kubelet.is_away && kubelet.tend(store, namespace))
            || (!kubelet.collects_no_garbage && collect(store, namespace))
    })
}

impl Kubelet {
    /// Takes one pod one step further, if one has one to take.
    fn tend(&mut self, store: &mut Store, namespace: &str) -> bool {
        store.list("pods", namespace).into_iter().any(|mut pod| {
            let name = text(&pod["metadata"]["name"]);
            if pod["metadata"]["deletionTimestamp"].is_string() {
                return Self::end(store, namespace, pod);
            }
            if !pod["spec"]["nodeName"].is_string() {
                pod["spec"]["nodeName"] = json!("node-1");
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
            } else if text(&pod["status"]["phase"]) == "Pending" && has_its_secrets(store, namespace, &pod) {
                self.addresses = self.addresses.wrapping_add(1);
                pod["status"] = running(&pod, self.addresses);
                self.logs.entry(name.clone()).or_insert_with(|| format!("{name} runs\n"));
            } else {
                return false;
            }
            store.put("pods", namespace, pod);
            true
        })
    }

    fn end(store: &mut Store, namespace: &str, pod: Value) -> bool {
        if pod["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
            return false;
        }
        store.remove("pods", namespace, &text(&pod["metadata"]["name"]));
        true
    }
}

fn running(pod: &Value, address: u8) -> Value {
    let name = &pod["spec"]["containers"][0]["name"];
    json!({
        "phase": "Running",
        "podIP": format!("10.0.0.{address}"),
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
        ],
        "containerStatuses": [{
            "name": name, "ready": true, "started": true, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }],
    })
}

fn has_its_secrets(store: &Store, namespace: &str, pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let mut names = volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str());
    names.all(|name| store.get("secrets", namespace, name).is_some())
}

/// Removes one object whose owners are all gone, if there is one. Owners of kinds that are not kept here count as
/// being there.
fn collect(store: &mut Store, namespace: &str) -> bool {
    let pods = store.list("pods", namespace);
    let lives = |uid: &Value| pods.iter().any(|pod| pod["metadata"]["uid"] == *uid);
    for resource in ["secrets", "pods"] {
        for object in store.list(resource, namespace) {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let gone = |owner: &Value| owner["kind"] == "Pod" && !lives(&owner["uid"]);
            if !owners.is_empty() && owners.iter().all(gone) {
                store.remove(resource, namespace, &text(&object["metadata"]["name"]));
                return true;
            }
        }
    }
    false
}

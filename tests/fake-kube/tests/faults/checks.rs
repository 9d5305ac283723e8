//! What must hold of the world, whatever went wrong on the way: each violation is a sentence.

use crate::rig::{NAMESPACE, Rig};
use serde_json::Value;
use skyserve_fake_kube::ChangeKind;
use skyserve_model::ReplicaUid;
use std::collections::{BTreeMap, BTreeSet};

/// What must hold at any moment.
pub(crate) fn always(rig: &Rig) -> Vec<String> {
    let mut wrong = two_of_one(rig);
    wrong.extend(foreign_touched(rig));
    wrong
}

/// Pods of one uid that were there at once.
fn two_of_one(rig: &Rig) -> Vec<String> {
    let mut alive: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for change in rig.fake.history().iter().filter(|change| change.resource == "pods") {
        let labels = &change.object["metadata"]["labels"];
        if labels["skyserve.dev/controller"] != rig.names.controller.as_str() {
            continue;
        }
        let uid = text(&change.object["metadata"]["annotations"]["skyserve.dev/uid"]);
        let pods = alive.entry(uid.clone()).or_default();
        match change.kind {
            ChangeKind::Deleted => pods.remove(&text(&change.object["metadata"]["uid"])),
            ChangeKind::Added | ChangeKind::Modified => pods.insert(text(&change.object["metadata"]["uid"])),
        };
        if pods.len() > 1 && change.kind == ChangeKind::Added {
            wrong.push(format!("replica {uid} has {} pods at once", pods.len()));
        }
    }
    wrong
}

/// What is not ours and is gone or marked to go.
fn foreign_touched(rig: &Rig) -> Vec<String> {
    let mut wrong = Vec::new();
    let changes = rig.fake.history();
    for (resource, name) in rig.foreign.lock().unwrap().iter() {
        let touched = changes.iter().filter(|change| change.resource == *resource).any(|change| {
            change.object["metadata"]["name"] == name.as_str()
                && (change.kind == ChangeKind::Deleted || change.object["metadata"]["deletionTimestamp"].is_string())
        });
        if touched {
            wrong.push(format!("{resource} {name} is not ours and was deleted"));
        }
    }
    wrong
}

/// What must hold once faults are over and everything has settled: one pod and one Secret of it for each of these
/// replicas, and nothing else of ours.
pub(crate) fn settled(rig: &Rig, wanted: &BTreeSet<ReplicaUid>) -> Vec<String> {
    let ours =
        |object: &Value| object["metadata"]["labels"]["skyserve.dev/controller"] == rig.names.controller.as_str();
    let objects =
        |resource: &str| -> Vec<Value> { rig.fake.objects(resource, NAMESPACE).into_iter().filter(ours).collect() };
    let (pods, secrets) = (objects("pods"), objects("secrets"));
    let mut wrong = Vec::new();
    for uid in wanted {
        let found = rig.pods_of(uid).into_iter().filter(ours).count();
        if found != 1 {
            wrong.push(format!("replica {uid} is wanted and has {found} pods"));
        }
    }
    for pod in &pods {
        let uid = text(&pod["metadata"]["annotations"]["skyserve.dev/uid"]);
        if !wanted.iter().any(|wanted| wanted.as_str() == uid) {
            wrong.push(format!("a pod of replica {uid} is there and nobody wants it"));
        }
        let owned = |secret: &&Value| secret["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"];
        if secrets.iter().filter(owned).count() != 1 {
            wrong.push(format!("the pod of replica {uid} does not own one Secret"));
        }
    }
    if secrets.len() != pods.len() {
        wrong.push(format!("there are {} Secrets for {} pods", secrets.len(), pods.len()));
    }
    wrong
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

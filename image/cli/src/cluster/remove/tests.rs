use super::*;
use crate::cluster::testing::{FakeApi, run, status};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

fn list(objects: &[Value]) -> (u16, Value) {
    (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": objects }))
}

fn labelled(name: &str, metadata: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name, "uid": format!("uid-of-{name}") } });
    object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    object
}

fn removed(
    leftovers: Leftovers,
    answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static,
) -> (Result<(), String>, Vec<String>) {
    let api = FakeApi::answering(answer);
    let outcome = run(async { api.remote().remove(leftovers, &mut Progress::start()).await });
    let deleted = api.asked().into_iter().filter(|asked| asked.starts_with("DELETE")).collect();
    (outcome.map_err(|error| error.to_string()), deleted)
}

#[test]
fn all_that_carries_the_label_is_deleted_and_waited_for_makers_first() {
    let left = Arc::new(Mutex::new(vec!["deployments", "pods", "persistentvolumeclaims"]));
    let (outcome, deleted) = removed(Leftovers::Kept, move |what| {
        let mut left = left.lock().unwrap();
        if what.starts_with("DELETE") {
            left.retain(|kind| !what.contains(&format!("/{kind}/")));
            return (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }));
        }
        // A cluster that has no Prometheus Operator.
        if what.ends_with("/podmonitors") {
            return status(404, "the server could not find the requested resource");
        }
        let kind = what.rsplit('/').next().unwrap();
        if left.contains(&kind) { list(&[labelled(kind, json!({}))]) } else { list(&[]) }
    });
    outcome.unwrap();
    let kinds: Vec<&str> = deleted.iter().map(|asked| asked.rsplit('/').next().unwrap()).collect();
    assert_eq!(
        kinds.iter().map(|kind| kind.split('?').next().unwrap()).collect::<Vec<_>>(),
        ["deployments", "pods", "persistentvolumeclaims"]
    );
}

#[test]
fn a_pod_that_does_not_end_is_struck_off_only_if_that_was_asked_for() {
    let stuck = |struck_off: Arc<Mutex<bool>>| {
        move |what: &str| {
            let mut struck_off = struck_off.lock().unwrap();
            if what.starts_with("DELETE") {
                *struck_off = true;
                return (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }));
            }
            let leaving = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 10,
                "finalizers": ["example.com/hold"] });
            if what.ends_with("/pods") && !*struck_off { list(&[labelled("p", leaving)]) } else { list(&[]) }
        }
    };
    let (outcome, deleted) = removed(Leftovers::Forgotten, stuck(Arc::default()));
    outcome.unwrap();
    assert_eq!(deleted.len(), 1);
    let (outcome, deleted) = removed(Leftovers::Kept, stuck(Arc::default()));
    assert!(deleted.is_empty());
    assert_eq!(
        outcome.unwrap_err(),
        "not everything of sky-serve-controller-0123abcd in namespace ns of context test could be removed: Pod p is still \
         there (held by example.com/hold). To try again, run the command again; to see what is left: `kubectl -n ns get \
         all,pvc -l skyserve.dev/controller=sky-serve-controller-0123abcd`"
    );
}

#[test]
fn what_may_not_be_removed_or_looked_for_is_told() {
    let (outcome, _) = removed(Leftovers::Kept, |what| match what {
        _ if what.starts_with("DELETE") => status(403, "User \"ann\" cannot delete resource \"pods\""),
        _ if what.ends_with("/pods") => list(&[labelled("p", json!({}))]),
        _ => list(&[]),
    });
    let error = outcome.unwrap_err();
    assert!(
        error.contains("Pod p stays: cannot remove the Pod p") && error.contains("cannot delete resource"),
        "{error}"
    );
    let (outcome, _) = removed(Leftovers::Kept, |what| match what {
        "GET /apis/networking.k8s.io/v1" => {
            let ingresses =
                json!({ "name": "ingresses", "singularName": "", "namespaced": true, "kind": "Ingress", "verbs": [] });
            (200, json!({ "groupVersion": "networking.k8s.io/v1", "resources": [ingresses] }))
        }
        // A kind that this cluster does not have is refused as well: by permission, before that comes out.
        "GET /apis/monitoring.coreos.com/v1" => status(404, "no such group"),
        _ if what.ends_with("/ingresses") || what.ends_with("/podmonitors") => status(403, "no"),
        _ => list(&[]),
    });
    let error = outcome.unwrap_err();
    assert!(error.contains("you may not look for ingresses there"), "{error}");
}

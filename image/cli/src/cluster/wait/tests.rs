use super::*;
use crate::cluster::testing::{FakeApi, object, run, status};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A cluster whose controller is of this kind, and whose pods are what `pods` gives, look by look.
fn waited(
    kind: &'static str,
    patience: Patience,
    mut pods: impl FnMut(usize) -> Value + Send + 'static,
) -> Result<(), String> {
    let mut looks = 0;
    let pods = Mutex::new(move || {
        looks += 1;
        pods(looks)
    });
    let api = FakeApi::answering(move |what| match what.rsplit('/').next() {
        Some("pods") => (200, json!({ "metadata": {}, "items": pods.lock().unwrap()() })),
        Some("log") => (200, json!("the last words")),
        _ if what.contains("/deployments/") && kind == "Deployment" => (200, object("apps/v1", kind, "d")),
        _ if what.contains("/pods/") && kind == "Pod" => (200, object("v1", kind, "p")),
        _ => status(404, "none"),
    });
    let outcome = run(async { api.remote().until_ready(patience, &mut Progress::start()).await });
    outcome.map_err(|error| error.to_string())
}

fn pod(status: &Value) -> Value {
    json!([{ "metadata": { "name": "c-1" }, "status": status }])
}

fn ready() -> Value {
    pod(&json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
}

fn crashing() -> Value {
    pod(&json!({ "phase": "Running", "containerStatuses": [{
        "name": "controller", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "exitCode": 1, "reason": "Error" } } }] }))
}

fn evicted() -> Value {
    pod(&json!({ "phase": "Failed", "reason": "Evicted" }))
}

#[test]
fn a_pod_that_is_replaced_is_waited_for() {
    let replaced = |look| match look {
        1 => json!([]),
        2 => pod(&json!({ "phase": "Pending" })),
        3 => evicted(),
        _ => ready(),
    };
    waited("Deployment", Patience::REPLACED, replaced).unwrap();
}

#[test]
fn a_pod_that_keeps_ending_is_given_up_with_its_last_words_though_it_runs_in_between() {
    let seen = Arc::new(Mutex::new(0));
    let looks = Arc::clone(&seen);
    let error = waited("Deployment", Patience::REPLACED, move |look| {
        *looks.lock().unwrap() = look;
        // While it runs, its pod is looked at twice: for its state, and for its events.
        if look % 3 == 0 { crashing() } else { pod(&json!({ "phase": "Running" })) }
    });
    assert_eq!(
        error.unwrap_err(),
        "the controller sky-serve-controller-0123abcd in namespace ns of context test is not ready: the controller's pod \
         c-1 keeps ending (CrashLoopBackOff, restarts: 4; last, it exited with code 1). To give it up with all of its \
         services: `sky down --purge sky-serve-controller`\nThe end of its log:\n  \"the last words\""
    );
    let patience = Patience::REPLACED.stuck.as_millis() / PAUSE.as_millis();
    assert!(*seen.lock().unwrap() as u128 <= 2 * patience, "it is not waited for as long as one on its way");
}

#[test]
fn a_controller_that_nothing_brings_back_is_lost_at_once() {
    let error = waited("Pod", Patience::REPLACED, |_| evicted()).unwrap_err();
    assert!(error.contains("c-1 has ended (Evicted)") && error.contains("without high availability"), "{error}");
}

#[test]
fn a_controller_that_is_removed_meanwhile_is_not_waited_for() {
    let error = waited("nothing", Patience::REPLACED, |_| json!([])).unwrap_err();
    assert!(error.ends_with("was removed while it was being waited for"), "{error}");
}

#[test]
fn an_api_server_that_is_away_for_a_while_is_waited_for_too() {
    let asked = Mutex::new(0);
    let api = FakeApi::answering(move |_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked < 40 { status(503, "starting") } else { (200, json!({ "metadata": {}, "items": ready() })) }
    });
    run(async { api.remote().until_ready(Patience::REPLACED, &mut Progress::start()).await }).unwrap();
}

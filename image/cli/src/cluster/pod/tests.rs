use super::*;
use serde_json::{Value, json};

/// A pod made at this second, with this status.
fn pod(name: &str, second: u32, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") },
        "status": status,
    }))
    .unwrap()
}

fn ready(name: &str, second: u32) -> Pod {
    pod(name, second, json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
}

fn terminating(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    pod
}

fn text(status: Value) -> String {
    match state(&[pod("c-1", 1, status)]) {
        PodState::Coming { text } => format!("coming: {text}"),
        PodState::Stuck { text, .. } => format!("stuck: {text}"),
        PodState::Ended { text, .. } => format!("ended: {text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newest_ready_pod_that_stays_is_talked_to() {
    let chosen = |pods: &[Pod]| match state(pods) {
        PodState::Ready { pod } => pod,
        other => panic!("{other:?}"),
    };
    let starting = pod("newest", 9, json!({ "phase": "Pending" }));
    assert_eq!(chosen(&[ready("old", 1), starting.clone(), ready("new", 2)]), "new");
    assert_eq!(chosen(&[ready("old", 1), terminating(ready("new", 2))]), "old");
    assert_eq!(
        state(&[terminating(ready("old", 1)), starting]),
        PodState::Coming { text: "the controller's pod newest is Pending".into() }
    );
    assert_eq!(state(&[]), PodState::Missing);
}

#[test]
fn a_pod_that_leaves_without_a_successor_is_waited_for() {
    let PodState::Coming { text } = state(&[terminating(ready("old", 1))]) else { panic!() };
    assert_eq!(text, "the controller's pod old is terminating, and its successor is not there yet");
}

#[test]
fn each_state_has_its_words() {
    let unscheduled = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "message": "0/2 nodes are available: 2 Insufficient cpu." }] });
    assert_eq!(
        text(unscheduled),
        "coming: the controller's pod c-1 is Pending: 0/2 nodes are available: 2 Insufficient cpu."
    );
    let image = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "controller", "image": "example.com/sky:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } } }] });
    assert_eq!(
        text(image),
        "stuck: the controller's pod c-1 cannot get its image example.com/sky:1 (ImagePullBackOff: Back-off pulling image)"
    );
    let making = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "controller", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": "ContainerCreating" } } }] });
    assert_eq!(text(making), "coming: the controller's pod c-1 is Pending");
    let scheduled = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] });
    let mut scheduled = pod("c-1", 1, scheduled);
    scheduled.spec =
        serde_json::from_value(json!({ "containers": [{ "name": "controller", "image": "example.com/sky:1" }] }))
            .unwrap();
    assert_eq!(
        state(&[scheduled]),
        PodState::Coming {
            text:
                "the controller's pod c-1 is being started: its volume is mounted, its image example.com/sky:1 fetched"
                    .into()
        }
    );
    assert_eq!(text(json!({ "phase": "Running" })), "coming: the controller's pod c-1 runs and is not ready yet");
}

#[test]
fn a_crash_loop_names_the_end_and_whose_log_explains_it() {
    let crash = |restarts: u32| {
        json!({ "phase": "Running", "containerStatuses": [{
            "name": "controller", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } }] })
    };
    let PodState::Stuck { text, crashed } = state(&[pod("c-1", 1, crash(4))]) else { panic!() };
    assert_eq!(
        text,
        "the controller's pod c-1 keeps ending (CrashLoopBackOff, restarts: 4; last, it exited with code 137 (OOMKilled))"
    );
    assert_eq!(crashed, Some(Crashed { pod: "c-1".into(), container: "controller".into(), previous: true }));
}

#[test]
fn a_pod_that_nobody_restarts_has_ended() {
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." });
    assert_eq!(text(evicted), "ended: the controller's pod c-1 has ended (Evicted): The node was low on memory.");
    let killed = json!({ "phase": "Failed", "containerStatuses": [{
        "name": "controller", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 137, "reason": "Error" } } }] });
    assert_eq!(text(killed), "ended: the controller's pod c-1 has ended: it exited with code 137");
}

#[test]
fn the_main_container_says_why_a_pod_has_ended_and_an_init_container_only_if_it_failed() {
    let container = |name: &str, code: i32| {
        json!({
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" } } } })
    };
    let how_and_whose = |init: &[Value], main: &[Value]| {
        let status = json!({ "phase": "Failed", "initContainerStatuses": init, "containerStatuses": main });
        let PodState::Ended { text, crashed } = state(&[pod("c-1", 1, status)]) else { panic!() };
        (text, crashed.map(|crashed| crashed.container))
    };
    let (copied, failed) = (container("copy-home", 0), container("copy-home", 1));
    assert_eq!(
        how_and_whose(std::slice::from_ref(&copied), &[container("controller", 137)]),
        ("the controller's pod c-1 has ended: it exited with code 137".into(), Some("controller".into()))
    );
    assert_eq!(
        how_and_whose(&[copied.clone(), failed], &[]),
        (
            "the controller's pod c-1 has ended: its init container copy-home exited with code 1".into(),
            Some("copy-home".into())
        )
    );
    assert_eq!(how_and_whose(&[copied], &[]), ("the controller's pod c-1 has ended".into(), None));
}

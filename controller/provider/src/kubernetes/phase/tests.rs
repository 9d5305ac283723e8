//! Pods as API servers show them (fields that say nothing about the phase left out).

use super::*;
use serde_json::{Value, json};

/// A pod on `node-1` with the given status.
fn pod(status: Value) -> Pod {
    let value = json!({
        "metadata": {
            "name": "sky-replica-svc-1-1-0123abcd",
            "annotations": {"skyserve.dev/uid": "svc-1-1", "skyserve.dev/port": "8080"},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "replica"}]},
        "status": status,
    });
    serde_json::from_value(value).unwrap()
}

fn with_setup(status: Value) -> Pod {
    let mut pod = pod(status);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.startup_probe = Some(serde_json::from_value(json!({"exec": {"command": ["true"]}})).unwrap());
    pod
}

fn being_deleted(mut pod: Pod) -> Pod {
    let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    pod.metadata.deletion_timestamp = Some(time);
    pod
}

fn waits(reason: &str, message: &str) -> Value {
    json!({"name": "replica", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
           "state": {"waiting": {"reason": reason, "message": message}}})
}

fn running(started: Option<bool>) -> Value {
    json!({"name": "replica", "ready": true, "restartCount": 0, "image": "i", "imageID": "", "started": started,
           "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
}

fn terminated(state: Value) -> Value {
    json!({"name": "replica", "ready": false, "restartCount": 0, "image": "i", "imageID": "", "started": false,
           "state": {"terminated": state}})
}

fn init(state: Value) -> Value {
    json!({"name": "prepare", "ready": false, "restartCount": 0, "image": "i", "imageID": "", "state": state})
}

fn provisioning(pod: &Pod) -> String {
    match phase(pod) {
        Phase::Provisioning { reason: Some(reason) } => reason,
        other => panic!("{other:?}"),
    }
}

fn preempted(pod: &Pod) -> String {
    match phase(pod) {
        Phase::Preempted { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_ended(pod: &Pod, stage: Stage, part: &str) {
    match phase(pod) {
        Phase::Ended(ended) if ended.stage == stage && ended.reason.contains(part) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_that_was_just_made_waits_for_a_node() {
    assert_eq!(provisioning(&pod(json!({"phase": "Pending"}))), "waiting for a node");
    assert_eq!(provisioning(&Pod::default()), "waiting for a node");
}

#[test]
fn a_pod_that_no_node_takes_says_why() {
    let message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: \
                   0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    let reason = provisioning(&pod(json!({"phase": "Pending", "conditions": [condition]})));
    assert!(reason.contains("Insufficient nvidia.com/gpu"), "{reason}");
    let gated = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"});
    assert!(provisioning(&pod(json!({"phase": "Pending", "conditions": [gated]}))).contains("SchedulingGated"));
}

#[test]
fn a_pod_on_its_node_is_being_made_until_its_containers_say_more() {
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    let bound = pod(json!({"phase": "Pending", "conditions": [scheduled]}));
    assert!(provisioning(&bound).starts_with("node-1 is making it"));
    let creating = pod(json!({"phase": "Pending", "conditions": [scheduled],
        "initContainerStatuses": [init(json!({"waiting": {"reason": "PodInitializing"}}))],
        "containerStatuses": [waits("PodInitializing", "")]}));
    assert!(provisioning(&creating).starts_with("node-1 is making it"));
    let fetching = pod(json!({"phase": "Pending", "conditions": [scheduled],
        "initContainerStatuses": [init(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}))],
        "containerStatuses": [waits("PodInitializing", "")]}));
    assert_eq!(provisioning(&fetching), "its init container prepare runs: files are fetched");
}

#[test]
fn an_image_that_cannot_be_pulled_is_waited_for_and_shown() {
    let message = "Back-off pulling image \"registry.test/none:1\": ErrImagePull: failed to pull and unpack image \
                   \"registry.test/none:1\": not found";
    for reason in ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError"] {
        let pulling = pod(json!({"phase": "Pending", "containerStatuses": [waits(reason, message)]}));
        let shown = provisioning(&pulling);
        assert!(shown.contains(reason) && shown.contains("registry.test/none:1"), "{shown}");
    }
    let ours = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"skyserve\""}});
    let ours = pod(json!({"phase": "Pending", "initContainerStatuses": [init(ours)],
        "containerStatuses": [waits("PodInitializing", "")]}));
    assert!(provisioning(&ours).contains("container prepare waits: ImagePullBackOff"));
}

#[test]
fn what_no_waiting_mends_has_ended() {
    for reason in HOPELESS {
        let hopeless = pod(json!({"phase": "Pending", "containerStatuses": [waits(reason, "couldn't parse image")]}));
        assert_ended(&hopeless, Stage::Provision, reason);
    }
}

#[test]
fn a_container_without_setup_serves_as_soon_as_it_runs() {
    let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 8080);
    for ip in ["10.1.2.3", "fd00::17"] {
        for started in [Some(true), None] {
            let running = pod(json!({"phase": "Running", "podIP": ip, "containerStatuses": [running(started)]}));
            assert_eq!(phase(&running), Phase::Running { address: address(ip) });
        }
    }
    let nowhere = pod(json!({"phase": "Running", "containerStatuses": [running(Some(true))]}));
    assert!(provisioning(&nowhere).contains("no address"));
}

#[test]
fn setup_runs_until_the_startup_probe_has_passed() {
    for (started, expected) in [(Some(false), true), (None, true), (Some(true), false)] {
        let pod = with_setup(json!({"phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [running(started)]}));
        assert_eq!(phase(&pod) == Phase::SettingUp, expected, "{started:?}");
    }
}

#[test]
fn the_end_is_told_in_the_replicas_own_words() {
    let message = "{\"stage\":\"setup\",\"reason\":\"setup exited with code 3 after 12 s\"}\n";
    let state = json!({"exitCode": 3, "reason": "Error", "message": message});
    let failed = pod(json!({"phase": "Failed", "containerStatuses": [terminated(state)]}));
    let reason = "setup exited with code 3 after 12 s".to_owned();
    assert_eq!(phase(&failed), Phase::Ended(Ended { stage: Stage::Setup, reason }));
}

#[test]
fn an_end_without_words_is_told_by_code_and_signal() {
    for (state, part) in [
        (json!({"exitCode": 0, "reason": "Completed"}), "it exited with code 0"),
        (json!({"exitCode": 7, "reason": "Error"}), "it exited with code 7"),
        (json!({"exitCode": 137, "reason": "Error"}), "it was killed by signal 9"),
        (json!({"exitCode": 0, "signal": 15}), "it was killed by signal 15"),
        (json!({"exitCode": 1, "reason": "Error", "message": "not JSON"}), "it exited with code 1: not JSON"),
    ] {
        let pod = pod(json!({"phase": "Failed", "containerStatuses": [terminated(state)]}));
        assert_ended(&pod, Stage::Run, part);
    }
}

#[test]
fn running_out_of_memory_is_named_with_the_limit() {
    let state = json!({"exitCode": 137, "reason": "OOMKilled"});
    let mut killed = pod(json!({"phase": "Failed", "containerStatuses": [terminated(state)]}));
    let resources = serde_json::from_value(json!({"limits": {"memory": "2G"}})).unwrap();
    killed.spec.as_mut().unwrap().containers[0].resources = Some(resources);
    assert_ended(&killed, Stage::Run, "more memory than its limit (2G)");
}

#[test]
fn what_could_not_be_started_is_no_fault_of_the_commands() {
    let state =
        json!({"exitCode": 128, "reason": "StartError", "message": "exec: \"/skyserve/bin/skyserve\": no such file"});
    let unstarted = pod(json!({"phase": "Failed", "containerStatuses": [terminated(state)]}));
    assert_ended(&unstarted, Stage::Provision, "no such file");
    let told = "{\"stage\":\"provision\",\"reason\":\"the files have another SHA-256\"}";
    for (state, part) in [
        (json!({"terminated": {"exitCode": 1, "message": told}}), "prepare failed: the files have another SHA-256"),
        (json!({"terminated": {"exitCode": 1}}), "prepare failed: it exited with code 1"),
    ] {
        let failed = pod(json!({"phase": "Failed", "initContainerStatuses": [init(state)],
            "containerStatuses": [waits("PodInitializing", "")]}));
        assert_ended(&failed, Stage::Provision, part);
    }
    let done = pod(json!({"phase": "Pending", "initContainerStatuses": [init(json!({"terminated": {"exitCode": 0}}))],
        "containerStatuses": [waits("PodInitializing", "")]}));
    assert!(matches!(phase(&done), Phase::Provisioning { .. }));
}

#[test]
fn a_pod_that_is_deleted_is_preempted_whatever_its_containers_say() {
    let state = json!({"exitCode": 143, "reason": "Error"});
    for statuses in [json!([running(Some(true))]), json!([terminated(state)]), json!([])] {
        let pod = being_deleted(pod(json!({"phase": "Running", "podIP": "10.1.2.3", "containerStatuses": statuses})));
        assert!(preempted(&pod).contains("not by us"));
    }
}

#[test]
fn disruptions_are_named() {
    for (reason, message) in [
        ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        ("EvictionByEvictionAPI", "Eviction API: evicting"),
    ] {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message});
        let status = json!({"phase": "Running", "podIP": "10.1.2.3", "conditions": [condition],
            "containerStatuses": [running(Some(true))]});
        assert!(matches!(phase(&pod(status.clone())), Phase::Running { .. }), "it may yet be spared");
        let shown = preempted(&being_deleted(pod(status)));
        assert!(shown.contains(reason) && shown.contains(message), "{shown}");
    }
}

#[test]
fn a_pod_that_its_node_has_put_off_is_preempted() {
    let state = json!({"exitCode": 137, "reason": "Error"});
    for (reason, message) in [
        ("Evicted", "The node was low on resource: memory. Container replica was using 900Mi"),
        ("Terminated", "Pod was terminated in response to imminent node shutdown."),
        ("OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu"),
        ("UnexpectedAdmissionError", "Pod was rejected: Allocate failed due to no healthy devices present"),
        ("NodeLost", "Node node-1 which was running pod is unresponsive"),
    ] {
        for statuses in [json!([]), json!([terminated(state.clone())])] {
            let status =
                json!({"phase": "Failed", "reason": reason, "message": message, "containerStatuses": statuses});
            let shown = preempted(&pod(status));
            assert!(shown.contains(reason) && shown.contains(message), "{shown}");
        }
    }
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"});
    let status = json!({"phase": "Failed", "conditions": [condition], "containerStatuses": [terminated(state)]});
    assert!(preempted(&pod(status)).contains("TerminationByKubelet"));
    let unknown =
        json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "The container could not be located"});
    assert!(
        preempted(&pod(json!({"phase": "Failed", "containerStatuses": [terminated(unknown)]}))).contains("lost track")
    );
}

#[test]
fn a_deadline_that_somebody_set_is_no_preemption() {
    let killed = terminated(json!({"exitCode": 137, "reason": "Error"}));
    let message = "Pod was active on the node longer than the specified deadline";
    let status =
        json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": message, "containerStatuses": [killed]});
    assert_ended(&pod(status), Stage::Run, message);
}

#[test]
fn a_pod_of_a_lost_node_runs_until_kubernetes_gives_up_on_it() {
    let conditions = json!([{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]);
    let lost = pod(json!({"phase": "Running", "podIP": "10.1.2.3", "conditions": conditions,
        "containerStatuses": [running(Some(true))]}));
    assert!(matches!(phase(&lost), Phase::Running { .. }));
}

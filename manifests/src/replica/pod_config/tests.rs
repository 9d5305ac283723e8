use super::*;
use serde_json::json;

fn base() -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "replica", "labels": { CONTROLLER_LABEL: "c", REPLICA_LABEL: "r" } },
        "spec": {
            "restartPolicy": "Never",
            "tolerations": [{ "key": "a" }],
            "initContainers": [{ "name": "prepare", "image": "ours" }],
            "containers": [{
                "name": "replica",
                "command": ["ours"],
                "env": [{ "name": "A", "value": "1" }],
                "volumeMounts": [{ "name": "x", "mountPath": "/x" }, { "name": "y", "mountPath": "/y" }],
            }],
            "volumes": [{ "name": "x", "emptyDir": {} }, { "name": "y", "secret": { "secretName": "s" } }],
        },
    }))
    .unwrap()
}

fn merged_value(pod_config: &Value) -> Value {
    serde_json::to_value(merged(&base(), pod_config).unwrap_or_else(|error| panic!("{error}"))).unwrap()
}

fn refusal(pod_config: &Value) -> String {
    check_fields(pod_config).and_then(|()| merged(&base(), pod_config).map(drop)).expect_err("taken").to_string()
}

#[test]
fn mappings_merge_lists_grow_and_named_entries_meet_their_like() {
    let result = merged_value(&json!({
        "metadata": { "labels": { "team": "models" } },
        "spec": {
            "priorityClassName": "high",
            "tolerations": [{ "key": "b" }],
            "imagePullSecrets": [{ "name": "registry" }],
            "initContainers": [{ "name": "warm" }],
            "containers": [{
                "image": "other",
                "env": [{ "name": "A", "value": "2" }, { "name": "B", "value": "3" }],
                "volumeMounts": [{ "name": "cache", "mountPath": "/cache" }],
            }],
            "volumes": [{ "name": "cache", "emptyDir": { "medium": "Memory" } }],
        },
    }));
    for (pointer, expected) in [
        ("/metadata/labels/team", json!("models")),
        ("/metadata/labels/skyserve.dev~1replica", json!("r")),
        ("/spec/priorityClassName", json!("high")),
        ("/spec/tolerations", json!([{ "key": "a" }, { "key": "b" }])),
        ("/spec/imagePullSecrets", json!([{ "name": "registry" }])),
        ("/spec/initContainers/1/name", json!("warm")),
        ("/spec/containers/0/image", json!("other")),
        ("/spec/containers/0/env", json!([{ "name": "A", "value": "2" }, { "name": "B", "value": "3" }])),
        ("/spec/containers/0/volumeMounts/2/name", json!("cache")),
        ("/spec/volumes/2/emptyDir/medium", json!("Memory")),
    ] {
        assert_eq!(result.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn a_null_takes_away_what_is_not_ours() {
    assert_eq!(merged_value(&json!({ "spec": { "tolerations": null } })).pointer("/spec/tolerations"), None);
}

#[test]
fn what_makes_the_pod_a_replica_cannot_be_changed() {
    let container = |field: Value| json!({ "spec": { "containers": [field] } });
    for (pod_config, field) in [
        (json!({ "metadata": { "name": "mine" } }), "metadata.name"),
        (json!({ "metadata": { "ownerReferences": [] , "namespace": "other" } }), "metadata.namespace"),
        (json!({ "metadata": { "finalizers": ["mine/x"] } }), "metadata.finalizers"),
        (json!({ "metadata": { "labels": { CONTROLLER_LABEL: "other" } } }), "metadata.labels.skyserve.dev/controller"),
        (json!({ "metadata": { "labels": { ENDPOINT_LABEL: "true" } } }), "metadata.labels.skyserve.dev/endpoint"),
        (json!({ "metadata": { "labels": { HEAD_LABEL: "1" } } }), "metadata.labels.skypilot-head-node"),
        (json!({ "metadata": { "annotations": { UID_ANNOTATION: "x" } } }), "metadata.annotations.skyserve.dev/uid"),
        (json!({ "spec": { "restartPolicy": "Always" } }), "spec.restartPolicy"),
        (container(json!({ "name": "mine" })), "spec.containers[0].name"),
        (container(json!({ "command": ["sleep"] })), "spec.containers[0].command"),
        (container(json!({ "args": ["sleep"] })), "spec.containers[0].args"),
        (
            container(json!({ "volumeMounts": [{ "name": "x", "mountPath": "/z" }] })),
            "spec.containers[0].volumeMounts[0]",
        ),
        (json!({ "spec": { "volumes": [{ "name": "y", "secret": { "secretName": "t" } }] } }), "spec.volumes[1]"),
        (json!({ "spec": { "initContainers": [{ "name": "prepare", "image": "x" }] } }), "spec.initContainers[0]"),
        (json!({ "spec": { "containers": [{}, {}] } }), "spec.containers: has 2 entries"),
        (json!({ "spec": { "containers": null } }), "spec.containers[0].name"),
    ] {
        let text = refusal(&pod_config);
        assert!(text.starts_with(&format!("kubernetes.pod_config.{field}")), "{pod_config}: {text}");
    }
}

#[test]
fn a_slip_of_the_finger_is_named_with_the_way_to_it() {
    for (pod_config, expected) in [
        (
            json!({ "spec": { "nodeSelektor": { "a": "b" } } }),
            "kubernetes.pod_config.spec.nodeSelektor.a: is no field of a pod",
        ),
        (json!({ "specs": {} }), "kubernetes.pod_config.specs: is no field of a pod"),
        (json!({ "spec": { "hostNetwork": "yes" } }), "kubernetes.pod_config.spec.hostNetwork: is wrong there"),
        (
            json!({ "spec": { "containers": [{ "env": [{ "name": "A" }, { "nam": "B" }] }] } }),
            "kubernetes.pod_config.spec.containers[0].env[1].nam: is no field of a pod",
        ),
        (json!({ "spec": "x" }), "kubernetes.pod_config.spec: is wrong there"),
    ] {
        let text = refusal(&pod_config);
        assert!(text.starts_with(expected), "{pod_config}: {text}");
    }
}

#[test]
fn what_a_person_may_write_is_taken() {
    for pod_config in [
        json!({}),
        json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": 2, "memory": "1Gi" } } }] } }),
        json!({ "metadata": { "labels": { "1": "x" } } }),
        json!({ "spec": { "initContainers": [{ "name": "prepare", "resources": { "limits": { "cpu": "1" } } }] } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "volumes": [{ "name": "c", "emptyDir": {} }] } }),
    ] {
        check_fields(&pod_config).unwrap_or_else(|error| panic!("{pod_config}: {error}"));
        merged(&base(), &pod_config).unwrap_or_else(|error| panic!("{pod_config}: {error}"));
    }
}

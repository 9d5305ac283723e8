use super::*;
use serde_json::{Value, json};

fn pod(conditions: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {}, "status": {"conditions": conditions}})).unwrap()
}

#[test]
fn a_lost_node_shows_by_what_the_node_controller_and_the_kubelet_say_apart() {
    let ready = |status: &str| json!({"type": "Ready", "status": status});
    let containers = |status: &str| json!({"type": "ContainersReady", "status": status});
    let evicted = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"});
    assert!(node_is_lost(&pod(json!([ready("False"), containers("True")]))));
    assert!(node_is_lost(&pod(json!([ready("Unknown"), containers("True")]))));
    assert!(node_is_lost(&pod(json!([ready("True"), containers("True"), evicted]))));
    // A kubelet that is alive has said that the containers ended, or that they have not yet.
    assert!(!node_is_lost(&pod(json!([ready("False"), containers("False"), evicted]))));
    assert!(!node_is_lost(&pod(json!([ready("True"), containers("True")]))));
    assert!(!node_is_lost(&pod(json!([]))));
}

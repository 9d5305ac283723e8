//! For clusters with the Prometheus Operator: which pods to scrape. A kind that Kubernetes itself does not have.

use crate::input::ControllerInput;
use crate::names::{COMPONENT_CONTROLLER, COMPONENT_LABEL, COMPONENT_LOAD_BALANCER, CONTROLLER_LABEL};
use crate::object::Object;
use serde_json::json;

pub(crate) fn pod_monitor(input: &ControllerInput) -> Object {
    let value = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": input.metadata(input.names.controller.clone(), COMPONENT_CONTROLLER),
        "spec": {
            "selector": {
                "matchLabels": { CONTROLLER_LABEL: input.names.controller },
                "matchExpressions": [{
                    "key": COMPONENT_LABEL,
                    "operator": "In",
                    "values": [COMPONENT_CONTROLLER, COMPONENT_LOAD_BALANCER],
                }],
            },
            "podMetricsEndpoints": [{ "port": "metrics", "path": "/metrics" }],
        },
    });
    Object::of_extension(value, "podmonitors")
}

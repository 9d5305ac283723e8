//! Which nodes a replica may run on, and which it prefers.

use crate::error::ManifestError;
use crate::input::{Texts, labels, texts};
use crate::names::{COMPONENT_REPLICA, Names, SERVICE_LABEL, label_value};
use crate::quantity::Amounts;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use skyserve_model::LaunchSpec;

/// What NVIDIA's device plugin offers.
const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// SkyPilot's label of nodes: the accelerator's name in lower case (`sky gpus label`).
const ACCELERATOR_LABEL: &str = "skypilot.co/accelerator";

/// How spot nodes are labelled: by GKE, Karpenter, EKS and AKS. GKE and AKS also taint them so, and people do elsewhere.
const SPOT_LABELS: [(&str, &str); 4] = [
    ("cloud.google.com/gke-spot", "true"),
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
];

/// The accelerators of one replica: none, or some of one name.
#[derive(Debug)]
pub(super) struct Accelerators(Option<(String, u64)>);

impl Accelerators {
    pub(super) fn of(launch: &LaunchSpec) -> Result<Self, ManifestError> {
        let refused = |problem: String| Err(ManifestError::Resources(problem));
        let mut asked = launch.accelerators.iter();
        let Some((name, count)) = asked.next() else { return Ok(Self(None)) };
        if let Some((other, _)) = asked.next() {
            return refused(format!("accelerators: a replica has those of one name, not both {name} and {other}"));
        }
        if name.to_ascii_lowercase().starts_with("tpu") {
            return refused(format!("accelerators: {name} is a TPU, and on Kubernetes there are GPUs alone"));
        }
        if !(*count >= 1.0 && count.fract() == 0.0 && *count <= f64::from(u16::MAX)) {
            return refused(format!("accelerators: Kubernetes gives whole GPUs, not {count} of {name}"));
        }
        Ok(Self(Some((name.to_ascii_lowercase(), *count as u64))))
    }

    pub(super) fn ask_for(&self, amounts: &mut Amounts) {
        if let Some((_, count)) = self.0 {
            amounts.devices(GPU_RESOURCE, count);
        }
    }

    pub(super) fn node_selector(&self) -> Option<Texts> {
        self.0.as_ref().map(|(name, _)| texts([(ACCELERATOR_LABEL, &label_value(name))]))
    }
}

pub(super) fn tolerations(launch: &LaunchSpec, accelerators: &Accelerators) -> Vec<Toleration> {
    let no_schedule = |key: &str, operator: &str, value: Option<&str>| Toleration {
        key: Some(key.to_owned()),
        operator: Some(operator.to_owned()),
        value: value.map(str::to_owned),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    };
    let gpu = accelerators.0.iter().map(|_| no_schedule(GPU_RESOURCE, "Exists", None));
    let spot = SPOT_LABELS.iter().filter(|_| launch.use_spot);
    gpu.chain(spot.map(|(key, value)| no_schedule(key, "Equal", Some(value)))).collect()
}

/// On a spot node, whoever labelled it.
pub(super) fn affinity(launch: &LaunchSpec) -> Option<Affinity> {
    let term = |(key, value): (&str, &str)| NodeSelectorTerm {
        match_expressions: Some(vec![NodeSelectorRequirement {
            key: key.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![value.to_owned()]),
        }]),
        match_fields: None,
    };
    let required = NodeSelector { node_selector_terms: SPOT_LABELS.map(term).to_vec() };
    launch.use_spot.then(|| Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    })
}

/// A lost node takes as few replicas of a service as can be.
pub(super) fn over_nodes(names: &Names, launch: &LaunchSpec) -> TopologySpreadConstraint {
    let mut selected = labels(names, COMPONENT_REPLICA);
    selected.insert(SERVICE_LABEL.to_owned(), label_value(&launch.service));
    TopologySpreadConstraint {
        label_selector: Some(LabelSelector { match_labels: Some(selected), ..LabelSelector::default() }),
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }
}

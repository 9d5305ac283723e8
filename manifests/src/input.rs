//! What the objects of one controller are rendered from.

use crate::names::{COMPONENT_LABEL, CONTROLLER_LABEL, Names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use skyserve_spec::config::Config;
use std::collections::BTreeMap;

pub(crate) type Texts = BTreeMap<String, String>;

/// One controller: all that its objects follow from.
#[derive(Debug, Clone)]
pub struct ControllerInput {
    pub names: Names,
    pub namespace: String,
    /// The image of the controller, its load balancers and the init containers of its replicas.
    pub image: String,
    /// The user's `~/.sky/config.yaml`.
    pub config: Config,
}

impl ControllerInput {
    pub(crate) fn labels(&self, component: &str) -> Texts {
        labels(&self.names, component)
    }

    pub(crate) fn metadata(&self, name: String, component: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels(component)),
            ..ObjectMeta::default()
        }
    }

    pub(crate) fn selector(&self, component: &str) -> LabelSelector {
        LabelSelector { match_labels: Some(self.labels(component)), ..LabelSelector::default() }
    }

    /// Whether load balancers run in pods of their own, and not in the controller's.
    pub fn has_load_balancers_alone(&self) -> bool {
        self.config.load_balancer.replicas > 1
    }
}

pub(crate) fn labels(names: &Names, component: &str) -> Texts {
    texts([(CONTROLLER_LABEL, names.controller.as_str()), (COMPONENT_LABEL, component)])
}

pub(crate) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Texts {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

//! Where services run: on this machine, or on a cluster.

use super::Config;
use crate::SpecError;

/// Where the controller and its replicas run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// As processes on this machine.
    Local,
    /// As pods.
    Cluster {
        /// Of the kubeconfig; its current one if none is named.
        context: Option<String>,
        /// The context's if none is named.
        namespace: Option<String>,
    },
}

impl Config {
    /// On a cluster if the controller's cloud is Kubernetes, or if it is to be highly available and no other cloud is
    /// named; else here. A context in `infra: kubernetes/CONTEXT` is nearer than `kubernetes.context`.
    ///
    /// # Errors
    /// When another cloud is asked for. [`Config::parse`] gives no such configuration.
    pub fn placement(&self) -> Result<Placement, SpecError> {
        let infra = &self.controller_resources.infra;
        if infra.is_kubernetes() || (self.high_availability && infra.cloud.is_none()) {
            let context = infra.region.clone().or_else(|| self.kubernetes.context.clone());
            return Ok(Placement::Cluster { context, namespace: self.kubernetes.namespace.clone() });
        }
        match &infra.cloud {
            Some(cloud) if self.high_availability => Err(SpecError {
                file: "config.yaml".to_owned(),
                line: None,
                field: "serve.controller.high_availability".to_owned(),
                problem: format!(
                    "true is currently only supported when using Kubernetes, and serve.controller.resources names the cloud \
                     {cloud}: set `cloud: kubernetes` there, or `high_availability: false`"
                ),
            }),
            Some(_) => Err(SpecError {
                file: "config.yaml".to_owned(),
                line: None,
                field: "serve.controller.resources".to_owned(),
                problem: format!(
                    "{infra} is not supported: services run on Kubernetes (say `kubernetes`), or on this machine (leave it out)"
                ),
            }),
            None => Ok(Placement::Local),
        }
    }

    /// `serve.controller.resources.image_id: docker:NAME`: the image of the controller, where it is a container.
    pub fn controller_image(&self) -> Option<&str> {
        self.controller_resources.docker_image()
    }
}

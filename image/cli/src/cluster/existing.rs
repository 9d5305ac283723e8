//! The controller that is there: a Deployment if it is highly available, else a plain pod.

use super::{ClusterError, Remote};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use skyserve_manifests::{Owner, OwnerKind};

/// A controller as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Existing {
    pub(crate) owner: Owner,
    pub(crate) image: Option<String>,
    pub(crate) is_leaving: bool,
    /// Why the Deployment cannot make its pod (say a quota), if it cannot.
    pub(crate) trouble: Option<String>,
}

impl Existing {
    fn new(kind: OwnerKind, metadata: ObjectMeta, spec: Option<PodSpec>) -> Self {
        let image = spec.and_then(|spec| spec.containers.into_iter().next()).and_then(|container| container.image);
        let is_leaving = metadata.deletion_timestamp.is_some();
        let (name, uid) = (metadata.name.unwrap_or_default(), metadata.uid.unwrap_or_default());
        Self { owner: Owner { kind, name, uid }, image, is_leaving, trouble: None }
    }

    fn of_deployment(deployment: Deployment) -> Self {
        let conditions = deployment.status.and_then(|status| status.conditions).unwrap_or_default();
        let failure = conditions.into_iter().find(|is| is.type_ == "ReplicaFailure" && is.status == "True");
        let spec = deployment.spec.and_then(|spec| spec.template.spec);
        let trouble = failure.and_then(|condition| condition.message);
        Self { trouble, ..Self::new(OwnerKind::Deployment, deployment.metadata, spec) }
    }

    pub(super) fn is_highly_available(&self) -> bool {
        self.owner.kind == OwnerKind::Deployment
    }
}

impl Remote {
    /// The controller, if there is one. By its names and label, whatever the configuration says.
    ///
    /// # Errors
    /// When the API server did not say that there is none: that is then not known.
    pub(crate) async fn existing(&self) -> Result<Option<Existing>, ClusterError> {
        let (client, namespace) = (&self.cluster.client, &self.cluster.namespace);
        let what = format!("look for the controller {} in {}", self.names.controller, self.place());
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let deployment = self.ask(&what, async || deployments.get_opt(&self.names.deployment()).await).await?;
        if let Some(deployment) = deployment.filter(|found| self.is_ours(&found.metadata)) {
            return Ok(Some(Existing::of_deployment(deployment)));
        }
        let pod = self.ask(&what, async || self.pods().get_opt(&self.names.pod()).await).await?;
        Ok(pod
            .filter(|found| self.is_ours(&found.metadata))
            .map(|pod| Existing::new(OwnerKind::Pod, pod.metadata, pod.spec)))
    }

    /// Refuses a configuration that wants another kind of controller than there is.
    pub(crate) fn check_high_availability(&self, existing: &Existing, wanted: bool) -> Result<(), ClusterError> {
        if existing.is_highly_available() == wanted {
            return Ok(());
        }
        let (is, kind) = match existing.owner.kind {
            OwnerKind::Deployment => ("true", "Deployment"),
            OwnerKind::Pod => ("false", "Pod"),
        };
        Err(ClusterError::InconsistentHighAvailability(format!(
            "serve.controller.high_availability is {wanted} in your configuration, but the existing controller {self} \
             was made with {is} (it is the {kind} {}). The setting takes effect for a new controller only. To resolve \
             this, terminate all services (`sky serve down --all`), tear the controller down (`sky down --purge \
             sky-serve-controller`), and run `sky serve up` again",
            existing.owner.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{FakeApi, object, others_object, run, status};

    fn found(
        answer: impl Fn(&str) -> (u16, serde_json::Value) + Send + Sync + 'static,
    ) -> Result<Option<Existing>, ClusterError> {
        let api = FakeApi::answering(answer);
        run(async { api.remote().existing().await })
    }

    fn is_deployment(what: &str) -> bool {
        what == "GET /apis/apps/v1/namespaces/ns/deployments/sky-serve-controller-0123abcd-deployment"
    }

    #[test]
    fn the_kind_of_controller_is_what_is_there_under_its_names() {
        assert_eq!(found(|_| status(404, "none")).unwrap(), None);
        let both = found(|what| {
            let (version, kind) = if is_deployment(what) { ("apps/v1", "Deployment") } else { ("v1", "Pod") };
            (200, object(version, kind, "c"))
        });
        assert_eq!(both.unwrap().unwrap().owner.kind, OwnerKind::Deployment);
        let pod = found(|what| match is_deployment(what) {
            true => status(404, "none"),
            false => (200, object("v1", "Pod", "sky-serve-controller-0123abcd-head")),
        });
        assert_eq!(pod.unwrap().unwrap().owner.kind, OwnerKind::Pod);
    }

    #[test]
    fn what_somebody_else_called_so_is_not_the_controller() {
        let theirs = |what: &str| {
            let (version, kind) = if is_deployment(what) { ("apps/v1", "Deployment") } else { ("v1", "Pod") };
            (200, others_object(version, kind, "c"))
        };
        assert_eq!(found(theirs).unwrap(), None);
        let beside_ours = found(move |what| match is_deployment(what) {
            true => theirs(what),
            false => (200, object("v1", "Pod", "sky-serve-controller-0123abcd-head")),
        });
        assert_eq!(beside_ours.unwrap().unwrap().owner.kind, OwnerKind::Pod);
    }

    #[test]
    fn an_error_is_never_taken_for_a_controller_that_is_missing_or_not_highly_available() {
        for code in [401, 403, 422] {
            let error = found(move |what| match is_deployment(what) {
                true => status(code, "no"),
                false => status(404, "none"),
            });
            assert!(error.unwrap_err().to_string().starts_with("cannot look for the controller"), "{code}");
        }
    }

    #[test]
    fn a_flag_that_contradicts_the_controller_is_refused_with_the_remedy() {
        let api =
            FakeApi::answering(|_| (200, object("apps/v1", "Deployment", "sky-serve-controller-0123abcd-deployment")));
        let (remote, existing) = run(async {
            let remote = api.remote();
            let existing = remote.existing().await.unwrap().unwrap();
            (remote, existing)
        });
        assert!(remote.check_high_availability(&existing, true).is_ok());
        assert_eq!(
            remote.check_high_availability(&existing, false).unwrap_err().to_string(),
            "InconsistentHighAvailabilityError: serve.controller.high_availability is false in your configuration, but the \
             existing controller sky-serve-controller-0123abcd in namespace ns of context test was made with true (it is \
             the Deployment sky-serve-controller-0123abcd-deployment). The setting takes effect for a new controller only. \
             To resolve this, terminate all services (`sky serve down --all`), tear the controller down (`sky down --purge \
             sky-serve-controller`), and run `sky serve up` again"
        );
    }
}

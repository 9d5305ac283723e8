//! Providers that are wrong on purpose: each is caught by the very checks that the real one passes.

use crate::checks;
use crate::life::{Trial, live};
use crate::rig::{NAMESPACE, Rig, bounds, persist, spec};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use skyserve_fake_kube::{Fault, StreamFault};
use skyserve_kube::kube::api::{Api, DeleteParams, PostParams};
use skyserve_manifests::names::{COMPONENT_LABEL, CONTROLLER_LABEL, PORT_ANNOTATION, REPLICA_LABEL, UID_ANNOTATION};
use skyserve_model::{LaunchSpec, Observation, ReplicaUid};
use skyserve_provider::kubernetes::KubernetesProvider;
use skyserve_provider::{LogRequest, LogStream, Provider, ProviderError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What is wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Pods get random names, so a create that is repeated makes another.
    RandomNames,
    /// Whatever has the pod's name is deleted.
    DeletesByName,
    /// Whoever launches does not know what was terminated.
    ForgetsTerminations,
}

struct Wrong {
    bug: Bug,
    right: KubernetesProvider,
    forgetful: KubernetesProvider,
    pods: Api<Pod>,
    controller: String,
}

impl Wrong {
    fn new(rig: &Rig, bug: Bug) -> Self {
        Self {
            bug,
            right: rig.provider(),
            forgetful: rig.provider_at(rig.home_of("another"), bounds()),
            pods: Api::namespaced(rig.fake.client().unwrap(), NAMESPACE),
            controller: rig.names.controller.clone(),
        }
    }

    fn eyes(&self) -> &KubernetesProvider {
        if self.bug == Bug::ForgetsTerminations { &self.forgetful } else { &self.right }
    }
}

impl Provider for Wrong {
    async fn launch(&self, spec: &LaunchSpec) -> Result<(), ProviderError> {
        if self.bug != Bug::RandomNames {
            return self.eyes().launch(spec).await;
        }
        let labels = json!({CONTROLLER_LABEL: self.controller, COMPONENT_LABEL: "replica", REPLICA_LABEL: spec.uid});
        let annotations = json!({UID_ANNOTATION: spec.uid, PORT_ANNOTATION: "8080"});
        let metadata = json!({"generateName": "sky-replica-", "labels": labels, "annotations": annotations});
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "replica"}]}});
        let made = self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await;
        made.map(drop).map_err(|error| ProviderError { message: error.to_string(), retryable: true })
    }

    async fn terminate(&self, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
        if self.bug == Bug::DeletesByName {
            let names = skyserve_manifests::names::Names { controller: self.controller.clone() };
            let _ = self.pods.delete(&names.replica(uid.as_str()), &DeleteParams::default()).await;
        }
        self.right.terminate(uid, grace_ms).await
    }

    async fn list(&self) -> Result<Vec<Observation>, ProviderError> {
        self.eyes().list().await
    }

    fn observe(&self) -> mpsc::Receiver<Observation> {
        self.eyes().observe()
    }

    async fn log(&self, uid: &ReplicaUid, request: LogRequest) -> Result<Option<LogStream>, ProviderError> {
        self.right.log(uid, request).await
    }
}

fn trial(call: &'static str, fault: Fault, times: u32) -> Trial {
    Trial { call, fault, times, lists: true, patience: Duration::from_secs(4) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_names_are_caught_when_an_answer_is_lost() {
    let rig = Rig::new().await;
    let provider = Wrong::new(&rig, Bug::RandomNames);
    let spec = spec(1);
    rig.fake.fault("create pods", Fault::ResetAfter, 1);
    persist(|| provider.launch(&spec)).await.unwrap();
    let wrong = checks::always(&rig);
    assert!(wrong.iter().any(|sentence| sentence.contains("2 pods at once")), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_never_lists_is_caught_when_events_are_lost() {
    let rig = Rig::new().await;
    let deaf = Trial { lists: false, ..trial("watch pods", Fault::Stream(StreamFault::BookmarksOnly), 3) };
    let wrong = live(&rig, &rig.provider(), &deaf).await;
    assert!(wrong.iter().any(|sentence| sentence.contains("the controller believes")), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_whatever_has_the_name_is_caught() {
    for (bug, caught) in [(None, false), (Some(Bug::DeletesByName), true)] {
        let rig = Rig::new().await;
        let spec = spec(1);
        rig.add_foreign("pods", json!({"metadata": {"name": rig.pod_name(&spec)}, "spec": {"containers": []}}));
        let terminated = match bug {
            None => rig.provider().terminate(&spec.uid, 1_000).await,
            Some(bug) => Wrong::new(&rig, bug).terminate(&spec.uid, 1_000).await,
        };
        terminated.unwrap();
        assert_eq!(!checks::always(&rig).is_empty(), caught);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_that_is_carried_out_after_the_termination_is_caught() {
    let rig = Rig::new().await;
    let provider = Wrong::new(&rig, Bug::ForgetsTerminations);
    let wrong = live(&rig, &provider, &trial("get pods", Fault::INTERNAL, 1)).await;
    assert!(wrong.iter().any(|sentence| sentence.contains("nobody wants it")), "{wrong:?}");
}

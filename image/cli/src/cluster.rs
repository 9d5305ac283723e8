//! A controller on a Kubernetes cluster, as the command line sees it from outside: which one it is, whether it is
//! there, how to make it, how to talk to it, how to remove it.
//!
//! Invariants:
//! * What the API server did not say is never taken for a fact: an error is not "there is none".
//! * Nothing is touched but what carries this controller's label: what has its name without it is somebody else's.
//! * An existing controller is used as it is: what the configuration says about controllers is for new ones.

mod create;
mod error;
mod existing;
mod identity;
mod objects;
mod pod;
mod port_forward;
mod remove;
#[cfg(test)]
pub(crate) mod testing;
mod wait;

pub(crate) use create::Preparation;
pub(crate) use error::ClusterError;
pub(crate) use identity::{UserHash, is_hash};
pub(crate) use remove::Leftovers;
pub(crate) use wait::Patience;

use crate::client::Client;
use crate::progress::Progress;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use pod::PodState;
use port_forward::Forwarded;
use skyserve_home::Home;
use skyserve_kube::Cluster;
use skyserve_manifests::names::{CONTROLLER_LABEL, HEAD_LABEL, Names};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One call of the API server. Those that apply an object wait for its admission webhooks, 10 s each by default.
const ASK_WITHIN: Duration = Duration::from_secs(20);
/// How long a call that may yet succeed is repeated: API servers are restarted one after the other.
const REPEAT_FOR: Duration = Duration::from_secs(5);
/// Pause between attempts and between looks: a person sees no delay, and an API server no load.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no connection to a controller.
#[derive(Debug)]
pub(crate) struct NoWay {
    pub(crate) reason: String,
    /// Whether there may be one later without anybody doing anything.
    pub(crate) may_pass: bool,
}

impl From<ClusterError> for NoWay {
    fn from(error: ClusterError) -> Self {
        // A pod that was found and is gone is replaced.
        Self { reason: error.to_string(), may_pass: error.is_passing() || error.is_not_found() }
    }
}

/// One user's controller in one namespace of one cluster.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) cluster: Cluster,
    pub(crate) names: Names,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("at", &self.to_string()).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Remote {
    /// `sky-serve-controller-0123abcd in namespace default of context NAME`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.names.controller, self.place())
    }
}

impl Remote {
    /// The controller of this home's user. Asks nobody yet.
    pub(crate) async fn of_user(home: &Home, options: &skyserve_kube::Options) -> Result<Self, ClusterError> {
        let cluster = skyserve_kube::connect(options).await?;
        Ok(Self { cluster, names: Names::of_user(&UserHash::of(home).digits) })
    }

    /// Another controller, in the same place.
    pub(crate) fn named(&self, controller: &str) -> Self {
        Self { names: Names { controller: controller.to_owned() }, ..self.clone() }
    }

    /// `namespace default of context NAME`.
    pub(crate) fn place(&self) -> String {
        format!("namespace {} of {}", self.cluster.namespace, error::cluster_name(&self.cluster))
    }

    /// Speaks to it.
    pub(crate) fn client(&self) -> Client {
        Client::through(Arc::new(self.clone()))
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }

    /// Selects everything of this controller's.
    fn label(&self) -> String {
        format!("{CONTROLLER_LABEL}={}", self.names.controller)
    }

    /// Opens a connection to the control API, within a time that the caller keeps.
    ///
    /// # Errors
    /// Why there is none; nothing was sent then.
    pub(crate) async fn open(&self) -> Result<Forwarded, NoWay> {
        let pod = match self.pod_state().await? {
            PodState::Ready { pod } => pod,
            PodState::Coming { text } | PodState::Stuck { text, .. } | PodState::Ended { text, .. } => {
                return Err(NoWay { reason: text, may_pass: true });
            }
            PodState::Missing => return Err(NoWay { reason: "it has no pod".to_owned(), may_pass: true }),
        };
        let what = format!("connect to its pod {pod}");
        let forwarded = Forwarded::open(&self.pods(), &pod).await;
        Ok(forwarded.map_err(|error| ClusterError::api(&self.cluster, &what, &error))?)
    }

    /// How the controller's pods are.
    async fn pod_state(&self) -> Result<PodState, ClusterError> {
        let selector = ListParams::default().labels(&format!("{},{HEAD_LABEL}=1", self.label()));
        let pods = self.ask("look for the controller's pod", async || self.pods().list(&selector).await).await?;
        Ok(pod::state(&pods.items))
    }

    /// Asks the API server; again for a while if it may yet succeed. `what` completes "cannot …".
    async fn ask<T>(&self, what: &str, call: impl AsyncFn() -> kube::Result<T>) -> Result<T, ClusterError> {
        let deadline = Instant::now() + REPEAT_FOR;
        loop {
            match self.ask_once(what, call()).await {
                Err(error) if error.is_passing() && Instant::now() < deadline => {
                    tokio::time::sleep(error.pause().max(PAUSE)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_once<T>(&self, what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        match tokio::time::timeout(ASK_WITHIN, call).await {
            Ok(outcome) => outcome.map_err(|error| ClusterError::api(&self.cluster, what, &error)),
            Err(_) => Err(ClusterError::silence(&self.cluster, what, ASK_WITHIN)),
        }
    }

    /// The controller, once it can be talked to; `None` if there is none, or it is being removed. Whoever only looks at services makes none.
    pub(crate) async fn find(&self, progress: &mut Progress) -> Result<Option<Client>, ClusterError> {
        if self.existing().await?.is_none_or(|existing| existing.is_leaving) {
            return Ok(None);
        }
        self.until_ready(Patience::REPLACED, progress).await?;
        Ok(Some(self.client()))
    }
}
